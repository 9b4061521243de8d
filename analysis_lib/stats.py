"""Intervals and tests for stored tables. The unit that varies is the video, not the row.

Several rows come from one video (questions, layers, edge sets), so rows are not independent. Videos are. Every
interval here is a percentile bootstrap that draws whole videos with replacement: a draw gives each video a weight,
and all cell means of a table are computed under the same weights. Cells therefore stay paired, and any contrast of
cells (two halves of the depth, two models, the mean over tasks) has an interval without further assumptions. Curves
over layers are tested by sign flips with the maximum of |t| over layers. Flips of single answers are tested exactly
(McNemar).

Replicates are plain frames: row 0 is the estimate, the other rows are bootstrap draws, the columns are the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis_lib.errors import StudyError

DRAWS = 4000  # the Monte Carlo error of a 95 % bound is then about 2 % of the interval's width
LEVEL = 0.95
MEAN_OF_TASKS = "mean of tasks"  # the `task` of rows in which all tasks weigh the same


class Interval(NamedTuple):
    """An estimate with the bounds of its interval, in the unit of the values."""

    effect: float
    low: float
    high: float


def attach(table: pd.DataFrame, baseline: pd.DataFrame, *, keep: str = "correct") -> pd.DataFrame:
    """Add `video, correct, answer, prediction_base` of the baseline to each row and keep the samples that are analysed.

    `keep` is "correct" (the paper's choice: samples that the untouched model answers correctly), "wrong" or "all".
    """
    if keep not in ("correct", "wrong", "all"):
        raise StudyError(f"keep is {keep!r}; use correct, wrong or all")
    known = baseline.rename(columns={"prediction": "prediction_base"})
    added = [name for name in ("video", "correct", "answer", "prediction_base") if name in known]
    rows = table.drop(columns=added, errors="ignore").merge(known[["task", "sample_id", *added]])
    kept = rows if keep == "all" else rows[rows["correct"].astype(bool) == (keep == "correct")]
    if keep == "correct" and kept.empty and len(table):
        raise StudyError("no measured sample is answered correctly: nothing to analyse; measure more samples")
    return kept


@lru_cache(maxsize=8)
def _weights(n_videos: int) -> np.ndarray:
    """How often each draw takes each video, (1 + DRAWS, n_videos); row 0 takes every video once."""
    resampled = np.random.default_rng(0).multinomial(n_videos, np.full(n_videos, 1 / n_videos), size=DRAWS)
    return np.vstack([np.ones((1, n_videos)), resampled])


def replicates(frame: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Mean of `value` in each cell of `by`: row 0 is the estimate, rows 1.. are bootstrap draws over videos.

    A draw that happens to hold no video of a cell is missing (NaN) there.
    """
    missing = [name for name in (value, "video", *by) if name not in frame]
    if missing:
        raise StudyError(f"column {missing[0]!r} is not in the table; it has {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise StudyError(f"no rows to summarise for {value!r}; measure some samples first")
    cells = frame.astype({value: float}).groupby(["video", *by], observed=True)[value]
    totals, counts = (part.unstack(by).fillna(0) for part in (cells.sum(), cells.count()))  # (videos, cells)
    weights = _weights(len(totals))
    with np.errstate(invalid="ignore"):
        means = (weights @ totals.to_numpy()) / (weights @ counts.to_numpy())  # (1 + DRAWS, cells)
    return pd.DataFrame(means, columns=totals.columns)


def across_tasks(reps: pd.DataFrame) -> pd.DataFrame:
    """Mean over the tasks of replicates whose cells have a `task` level: every task weighs the same."""
    others = [name for name in reps.columns.names if name != "task"]
    return reps.T.groupby(level=others).mean().T if others else reps.mean(axis=1).to_frame("mean")


def interval(reps: pd.Series, *, n: int = 0, span: float = 0.0) -> Interval:
    """95 % percentile interval of one column of replicates.

    If all draws agree the bootstrap sees no spread. With `n` videos and a scale of length `span` the bounds are then
    those that n equal outcomes still allow (exact binomial), so that "never happened in 40 videos" does not read as
    "never happens".
    """
    tail = (1 - LEVEL) / 2
    effect = float(reps.iloc[0])
    low, high = (float(x) for x in np.nanquantile(reps.iloc[1:], [tail, 1 - tail]))
    if n and span and high - low < 1e-12 * span:
        room = span * (1 - tail ** (1 / n))
        low, high = effect - room, effect + room
    return Interval(effect, low, high)


def p_above(reps: pd.Series, threshold: float) -> float:
    """One-sided bootstrap p-value that the effect is not above `threshold`; 1/(draws + 1) is the smallest possible."""
    draws = reps.iloc[1:].dropna()
    return float((1 + (draws <= threshold).sum()) / (1 + len(draws)))


def mean_interval(frame: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """One row per cell of `by` with `mean, low, high, n_samples, n_videos`. Yes/no values are bounded to [0, 1]."""
    return _summary(replicates(frame, value, by), frame, value, list(by))


def task_intervals(frame: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """`mean_interval` for every task and, if there are several, for their mean, in which tasks weigh the same."""
    reps = replicates(frame, value, ["task", *by])
    tasks = _summary(reps, frame, value, ["task", *by])
    if frame["task"].nunique() < 2:
        return tasks
    mean = _summary(across_tasks(reps), frame, value, list(by))
    return pd.concat([tasks, mean.assign(task=MEAN_OF_TASKS)], ignore_index=True)


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the mean of tasks in a table of `task_intervals`; all rows where there is only one task."""
    mean = table[table["task"] == MEAN_OF_TASKS]
    return table if mean.empty else mean


def _summary(reps: pd.DataFrame, frame: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    """One row per cell of `by`: the interval of its replicates, and how many samples and videos of `frame` it holds."""
    present = frame.dropna(subset=[value])
    span = 1.0 if present[value].isin([0, 1]).all() else 0.0
    rows = []
    for key, cell in present.groupby(by, observed=True):
        n = cell["video"].nunique()
        mean, low, high = interval(reps[key if len(key) > 1 else key[0]], n=n, span=span)
        low, high = (max(0.0, low), min(1.0, high)) if span else (low, high)
        row = dict(zip(by, key, strict=True), mean=mean, low=low, high=high)
        rows.append(row | {"n_samples": cell["sample_id"].nunique(), "n_videos": n})
    return pd.DataFrame(rows)


def split_videos(rows: pd.DataFrame, part: str, *, seed: int = 0) -> pd.DataFrame:
    """One half of the videos: `part` is "selection" or "evaluation".

    A video's half depends on its name and the seed alone.
    """
    if part not in ("selection", "evaluation"):
        raise StudyError(f"part is {part!r}; use selection or evaluation")
    first = rows["video"].map(lambda name: sha256(f"{seed}:{name}".encode()).digest()[0] < 128)
    return rows[first == (part == "selection")]


def pair(first: pd.DataFrame, second: pd.DataFrame, value: str, on: list[str]) -> pd.DataFrame:
    """Rows that both tables hold: `value` as `first` and `second`, and their `difference` (first minus second)."""
    left, right = (table.set_index(on)[value].astype(float) for table in (first, second))
    both = pd.concat({"first": left, "second": right}, axis=1, join="inner").reset_index()
    if both.empty:
        raise StudyError(f"the two tables share no rows on {', '.join(on)}; measure the same samples in both")
    return both.assign(difference=both["first"] - both["second"])


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> pd.Series:
    """Exact two-sided McNemar test of paired yes/no outcomes: is one direction of change more frequent?

    Returns `n, lost, gained, p`. Each pair must come from its own video, since the test knows no clusters.
    """
    was, now = np.asarray(before, bool), np.asarray(after, bool)
    if was.shape != now.shape:
        raise StudyError(f"paired outcomes differ in length: {was.size} and {now.size}")
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    n = lost + gained
    tail = sum(comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n
    return pd.Series({"n": was.size, "lost": lost, "gained": gained, "p": min(1.0, 2 * tail)})


def max_t(frame: pd.DataFrame, value: str) -> pd.Series:
    """`p` per layer of a test of the mean curve against zero at all layers at once; missing with a single video.

    Under the null a video's whole curve may change its sign. The largest |t| over the curve, over random sign flips,
    adjusts each p for the number of layers. Videos weigh the same, whatever the number of their questions.
    """
    curves = frame.groupby(["video", "layer"])[value].mean().unstack()  # (videos, layers)
    if curves.isna().any(axis=None):
        raise StudyError("some videos lack layers; finish the sweep before testing whole curves")
    n = len(curves)
    if n < 2:
        return pd.Series(np.nan, curves.columns, name="p")
    x = curves.to_numpy(float)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(DRAWS, n))
    flat = np.abs(x).max(axis=0) < 1e-9  # nothing happens here, so there is no t
    squares = np.where(flat, 1.0, (x**2).sum(axis=0))
    null = np.abs(_t_values(signs @ x, squares, n))[:, ~flat].max(axis=1, initial=0.0)  # (DRAWS,)
    t = np.where(flat, 0.0, _t_values(x.sum(axis=0), squares, n))
    p = (1 + (null[:, None] >= np.abs(t) - 1e-9).sum(axis=0)) / (1 + DRAWS)
    return pd.Series(p, curves.columns, name="p")


def _t_values(sums: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """t of a mean from the sum and the sum of squares of n values; sign flips change only the sum."""
    variance = np.maximum(squares - sums**2 / n, 1e-24) / (n - 1)
    return sums / np.sqrt(n * variance)


def holm(p: pd.Series) -> pd.Series:
    """Holm's adjusted p-values: the chance of one false finding or more among all of them stays below the level."""
    ordered = p.sort_values(kind="stable")
    return (ordered * np.arange(len(p), 0, -1)).cummax().clip(upper=1.0).reindex(p.index)


def n_to_decide(found: Interval, threshold: float, n: int) -> int | None:
    """Videos needed until the interval leaves `threshold` if the effect stays; its width shrinks with the root of n."""
    distance, half = abs(found.effect - threshold), (found.high - found.low) / 2
    if distance < 1e-9 or not np.isfinite(half):
        return None
    return max(n, int(np.ceil(n * (half / distance) ** 2)))
