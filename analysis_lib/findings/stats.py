"""Intervals and tests for stored tables. The unit that varies is the video, not the row.

Rows of one video (questions, layers, edge sets) are not independent; videos are. Every interval is a percentile
bootstrap that draws whole videos with replacement: a draw gives each video a weight, and all cell means of a table are
computed under the same weights. Cells therefore stay paired, and any contrast of cells (two halves of the depth, two
models, the mean over tasks) has an interval without further assumptions. Curves over layers are tested by sign flips
with the maximum of |t| over layers, flips of single answers exactly (McNemar). Replicates are plain frames: row 0 is
the estimate, the other rows are bootstrap draws, the columns are the cells.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from math import ceil, comb

import numpy as np
import pandas as pd

from analysis_lib.errors import StudyError

DRAWS = 4000  # the Monte Carlo error of a 95 % bound is then about 2 % of the interval's width
LEVEL = 0.95
MEAN_OF_TASKS = "mean of tasks"  # the `task` of rows in which all tasks weigh the same


Interval = tuple[float, float, float]  # an estimate and the bounds of its interval, in the unit of the values


def attach(table: pd.DataFrame, baseline: pd.DataFrame, *, keep: str = "correct") -> pd.DataFrame:
    """Add `video, correct, answer, prediction_base` of the baseline to each row and keep the samples that are analysed:
    "correct" (the paper's choice: samples that the untouched model answers correctly), "wrong" or "all".
    """
    if keep not in ("correct", "wrong", "all"):
        raise StudyError(f"keep is {keep!r}; use correct, wrong or all")
    known = baseline.rename(columns={"prediction": "prediction_base"})
    added = [name for name in ("video", "correct", "answer", "prediction_base") if name in known]
    rows = table.drop(columns=added, errors="ignore").merge(known[["task", "sample_id", *added]])
    kept = rows if keep == "all" else rows[rows["correct"].astype(bool) == (keep == "correct")]
    if keep == "correct" and kept.empty and len(table):
        raise StudyError(
            f"none of {table['sample_id'].nunique()} samples here is answered correctly: nothing to analyse; measure "
            "more of them (SAMPLES=20, say)"
        )
    return kept


@lru_cache(maxsize=8)
def _weights(n_videos: int) -> np.ndarray:
    """How often each draw takes each video, (1 + DRAWS, n_videos); row 0 takes every video once."""
    resampled = np.random.default_rng(0).multinomial(n_videos, np.full(n_videos, 1 / n_videos), size=DRAWS)
    return np.vstack([np.ones((1, n_videos)), resampled])


def replicates(frame: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Mean of `value` in each cell of `by`: row 0 is the estimate, rows 1.. are bootstrap draws over videos, NaN where
    a draw holds no video of a cell.
    """
    if frame.empty:
        raise StudyError(f"no rows to summarise for {value!r}; measure some samples first")
    cells = frame.astype({value: float}).groupby(["video", *by])[value]
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

    Where all draws agree, the bounds are those that `n` equal outcomes on a scale of length `span` still allow (exact
    binomial), so that "never happened in 40 videos" does not read as "never happens".
    """
    effect, tail = float(reps.iloc[0]), (1 - LEVEL) / 2
    low, high = np.nanquantile(reps.iloc[1:], [tail, 1 - tail]).tolist()
    if n and span and high - low < 1e-12 * span:
        room = span * (1 - tail ** (1 / n))
        low, high = effect - room, effect + room
    return effect, low, high


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
    for key, cell in present.groupby(by):
        n = cell["video"].nunique()
        mean, low, high = interval(reps[key if len(key) > 1 else key[0]], n=n, span=span)
        low, high = (max(0.0, low), min(1.0, high)) if span else (low, high)
        row = dict(zip(by, key, strict=True), mean=mean, low=low, high=high)
        rows.append(row | {"n_samples": cell["sample_id"].nunique(), "n_videos": n})
    return pd.DataFrame(rows)


def split_videos(rows: pd.DataFrame, part: str, *, seed: int = 0) -> pd.DataFrame:
    """Half of the videos, `part` "selection" or "evaluation"; a video's half depends on its name and the seed alone."""
    if part not in ("selection", "evaluation"):
        raise StudyError(f"part is {part!r}; use selection or evaluation")
    first = rows["video"].map(lambda name: sha256(f"{seed}:{name}".encode()).digest()[0] < 128)
    return rows[first == (part == "selection")]


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> pd.Series:
    """Exact two-sided McNemar test of paired yes/no outcomes: is one direction of change more frequent? Returns `n,
    lost, gained, p`. Each pair must come from its own video, since the test knows no clusters.
    """
    was, now = np.asarray(before, bool), np.asarray(after, bool)
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    n = lost + gained
    tail = sum(comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n
    return pd.Series({"n": was.size, "lost": lost, "gained": gained, "p": min(1.0, 2 * tail)})


def max_t(frame: pd.DataFrame, value: str, along: str = "layer") -> pd.DataFrame:
    """`along, p`: test of the mean curve against zero at all points at once; p is missing with a single video. Under
    the null a video's whole curve may change its sign; the largest |t| over random sign flips adjusts each p for the
    number of points. Videos weigh the same, whatever the number of their questions.
    """
    curves = frame.groupby(["video", along])[value].mean().unstack()  # (videos, points)
    if curves.isna().any(axis=None):
        raise StudyError(f"some videos lack points along {along!r}; finish the sweep before testing whole curves")
    x, n = curves.to_numpy(float), len(curves)
    if n < 2:
        return pd.DataFrame({along: curves.columns, "p": np.nan})
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(DRAWS, n))
    sums = np.vstack([np.ones(n), signs]) @ x  # (1 + DRAWS, points), row 0 as measured
    variance = np.maximum((x**2).sum(axis=0) - sums**2 / n, 1e-24) / (n - 1)
    t = np.abs(sums) / np.sqrt(n * variance) * (np.abs(x).max(axis=0) > 1e-9)  # 0 where nothing happens
    p = (1 + (t[1:].max(axis=1)[:, None] >= t[0] - 1e-9).sum(axis=0)) / (1 + DRAWS)
    return pd.DataFrame({along: curves.columns, "p": p})


def holm(p: pd.Series) -> pd.Series:
    """Holm's adjusted p-values: the chance of one false finding or more among all of them stays below the level."""
    ordered = p.sort_values(kind="stable")
    return (ordered * np.arange(len(p), 0, -1)).cummax().clip(upper=1.0).reindex(p.index)


def n_to_decide(found: Interval, threshold: float, n: int) -> int | None:
    """Videos needed until the interval leaves `threshold` if the effect stays; its width shrinks with the root of n."""
    distance, half = abs(found[0] - threshold), (found[2] - found[1]) / 2
    return max(n, ceil(n * (half / distance) ** 2)) if distance > 1e-9 and np.isfinite(half) else None
