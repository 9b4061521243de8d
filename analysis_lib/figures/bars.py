"""Figures of single numbers: accuracies, keywords, pathways and verdicts. Style and colours are those of `plots.py`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.pyplot import Axes, Figure

from analysis_lib.figures.style import AMBER, GREEN, GREY, SPATIAL, STYLE, TEMPORAL, headline, layer_axis, task_name
from analysis_lib.findings import claims, stats
from analysis_lib.instrument.edges import ROUTES

CONDITIONS = {  # condition: colour
    "all frames in order": GREEN, "shuffled frames": "#8FB98B", "single frame": "#B9C7D4", "text only": "#D9D9D9",
}  # fmt: skip
PATHWAYS = {  # pathway: words for the reader, colour
    "full": ("full attention", GREY),
    "effective": ("effective pathway", GREEN),
    "strict": ("pathway, template route closed", "#2E7D32"),
    "random_matched": ("random layers, same edges per group", "#BDBDBD"),
    "random": ("random edges, same number", "#D9D9D9"),
    "all_cross_frame_off": ("no cross-frame edges at all", "#F0C6DD"),
}
VERDICTS = {"reproduced": GREEN, "undecided": AMBER, "not reproduced": "#E41A1C"}


def _bars(table: pd.DataFrame) -> np.ndarray:
    """Lengths of error bars below and above the mean, (2, rows)."""
    return np.vstack([table["mean"] - table["low"], table["high"] - table["mean"]]).clip(min=0)


def percent(table: pd.DataFrame) -> pd.DataFrame:
    """The same table with mean and interval in percent."""
    return table.assign(**{name: 100 * table[name] for name in ("mean", "low", "high")})


def accuracy_table(baseline: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in % per task (and their mean) and condition, with the chance level of the same questions."""
    rows = pd.concat([baseline.assign(control="all frames in order"), controls])
    table = percent(stats.task_intervals(rows, "correct", ["control"]))
    chance = (100 / baseline["options"].map(len)).groupby(baseline["task"]).mean()
    return table.assign(chance=table["task"].map(chance).fillna(chance.mean()))


def accuracy_figure(table: pd.DataFrame, title: str) -> Figure:
    """Accuracy per task and condition with intervals; the black strokes are chance."""
    chance = table.groupby("task", sort=False)["chance"].first()
    tasks, places = [*chance.index], np.arange(len(chance))
    names = [name for name in CONDITIONS if name in set(table["control"])]
    fig, ax = plt.subplots(figsize=(7.6, 0.6 * len(tasks) + 1.3))
    sns.barplot(table, y="task", x="mean", hue="control", order=tasks, hue_order=names,
                palette={name: CONDITIONS[name] for name in names}, errorbar=None, saturation=1, ax=ax)  # fmt: skip
    for i, name in enumerate(names):
        part = table[table["control"] == name].set_index("task").reindex(tasks)
        y = places - 0.4 + 0.8 / len(names) * (i + 0.5)
        ax.errorbar(part["mean"], y, xerr=_bars(part), fmt="none", ecolor="#333333", elinewidth=0.9)
    ax.vlines(chance, places - 0.42, places + 0.42, color="black", lw=1.6, label="chance")
    ax.set(xlim=(0, 100), xlabel="right answers (%), 95 % interval over videos", ylabel="")
    ax.set_yticks(places, [task_name(task) for task in tasks])
    handles, labels = ax.get_legend_handles_labels()
    ax.get_legend().remove()
    headline(fig, title, handles, labels=labels, ncols=5, handlelength=1.4, columnspacing=1.2)
    sns.despine(ax=ax)
    return fig


def keyword_table(lens: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Hits per question, kind of keyword and layer, with intervals; `share`: the part of a kind's hits in the layer."""
    rows = lens[lens["kind"].isin(["spatial", "temporal"])]
    hits = rows.groupby(["task", "sample_id", "kind", "layer"], as_index=False)["count"].sum()
    table = stats.mean_interval(stats.attach(hits, baseline), "count", ["kind", "layer"])
    return table.assign(share=table["mean"] / table.groupby("kind")["mean"].transform("sum"))


def word_table(lens: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Share of each keyword's hits per layer for the 20 most frequent words; `place` orders them by depth."""
    table = stats.attach(lens, baseline).groupby(["kind", "keyword", "layer"], as_index=False)["count"].sum()
    table["hits"] = table.groupby("keyword")["count"].transform("sum")
    table = table[table["hits"] > 0].assign(share=lambda rows: rows["count"] / rows["hits"])
    words = table.assign(depth=table["share"] * table["layer"]).groupby("keyword")
    words = words.agg(hits=("hits", "first"), depth=("depth", "sum")).nlargest(20, "hits")
    places = {word: place for place, word in enumerate(words["depth"].sort_values().index)}
    return table.assign(place=table["keyword"].map(places)).dropna().sort_values(["place", "layer"])


def keyword_figure(kinds: pd.DataFrame, words: pd.DataFrame, title: str) -> Figure:
    """Left: in which layers each kind's hits are, in %. Right: where in depth each word comes up, shallow first."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.9), width_ratios=[1.15, 1])
    total = kinds.groupby("kind")["mean"].sum()
    names = {kind: f"{kind}: {total.get(kind, 0):.1f} hits" for kind in ("spatial", "temporal")}
    shares = kinds.assign(hits=kinds["kind"].map(names)).sort_values("layer")
    for column in ("mean", "low", "high"):
        shares[column] = 100 * kinds[column] / kinds["kind"].map(total)
    palette = dict(zip(names.values(), (SPATIAL, TEMPORAL), strict=True))
    options = {"hue_order": [*names.values()], "palette": palette, "errorbar": None, "saturation": 1}
    sns.barplot(shares, x="layer", y="mean", hue="hits", ax=left, **options)
    for kind, shift in (("spatial", -0.2), ("temporal", 0.2)):
        part = shares[shares["kind"] == kind]
        x = np.arange(len(part)) + shift
        left.errorbar(x, part["mean"], yerr=_bars(part), fmt="none", ecolor="#333333", elinewidth=0.8)
    for bar in left.containers[1]:
        bar.set_hatch("////")
    left.set(xlabel="layer", ylabel="share of the kind's hits on video tokens (%)")
    left.tick_params(axis="x", labelsize=7)
    note = f"mean of {kinds['n_samples'].max()} questions, 95 % intervals"
    sns.move_legend(left, "lower left", bbox_to_anchor=(0, 1), ncol=2, title=note, alignment="left", fontsize=7.5)
    _word_grid(right, words)
    headline(fig, title)
    sns.despine(ax=left)
    return fig


def _word_grid(ax: Axes, words: pd.DataFrame) -> None:
    """One row per word, darker where more of its hits are; temporal words in bold."""
    if words.empty:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "no video token shows a keyword", ha="center", fontsize=8)
        return
    grid = words.pivot(index="place", columns="layer", values="share")
    bar = {"label": "share of the word's hits"}
    sns.heatmap(grid, cmap="Greys", ax=ax, cbar_kws=bar, linewidths=0.3, yticklabels=False)
    names = words.drop_duplicates("place").set_index("place")
    ax.set(xlabel="layer", ylabel="")
    ax.set_yticks(np.arange(len(names)) + 0.5, names["keyword"], rotation=0, fontsize=7.5)
    for label, kind in zip(ax.get_yticklabels(), names["kind"], strict=True):
        temporal = kind == "temporal"
        label.set(fontweight="bold" if temporal else "normal", color="#35618F" if temporal else "#555555")


def pathway_table(pathway: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in % per task (and their mean) and pathway, with the share of edges kept in %."""
    kept = (100 * pathway["edges_kept"] / pathway["edges_total"]).groupby(pathway["pathway"]).mean()
    table = percent(stats.task_intervals(claims.pathway_answers(pathway, baseline), "correct", ["pathway"]))
    return table.assign(edges_kept=table["pathway"].map(kept).fillna(100.0))


def pathway_figure(table: pd.DataFrame, chance: float, title: str) -> Figure:
    """Accuracy of each pathway (mean of tasks, dots: single tasks) beside the share of edges it keeps."""
    tasks, order = table[table["task"] != stats.MEAN_OF_TASKS], sorted(set(table["pathway"]), key=[*PATHWAYS].index)
    means = stats.overall(table).set_index("pathway").loc[order].reset_index()
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 0.42 * len(order) + 1.2), width_ratios=[2.2, 1], sharey=True)
    options = {
        "y": "pathway", "order": order, "hue": "pathway", "palette": [PATHWAYS[name][1] for name in order],
        "legend": False, "errorbar": None, "saturation": 1,
    }  # fmt: skip
    sns.barplot(means, x="mean", ax=left, **options)
    left.errorbar(means["mean"], range(len(order)), xerr=_bars(means), fmt="none", ecolor="#333333", elinewidth=1.1)
    below = tasks["pathway"].map(order.index) + 0.27
    left.scatter(tasks["mean"], below, s=9, color="#333333", alpha=0.6, zorder=3, lw=0)
    left.axvline(chance, color="black", lw=1.2, ls=":")
    left.text(chance, -0.55, " chance", fontsize=7.5, va="bottom")
    sns.barplot(means, x="edges_kept", ax=right, **options)
    for y, kept in enumerate(means["edges_kept"]):
        right.text(kept + 2, y, f"{kept:.0f} %", va="center", fontsize=8)
    left.set(xlim=(0, 100), xlabel=f"right answers (%), n = {means['n_samples'].max()}", ylabel="")
    left.set_yticks(range(len(order)), [PATHWAYS[name][0] for name in order])
    right.set(xlim=(0, 125), xticks=[0, 50, 100], xlabel="edges kept (%)", ylabel="")
    headline(fig, title)
    sns.despine(fig=fig)
    return fig


def range_table(ranges: dict[str, dict[str, tuple[int, int]]]) -> pd.DataFrame:
    """Open layers per rule and route, one row each; a route that a rule closes everywhere has no layers."""
    rows = [(rule, route, *spans.get(name, (np.nan, np.nan)))
            for rule, spans in ranges.items() for name, route in ROUTES.items()]  # fmt: skip
    return pd.DataFrame(rows, columns=["rule", "edge_set", "first", "last"])


def range_figure(table: pd.DataFrame, n_layers: int, title: str) -> Figure:
    """The layers in which each route is open, one line per rule and route."""
    fig, ax = plt.subplots(figsize=(7.6, 0.27 * len(table) + 1.1))
    for y, row in enumerate(table.itertuples()):
        text = "closed"
        if not np.isnan(row.first):
            ax.barh(y, row.last - row.first + 1, left=row.first - 0.5, color=STYLE[row.edge_set][0], height=0.62)
            text = f"layers {row.first:.0f} to {row.last:.0f}"
        ax.text(n_layers + 0.7, y, text, va="center", fontsize=8)
    ax.set(ylim=(len(table) - 0.4, -0.6), xlabel="layer")
    ax.set_yticks(range(len(table)), table["rule"] + ": " + table["edge_set"].str.replace("->", " → "))
    headline(fig, title)
    layer_axis(ax, n_layers)
    return fig


def verdict_figure(table: pd.DataFrame, title: str) -> Figure:
    """Every claim (rows) for every model (columns) as its verdict, with the effect and its interval in words."""
    rows, models = list(dict.fromkeys(table["statement"])), list(dict.fromkeys(table["model"]))
    fig, ax = plt.subplots(figsize=(4.1 + 1.9 * len(models), 0.36 * len(rows) + 1.2))
    for row in table.itertuples():
        x, y = models.index(row.model), rows.index(row.statement)
        ax.add_patch(plt.Rectangle((x - 0.49, y - 0.46), 0.98, 0.92, color=VERDICTS[row.verdict], alpha=0.22, lw=0))
        ax.text(x, y - 0.14, row.verdict, ha="center", va="center", fontsize=8, fontweight="bold")
        ax.text(x, y + 0.24, row.brief, ha="center", va="center", fontsize=6.8)
    ax.set(xlim=(-0.5, len(models) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    ax.set_xticks(range(len(models)), models, fontweight="bold")
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    headline(fig, title)
    sns.despine(ax=ax, left=True, bottom=True)
    return fig


def cost_figure(table: pd.DataFrame, gain: pd.DataFrame) -> Figure:
    """Left: seconds of a sweep by frames and procedure. Right: operations of LLaVA-NeXT-7B's shape by class.

    `table` and `gain` are those of `bench.sweep_costs` and `bench.ratios`.
    """
    same = {"layers": 12, "options": 4, "edge_sets": "all"}  # only the number of frames differs
    frames = table[(table[[*same]] == pd.Series(same)).all(axis=1) & table["model"].str.startswith("random")]
    large = table[table["model"].str.contains("7B") & table["edge_sets"].isin(gain.index.unique("edge_sets"))]
    colours = {"exact": GREEN, "full": GREY, "published": AMBER}
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
    sns.lineplot(frames, x="frames", y="seconds", hue="procedure", palette=colours, marker="o", ax=left)
    left.set(xscale="log", yscale="log", ylabel="seconds for one sample's sweep", xticks=sorted(set(frames["frames"])))
    left.xaxis.set_major_formatter("{x:.0f}")
    left.minorticks_off()
    bars = large.assign(tera=large["gflop"] / 1e3)
    sns.barplot(bars, y="edge_sets", x="tera", hue="procedure", palette=colours, ax=right, legend=False, saturation=1)
    right.set(xscale="log", xlabel="10¹² operations, LLaVA-NeXT-7B's shape", ylabel="")
    times = gain.loc[[*zip(*(frames[name] for name in gain.index.names), strict=True)], "full"]
    words = f"{times.min():.0f} to {times.max():.0f} times less time than one complete pass per condition"
    headline(fig, f"An exact sweep takes {words}")
    sns.despine(fig=fig)
    return fig
