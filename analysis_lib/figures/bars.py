"""Figures of single numbers: accuracies, keywords, pathways, verdicts and costs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from analysis_lib.figures.style import AMBER, GREEN, GREY, STYLE, VERDICTS, Drawn, headline, layer_axis, task_name
from analysis_lib.findings import claims, stats
from analysis_lib.findings.analysed import Analysed, Table
from analysis_lib.instrument.edges import ROUTES
from analysis_lib.study.rows import SAMPLE

CONDITIONS = {  # condition: colour
    "all frames in order": GREEN, "shuffled frames": "#8FB98B", "single frame": "#B9C7D4", "text only": "#D9D9D9",
}  # fmt: skip
PATHWAYS = {  # pathway: words for the reader, colour
    "full": ("full attention", GREY), "effective": ("effective pathway", GREEN),
    "strict": ("pathway, template route closed", "#2E7D32"),
    "random_matched": ("random layers, same edges per group", "#BDBDBD"),
    "random": ("random edges, same number", "#D9D9D9"),
    "all_cross_frame_off": ("no cross-frame edges at all", "#F0C6DD"),
}  # fmt: skip
KINDS = {"spatial": "#9DACBB", "temporal": "#6E8DAB"}  # kind of keyword: colour
CELL = ["kind", "keyword", "layer"]
BARS = {"errorbar": None, "saturation": 1}  # intervals are drawn from the table


def _whiskers(ax: plt.Axes, table: pd.DataFrame, places: np.ndarray, *, across: bool, width: float) -> None:
    """The intervals of bars at `places`; bars lie `across` the page, or stand."""
    lengths = np.vstack([table["mean"] - table["low"], table["high"] - table["mean"]]).clip(min=0)
    x, y, way = (table["mean"], places, "xerr") if across else (places, table["mean"], "yerr")
    ax.errorbar(x, y, **{way: lengths}, fmt="none", ecolor="#333333", elinewidth=width)


def accuracy(baseline: pd.DataFrame, controls: pd.DataFrame, title: str) -> Drawn:
    """Right answers per task (and their mean) and condition with intervals; the black strokes are chance."""
    rows = pd.concat([baseline.assign(control="all frames in order"), controls])
    table = stats.task_intervals(rows, "correct", ["control"], scale=100)
    table["chance"] = table["task"].map(stats.accuracy_levels(baseline)["chance"])
    chance = table.groupby("task", sort=False)["chance"].first()
    names, places = [name for name in CONDITIONS if name in set(table["control"])], np.arange(len(chance))
    fig, ax = plt.subplots(figsize=(7.6, 0.6 * len(chance) + 1.3))
    sns.barplot(table, y="task", x="mean", hue="control", hue_order=names, palette=CONDITIONS, ax=ax, **BARS)
    for i, name in enumerate(names):
        part = table[table["control"] == name].set_index("task").reindex(chance.index)
        _whiskers(ax, part, places - 0.4 + 0.8 / len(names) * (i + 0.5), across=True, width=0.9)
    ax.vlines(chance, places - 0.42, places + 0.42, color="black", lw=1.6, label="chance")
    ax.set(xlim=(0, 100), xlabel="right answers (%), 95 % interval over videos", ylabel="")
    ax.set_yticks(places, chance.index.map(task_name))
    ax.get_legend().remove()
    headline(fig, title, ax.get_legend_handles_labels()[0], ncols=5, handlelength=1.4, columnspacing=1.2)
    return fig, table


def keywords(lens: Table, baseline: pd.DataFrame, title: str) -> Drawn:
    """Left: in which layers each kind's hits are, in %. Right: where in depth each word comes up, shallow first. The
    table has hits per question, kind and layer; `share` is the part of a kind's hits in the layer."""
    rows, cell = Analysed(lens, baseline, kind=list(KINDS)), [*SAMPLE, "video", "kind", "layer"]
    hits = (part.groupby(cell, as_index=False)["count"].sum() for part in rows.parts("kind", "layer", "count"))
    table = stats.mean_interval(hits, "count", ["kind", "layer"])
    total = table.groupby("kind")["mean"].sum()
    whole = table["kind"].map(total)
    table["share"] = table["mean"] / whole
    shares = table.assign(**{name: 100 * table[name] / whole for name in ("mean", "low", "high")}).sort_values("layer")
    names = {kind: f"{kind}: {total.get(kind, 0):.1f} hits" for kind in KINDS}
    colours = {"hue": shares["kind"].map(names), "hue_order": names.values(), "palette": [*KINDS.values()]}
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.9), width_ratios=[1.15, 1])
    sns.barplot(shares, x="layer", y="mean", ax=left, **colours, **BARS)
    for kind, shift in (("spatial", -0.2), ("temporal", 0.2)):
        part = shares[shares["kind"] == kind]
        _whiskers(left, part, np.arange(len(part)) + shift, across=False, width=0.8)
    plt.setp(left.containers[1], hatch="////")
    layers = sorted(shares["layer"].unique())
    step = -(-len(layers) // 12)
    left.set_xticks(range(0, len(layers), step), layers[::step])
    left.set(xlabel="layer", ylabel="share of the kind's hits on video tokens (%)")
    left.tick_params(axis="x", labelsize=7)
    note = f"mean of {table['n_samples'].max()} questions, 95 % intervals"
    sns.move_legend(left, "lower left", bbox_to_anchor=(0, 1), ncol=2, title=note, alignment="left", fontsize=7.5)
    words = Analysed(lens, baseline).parts("kind", "keyword", "layer", "count")
    _word_grid(right, pd.concat([part.groupby(CELL, as_index=False)["count"].sum() for part in words]))
    headline(fig, title)
    return fig, table


def _word_grid(ax: plt.Axes, rows: pd.DataFrame) -> None:
    """Share of each word's hits per layer for the 20 most frequent words, by mean depth; temporal words in bold."""
    table = rows.groupby(CELL, as_index=False)["count"].sum()
    table["hits"] = table.groupby("keyword")["count"].transform("sum")
    table = table[table["hits"] > 0].assign(share=lambda kept: kept["count"] / kept["hits"])
    if table.empty:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "no video token shows a keyword", ha="center", fontsize=8)
        return
    words = table.assign(depth=table["share"] * table["layer"]).groupby("keyword")
    words = words.agg({"kind": "first", "hits": "first", "depth": "sum"}).nlargest(20, "hits").sort_values("depth")
    grid = table.pivot(index="keyword", columns="layer", values="share").loc[words.index]
    bar = {"label": "share of the word's hits"}
    sns.heatmap(grid, cmap="Greys", ax=ax, cbar_kws=bar, linewidths=0.3, yticklabels=False)
    ax.set(xlabel="layer", ylabel="")
    ax.set_yticks(np.arange(len(words)) + 0.5, words.index, rotation=0, fontsize=7.5)
    for label, kind in zip(ax.get_yticklabels(), words["kind"], strict=True):
        weight, colour = ("bold", "#35618F") if kind == "temporal" else ("normal", "#555555")
        label.set(fontweight=weight, color=colour)


def open_layers(ranges: dict[str, dict[str, tuple[int, int]]], n_layers: int) -> Drawn:
    """The layers in which each route is open by each rule; a route that a rule closes everywhere has no layers."""
    rows = [(rule, route, *spans.get(name, (np.nan, np.nan)))
            for rule, spans in ranges.items() for name, route in ROUTES.items()]  # fmt: skip
    table = pd.DataFrame(rows, columns=["rule", "edge_set", "first", "last"])
    fig, ax = plt.subplots(figsize=(7.6, 0.27 * len(table) + 1.1))
    bars = table.dropna()
    colours = [STYLE[name][0] for name in bars["edge_set"]]
    ax.barh(bars.index, bars["last"] - bars["first"] + 1, left=bars["first"] - 0.5, color=colours, height=0.62)
    for row in table.itertuples():
        text = "closed" if np.isnan(row.first) else f"layers {row.first:.0f} to {row.last:.0f}"
        ax.text(n_layers + 0.7, row.Index, text, va="center", fontsize=8)
    ax.set(ylim=(len(table) - 0.4, -0.6), xlabel="layer")
    ax.set_yticks(range(len(table)), table["rule"] + ": " + table["edge_set"].str.replace("->", " → "))
    headline(fig, "Layers in which each route stays open")
    layer_axis(ax, n_layers)
    return fig, table


def pathways(pathway: pd.DataFrame, baseline: pd.DataFrame, title: str) -> Drawn:
    """Accuracy of each pathway (mean of tasks, dots: single tasks) beside the share of edges it keeps, both in %."""
    kept = (100 * pathway["edges_kept"] / pathway["edges_total"]).groupby(pathway["pathway"]).mean()
    table = stats.task_intervals(claims.pathway_answers(pathway, baseline), "correct", ["pathway"], scale=100)
    table["edges_kept"] = table["pathway"].map(kept).fillna(100.0)
    dots, order = table[table["task"] != stats.MEAN_OF_TASKS], sorted(set(table["pathway"]), key=[*PATHWAYS].index)
    means = stats.overall(table).set_index("pathway").loc[order].reset_index()
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 0.42 * len(order) + 1.2), width_ratios=[2.2, 1], sharey=True)
    words, colours = zip(*(PATHWAYS[name] for name in order), strict=True)
    bars = {"y": "pathway", "hue": "pathway", "palette": list(colours), "legend": False} | BARS
    sns.barplot(means, x="mean", ax=left, **bars)
    _whiskers(left, means, np.arange(len(order)), across=True, width=1.1)
    left.scatter(dots["mean"], dots["pathway"].map(order.index) + 0.27, s=9, color="#333333", alpha=0.6, zorder=3, lw=0)
    chance = stats.accuracy_levels(baseline).loc[stats.MEAN_OF_TASKS, "chance"]
    left.axvline(chance, color="black", lw=1.2, ls=":")
    left.text(chance, -0.55, " chance", fontsize=7.5, va="bottom")
    sns.barplot(means, x="edges_kept", ax=right, **bars)
    for y, share in enumerate(means["edges_kept"]):
        right.text(share + 2, y, f"{share:.0f} %", va="center", fontsize=8)
    left.set(xlim=(0, 100), xlabel=f"right answers (%), n = {means['n_samples'].max()}", ylabel="")
    left.set_yticks(range(len(order)), words)
    right.set(xlim=(0, 125), xticks=[0, 50, 100], xlabel="edges kept (%)", ylabel="")
    headline(fig, title)
    return fig, table


def verdicts(table: pd.DataFrame) -> Drawn:
    """Every claim (rows) for every model (columns) as its verdict, with the effect and its interval in words."""
    models = list(dict.fromkeys(table["model"]))
    fig, ax, cells = _grid(table, "model", width=1.9, height=0.36)
    for row, x, y in cells:
        ax.text(x, y - 0.14, row.verdict, ha="center", va="center", fontsize=8, fontweight="bold")
        ax.text(x, y + 0.24, row.brief, ha="center", va="center", fontsize=6.8)
    ax.set_xticks(range(len(models)), models, fontweight="bold")
    headline(fig, "Each finding on each model")
    return fig, table.drop(columns="brief")


def fragility(table: pd.DataFrame) -> Drawn:
    """Every claim (rows) under every variant of the study (columns) of `findings.fragility`: the effect on the colour
    of its verdict, framed where the verdict is another than the reported one."""
    variants = list(dict.fromkeys(table["variant"]))
    fig, ax, cells = _grid(table, "variant", width=0.62, height=0.3)
    for row, x, y in cells:
        effect = "–" if np.isnan(row.effect) else f"{row.effect:.{2 if 'depth' in row.unit else 1}f}".replace("-", "−")
        ax.text(x, y, effect, ha="center", va="center", fontsize=7, fontweight="bold" if row.flips else "normal")
        if row.flips:
            ax.add_patch(plt.Rectangle((x - 0.46, y - 0.42), 0.92, 0.84, fill=False, color="black", lw=1.2))
    ax.set_xticks(range(len(variants)), [name.replace(" ", "\n", 1) for name in variants], fontsize=7)
    flips, n = int(table["flips"].sum()), int((table["variant"] != variants[0]).sum())
    names = dict.fromkeys(table.loc[table["flips"], "name"])
    where = f": {', '.join(names)}" if flips else ""
    patches = [plt.Rectangle((0, 0), 1, 1, color=VERDICTS[v], alpha=0.22, label=v) for v in VERDICTS]
    headline(fig, f"{flips} of {n} repetitions end with another verdict{where}", patches, ncols=3)
    return fig, table.drop(columns="brief")


def _grid(table: pd.DataFrame, column: str, *, width: float, height: float) -> tuple[plt.Figure, plt.Axes, list]:
    """Claims as rows, the values of `column` as columns, each cell in the colour of its verdict; cells are `width` by
    `height` inches. The list has the table's rows with the place of each: (row, x, y)."""
    rows, columns = list(dict.fromkeys(table["statement"])), list(dict.fromkeys(table[column]))
    fig, ax = plt.subplots(figsize=(4.1 + width * len(columns), height * len(rows) + 1.2))
    cells = [(row, columns.index(getattr(row, column)), rows.index(row.statement)) for row in table.itertuples()]
    for row, x, y in cells:
        ax.add_patch(plt.Rectangle((x - 0.49, y - 0.46), 0.98, 0.92, color=VERDICTS[row.verdict], alpha=0.22, lw=0))
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    sns.despine(ax=ax, left=True, bottom=True)
    return fig, ax, cells


def bench(table: pd.DataFrame, gain: pd.DataFrame) -> Drawn:
    """Left: seconds of a sweep by frames and procedure. Right: operations of LLaVA-NeXT-7B's shape by class. `table`
    and `gain` are those of `bench.sweep_costs` and `bench.ratios`."""
    same = {"layers": 12, "options": 4, "edge_sets": "all"}  # only the number of frames differs
    frames = table[(table[[*same]] == pd.Series(same)).all(axis=1) & table["model"].str.startswith("random")]
    large = table[table["model"].str.contains("7B") & table["edge_sets"].isin(gain.index.unique("edge_sets"))]
    colours = {"hue": "procedure", "palette": {"exact": GREEN, "full": GREY, "published": AMBER}}
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
    sns.lineplot(frames, x="frames", y="seconds", marker="o", ax=left, **colours)
    left.set(xscale="log", yscale="log", ylabel="seconds for one sample's sweep", xticks=sorted(set(frames["frames"])))
    left.xaxis.set_major_formatter("{x:.0f}")
    left.minorticks_off()
    sns.barplot(large, y="edge_sets", x=large["gflop"] / 1e3, ax=right, legend=False, saturation=1, **colours)
    right.set(xscale="log", xlabel="10¹² operations, LLaVA-NeXT-7B's shape", ylabel="")
    times = gain.loc[[*zip(*(frames[name] for name in gain.index.names), strict=True)], "full"]
    less = f"{times.min():.0f} to {times.max():.0f} times less time"
    headline(fig, f"An exact sweep takes {less} than one complete pass per condition")
    return fig, table
