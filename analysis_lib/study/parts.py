"""From finished samples to tables, in steps that a kill cannot tear.

A finished sample is one small file in DIR/parts (an Arrow file of one row, with a list of rows for each table), there
completely or not at all. Merging takes such files into the tables: rows already stored win, and rows are sorted by
their keys. A table stays one file while it is small. A large one is a folder of parquet parts, each with the rows of
one task and a range of its samples, so one more sample rewrites one part and a reader of one task opens few. What goes
where depends on the rows alone, hence the same rows give the same files, however often a run was killed."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis_lib.paths import write_atomic
from analysis_lib.study.tables import SCHEMAS, keys, read_files, schema, stored, to_bytes

FEW = ("baseline", "skipped", "receipts", "controls", "pathway")  # tables with one long row, or a few, for a sample
SAMPLE = pa.schema({table: pa.list_(pa.struct(columns)) for table, columns in SCHEMAS.items()})


def largest(table: str) -> int:
    """How many rows a table has at most while it is one file."""
    return 20_000 if table in FEW else 600_000


def part_name(table: str, sample_id: str) -> str:
    """The part of a large table that holds a sample: its task and the range of its number."""
    task, _, index = sample_id.rpartition("/")
    return f"part-{task.replace('/', '-')}-{int(index) // (4096 if table in FEW else 256):06d}.parquet"


def to_part(rows: Mapping[str, list[dict[str, Any]]]) -> bytes:
    """What one sample yielded, by table, as a file. The same rows give the same bytes, whoever makes them."""
    return to_file(pa.Table.from_pylist([dict(rows)], SAMPLE))


def to_file(sample: pa.Table) -> bytes:
    """The file of a table of one row with the columns SAMPLE."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SAMPLE) as file:
        file.write_table(sample)
    return sink.getvalue().to_pybytes()


def fresh(folder: Path) -> tuple[list[Path], dict[str, pa.Table]]:
    """The files of finished samples, and their rows by table. A file torn by a power cut yields none: its sample is
    measured again."""
    files, read = sorted(f for f in (folder / "parts").glob("[!.]*") if f.suffix in (".arrow", ".json")), []
    for file in files:
        with suppress(pa.ArrowInvalid, ValueError, FileNotFoundError):  # not found: another run has just merged it
            content = file.read_bytes()
            content = to_part(json.loads(content)) if file.suffix == ".json" else content  # as runs once wrote them
            read.append(_by_name(pa.ipc.open_file(content).read_all(), SAMPLE))
    samples = pa.concat_tables(read).combine_chunks() if read else SAMPLE.empty_table()
    return files, {table: _rows(table, samples[table].combine_chunks()) for table in SCHEMAS}


def _rows(table: str, lists: pa.ListArray) -> pa.Table:
    """The rows in the lists of many samples; no number (NaN) becomes no value."""
    rows = pa.Table.from_struct_array(lists.flatten())
    for place, field in enumerate(schema(table)):
        if field.type == pa.float64():
            column = rows[field.name]
            rows = rows.set_column(place, field, pc.if_else(pc.is_nan(column), None, column))
    return rows


def _by_name(rows: pa.Table, wanted: pa.Schema) -> pa.Table:
    """Rows with the columns of a schema; one that they lack holds no values."""
    columns = [rows[f.name] if f.name in rows.column_names else pa.nulls(len(rows), f.type) for f in wanted]
    return pa.table(columns, schema=wanted)


def united(table: str, *parts: pa.Table) -> pa.Table:
    """All rows sorted by their keys; of rows with the same keys the first holds."""
    both = pa.concat_tables(parts).combine_chunks()
    place = np.zeros(len(both), np.int64)  # of each row in the order of its keys
    for name in keys(table):
        coded = both[name].combine_chunks().dictionary_encode()
        values = coded.dictionary.to_pylist()
        rank = np.empty(len(values), np.int64)
        rank[sorted(range(len(values)), key=values.__getitem__)] = np.arange(len(values))
        place = place * len(values) + rank[coded.indices.to_numpy()]
    return both.take(np.unique(place, return_index=True)[1])


def merge(folder: Path, table: str, new: pa.Table) -> None:
    """Take new rows into a stored table; each of its files is the old one or complete at any moment."""
    place = folder / f"{table}.parquet"
    if place.is_dir():
        for name, rows in _ranges(table, new):
            known = read_files(table, [file for file in [place / name] if file.exists()])
            write_atomic(place / name, to_bytes(table, united(table, known, rows)))
    else:
        replace(folder, table, united(table, read_files(table, stored(folder, table)), new))


def replace(folder: Path, table: str, rows: pa.Table) -> None:
    """Store these rows, sorted, and no others. They are complete before what was stored makes way for them."""
    place, partial = folder / f"{table}.parquet", folder / f".{table}.tmp"
    large = len(rows) > largest(table)
    if not large and not place.is_dir():
        write_atomic(place, to_bytes(table, rows))
        return
    for name, part in _ranges(table, rows) if large else [("", rows)]:
        write_atomic(partial / name, to_bytes(table, part))
    if place.exists():
        os.replace(place, folder / f".{place.name}.old")
    os.replace(partial, place)
    recover(folder)


def recover(folder: Path) -> None:
    """Remove what a killed run left half-written, and bring back a table that it was about to replace."""
    for old in folder.glob(".*.parquet.old"):
        place = folder / old.name.removeprefix(".").removesuffix(".old")
        if not place.exists():
            os.replace(old, place)
        else:
            _remove(old)
    for leftover in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")]:
        _remove(leftover)


def _ranges(table: str, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each part, in the order of the parts' names."""
    samples = rows["sample_id"].combine_chunks().dictionary_encode()
    names = pa.array([part_name(table, name) for name in samples.dictionary.to_pylist()], pa.string())
    of_row = names.take(samples.indices)
    for name in sorted(names.unique().to_pylist()):
        yield name, rows.filter(pc.equal(of_row, name))


def _remove(leftover: Path) -> None:
    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
