"""Intervals and tests for stored tables. The unit that varies is the video, not the row.

Rows of one video (questions, layers, edge sets) are not independent; videos are. Every interval is a percentile
bootstrap that draws whole videos with replacement, the same draws for all cells of a table: cells stay paired, and any
contrast of them (halves of the depth, models, the mean over tasks) has an interval without further assumptions.
Replicates are plain frames: row 0 is the estimate, the other rows are bootstrap draws, the columns are the cells.

Draws of very many videos (4,000 of 100,000 would be 3.2 GB) are made and used a block at a time, from the same stream
of random numbers. Up to 2,000 videos are one block."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from math import comb

import numpy as np
import pandas as pd

from analysis_lib.errors import StudyError
from analysis_lib.findings.analysed import Analysed, Table
from analysis_lib.study.rows import as_rows

Frames = pd.DataFrame | Iterable[pd.DataFrame]  # rows, at once or in parts
DRAWS = 4000  # the Monte Carlo error of a 95 % bound is then about 2 % of the interval's width
LEVEL = 0.95
MEAN_OF_TASKS = "mean of tasks"  # the `task` of rows in which all tasks weigh the same
BLOCK = 2**23  # numbers that are computed with at once


def _drawn(draw: Callable[[int], np.ndarray], n_videos: int) -> Iterator[np.ndarray]:
    """Blocks of draws, (rows, n_videos) each, with a row of ones before the first. `draw` makes so many rows."""
    rows = max(1, BLOCK // n_videos)
    for first in range(0, DRAWS, rows):
        block = draw(min(rows, DRAWS - first))
        yield block if first else np.vstack([np.ones((1, n_videos), block.dtype), block])


@lru_cache(maxsize=2)
def _weights(n_videos: int) -> np.ndarray:
    """How often each draw takes each video, (1 + DRAWS, n_videos); row 0 takes every video once. In bytes: that one
    video is taken 128 times is as likely as 1 in 128!."""
    rng, share = np.random.default_rng(0), np.full(n_videos, 1 / n_videos)
    weights, at = np.empty((1 + DRAWS, n_videos), np.int8), 0
    for block in _drawn(lambda rows: rng.multinomial(n_videos, share, size=rows), n_videos):
        weights[at : at + len(block)] = block
        at += len(block)
    return weights


def _sums(draws: Iterable[np.ndarray], *values: np.ndarray) -> list[np.ndarray]:
    """Sums of values over the videos, with the weights of draws, (1 + DRAWS, columns) for each array of values."""
    parts = [[block @ x for x in values] for block in draws]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def summed(rows: Frames, value: str, by: Sequence[str], *, samples: bool = False) -> pd.DataFrame:
    """What each video has in each cell of `by` (the levels of the index, which hold few bytes a row): the `total` and
    the `count` of its values, whether all are 0 or 1 (`binary`), and, if `samples`, of how many samples they are
    (`n_samples`). Of `rows` in parts one is held at a time."""
    key, found = ["video", *by], []
    for part in [rows] if isinstance(rows, pd.DataFrame) else rows:
        if part.empty:
            continue
        numbers = part[value].astype(float)
        columns = {"number": numbers, "binary": numbers.isna() | numbers.isin([0, 1])}
        cells = part[key].assign(**columns).groupby(key)
        sums = cells.agg(total=("number", "sum"), count=("number", "count"), binary=("binary", "all"))
        if samples:
            sums["n_samples"] = part[[*key, "sample_id"]][numbers.notna()].groupby(key)["sample_id"].nunique()
        found.append(sums.astype({"count": np.int32}))
    return together(found, by)


def together(found: Iterable[pd.DataFrame], by: Sequence[str]) -> pd.DataFrame:
    """What `summed` gave for parts of the rows, as for all of them."""
    key, found = ["video", *by], [sums for sums in found if len(sums)]
    if not found:
        none = pd.MultiIndex.from_arrays([[]] * len(key), names=key)
        return pd.DataFrame(index=none, columns=["total", "count", "binary"])
    sums = pd.concat(found)
    if len(found) > 1 and not sums.index.is_unique:  # a video in several parts
        sums = sums.groupby(key).agg(dict.fromkeys(sums.columns, "sum") | {"binary": "all"})
    return sums


def _numbered(sums: pd.DataFrame, by: Sequence[str]) -> tuple[np.ndarray, pd.Index]:
    """Each row's place among the groups of `by`, levels of the index, and the groups, sorted. From the index's codes
    alone: a groupby of millions of rows holds several times what they do."""
    index = sums.index.remove_unused_levels()
    at = [index.names.index(name) for name in by]
    ranks = [np.argsort(level.argsort())[codes] for level, codes in ((index.levels[i], index.codes[i]) for i in at)]
    shape = [len(index.levels[i]) for i in at]
    place = np.ravel_multi_index(ranks, shape)
    there = np.bincount(place, minlength=np.prod(shape, dtype=int)) > 0
    groups = np.unravel_index(np.flatnonzero(there), shape)
    names = [index.levels[i].sort_values()[group] for i, group in zip(at, groups, strict=True)]
    found = pd.MultiIndex.from_arrays(names, names=list(by)) if len(by) > 1 else names[0]
    return (there.cumsum(dtype=np.int32) - 1)[place], found


def replicates(rows: Frames, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Replicates of the mean of `value` in each cell of `by`; NaN where a draw holds no video of a cell."""
    return replicates_of(summed(rows, value, by), by)


def replicates_of(sums: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """`replicates` of what `summed` gave."""
    if sums.empty:
        raise StudyError(f"no rows to summarise by {', '.join(by)!r}; measure some samples first")
    (video, videos), (cell, cells) = (_numbered(sums, names) for names in (["video"], by))
    weights, means, step = _weights(len(videos)), [], max(1, BLOCK // len(videos))
    for first in range(0, len(cells), step):
        part = (cell >= first) & (cell < first + step)
        own, row = np.unique(video[part], return_inverse=True)
        values = np.zeros((2, len(own), min(step, len(cells) - first)))  # totals and counts: (2, videos, cells)
        for grid, name in zip(values, ("total", "count"), strict=True):
            grid[row, cell[part] - first] = np.nan_to_num(sums[name].to_numpy(float)[part])
        rows = max(1, BLOCK // len(own))
        blocks = (weights[at : at + rows, own].astype(float) for at in range(0, 1 + DRAWS, rows))
        total, count = _sums(blocks, *values)
        with np.errstate(invalid="ignore"):
            means.append(total / count)  # (1 + DRAWS, cells)
    order = np.arange(len(cells))
    if len(by) > 1:  # by their first videos: means over tasks add them up so, and the last digits depend on it
        earliest = np.full(len(cells), len(videos))
        np.minimum.at(earliest, cell, video)
        order = earliest.argsort(kind="stable")
    return pd.DataFrame(np.take(np.hstack(means), order, axis=1), columns=cells[order])


def across_tasks(reps: pd.DataFrame) -> pd.DataFrame:
    """Mean over the tasks of replicates whose cells have a `task` level: every task weighs the same."""
    others = [name for name in reps.columns.names if name != "task"]
    return reps.T.groupby(level=others).mean().T if others else reps.mean(axis=1).to_frame("mean")


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
    present = present.assign(place=_numbered(present, ["video"])[0])
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
        signs = _drawn(lambda rows: rng.choice([-1.0, 1.0], size=(rows, n)), n)
        [sums] = _sums(signs, x)  # (1 + DRAWS, points), row 0 as measured
        variance = np.maximum((x**2).sum(axis=0) - sums**2 / n, 1e-24) / (n - 1)
        t = np.abs(sums) / np.sqrt(n * variance) * (np.abs(x).max(axis=0) > 1e-9)  # 0 where nothing happens
        p = (1 + (t[1:].max(axis=1)[:, None] >= t[0] - 1e-9).sum(axis=0)) / (1 + DRAWS)
    return pd.DataFrame({"p": p}, index=curves.columns).reset_index()


def holm(p: pd.Series) -> pd.Series:
    """Holm's adjusted p-values: the chance of one false finding or more among all of them stays below the level."""
    ordered = p.sort_values(kind="stable")
    return (ordered * np.arange(len(p), 0, -1)).cummax().clip(upper=1.0).reindex(p.index)
