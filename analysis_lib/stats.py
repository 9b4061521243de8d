"""Intervals and tests for stored tables. The unit that varies is the video, not the row.

Several rows come from one video (questions, layers, edge sets), so rows are not independent. Videos are. Every
interval here is a percentile bootstrap that draws whole videos with replacement: a draw gives each video a weight,
and all cell means of a table are computed under the same weights. Cells therefore stay paired, and any contrast of
cells (two halves of the depth, two models, the mean over tasks) has an interval without further assumptions. Curves
over layers get simultaneous bands from a sign-flip permutation with the maximum of |t| over layers. Flips of single
answers are tested exactly (McNemar).

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
    known = known[["task", "sample_id", *added]]
    rows = table.drop(columns=added, errors="ignore").merge(known, on=["task", "sample_id"])
    if keep == "all":
        return rows
    kept = rows[rows["correct"].astype(bool) == (keep == "correct")]
    if keep == "correct" and kept.empty and len(table):
        raise StudyError(
            "no measured sample is answered correctly, so there is nothing to analyse; measure more samples"
        )
    return kept


@lru_cache(maxsize=8)
def _weights(n_videos: int, draws: int, seed: int) -> np.ndarray:
    """How often each draw takes each video, (1 + draws, n_videos); row 0 takes every video once."""
    rng = np.random.default_rng(seed)
    resampled = rng.multinomial(n_videos, np.full(n_videos, 1 / n_videos), size=draws)
    return np.vstack([np.ones((1, n_videos)), resampled])


def _by_video(frame: pd.DataFrame, value: str, by: list[str], cluster: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sum and number of values per video (rows) and cell (columns)."""
    missing = [name for name in [value, cluster, *by] if name not in frame]
    if missing:
        raise StudyError(f"column {missing[0]!r} is not in the table; it has {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise StudyError(f"no rows to summarise for {value!r}; measure some samples first")
    grouped = frame.assign(**{value: frame[value].astype(float)}).groupby([cluster, *by], observed=True)[value]
    totals, counts = grouped.sum().unstack(by), grouped.count().unstack(by)
    if not by:
        totals, counts = totals.to_frame(), counts.to_frame()
    return totals.fillna(0.0), counts.fillna(0)


def replicates(
    frame: pd.DataFrame,
    value: str,
    by: Sequence[str] = (),
    *,
    draws: int = DRAWS,
    seed: int = 0,
    cluster: str = "video",
) -> pd.DataFrame:
    """Mean of `value` in each cell of `by`: row 0 is the estimate, rows 1.. are bootstrap draws over videos.

    A draw that happens to hold no video of a cell is missing (NaN) there.
    """
    by = list(by)
    totals, counts = _by_video(frame, value, by, cluster)
    weights = _weights(len(totals), draws, seed)
    with np.errstate(invalid="ignore"):
        means = (weights @ totals.to_numpy()) / (weights @ counts.to_numpy())  # (1 + draws, cells)
    columns = totals.columns if by else [value]
    return pd.DataFrame(means, columns=columns)


def interval(reps: pd.Series, *, n: int = 0, span: float = 0.0, level: float = LEVEL) -> Interval:
    """Percentile interval of one column of replicates.

    If all draws agree the bootstrap sees no spread. With `n` videos and a scale of length `span` the bounds are then
    those that n equal outcomes still allow (exact binomial), so that "never happened in 40 videos" does not read as
    "never happens".
    """
    tail = (1 - level) / 2
    effect = float(reps.iloc[0])
    low, high = (float(x) for x in np.nanquantile(reps.iloc[1:], [tail, 1 - tail]))
    if n and span and high - low < 1e-12 * span:
        room = span * (1 - tail ** (1 / n))
        low, high = effect - room, effect + room
    return Interval(effect, low, high)


def p_above(reps: pd.Series, threshold: float = 0.0) -> float:
    """One-sided bootstrap p-value that the effect is not above `threshold`; the smallest possible value is 1/(draws +
    1).
    """
    draws = reps.iloc[1:].dropna()
    return float((1 + (draws <= threshold).sum()) / (1 + len(draws)))


def mean_interval(
    frame: pd.DataFrame,
    value: str,
    by: Sequence[str] = (),
    *,
    draws: int = DRAWS,
    seed: int = 0,
    cluster: str = "video",
) -> pd.DataFrame:
    """One row per cell of `by` with `mean, low, high, n_samples, n_videos`. Yes/no values are bounded to [0, 1]."""
    reps = replicates(frame, value, by, draws=draws, seed=seed, cluster=cluster)
    return _summary(reps, frame, value, list(by), cluster)


def task_intervals(
    frame: pd.DataFrame, value: str, by: Sequence[str] = (), *, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """`mean_interval` for every task and, if there are several, for their mean, in which tasks weigh the same."""
    reps = replicates(frame, value, ["task", *by], draws=draws, seed=seed)
    tasks = _summary(reps, frame, value, ["task", *by], "video")
    if frame["task"].nunique() < 2:
        return tasks
    mean = _summary(across_tasks(reps), frame, value, list(by), "video")
    return pd.concat([tasks, mean.assign(task=MEAN_OF_TASKS)], ignore_index=True)


def _summary(reps: pd.DataFrame, frame: pd.DataFrame, value: str, by: list[str], cluster: str) -> pd.DataFrame:
    """One row per cell of `by`: the interval of its replicates, and how many samples and videos of `frame` it holds."""
    present = frame.dropna(subset=[value])
    span = 1.0 if present[value].isin([0, 1]).all() else 0.0
    ids = "sample_id" if "sample_id" in frame else cluster
    rows = []
    for key, cell in present.groupby(by, observed=True) if by else [((), present)]:
        n = cell[cluster].nunique()
        found = interval(reps[key if len(key) > 1 else key[0]] if by else reps.iloc[:, 0], n=n, span=span)
        low, high = (max(0.0, found.low), min(1.0, found.high)) if span else found[1:]
        row = dict(zip(by, key, strict=True), mean=found.effect, low=low, high=high)
        rows.append(row | {"n_samples": cell[ids].nunique(), "n_videos": n})
    return pd.DataFrame(rows)


def across_tasks(reps: pd.DataFrame) -> pd.DataFrame:
    """Mean over the tasks of replicates whose cells have a `task` level: every task weighs the same."""
    others = [name for name in reps.columns.names if name != "task"]
    if not others:
        return reps.mean(axis=1).to_frame("mean")
    return reps.T.groupby(level=others, sort=True).mean().T


def split_videos(rows: pd.DataFrame, part: str, *, seed: int = 0) -> pd.DataFrame:
    """One half of the videos: `part` is "selection" or "evaluation". A video's half depends on its name and the seed
    alone.
    """
    if part not in ("selection", "evaluation"):
        raise StudyError(f"part is {part!r}; use selection or evaluation")
    first = rows["video"].map(lambda name: sha256(f"{seed}:{name}".encode()).digest()[0] < 128)
    return rows[first == (part == "selection")]


def pair(
    first: pd.DataFrame,
    second: pd.DataFrame,
    value: str,
    on: Sequence[str],
    *,
    names: tuple[str, str] = ("first", "second"),
) -> pd.DataFrame:
    """Rows that both tables hold, with `value` of each and their `difference` (first minus second)."""
    keys = list(on)
    left, right = (
        first[[*keys, value]].rename(columns={value: names[0]}),
        second[[*keys, value]].rename(columns={value: names[1]}),
    )
    both = left.merge(right, on=keys, validate="one_to_one")
    if both.empty:
        raise StudyError(f"the two tables share no rows on {', '.join(keys)}; measure the same samples in both")
    return both.assign(difference=both[names[0]].astype(float) - both[names[1]].astype(float))


def paired_difference(
    first: pd.DataFrame, second: pd.DataFrame, value: str, on: Sequence[str], by: Sequence[str] = (), **options: int
) -> pd.DataFrame:
    """Mean of first minus second over shared rows, per cell of `by`, with an interval; `on` must hold `video` and
    `by`.
    """
    return mean_interval(pair(first, second, value, on), "difference", by, **options)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> pd.Series:
    """Exact two-sided McNemar test of paired yes/no outcomes: are changes in one direction more frequent than in the
    other?

    Each pair must come from its own video, since the test knows no clusters.
    """
    was, now = np.asarray(before, bool), np.asarray(after, bool)
    if was.shape != now.shape:
        raise StudyError(f"paired outcomes differ in length: {was.size} and {now.size}")
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    n = lost + gained
    tail = sum(comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n
    return pd.Series({"n": was.size, "lost": lost, "gained": gained, "p": min(1.0, 2 * tail)})


def max_t(
    frame: pd.DataFrame, value: str, along: str = "layer", *, draws: int = DRAWS, seed: int = 0, cluster: str = "video"
) -> pd.DataFrame:
    """Curve of per-video means along `along`, tested against zero at all points at once.

    Under the null a video's whole curve may change its sign. The largest |t| over the curve, over random sign flips,
    gives adjusted p-values and a band that covers the whole curve with 95 %. Returns `along, mean, low, high, t, p`
    (p is adjusted). Videos weigh the same, whatever the number of their questions.
    """
    curves = frame.groupby([cluster, along], observed=True)[value].mean().unstack(along)  # (videos, points)
    if curves.isna().any(axis=None):
        raise StudyError(f"some videos lack points along {along!r}; finish the sweep before testing whole curves")
    x = curves.to_numpy(float)
    n = len(x)
    if n < 2:
        raise StudyError("a test of curves needs at least two videos")
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n))
    flat = np.abs(x).max(axis=0) < 1e-9  # nothing happens here, so there is no t
    squares = np.where(flat, 1.0, (x**2).sum(axis=0))
    null = np.abs(_t_values(signs @ x, squares, n))[:, ~flat].max(axis=1, initial=0.0)
    t = np.where(flat, 0.0, _t_values(x.sum(axis=0), squares, n))
    p = (1 + (null[:, None] >= np.abs(t) - 1e-9).sum(axis=0)) / (1 + draws)
    half = np.quantile(null, LEVEL) * x.std(axis=0, ddof=1) / np.sqrt(n)
    mean = x.mean(axis=0)
    return pd.DataFrame({along: curves.columns, "mean": mean, "low": mean - half, "high": mean + half, "t": t, "p": p})


def _t_values(sums: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """t of a mean from the sum and the sum of squares of n values; sign flips change only the sum."""
    variance = np.maximum(squares - sums**2 / n, 1e-24) / (n - 1)
    return sums / np.sqrt(n * variance)


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values: the chance of one false finding or more among all of them stays below the level."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def n_to_decide(found: Interval, threshold: float, n: int) -> int | None:
    """Videos needed until the interval leaves `threshold` if the effect stays as it is; its width shrinks with the
    root of n.
    """
    distance = abs(found.effect - threshold)
    half = (found.high - found.low) / 2
    if distance < 1e-9 or not np.isfinite(half):
        return None
    return max(n, int(np.ceil(n * (half / distance) ** 2)))
