"""Which rows a finding speaks of: those of the samples that are analysed, each with its video.

A long table is gone through a task at a time (`study.rows`), with the columns that are asked for. So a finding on a
hundred thousand questions holds the rows of one task, and what has been summed up of the others."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy

import pandas as pd

from analysis_lib.errors import StudyError
from analysis_lib.study.rows import SAMPLE, Rows, as_rows

Table = pd.DataFrame | Rows  # what a finding is computed from
ADDED = ("video", "correct", "answer", "prediction_base")  # of the baseline, to each row


class Analysed:
    """The rows of `table` that hold one of the values that `where` names for their columns, of the samples that `keep`
    (see `attach`) leaves."""

    def __init__(self, table: Table, baseline: pd.DataFrame, keep: str = "correct", **where: Collection) -> None:
        self._rows, self._baseline, self._keep = as_rows(table), baseline, keep
        self._where = where | {"task": baseline["task"].unique()}
        self._others: tuple[Analysed, ...] = ()
        self._samples: pd.DataFrame | None = None  # noted when the rows are gone through for the first time

    def parts(self, *columns: str) -> Iterator[pd.DataFrame]:
        """Frames, each of one task or more with all its samples: these columns, `video` and `correct`; or, if none is
        named, all columns and those of `attach`."""
        wanted, seen = tuple(dict.fromkeys([*SAMPLE, *columns])) if columns else (), []
        added = ADDED[:2] if columns else ADDED
        for part in _attached(self._rows.parts(wanted, **self._where), self._baseline, self._keep, added):
            if self._samples is None:
                seen.append(part[[*SAMPLE, "video"]].drop_duplicates())
            yield part
        if self._samples is None:
            self._samples = pd.concat(seen or [pd.DataFrame(columns=[*SAMPLE, "video"])])
        for other in self._others:
            yield from other.parts(*columns)

    def frame(self) -> pd.DataFrame:
        """All rows with all columns."""
        return pd.concat(self.parts())

    def samples(self) -> pd.DataFrame:
        """`task, sample_id, video` of every sample."""
        if self._samples is None:
            for _ in self.parts(*SAMPLE):
                pass
        return pd.concat([self._samples, *(other.samples() for other in self._others)])

    def __or__(self, other: "Analysed") -> "Analysed":
        """The rows of both."""
        both = copy(self)
        both._others = (*self._others, other)
        return both


def attach(table: pd.DataFrame, baseline: pd.DataFrame, *, keep: str = "correct") -> pd.DataFrame:
    """Add `video, correct, answer, prediction_base` of the baseline to each row and keep the samples that are analysed:
    "correct" (the paper's choice: samples that the untouched model answers correctly), "wrong" or "all"."""
    [rows] = _attached([table], baseline, keep)
    return rows


def _attached(
    parts: Iterable[pd.DataFrame], baseline: pd.DataFrame, keep: str, added: Sequence[str] = ADDED
) -> Iterator[pd.DataFrame]:
    """`attach` of each part. StudyError if samples have rows, and none of them is answered correctly."""
    if keep not in ("correct", "wrong", "all"):
        raise StudyError(f"keep is {keep!r}; use correct, wrong or all")
    known = baseline.rename(columns={"prediction": "prediction_base"})
    added = [name for name in added if name in known]
    known, samples, empty = known[[*SAMPLE, *added]], 0, True
    for part in parts:
        rows = part.drop(columns=added, errors="ignore").merge(known)
        rows = rows if keep == "all" else rows[rows["correct"].astype(bool) == (keep == "correct")]
        samples, empty = samples + part["sample_id"].nunique(), empty and rows.empty
        yield rows
    if keep == "correct" and empty and samples:
        none = f"none of {samples} samples here is answered correctly: nothing to analyse"
        raise StudyError(f"{none}; measure more of them (SAMPLES=20, say)")
