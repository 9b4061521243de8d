"""Bootstrap draws: what each draw of whole videos makes of the mean in every cell of a table.

The unit that varies is the video, not the row: rows of one video (questions, layers, edge sets) are not independent.
Every draw takes videos with replacement, the same ones for all cells of a table: cells stay paired, and any contrast of
them (halves of the depth, models, the mean over tasks) has an interval without further assumptions. Replicates are
plain frames: row 0 is the estimate, the other rows are bootstrap draws, the columns are the cells.

Draws of very many videos (4,000 of 100,000 would be 3.2 GB) are made and used a block at a time, from the same stream
of random numbers. Up to 2,000 videos are one block."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from analysis_lib.errors import StudyError

Frames = pd.DataFrame | Iterable[pd.DataFrame]  # rows, at once or in parts
DRAWS = 4000  # the Monte Carlo error of a 95 % bound is then about 2 % of the interval's width
BLOCK = 2**23  # numbers that are computed with at once


def drawn(draw: Callable[[int], np.ndarray], n_videos: int) -> Iterator[np.ndarray]:
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
    for block in drawn(lambda rows: rng.multinomial(n_videos, share, size=rows), n_videos):
        weights[at : at + len(block)] = block
        at += len(block)
    return weights


def sums_of(draws: Iterable[np.ndarray], *values: np.ndarray) -> list[np.ndarray]:
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


def numbered(sums: pd.DataFrame, by: Sequence[str]) -> tuple[np.ndarray, pd.Index]:
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
    (video, videos), (cell, cells) = (numbered(sums, names) for names in (["video"], by))
    weights, means, step = _weights(len(videos)), [], max(1, BLOCK // len(videos))
    for first in range(0, len(cells), step):
        part = (cell >= first) & (cell < first + step)
        own, row = np.unique(video[part], return_inverse=True)
        values = np.zeros((2, len(own), min(step, len(cells) - first)))  # totals and counts: (2, videos, cells)
        for grid, name in zip(values, ("total", "count"), strict=True):
            grid[row, cell[part] - first] = np.nan_to_num(sums[name].to_numpy(float)[part])
        rows = max(1, BLOCK // len(own))
        blocks = (weights[at : at + rows, own].astype(float) for at in range(0, 1 + DRAWS, rows))
        total, count = sums_of(blocks, *values)
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
