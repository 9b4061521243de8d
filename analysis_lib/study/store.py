"""Tables of one results folder that survive a kill at any moment and come out the same, byte for byte.

While a run computes, each finished sample is one small file in DIR/parts; every few hundred of them, at the end, and at
the start of the next run, `parts` merges them into the tables. Hence a run that was killed and resumed, and one that
was not, write the same bytes. Opening reads no row, and a reader gets the columns and rows that it names. The manifest
holds what the rows depend on, and no times; a run whose settings differ from it is refused by name."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analysis_lib.errors import StudyError
from analysis_lib.paths import write_atomic
from analysis_lib.study import parts
from analysis_lib.study.tables import SCHEMAS, Where, among, read_files, read_manifest, schema, stored

NEEDED_SPACE = 32 * 2**20  # bytes; less than this free counts as a full disk
SUMMARY = ("benchmark_sha256", "samples", "receipts")  # of the manifest: what is made of all rows
AT_ONCE = 256  # finished samples that are merged together: few enough to hold, enough to rewrite a part rarely


class Store(AbstractContextManager):
    """The tables of one results folder. Opening it for writing proves that it can be written, locks it, and merges the
    samples that a killed run left; a reader sees them as if they were merged."""

    def __init__(self, folder: str | Path, *, write: bool = True) -> None:
        self.folder = Path(folder)
        self._waiting = 0  # finished samples that are not merged yet
        self._fresh: dict[str, pa.Table] = {}  # a reader's rows of such samples
        with ExitStack() as lock:  # given up on an error: a notebook's process lives on, and must be able to try again
            if write:
                self._probe()
                self._take(lock)
                parts.recover(self.folder)
            self.manifest = read_manifest(self.folder)
            if not self.manifest and any(self._holds(table) for table in SCHEMAS):
                raise StudyError(f"{self.folder} holds tables without manifest.json; use another --out")
            if write:
                self._merge()
            else:
                files, rows = parts.fresh(self.folder)
                self._fresh = rows if files else {}
            self.close = lock.pop_all().close  # gives up the lock

    def __exit__(self, *_: object) -> None:
        self.close()

    def _probe(self) -> None:
        probe = self.folder / "probe"
        write_atomic(probe, bytes(2**16))
        probe.unlink()
        free = shutil.disk_usage(self.folder).free
        if free < NEEDED_SPACE:
            raise StudyError(f"cannot write to {self.folder}: {free >> 20} MB free; free space, or use another --out")

    def _take(self, lock: ExitStack) -> None:
        """Lock the folder until this process ends, however it ends, so that two runs cannot mix their parts."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        lock.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(f"another run is writing to {self.folder}; wait for it, or use another --out") from None
        except OSError:
            pass  # a file system without locks

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse (StudyError) any setting that differs from the one the stored rows were measured with."""
        known = self.manifest.get("settings", {}) if self._holds("baseline") else {}
        for name, value in settings.items():
            if known.get(name, value) != value:
                found = f"{self.folder} holds results with {name} = {known[name]}, this run asks for {name} = {value}"
                raise StudyError(f"{found}; name another folder with --out, or use the stored setting")

    def begin(self, settings: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Check the settings and write them, before any row, with where and with what the rows are made."""
        self.check(settings)
        if not self._holds("baseline"):  # nothing to protect yet
            self.manifest = {}
            parts.replace(self.folder, "skipped", schema("skipped").empty_table())
        self.manifest["settings"] = self.manifest.get("settings", {}) | dict(settings)
        for name, value in provenance.items():
            self.manifest[name] = _joined(self.manifest.get(name), value)
        self._write_manifest()

    def _write_manifest(self) -> None:
        text = json.dumps(self.manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        write_atomic(self.folder / "manifest.json", text.encode())

    def _holds(self, table: str) -> bool:
        """Whether any row of a table is there; no row is read for it."""
        if len(self._fresh.get(table, ())):
            return True
        files = stored(self.folder, table)
        try:
            return len(files) > 1 or any(pq.read_metadata(file).num_rows for file in files)
        except (OSError, pa.ArrowException):
            return bool(len(read_files(table, files, ["sample_id"])))  # says what is wrong with the file

    def read(self, table: str, columns: Sequence[str] = (), where: Where | None = None) -> pd.DataFrame:
        """`tables.read_table` of this folder; a store that was opened to read also shows samples not merged yet."""
        if not self._fresh:
            return read_files(table, stored(self.folder, table, where), columns, where).to_pandas()
        if table == "skipped":
            rows = self._skips(self._fresh[table])
        else:
            rows = parts.united(
                table, read_files(table, stored(self.folder, table, where), where=where), self._fresh[table]
            )
        return rows.filter(among(where)).select(list(columns) or list(SCHEMAS[table])).to_pandas()

    def has(self, table: str, samples: Sequence[str], column: str, values: Sequence[str]) -> np.ndarray:
        """Whether a table has rows of these samples with these values in a column, (samples, values) bool. Its files
        are read one after the other, two columns of each, so a table of any size fits."""
        places = [{name: i for i, name in enumerate(names)} for names in (samples, values)]
        found = np.zeros((len(samples) + 1, len(values) + 1), bool)  # the last row and column are all others
        asked = ("sample_id", column)
        files = (read_files(table, [file], asked, coded=asked) for file in stored(self.folder, table))
        for rows in chain(files, [self._fresh[table]] if self._fresh else []):
            coded = [rows[name].combine_chunks().dictionary_encode() for name in asked]
            at = [
                np.array([place.get(name, -1) for name in code.dictionary.to_pylist()], int)[code.indices.to_numpy()]
                for place, code in zip(places, coded, strict=True)
            ]
            found[*at] = True
        return found[:-1, :-1]

    def add(self, sample_id: str, part: bytes) -> None:
        """Store everything that one sample yielded in this run (`parts.to_part`), all or nothing."""
        write_atomic(self.folder / "parts" / f"{sample_id.replace('/', '-')}.arrow", part)
        self._waiting += 1
        if self._waiting >= AT_ONCE:
            self._merge()

    def finish(self, summarise: Callable, *, tables: Iterable[str] = (), skipped: Iterable[dict] = ()) -> None:
        """Merge what is not merged and `skipped` rows, and add `summarise(read)` to the manifest. `tables` names those
        that are written even if they have no rows."""
        self._merge()
        self._skip(pa.Table.from_pylist(list(skipped), schema("skipped")))
        for table in {"baseline", "skipped", *tables}:
            if not stored(self.folder, table):
                parts.merge(self.folder, table, schema(table).empty_table())
        before, self.manifest = self.manifest, self.manifest | summarise(self.read)
        if self.manifest != before:
            self._write_manifest()

    def take(self, other: "Store") -> None:
        """Add all rows of another results folder. StudyError if it was measured with other settings."""
        made = {name: value for name, value in other.manifest.items() if name not in (*SUMMARY, "settings")}
        self.begin(other.manifest["settings"], made)
        for table in SCHEMAS:
            for file in stored(other.folder, table):
                rows = read_files(table, [file])
                self._skip(rows) if table == "skipped" else parts.merge(self.folder, table, rows)

    def _merge(self) -> None:
        """Take the finished samples into the tables."""
        files, new = parts.fresh(self.folder)
        for table, rows in new.items():
            if len(rows) and table != "skipped":
                parts.merge(self.folder, table, rows)
        if files:
            self._skip(new["skipped"])
        for file in files:
            file.unlink()
        with suppress(OSError):  # not there
            (self.folder / "parts").rmdir()
        self._waiting = 0

    def _skip(self, new: pa.Table) -> None:
        """Add skipped samples."""
        rows = self._skips(new)
        if not rows.equals(read_files("skipped", stored(self.folder, "skipped"))):
            parts.replace(self.folder, "skipped", rows)

    def _skips(self, new: pa.Table) -> pa.Table:
        """All skipped samples: the newest reason holds, until a sample is measured."""
        rows = parts.united("skipped", new, read_files("skipped", stored(self.folder, "skipped")))
        if len(rows):
            measured = pa.array(self.read("baseline", ["sample_id"])["sample_id"], pa.string())
            rows = rows.filter(pc.invert(pc.is_in(rows["sample_id"], measured)))
        return rows


def _joined(old: Any, new: Any) -> Any:
    """Old and new provenance: equal values stay, different ones stand side by side."""
    if isinstance(new, Mapping):
        return {name: _joined((old or {}).get(name), value) for name, value in new.items()}
    if old is None or old == new or new is None:
        return new if old is None else old
    return ", ".join(dict.fromkeys([*str(old).split(", "), str(new)]))
