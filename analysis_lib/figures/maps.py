"""Tables and figures of the finer cuts: pairs of frames, distances, window sizes, layers from either end, single heads.

These knockouts are many, and cheap only because the engine recomputes no more than a cut can change. A map is a grid of
small cuts (frame x frame, layer x head) whose cells are tested together, so that the largest of many cells is not taken
for a finding by chance. Drops have the colour of their pathway, rises are grey. Titles come from the numbers.
"""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis_lib.figures.bars import percent
from analysis_lib.figures.style import GREY, STYLE, curve_panels, headline, knockout_table, task_name
from analysis_lib.findings import stats
from analysis_lib.findings.claims import SMALLEST

CHANGE = "change of the answer's probability (%)"
READING = "Bold numbers (or dots): cells that differ from zero, p < 0.05 over all cells of the map."
MOST_NUMBERS = 64  # cells of a map that still have room for a number


# ---- tables ----


def cell_table(rows: pd.DataFrame, baseline: pd.DataFrame, cell: list[str], series: str = "edge_set") -> pd.DataFrame:
    """Mean change in % per task, series and cell on correctly answered samples, with 95 % intervals over videos.

    `cell` names the columns that make a cell. `p` tests all cells of a task and series at once (`stats.max_t`); it is
    missing where there is only one video.
    """
    kept = stats.attach(rows, baseline)
    table = stats.task_intervals(kept, "relative_change", [series, *cell])
    kept = kept.assign(cell=kept.groupby(cell).ngroup())
    groups = {(task, name): part for (task, name), part in kept.groupby(["task", series])}
    groups |= {(stats.MEAN_OF_TASKS, name): part for name, part in kept.groupby(series)}
    tests = [
        stats.max_t(part, "relative_change", "cell")[["cell", "p"]].assign(task=task, **{series: name})
        for (task, name), part in groups.items()
        if part["video"].nunique() > 1
    ]
    places = kept[["cell", *cell]].drop_duplicates()
    p = pd.concat([pd.DataFrame(columns=["cell", "p", "task", series]), *tests]).astype({"p": float})
    return table.merge(places, on=cell).merge(p, on=["task", series, "cell"], how="left").drop(columns="cell")


def pair_table(pairs: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """One row per task, query frame and earlier key frame, cut in all layers; frame 0 stands for all of them."""
    cells = pairs[(pairs["query_frame"] > 0) | (pairs["key_frame"] > 0) | (pairs["distance"] == 0)]
    return cell_table(cells.assign(edge_set="cross-frame"), baseline, ["query_frame", "key_frame"])


def single_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `pair_table` that cut one pair alone."""
    return table[(table["query_frame"] > 0) & (table["key_frame"] > 0)]


def distance_table(pairs: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """One row per task, distance between frames and series: "all pairs" cut together, and "one pair", the mean of
    those pairs cut one by one.
    """
    alone, grouped = single_pairs(pairs), pairs[pairs["edge_set"].str.startswith("cross-frame@")]
    means = alone.groupby(["task", "sample_id", "distance"], as_index=False)["relative_change"].mean()
    together = grouped[means.columns]
    rows = pd.concat([together.assign(series="all pairs"), means.assign(series="one pair")])
    return cell_table(rows, baseline, ["distance"], "series")


def width_table(widths: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """`plots.knockout_table` for each size of window, in column `window`."""
    parts = [knockout_table(rows, baseline).assign(window=size) for size, rows in widths.groupby("window")]
    return pd.concat(parts, ignore_index=True)


def head_table(heads: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """One row per task, edge set, layer and query head (both 1-based), cut alone."""
    return cell_table(heads, baseline, ["layer", "head"])


def accuracy_table(up: pd.DataFrame, down: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in % on all questions with edges cut from layer 1 up to a layer (`up`, bottom_up windows) or from a
    layer to the last (`down`, top_down), with that of the untouched model and of chance beside it.
    """
    parts = {"from layer 1": up, "to last layer": down}
    rows = pd.concat([part.assign(series=name, right=part["correct"]) for name, part in parts.items()])
    table = percent(stats.task_intervals(stats.attach(rows, baseline, keep="all"), "right", ["series", "layer"]))
    asked = baseline.merge(rows[["task", "sample_id"]].drop_duplicates())
    asked = asked.assign(untouched=100.0 * asked["correct"].astype(bool), chance=100 / asked["options"].map(len))
    levels = asked.groupby("task")[["untouched", "chance"]].mean()
    levels.loc[stats.MEAN_OF_TASKS] = levels.mean()
    return table.merge(levels, left_on="task", right_index=True, how="left")


def half_table(up: pd.DataFrame, down: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Right answers in % that are lost when one half of the layers is cut (paper, tables 2 and B)."""
    n_layers = int(down["last_layer"].max())
    half = n_layers // 2
    parts = {f"1 to {half}": up[up["layer"] == half], f"{half + 1} to {n_layers}": down[down["layer"] == half + 1]}
    rows = stats.attach(pd.concat([part.assign(layers=name) for name, part in parts.items()]), baseline)
    rows["lost"] = rows["prediction"] != rows["prediction_base"]
    return percent(stats.task_intervals(rows, "lost", ["layers"])).set_index(["task", "layers"])


# ---- titles ----


def strongest(table: pd.DataFrame, what: str, form: str) -> str:
    """A title from the numbers: the cell with the largest drop, for tasks together, if it differs from zero and is as
    large as a drop must be to count (`claims.SMALLEST`). `form` names a cell by its columns.
    """
    every = table[table["task"] == list(table["task"])[-1]]
    cell = every.loc[every["mean"].idxmin()]
    words = STYLE[cell["edge_set"]][2] if "edge_set" in cell else ""
    name, drop = form.format(**cell, words=words), f"{max(-cell['mean'], 0):.1f}\u00a0%"
    if cell["mean"] <= -SMALLEST and cell["p"] < 0.05:
        return f"The {what} that matters most: {name} (drop of {drop})"
    return f"No {what} alone costs the answer {SMALLEST:g}\u00a0% for certain; the largest drop is {drop} ({name})"


# ---- figures ----


def pair_figure(table: pd.DataFrame, title: str) -> Figure:
    """Frame x frame maps, one panel a task and one for their mean: rows read, columns are read; the last row and
    column cut all frames together.
    """
    tasks = list(dict.fromkeys(table["task"]))
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(2.45 * columns + 0.9, 2.3 * lines + 0.6), squeeze=False)
    for ax in axes.flat[len(tasks) :]:
        ax.set_visible(False)
    limit = _limit(table)
    for i, (ax, task) in enumerate(zip(axes.flat, tasks, strict=False)):
        part = table[table["task"] == task]
        _map(ax, part, "query_frame", "key_frame", limit)
        ax.axhline(part["query_frame"].nunique() - 1, color=GREY, lw=0.6)
        ax.axvline(part["key_frame"].nunique() - 1, color=GREY, lw=0.6)
        _panel_title(ax, task, part)
        ax.set(xlabel="key frame (is read)" if i + columns >= len(tasks) else "")
        ax.set(ylabel="query frame (reads)" if i % columns == 0 else "")
    _scale(fig, axes, limit, "cross-frame", STYLE["cross-frame"][2] + ": " + CHANGE)
    headline(fig, title)
    return fig


def head_figure(table: pd.DataFrame, title: str) -> Figure:
    """Layer x head maps: a line of panels per edge set, one panel a task and one for their mean."""
    tasks, sets = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["edge_set"]))
    wide, tall = max(1.2, 0.2 * table["head"].max() + 0.4), max(1.6, 0.17 * table["layer"].max())
    size = (min(14, wide * len(tasks) + 1.4), min(7, tall) * len(sets) + 0.9)
    fig, axes = plt.subplots(len(sets), len(tasks), figsize=size, squeeze=False, sharex=True, sharey=True)
    for i, (line, name) in enumerate(zip(axes, sets, strict=True)):
        here = table[table["edge_set"] == name]
        limit = _limit(here)
        for ax, task in zip(line, tasks, strict=True):
            part = here[here["task"] == task]
            _map(ax, part, "layer", "head", limit)
            _panel_title(ax, task, part)
            words = textwrap.fill(STYLE[name][2], 22) + "\nlayer"
            ax.set(xlabel="head" if i + 1 == len(sets) else "", ylabel=words if ax is line[0] else "")
        _scale(fig, line, limit, name, "change (%)")
    axes[0, 0].set_ylim(0, table["layer"].max())  # deep layers on top
    headline(fig, title)
    return fig


def distance_figure(table: pd.DataFrame, title: str) -> Figure:
    """Effect against the distance between frames, one panel a task and one for their mean."""
    curves = table.rename(columns={"distance": "layer"})  # what the panels have on x
    return curve_panels(curves, title, CHANGE, series="series", xlabel="distance between the frames (1 = neighbours)")


def width_figure(table: pd.DataFrame, title: str) -> Figure:
    """The curves of all edge sets for tasks together, one panel a size of window."""
    every = table[table["task"] == list(table["task"])[-1]]
    sizes = every["window"].map(lambda size: f"window of {size} layer{'s' * (size > 1)}")
    return curve_panels(every.assign(task=sizes), title, CHANGE.replace("probability", "\nprobability"))


def accuracy_figure(table: pd.DataFrame, title: str) -> Figure:
    """Accuracy against the border layer, one panel a task; grey lines: the untouched model (dotted), and chance."""
    fig = curve_panels(table, title, "accuracy (%)", series="series", xlabel="layer at the border of the cut")
    for ax, (_, part) in zip(fig.axes, table.groupby("task", sort=False), strict=False):
        for name, dash in (("untouched", ":"), ("chance", "-")):
            ax.axhline(part[name].iloc[0], color=GREY, lw=0.9, ls=dash, zorder=1)
    fig.axes[0].set_ylim(0, 106)
    return fig


def _limit(table: pd.DataFrame) -> float:
    """Half the length of the colour scale: the largest change, at least what counts as a drop."""
    return max(SMALLEST, float(table["mean"].abs().max()))


def _colours(edge_set: str):
    """White at zero, the pathway's colour for drops, grey for rises."""
    return sns.blend_palette([STYLE[edge_set][0], "white", GREY], as_cmap=True)


def _map(ax: Axes, part: pd.DataFrame, y: str, x: str, limit: float) -> None:
    """One map; cells carry their number where there is room, else a dot if they differ from zero."""
    grid = part.pivot(index=y, columns=x, values="mean")
    grid = grid.loc[sorted(grid.index, key=_all_last), sorted(grid.columns, key=_all_last)]
    cmap = _colours(part["edge_set"].iloc[0])
    # Ticks are ours: to choose them, heatmap would draw the whole figure once for every map.
    ticks_off = {"xticklabels": False, "yticklabels": False, "cbar": False}
    sns.heatmap(grid, cmap=cmap, vmin=-limit, vmax=limit, ax=ax, linewidths=0.4, linecolor="#F4F4F4", **ticks_off)
    numbers = len(part) <= MOST_NUMBERS
    places = zip(grid.index.get_indexer(part[y]), grid.columns.get_indexer(part[x]), strict=True)
    for (row, column), mean, p in zip(places, part["mean"], part["p"], strict=True):
        text = f"{mean:.0f}".replace("-0", "0").replace("-", "−") if numbers else "•" * (p < 0.05)
        colour = "white" if abs(mean) > 0.6 * limit else "#333333"
        weight = "bold" if p < 0.05 else "normal"
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=6, color=colour, fontweight=weight)
    for ticks, names in ((ax.set_yticks, grid.index), (ax.set_xticks, grid.columns)):
        step = 1 if len(names) <= 12 else 4
        ticks(np.arange(0, len(names), step) + 0.5, [name or "all" for name in names[::step]])
    ax.tick_params(labelsize=7, rotation=0, length=0)


def _all_last(number: int) -> tuple[bool, int]:
    """Sorts frames, heads and layers, with 0, which stands for all, at the end."""
    return number == 0, number


def _panel_title(ax: Axes, task: str, part: pd.DataFrame) -> None:
    bold = "bold" if task == stats.MEAN_OF_TASKS else "normal"
    ax.set_title(f"{task_name(task)}\n(n = {part['n_samples'].max()})", fontweight=bold, fontsize=8)


def _scale(fig: Figure, axes: np.ndarray, limit: float, edge_set: str, label: str) -> None:
    """One colour bar beside the panels that share it."""
    colours = plt.cm.ScalarMappable(plt.Normalize(-limit, limit), _colours(edge_set))
    bar = fig.colorbar(colours, ax=axes, shrink=0.85, pad=0.02)
    bar.set_label(label, fontsize=7.5)
    bar.ax.tick_params(labelsize=7)
