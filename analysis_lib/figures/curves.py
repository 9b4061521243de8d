"""Figures of curves, one panel a task and one for their mean: what a knockout around each layer, or of distant frames,
costs, and after which layer the answer can be read."""

import textwrap
from collections.abc import Collection, Iterator
from operator import itemgetter

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from analysis_lib.figures import style
from analysis_lib.figures.style import GREY, STYLE, Drawn, headline, layer_axis, panel_title, strongest, task_axes
from analysis_lib.findings import stats
from analysis_lib.findings.analysed import Analysed, Table
from analysis_lib.study.rows import SAMPLE, as_rows, stacked

CHANGE = "change of the answer's probability (%)"
# How a panel of knockout curves is read, for captions.
CURVE_NOTE = ("Bands: 95 % intervals over videos. Strokes at the top: the curve differs from zero there (p < 0.05 for "
              "the whole curve). Hollow points: windows cut short by the first or last layer.")  # fmt: skip
FIRST_HALF, MIDDLE_HALF = (0, 0.5), (0.25, 0.75)  # of the depth


def knockout_curves(knockout: Table, baseline: pd.DataFrame, title: str, edge_sets: tuple[str, ...] = (),
                    shade: tuple[float, ...] = (), series: str = "edge_set") -> Drawn:  # fmt: skip
    """What a cut around each layer does to the answer's probability, a curve per edge set (all if none is named), or
    value of another column `series`."""
    table = knockout_table(knockout, baseline, edge_sets, series)
    return _panels(table, title, CHANGE, shade=shade), table


def cross_frame(knockouts: dict[str, Table], baseline: pd.DataFrame, title: str) -> Drawn:
    """Frames cannot read other frames, in the "video model" and its "image model", on the same questions."""
    return knockout_curves(stacked(knockouts), baseline, title, shade=FIRST_HALF, series="series")


def video_question_last(knockout: Table, baseline: pd.DataFrame, title: str) -> Drawn:
    """Video, question and last token cannot read each other."""
    edge_sets = ("video->question", "video->last", "question->last", "last->last")
    return knockout_curves(knockout, baseline, title, edge_sets, MIDDLE_HALF)


def to_true_option(knockout: Table, baseline: pd.DataFrame) -> Drawn:
    """Ways from the video to the right option are cut: straight, or over the question's sentence."""
    edge_sets = ("video->question_only", "question_only->true_option", "video->true_option")
    return knockout_curves(knockout, baseline, "Ways from the video to the right option", edge_sets, MIDDLE_HALF)


def options_to_last(knockout: Table, baseline: pd.DataFrame, title: str) -> Drawn:
    """The last token cannot read the question's sentence, the true option, or the false options."""
    edge_sets = ("question_only->last", "true_option->last", "false_options->last")
    return knockout_curves(knockout, baseline, title, edge_sets)


def window_sizes(widths: pd.DataFrame, baseline: pd.DataFrame, readers: str = "later") -> Drawn:
    """All edge sets for tasks together, one panel a size of window; a frame is read by `readers` frames."""
    parts = [knockout_table(rows, baseline).assign(window=size) for size, rows in widths.groupby("window")]
    table = pd.concat(parts, ignore_index=True)
    every = stats.overall(table)
    panels = every.assign(task=every["window"].map(lambda size: f"window of {size} layer{'s' * (size > 1)}"))
    title = f"Three routes, cut in windows of {', '.join(map(str, table['window'].unique()))} layers"
    return _panels(panels, title, CHANGE.replace("probability", "\nprobability"), readers=readers), table


def frame_distance(pairs: pd.DataFrame, baseline: pd.DataFrame) -> Drawn:
    """Frames equally far apart cannot read each other: "all pairs" together, and "one pair", their mean one by one."""
    alone = pairs[(pairs["query_frame"] > 0) & (pairs["key_frame"] > 0)]
    means = alone.groupby(["task", "sample_id", "distance"], as_index=False)["relative_change"].mean()
    together = pairs.loc[pairs["edge_set"].str.startswith("cross-frame@"), means.columns]
    rows = pd.concat([together.assign(series="all pairs"), means.assign(series="one pair")])
    table = stats.change_table(rows, baseline, ["distance"], series="series")
    title = strongest(table[table["series"] == "all pairs"], "distance", "frames {distance} apart")
    curves = table.rename(columns={"distance": "layer"})  # what the panels have on x
    return _panels(curves, title, CHANGE, "distance between the frames (1 = neighbours)"), table


def halves(up: Table, down: Table, baseline: pd.DataFrame, title: str) -> Drawn:
    """Accuracy on all questions against the layer up to which (`up`, bottom_up windows) or from which (`down`,
    top_down) edges are cut; grey lines: the untouched model (dotted), and chance."""
    cuts = stacked({"from layer 1": up, "to last layer": down}).computed("right", ["correct"], itemgetter("correct"))
    rows = Analysed(cuts, baseline, "all")
    table = stats.task_intervals(rows.parts("series", "layer", "right"), "right", ["series", "layer"], scale=100)
    levels = stats.accuracy_levels(baseline.merge(rows.samples()[["task", "sample_id"]].drop_duplicates()))
    table = table.merge(levels, left_on="task", right_index=True, how="left")
    fig = _panels(table, title, "accuracy (%)", "layer at the border of the cut")
    for ax, (_, part) in zip(fig.axes, table.groupby("task", sort=False), strict=False):
        for name, dash in (("untouched", ":"), ("chance", "-")):
            ax.axhline(part[name].iloc[0], color=GREY, lw=0.9, ls=dash, zorder=1)
    fig.axes[0].set_ylim(0, 106)
    return fig, table


def answer_by_layer(emergence: Table, baseline: pd.DataFrame, title: str) -> Drawn:
    """The true option's probability after each layer, and the mean probability of the false options."""
    table = answer_table(emergence, baseline)
    return _panels(table, title, "probability (%)", "layer", FIRST_HALF), table


def store_growth(table: pd.DataFrame) -> Drawn:
    """Seconds (left) and peak memory (right) of each use of the results store, by number of samples (`bench_store`)."""
    names = {
        "one_more": "one more sample", "one_route": "one task, one edge set", "resume_check": "what a full run lacks",
        "redraw": "redraw of one edge set", "redraw_curves": "curves of eleven edge sets", "fill": "adding the samples",
    }  # fmt: skip
    names |= {use: use for use in table["use"] if use.startswith("notebook")}
    rows = table.assign(use=table["use"].map(names))
    fig, axes = plt.subplots(1, 2, figsize=(9.4, 3.4))
    for ax, value, label in zip(axes, ("seconds", "peak_mb"), ("seconds", "peak memory, MB"), strict=True):
        shown = rows[rows["use"] != names["fill"]] if value == "seconds" else rows
        order = {"hue": "use", "hue_order": list(names.values()), "style": "use", "style_order": list(names.values())}
        sns.lineplot(shown, x="samples", y=value, ax=ax, markers=True, legend=ax is axes[1], palette="tab10", **order)
        ax.set(xscale="log", yscale="log", xlabel="samples of 352 knockouts", ylabel=label)
    sns.move_legend(axes[1], "center left", bbox_to_anchor=(1.02, 0.5), title="", frameon=False)
    most, peak = table["samples"].max(), table["peak_mb"].max()
    headline(fig, f"No use of the results store holds more than {peak:,} MB, up to {most:,} samples")
    return fig, table


def knockout_table(knockout: Table, baseline: pd.DataFrame, edge_sets: Collection[str] = (),
                   series: str = "edge_set") -> pd.DataFrame:  # fmt: skip
    """`stats.change_table` per layer of these edge sets (none: all); `clipped` marks windows that the first or last
    layer cuts short."""
    rows = as_rows(knockout).only(**({"edge_set": edge_sets} if edge_sets else {}))
    table = stats.change_table(rows, baseline, ["layer"], series=series)
    parts = (part.drop_duplicates("layer") for part in rows.parts(["layer", "first_layer", "last_layer"]))
    windows = pd.concat(parts).drop_duplicates("layer").set_index("layer").sort_index()
    width = windows["last_layer"] - windows["first_layer"]
    return table.merge((width < width.max()).rename("clipped").reset_index(), on="layer")


def answer_table(emergence: Table, baseline: pd.DataFrame) -> pd.DataFrame:
    """Mean probability in % of the true option and of the false options (their mean) per task and layer."""
    return stats.task_intervals(_answers(emergence, baseline), "probability", ["series", "layer"])


def _answers(emergence: Table, baseline: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Of each sample, layer and series (true or false option) the mean probability, in %."""
    for part in Analysed(emergence, baseline, normed=[True]).parts("layer", "is_answer", "probability"):
        kinds = part["is_answer"].map({True: "true option", False: "false option"})
        rows = part.assign(series=kinds, probability=100 * part["probability"])
        yield rows.groupby([*SAMPLE, "video", "series", "layer"], as_index=False)["probability"].mean()


def _panels(table: pd.DataFrame, title: str, ylabel: str, xlabel: str = "layer at the centre of the cut window",
            shade: tuple[float, ...] = (), readers: str = "later") -> plt.Figure:  # fmt: skip
    """One panel per task and one for their mean: a line and a 95 % band per series, the same y axis everywhere. `shade`
    marks the layers that a claim speaks of; CURVE_NOTE says what points and strokes mean."""
    series = "series" if "series" in table else "edge_set"
    names = [name for name in STYLE if name in set(table[series])]
    fig, axes = task_axes(table["task"].nunique(), (2.45, 2.05), (0.4, 0.95), sharex=True, sharey=True)
    for ax, (_, panel) in zip(axes.flat, table.groupby("task", sort=False), strict=False):
        n_layers = panel["layer"].max()
        if shade:
            ax.axvspan(*(share * n_layers + 0.5 for share in shade), color="#F0F0F0", zorder=0, lw=0)
        ax.axhline(0, color="#999999", lw=0.8, zorder=1)
        for i, name in enumerate(names):
            _curve(ax, panel[panel[series] == name].sort_values("layer"), name, 0.985 - 0.035 * i)
        ax.set(xlabel="", ylabel="")
        layer_axis(ax, n_layers)
        panel_title(ax, panel)
    low, high = min(table["low"].min(), 0), max(table["high"].max(), 0)
    room = 0.06 * (high - low)
    axes[0, 0].set_ylim(low - room, high + room * (1 + ("p" in table) * len(names)))
    fig.supxlabel(xlabel, fontsize=9)
    # One line of panels is lower than the label is long.
    fig.supylabel(ylabel if len(axes) > 1 else textwrap.fill(ylabel, 30), fontsize=9)
    looks = ((*STYLE[name][:2], style.words_of(name, readers)) for name in names)
    handles = [plt.Line2D([], [], color=colour, linestyle=dash, label=words) for colour, dash, words in looks]
    headline(fig, title, handles, ncols=min(3, len(names)), handlelength=2.6, columnspacing=1.4)
    return fig


def _curve(ax: plt.Axes, part: pd.DataFrame, name: str, height: float) -> None:
    """Line, band, clipped windows and, at a `height` of the panel, tests of one series."""
    colour, dash, _ = STYLE[name]
    sns.lineplot(part, x="layer", y="mean", color=colour, linestyle=dash, errorbar=None, ax=ax, legend=False)
    ax.fill_between(part["layer"], part["low"], part["high"], color=colour, alpha=0.18, lw=0)
    if "clipped" in part:
        short = part[part["clipped"]]
        ax.scatter(short["layer"], short["mean"], s=14, facecolor="white", edgecolor=colour, lw=1.0, zorder=4)
    if "p" in part:
        hit, top = part.loc[part["p"] < 0.05, "layer"], ax.get_xaxis_transform()
        ax.hlines([height] * len(hit), hit - 0.4, hit + 0.4, color=colour, lw=1.8, transform=top)
