"""Figures of finer cuts: maps of frame x frame and of layer x head. The cells of a map are tested together, so that the
largest of many is not taken for a finding by chance. Drops have the colour of their pathway, rises are grey."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from analysis_lib.figures.curves import CHANGE
from analysis_lib.figures.style import GREY, STYLE, Drawn, headline, panel_title, strongest, task_axes, words_of
from analysis_lib.findings import claims, stats

MAP_NOTE = "Bold numbers (or dots): cells that differ from zero, p < 0.05 over all cells of the map."  # for captions


def frame_pairs(pairs: pd.DataFrame, baseline: pd.DataFrame, readers: str = "later") -> Drawn:
    """Frame x frame maps, one panel a task and one for their mean: rows read, columns are read, in all layers; the last
    row and column cut all frames together (frame 0 in the table). A frame is read by `readers` frames."""
    cells = pairs.query("query_frame > 0 or key_frame > 0 or distance == 0").assign(edge_set="cross-frame")
    table = stats.change_table(cells, baseline, ["query_frame", "key_frame"])
    single = table.query("query_frame > 0 and key_frame > 0")
    limit, n_panels = max(claims.SMALLEST, table["mean"].abs().max()), table["task"].nunique()
    fig, axes = task_axes(n_panels, (2.45, 2.3), (0.9, 0.6))
    for i, (ax, (_, part)) in enumerate(zip(axes.flat, table.groupby("task", sort=False), strict=False)):
        _map(ax, part, "query_frame", "key_frame", limit)
        ax.axhline(part["query_frame"].nunique() - 1, color=GREY, lw=0.6)
        ax.axvline(part["key_frame"].nunique() - 1, color=GREY, lw=0.6)
        ax.set_xlabel("key frame (is read)" if i + axes.shape[1] >= n_panels else "")
        ax.set_ylabel("query frame (reads)" if ax in axes[:, 0] else "")
    _scale(fig, axes, limit, "cross-frame", f"{words_of('cross-frame', readers)}: {CHANGE}")
    headline(fig, strongest(single, "pair of frames", "frame {query_frame} reading frame {key_frame}"))
    return fig, table


def heads_video_last(heads: pd.DataFrame, baseline: pd.DataFrame) -> Drawn:
    """The last token cannot read the video in a single head of a single layer."""
    return heads_to_last(heads, baseline, ("video->last",))


def heads_to_last(heads: pd.DataFrame, baseline: pd.DataFrame,
                  edge_sets: tuple[str, ...] = ("question->last", "true_option->last")) -> Drawn:  # fmt: skip
    """The last token cannot read the true option, or the question block, in a single head of a single layer: a line of
    layer x head maps per edge set, one panel a task and one for their mean."""
    table = stats.change_table(heads[heads["edge_set"].isin(edge_sets)], baseline, ["layer", "head"])
    lines, columns = table["edge_set"].nunique(), table["task"].nunique()
    wide, tall = max(1.2, 0.2 * table["head"].max() + 0.4), max(1.6, 0.17 * table["layer"].max())
    size = (min(14, wide * columns + 1.4), min(7, tall) * lines + 0.9)
    fig, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
    for line, (name, here) in zip(axes, table.groupby("edge_set"), strict=True):
        limit = max(claims.SMALLEST, here["mean"].abs().max())
        for ax, (_, part) in zip(line, here.groupby("task", sort=False), strict=True):
            _map(ax, part, "layer", "head", limit)
            ax.set_xlabel("head" if ax in axes[-1] else "")
        line[0].set_ylabel(textwrap.fill(STYLE[name][2], 22) + "\nlayer")
        _scale(fig, line, limit, name, "change (%)")
    axes[0, 0].set_ylim(0, table["layer"].max())  # deep layers on top
    headline(fig, strongest(table, "single head", "head {head} of layer {layer}, {words}"))
    return fig, table


def _colours(edge_set: str) -> plt.Colormap:
    """White at zero, the pathway's colour for drops, grey for rises."""
    return sns.blend_palette([STYLE[edge_set][0], "white", GREY], as_cmap=True)


def _map(ax: plt.Axes, part: pd.DataFrame, y: str, x: str, limit: float) -> None:
    """One map; cells carry their number where there is room, else a dot if they differ from zero. The colour scale ends
    at `limit`: the largest change, at least what counts as a drop."""
    grid = part.pivot(index=y, columns=x, values="mean")
    rows, columns = (sorted(names, key=lambda n: (n == 0, n)) for names in grid.axes)  # 0, all, last
    grid = grid.loc[rows, columns]
    # As seaborn's heatmap, which draws the whole figure once for every map.
    ax.pcolormesh(grid, cmap=_colours(part["edge_set"].iloc[0]), vmin=-limit, vmax=limit, linewidths=0.4,
                  edgecolors="#F4F4F4")  # fmt: skip
    ax.set(xlim=(0, grid.shape[1]), ylim=(grid.shape[0], 0))
    sns.despine(ax=ax, left=True, bottom=True)
    numbers = len(part) <= 64  # more cells have no room for a number
    places = zip(grid.index.get_indexer(part[y]), grid.columns.get_indexer(part[x]), strict=True)
    for (row, column), mean, p in zip(places, part["mean"], part["p"], strict=True):
        text = f"{mean:.0f}".replace("-0", "0").replace("-", "−") if numbers else "•"
        colour, weight = "white" if abs(mean) > 0.6 * limit else "#333333", "bold" if p < 0.05 else "normal"
        if numbers or p < 0.05:
            look = {"ha": "center", "va": "center", "fontsize": 6, "color": colour, "fontweight": weight}
            ax.text(column + 0.5, row + 0.5, text, **look)
    for ticks, names in ((ax.set_yticks, grid.index), (ax.set_xticks, grid.columns)):
        step = 1 if len(names) <= 12 else 4
        ticks(np.arange(0, len(names), step) + 0.5, [name or "all" for name in names[::step]])
    ax.tick_params(labelsize=7, rotation=0, length=0)
    ax.set(xlabel="", ylabel="")
    panel_title(ax, part, "\n", fontsize=8)


def _scale(fig: plt.Figure, axes: np.ndarray, limit: float, edge_set: str, label: str) -> None:
    """One colour bar beside the panels that share it."""
    colours = plt.cm.ScalarMappable(plt.Normalize(-limit, limit), _colours(edge_set))
    bar = fig.colorbar(colours, ax=axes, shrink=0.85, pad=0.02)
    bar.set_label(label, fontsize=7.5)
    bar.ax.tick_params(labelsize=7)
