"""Rows that stay where they are until somebody asks for some of them.

A table of a hundred thousand questions does not fit in memory with all its columns. `Rows` stand for such a table: the
question which rows, by the values in their columns, and which columns comes first, and the answer comes a task at a
time. Frames in memory can be asked the same way."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from analysis_lib.study.tables import Where, read_table

SAMPLE = ("task", "sample_id")
LONG = ("knockout", "emergence", "lens")  # tables with rows for every question and layer
Read = Callable[[Sequence[str], Where], pd.DataFrame]  # these columns (empty: all) of the rows that hold these values


class Rows:
    """The rows of some tasks, which `read` gets; those of a task stand together, the tasks in order."""

    def __init__(self, read: Read, tasks: Iterable[str]) -> None:
        self._read, self._tasks = read, sorted(tasks)

    def parts(self, columns: Sequence[str] = (), **where: Collection) -> Iterator[pd.DataFrame]:
        """These columns (none: all) of the rows that hold one of the values that `where` names for their columns: a
        frame for each task."""
        for task in (task for task in self._tasks if task in where.get("task", self._tasks)):
            yield self._read(columns, where | {"task": [task]})

    def frame(self, columns: Sequence[str] = (), **where: Collection) -> pd.DataFrame:
        """The same as one frame."""
        parts = [part for part in self.parts(columns, **where) if len(part)]
        return pd.concat(parts, ignore_index=True) if parts else self._read(columns, where | {"task": ()})

    def __getitem__(self, column: str) -> pd.Series:
        """One column of all rows."""
        return self.frame([column])[column]

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
        return Rows(lambda columns, more: self._read(columns, narrowed(where, more)), self._tasks)

    def computed(self, name: str, needs: Sequence[str], make: Callable[[pd.DataFrame], pd.Series]) -> "Rows":
        """The rows with a column `name` (in place of another, perhaps) that `make` computes from those it `needs`."""

        def read(columns: Sequence[str], where: Where) -> pd.DataFrame:
            if columns and name not in columns:
                return self._read(columns, where)
            known = [column for column in dict.fromkeys([*columns, *needs]) if column != name or name in needs]
            rows = self._read(known if columns else (), where)
            rows = rows.assign(**{name: make(rows)})
            return rows[list(columns)] if columns else rows

        return Rows(read, self._tasks)


def as_rows(table: "pd.DataFrame | Rows") -> Rows:
    """A frame as rows that can be asked for."""
    return table if isinstance(table, Rows) else Rows(partial(_of_frame, table), table["task"].unique())


def _of_frame(frame: pd.DataFrame, columns: Sequence[str], where: Where) -> pd.DataFrame:
    for name, values in where.items():
        frame = frame[frame[name].isin(list(values))]
    return frame[list(columns)] if columns else frame


def stored_rows(folder: Path, table: str, **where: Collection) -> Rows:
    """The rows of a table in a results folder that hold the values that `where` names."""
    tasks = read_table(folder, "baseline", ["task"])["task"].unique()
    return Rows(partial(read_table, folder, table), tasks).only(**where)


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

    return Rows(read, {task for table in parts.values() for task in table._tasks})


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

    return Rows(read, set.intersection(*({*table._tasks} for table in parts.values())))
