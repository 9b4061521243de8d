"""Tidy parquet tables that survive a kill at any moment and come out the same, byte for byte.

While a run computes, each finished sample is one small file in DIR/parts, there completely or not at all. At the end
(or at the start of the next run) parts are merged into DIR/{table}.parquet: rows already stored win, rows are sorted by
their keys. Hence a run that was killed and resumed, and one that was not, write the same bytes. The manifest holds what
the rows depend on, and no times; a run whose settings differ from it is refused by name."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from analysis_lib.errors import StudyError
from analysis_lib.paths import write_atomic
from analysis_lib.study.tables import SCHEMAS, keys, read_manifest, read_table, to_bytes, to_frame

NEEDED_SPACE = 32 * 2**20  # bytes; less than this free counts as a full disk


class Store(AbstractContextManager):
    """The tables of one results folder. Opening it for writing proves that it can be written, locks it, and merges the
    parts that a killed run left."""

    def __init__(self, folder: str | Path, *, write: bool = True) -> None:
        self.folder, self.write = Path(folder), write
        self._changed: set[str] = set()  # tables with rows that are not in their file yet
        with ExitStack() as lock:  # given up on an error: a notebook's process lives on, and must be able to try again
            if write:
                self._probe()
                self._take(lock)
            self.manifest = read_manifest(self.folder)
            self.tables = {table: read_table(self.folder, table) for table in SCHEMAS}
            if not self.manifest and any(len(frame) for frame in self.tables.values()):
                raise StudyError(f"{self.folder} holds tables without manifest.json; use another --out")
            self._merge_parts()
            self.close = lock.pop_all().close  # gives up the lock

    def __exit__(self, *_: object) -> None:
        self.close()

    def _probe(self) -> None:
        probe = self.folder / "probe"
        for leftover in [*self.folder.glob(".*.tmp"), *self.folder.glob("*/.*.tmp")]:
            leftover.unlink(missing_ok=True)
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
        stored = self.manifest.get("settings", {}) if len(self.tables["baseline"]) else {}
        for name, value in settings.items():
            if stored.get(name, value) != value:
                found = f"{self.folder} holds results with {name} = {stored[name]}, this run asks for {name} = {value}"
                raise StudyError(f"{found}; name another folder with --out, or use the stored setting")

    def begin(self, settings: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Check the settings and write them, before any row, with where and with what the rows are made."""
        self.check(settings)
        if self.tables["baseline"].empty:  # nothing to protect yet
            self.manifest = {}
            self.tables["skipped"] = to_frame("skipped", [])
            self._changed.add("skipped")
        self.manifest["settings"] = self.manifest.get("settings", {}) | dict(settings)
        for name, value in provenance.items():
            self.manifest[name] = _joined(self.manifest.get(name), value)
        self._write_manifest()

    def _write_manifest(self) -> None:
        text = json.dumps(self.manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        write_atomic(self.folder / "manifest.json", text.encode())

    def pairs(self, table: str, column: str) -> Iterator[tuple[str, Any]]:
        """What a column holds of each row's sample, as (sample_id, value)."""
        return zip(self.tables[table]["sample_id"], self.tables[table][column], strict=True)

    def add(self, sample_id: str, rows: Mapping[str, list[dict]]) -> None:
        """Store everything that one sample yielded in this run, all or nothing."""
        name = sample_id.replace("/", "-")
        write_atomic(self.folder / "parts" / f"{name}.json", json.dumps(dict(rows)).encode())

    def finish(self, summarise: Callable, *, tables: Iterable[str] = (), skipped: Iterable[dict] = ()) -> None:
        """Merge the parts and `skipped` rows, write what changed, and add `summarise(tables)` to the manifest. `tables`
        names those that are written even if they have no rows."""
        self._merge_parts()
        self._insert("skipped", list(skipped))
        self._write_tables({"baseline", "skipped", *tables})
        before, self.manifest = self.manifest, self.manifest | summarise(self.tables)
        if self.manifest != before:
            self._write_manifest()

    def _merge_parts(self) -> None:
        """Take all parts into the tables; when writing, also into the files."""
        files = sorted((self.folder / "parts").glob("*.json"))
        rows: dict[str, list[dict]] = {table: [] for table in SCHEMAS}
        for file in files:
            with suppress(ValueError):  # torn by a power cut: measured again
                for table, new in json.loads(file.read_bytes()).items():
                    rows[table] += new
        for table, new in rows.items():
            self._insert(table, new)
        if files and self.write:
            self._write_tables()
            shutil.rmtree(self.folder / "parts", ignore_errors=True)

    def _insert(self, table: str, rows: list[dict]) -> None:
        """Add rows; a row already stored wins, except that the newest reason for skipping holds."""
        if rows:
            both = pd.concat([self.tables[table], to_frame(table, rows)], ignore_index=True)
            both = both.drop_duplicates(keys(table), keep="last" if table == "skipped" else "first")
            self.tables[table] = both.sort_values(keys(table), ignore_index=True)
            self._changed.add(table)
        skipped = self.tables["skipped"]
        measured = skipped["sample_id"].isin(self.tables["baseline"]["sample_id"])
        if measured.any():
            self.tables["skipped"] = skipped[~measured].reset_index(drop=True)
            self._changed.add("skipped")

    def _write_tables(self, wanted: Iterable[str] = ()) -> None:
        """Write the tables that changed, and those that are wanted and have no file."""
        for table, frame in self.tables.items():
            file = self.folder / f"{table}.parquet"
            if table in self._changed or (table in wanted and not file.exists()):
                write_atomic(file, to_bytes(table, frame))
                self._changed.discard(table)


def _joined(old: Any, new: Any) -> Any:
    """Old and new provenance: equal values stay, different ones stand side by side."""
    if isinstance(new, Mapping):
        return {name: _joined((old or {}).get(name), value) for name, value in new.items()}
    if old is None or old == new or new is None:
        return new if old is None else old
    return ", ".join(dict.fromkeys([*str(old).split(", "), str(new)]))
