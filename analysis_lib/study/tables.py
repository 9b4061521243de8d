"""The stored tables: their columns, their types, and how they become files.

One row of `baseline` is a sample as the untouched model answers it; one row of `knockout` is a sample under one edge
set and window; `widths`, `pairs` and `heads` hold knockouts with windows of several sizes, of pairs of frames, and in
single heads, `response` knockouts on an open-ended answer; the others follow. Types are fixed, so the same rows give
the same bytes. A small table is one file {table}.parquet, a large one a folder of that name with parts (`parts` writes
them); any reader of parquet takes both. Readers (figures, claims, notebooks) need only this module."""

import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.dataset import ParquetFileFormat, dataset

from analysis_lib.errors import StudyError

# A column has the same type in every table. Layers and frames are 1-based, probabilities 0..1, changes in percent.
COLUMNS = {
    pa.string(): "task sample_id video question answer answer_text prediction prediction_base edge_set option keyword "
    "kind word pathway ranges control reason measure receipt frames_sha256 sample_sha256",
    pa.int64(): "n_tokens n_frames layer first_layer last_layer window head query_frame key_frame distance anchor "
    "count edges_kept edges_total",
    pa.float64(): "p_base p_knock p_pruned p_answer relative_change margin margin_base margin_knock margin_pruned "
    "probability flops_kept",
    pa.bool_(): "correct is_answer normed",
    pa.list_(pa.string()): "options",
    pa.list_(pa.int64()): "frame_indices",
    pa.list_(pa.float64()): "p_options",
}
TYPES = {column: kind for kind, columns in COLUMNS.items() for column in columns.split()}
Where = Mapping[str, Collection[Any]]  # wanted values by column
BOTH_WAYS = "both ways"  # `frames_read` among a manifest's settings, where frames read later ones too
SECONDS = "seconds.csv"  # beside the tables, one line a sweep: measures, samples measured, seconds (not a result)
EFFECT = "p_base p_knock relative_change margin_base margin_knock p_answer prediction correct"  # of a knockout
TABLES = {  # columns by table; those before the bar identify a row
    "baseline": "task sample_id | video question options answer answer_text n_tokens n_frames frame_indices prediction "
    "correct p_base p_answer margin_base p_options frames_sha256 sample_sha256",
    "knockout": f"task sample_id edge_set layer | first_layer last_layer video {EFFECT}",
    "emergence": "task sample_id layer option | video is_answer probability normed",
    "lens": "task sample_id layer keyword kind | video count",
    "pathway": "task sample_id pathway ranges | video edges_kept edges_total flops_kept p_base p_pruned margin_base "
    "margin_pruned prediction_base prediction correct",
    "widths": f"task sample_id edge_set window layer | first_layer last_layer video {EFFECT}",
    "pairs": f"task sample_id edge_set | query_frame key_frame distance first_layer last_layer video {EFFECT}",
    "heads": f"task sample_id edge_set layer head | video {EFFECT}",
    "response": f"task sample_id anchor edge_set layer | word first_layer last_layer video {EFFECT}",
    "controls": "task sample_id control | video p_answer margin prediction correct",
    "skipped": "task sample_id | video reason sample_sha256",
    "receipts": "task sample_id measure | receipt",
}
SCHEMAS = {table: {name: TYPES[name] for name in names.split() if name != "|"} for table, names in TABLES.items()}


def keys(table: str) -> list[str]:
    """The columns that identify a row."""
    return TABLES[table].partition("|")[0].split()


def schema(table: str) -> pa.Schema:
    """The columns of a table with their types, as Arrow knows them."""
    return pa.schema(SCHEMAS[table])


def to_bytes(table: str, rows: pa.Table) -> bytes:
    """The parquet file of rows; the same rows always give the same bytes."""
    buffer = io.BytesIO()
    whole = rows.cast(schema(table)).combine_chunks().replace_schema_metadata(None)
    pq.write_table(whole, buffer, compression="zstd")
    return buffer.getvalue()


def stored(folder: Path, table: str, where: Where | None = None) -> list[Path]:
    """The files of a table in order: none, one, or its parts; if `where` names tasks, only the parts of these. Of a
    table that was being split when a run was killed, the file as it was before (see `parts`)."""
    place = Path(folder) / f"{table}.parquet"
    if place.is_dir():
        tasks = {task.replace("/", "-") for task in (where or {}).get("task", ())}
        parts = {file: file.stem.removeprefix("part-").rpartition("-")[0] for file in place.glob("part-*.parquet")}
        return sorted(file for file, task in parts.items() if task in tasks or "task" not in (where or {}))
    return [file for file in (place, place.with_name(f".{place.name}.old")) if file.exists()][:1]


def read_files(table: str, files: Sequence[Path], columns: Sequence[str] = (), where: Where | None = None,
               coded: Collection[str] = ()) -> pa.Table:  # fmt: skip
    """Rows of these files of a table (see `read_table`), one after the other. The strings of the columns `coded` stay
    what they are in the files, a dictionary and numbers: five times as fast to read."""
    names, numbered = list(columns) or list(SCHEMAS[table]), pa.dictionary(pa.int32(), pa.string())
    kinds = pa.schema(SCHEMAS[table] | dict.fromkeys(coded, numbered))
    if not files:
        return kinds.empty_table().select(names)
    which, read_as = files[0] if len(files) == 1 else files[0].parent, ParquetFileFormat(dictionary_columns=coded)
    return _reading(
        which, lambda: dataset([*map(str, files)], kinds, format=read_as).to_table(names, filter=among(where))
    )


def lacking_columns(folder: Path, table: str) -> list[str]:
    """Columns that a stored table of an older code does not have yet. Raises StudyError for a damaged file."""
    files = stored(folder, table)
    known = _reading(files[0], lambda: pq.read_schema(files[0]).names) if files else SCHEMAS[table]
    return [column for column in SCHEMAS[table] if column not in known]


def _reading(file: Path, read: Callable[[], Any]) -> Any:
    """What `read` returns; StudyError if the file is damaged."""
    try:
        return read()
    except (OSError, pa.ArrowException) as error:
        hint = "delete it to measure it again, or use another --out"
        raise StudyError(f"{file} cannot be read ({error}); {hint}") from error


def among(where: Where | None) -> pc.Expression:
    """The rows whose columns hold one of the values that `where` names for them."""
    tests = [pc.field(name).isin(pa.array(list(values), TYPES[name])) for name, values in (where or {}).items()]
    return reduce(and_, tests, pc.scalar(True))


def read_table(folder: Path, table: str, columns: Sequence[str] = (), where: Where | None = None) -> pd.DataFrame:
    """A stored table as a frame; without its files an empty one. No other columns are read than `columns` (empty: all),
    and no other rows kept than those that hold, in each column that `where` names, one of its values; what a part's
    statistics exclude is not even decoded. Raises StudyError for a damaged file."""
    return read_files(table, stored(folder, table, where), columns, where).to_pandas()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The stored manifest; {} if there is none."""
    file = Path(folder) / "manifest.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        hint = "use another --out, or delete the folder to start again"
        raise StudyError(f"{file} cannot be read ({error}); {hint}") from error
