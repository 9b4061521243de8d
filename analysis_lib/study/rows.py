"""Rows that stay where they are until somebody asks for some of them.

A table of a hundred thousand questions does not fit in memory with all its columns. `Rows` stand for such a table: the
question which rows, by the values in their columns, and which columns comes first, and the answer comes a task at a
time. Frames in memory can be asked the same way."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import pandas as pd

from analysis_lib.errors import StudyError
from analysis_lib.study.tables import Where, read_table, stored

SAMPLE = ("task", "sample_id")
LONG = ("knockout", "emergence", "lens")  # tables with rows for every question and layer
FRAME = 'they are no DataFrame: .frame() makes one of all, .frame(["layer"], edge_set=["cross-frame"]) one of some'
Read = Callable[[Sequence[str], Where], pd.DataFrame]  # these columns (empty: all) of the rows that hold these values


class Rows:
    """The rows of some tasks, which `read` gets: a task at a time, the tasks in order, or, if they are `few`, all at
    once. No frame: what a frame does, the one that `frame` gives does."""

    def __init__(self, read: Read, tasks: Iterable[str], *, few: bool = False) -> None:
        self._read, self._tasks, self._few = read, sorted(tasks), few

    def parts(self, columns: Sequence[str] = (), **where: Collection) -> Iterator[pd.DataFrame]:
        """These columns (none: all) of the rows that hold one of the values that `where` names for their columns: a
        frame for each task, or one."""
        tasks = [task for task in self._tasks if task in where.get("task", self._tasks)]
        if self._few and tasks:
            rest = {name: values for name, values in where.items() if name != "task"}
            yield self._read(columns, rest if tasks == self._tasks else where)
        else:
            for task in tasks:
                yield self._read(columns, where | {"task": [task]})

    def frame(self, columns: Sequence[str] = (), **where: Collection) -> pd.DataFrame:
        """The same as one frame."""
        parts = [part for part in self.parts(columns, **where) if len(part)]
        return pd.concat(parts, ignore_index=True) if parts else self._read(columns, where | {"task": ()})

    def __getitem__(self, what: str | pd.Series) -> pd.Series | pd.DataFrame:
        """One column of all rows; or, as a frame, the rows that a mask over all of them (`rows["layer"] == 3`) marks.
        StudyError for anything else."""
        if isinstance(what, str):
            return self.frame([what])[what]
        if not isinstance(what, pd.Series) or what.dtype != bool or len(what) != len(self):
            raise StudyError(f"rows take one column or a mask of all rows in brackets; {FRAME}")
        parts, at = [], 0
        for part in self.parts():
            parts.append(part[what.to_numpy()[at : at + len(part)]])
            at += len(part)
        return pd.concat(parts or [self.frame()], ignore_index=True)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"rows have no {name!r}; {FRAME}")

    def __repr__(self) -> str:
        return f"Rows of {len(self._tasks)} tasks, on disk or in memory; .frame() makes a DataFrame of them"

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts(["task"]))

    def values(self, column: str) -> set:
        """The different values in a column."""
        return {value for part in self.parts([column]) for value in part[column].unique().tolist()}

    def samples(self) -> pd.DataFrame:
        """`task, sample_id` of every question with rows."""
        return pd.concat([part.drop_duplicates() for part in [*self.parts(SAMPLE)]] or [self.frame(SAMPLE)])

    def only(self, **where: Collection) -> "Rows":
        """Those that hold one of the values that `where` names for their columns."""
        return self._same(lambda columns, more: self._read(columns, narrowed(where, more)))

    def computed(self, name: str, needs: Sequence[str], make: Callable[[pd.DataFrame], pd.Series]) -> "Rows":
        """The rows with a column `name` (in place of another, perhaps) that `make` computes from those it `needs`."""

        def read(columns: Sequence[str], where: Where) -> pd.DataFrame:
            if columns and name not in columns:
                return self._read(columns, where)
            known = [column for column in dict.fromkeys([*columns, *needs]) if column != name or name in needs]
            rows = self._read(known if columns else (), where)
            rows = rows.assign(**{name: make(rows)})
            return rows[list(columns)] if columns else rows

        return self._same(read)

    def _same(self, read: Read) -> "Rows":
        return Rows(read, self._tasks, few=self._few)


def as_rows(table: "pd.DataFrame | Rows") -> Rows:
    """A frame as rows that can be asked for."""
    return table if isinstance(table, Rows) else Rows(partial(_of_frame, table), table["task"].unique(), few=True)


def _of_frame(frame: pd.DataFrame, columns: Sequence[str], where: Where) -> pd.DataFrame:
    frame = frame[[*dict.fromkeys([*columns, *where])]] if columns else frame
    for name, values in where.items():
        frame = frame[frame[name].isin(list(values))]
    return frame[list(columns)] if columns else frame


def rows_of(folder: Path, table: str, read: Read, tasks: Iterable[str]) -> Rows:
    """The rows of a stored table that `read` gets. One that is a single file is small: it is read once. One in parts is
    read whenever rows are asked for."""
    return Rows(read, tasks) if len(stored(folder, table)) > 1 else as_rows(read((), {}))


def stored_rows(folder: Path, table: str, **where: Collection) -> Rows:
    """The rows of a table in a results folder that hold the values that `where` names."""

    def read(columns: Sequence[str], more: Where) -> pd.DataFrame:
        return read_table(folder, table, columns, narrowed(where, more))

    return rows_of(folder, table, read, read_table(folder, "baseline", ["task"])["task"].unique())


def narrowed(where: Where, more: Where) -> Where:
    """The rows that hold what both name."""
    return {**where, **more} | {name: set(where[name]) & set(more[name]) for name in where.keys() & more.keys()}


def stacked(tables: "Mapping[str, pd.DataFrame | Rows]") -> Rows:
    """Tables one below the other; a column `series` has their names."""
    parts = {name: as_rows(table) for name, table in tables.items()}

    def read(columns: Sequence[str], where: Where) -> pd.DataFrame:
        names, rest = where.get("series", parts), {name: where[name] for name in where if name != "series"}
        known = [column for column in columns if column != "series"]
        rows = pd.concat([parts[name]._read(known, rest).assign(series=name) for name in parts if name in names])
        return rows[list(columns)] if columns else rows

    tasks = {task for table in parts.values() for task in table._tasks}
    return Rows(read, tasks, few=all(table._few for table in parts.values()))


def matched(tables: "Mapping[str, pd.DataFrame | Rows]", on: Sequence[str]) -> Rows:
    """The rows of two tables that agree in the columns `on`, side by side; other columns have the table's name behind
    theirs (`relative_change_image`)."""
    parts = {name: as_rows(table) for name, table in tables.items()}

    def side(name: str, columns: Sequence[str], where: Where) -> pd.DataFrame:
        own = [column.removesuffix(f"_{name}") for column in columns if column.endswith(f"_{name}")]
        rows = parts[name]._read([*on, *own] if columns else (), where)
        return rows.rename(columns={column: f"{column}_{name}" for column in rows if column not in on})

    def read(columns: Sequence[str], where: Where) -> pd.DataFrame:
        first, second = (side(name, columns, where) for name in parts)
        both = first.merge(second, on=list(on))
        return both[list(columns)] if columns else both

    tasks = set.intersection(*({*table._tasks} for table in parts.values()))
    return Rows(read, tasks, few=all(table._few for table in parts.values()))
