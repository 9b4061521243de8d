"""Intervals and tests for stored tables, over videos.

Every interval is a percentile bootstrap that draws whole videos (`bootstrap`); tests flip the sign of whole videos."""

from collections.abc import Sequence
from hashlib import sha256
from math import comb

import numpy as np
import pandas as pd

from analysis_lib.errors import StudyError
from analysis_lib.findings.analysed import Analysed, Table
from analysis_lib.findings.bootstrap import DRAWS, Frames, across_tasks, drawn, numbered, replicates_of, summed, sums_of
from analysis_lib.study.rows import as_rows

LEVEL = 0.95
MEAN_OF_TASKS = "mean of tasks"  # the `task` of rows in which all tasks weigh the same


def interval(reps: pd.Series, *, n: int = 0, span: float = 0.0) -> tuple[float, float, float]:
    """The estimate in one column of replicates and its 95 % percentile interval. Where all draws agree, `n` equal
    outcomes on a scale of length `span` bound it (exact binomial): "never in 40 videos" is not "never"."""
    effect, tail = float(reps.iloc[0]), (1 - LEVEL) / 2
    low, high = np.nanquantile(reps.iloc[1:], [tail, 1 - tail]).tolist()
    if n and span and high - low < 1e-12 * span:
        room = span * (1 - tail ** (1 / n))
        low, high = effect - room, effect + room
    return effect, low, high


def mean_interval(rows: Frames, value: str, by: list[str]) -> pd.DataFrame:
    """One row per cell of `by` with `mean, low, high, n_samples, n_videos`. Yes/no values are bounded to [0, 1]."""
    sums = summed(rows, value, by, samples=True)
    return _intervals(sums, by, replicates_of(sums, by))


def _intervals(sums: pd.DataFrame, by: list[str], reps: pd.DataFrame) -> pd.DataFrame:
    """`mean_interval` of what `summed` gave, with the replicates of its cells."""
    rows, span = [], 1.0 if sums["binary"].all() else 0.0
    present = sums.loc[sums["count"] > 0, ["n_samples"]]
    present = present.assign(place=numbered(present, ["video"])[0])
    numbers = present.groupby(by).agg({"n_samples": "sum", "place": "nunique"}).astype(int)
    for key, n_samples, n_videos in numbers.itertuples():
        mean, low, high = interval(reps[key], n=n_videos, span=span)
        low, high = (max(0.0, low), min(1.0, high)) if span else (low, high)
        row = dict(zip(by, key if len(by) > 1 else [key], strict=True), mean=mean, low=low, high=high)
        rows.append(row | {"n_samples": n_samples, "n_videos": n_videos})
    return pd.DataFrame(rows)


def task_intervals(rows: Frames, value: str, by: list[str], *, scale: float = 1) -> pd.DataFrame:
    """`mean_interval` for every task and, if there are several, for their mean; `scale` 100 gives percentages."""
    return _by_task(summed(rows, value, ["task", *by], samples=True), by, scale)


def _by_task(sums: pd.DataFrame, by: list[str], scale: float = 1) -> pd.DataFrame:
    reps = replicates_of(sums, ["task", *by])
    table = _intervals(sums, ["task", *by], reps)
    if len(sums.index.unique("task")) > 1:
        mean = _intervals(sums, by, across_tasks(reps))
        table = pd.concat([table, mean.assign(task=MEAN_OF_TASKS)], ignore_index=True)
    return table.assign(**{name: scale * table[name] for name in ("mean", "low", "high")})


def accuracy_levels(baseline: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of the untouched model and of chance in % (columns `untouched, chance`) per task and for their mean."""
    right, options = baseline["correct"].astype(bool), baseline["options"].map(len)
    levels = baseline.assign(untouched=100.0 * right, chance=100 / options)
    levels = levels.groupby("task")[["untouched", "chance"]].mean()
    levels.loc[MEAN_OF_TASKS] = levels.mean()
    return levels


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the mean of tasks in a table of `task_intervals`; all rows where there is only one task."""
    mean = table[table["task"] == MEAN_OF_TASKS]
    return table if mean.empty else mean


def change_table(rows: Table, baseline: pd.DataFrame, cell: list[str], value: str = "relative_change",
                 series: str = "edge_set") -> pd.DataFrame:  # fmt: skip
    """What knockouts do: mean change (of `value`; in %) with its interval per task, `series` (a column, of which one
    value's rows are gone through at a time) and `cell` (layer, say) on correctly answered samples. `p` tests all cells
    of a task and series at once (`max_t`)."""
    found, rows, by = [], as_rows(rows), [series, *cell]
    for name in sorted(rows.values(series)) or [""]:  # of no rows is said that there are none
        parts = Analysed(rows, baseline, **{series: [name]}).parts(series, *cell, value)
        sums = summed(parts, value, ["task", *by], samples=True)
        tests = {task: _max_t(part, cell) for task, part in sums.groupby("task")} | {MEAN_OF_TASKS: _max_t(sums, cell)}
        p = pd.concat(tests, names=["task"]).reset_index("task")
        found.append(_by_task(sums, by).merge(p, on=["task", *cell], how="left"))
    table = pd.concat(found)
    mean = table["task"] == MEAN_OF_TASKS
    return pd.concat([table[~mean].sort_values("task", kind="stable"), table[mean]], ignore_index=True)


def split_videos(rows: pd.DataFrame, part: str, *, seed: int = 0) -> pd.DataFrame:
    """Half of the videos, `part` "selection" or "evaluation"; a video's half depends on its name and the seed alone."""
    if part not in ("selection", "evaluation"):
        raise StudyError(f"part is {part!r}; use selection or evaluation")
    first = rows["video"].map(lambda name: sha256(f"{seed}:{name}".encode()).digest()[0] < 128)
    return rows[first == (part == "selection")]


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> pd.Series:
    """Exact two-sided McNemar test of paired yes/no outcomes, each pair from a video of its own (the test knows no
    clusters): is one direction of change more frequent? Returns `n, lost, gained, p`."""
    was, now = np.asarray(before, bool), np.asarray(after, bool)
    lost, gained = int((was & ~now).sum()), int((~was & now).sum())
    tail = sum(comb(lost + gained, k) for k in range(min(lost, gained) + 1)) / 2 ** (lost + gained)
    return pd.Series({"n": was.size, "lost": lost, "gained": gained, "p": min(1.0, 2 * tail)})


def max_t(rows: Frames, value: str, along: Sequence[str] = ("layer",)) -> pd.DataFrame:
    """The columns `along` and `p`: test of the mean curve against zero at all points at once; p is missing with a
    single video. Under the null a video's whole curve may change its sign; the largest |t| over random sign flips
    adjusts each p for the number of points. Videos weigh the same, whatever the number of their questions."""
    return _max_t(summed(rows, value, along), along)


def _max_t(sums: pd.DataFrame, along: Sequence[str]) -> pd.DataFrame:
    sums = sums.groupby(["video", *along])[["total", "count"]].sum()
    curves = (sums["total"] / sums["count"]).unstack(along)  # (videos, points)
    if curves.isna().any(axis=None):
        points = f"some videos lack points along {', '.join(along)!r}"
        raise StudyError(f"{points}; finish the sweep before testing whole curves")
    x, n, p = curves.to_numpy(float), len(curves), np.nan
    if n > 1:
        rng = np.random.default_rng(0)
        signs = drawn(lambda rows: rng.choice([-1.0, 1.0], size=(rows, n)), n)
        [sums] = sums_of(signs, x)  # (1 + DRAWS, points), row 0 as measured
        variance = np.maximum((x**2).sum(axis=0) - sums**2 / n, 1e-24) / (n - 1)
        t = np.abs(sums) / np.sqrt(n * variance) * (np.abs(x).max(axis=0) > 1e-9)  # 0 where nothing happens
        p = (1 + (t[1:].max(axis=1)[:, None] >= t[0] - 1e-9).sum(axis=0)) / (1 + DRAWS)
    return pd.DataFrame({"p": p}, index=curves.columns).reset_index()


def holm(p: pd.Series) -> pd.Series:
    """Holm's adjusted p-values: the chance of one false finding or more among all of them stays below the level."""
    ordered = p.sort_values(kind="stable")
    return (ordered * np.arange(len(p), 0, -1)).cummax().clip(upper=1.0).reindex(p.index)
