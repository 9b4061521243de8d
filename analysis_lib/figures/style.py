"""Figures of measured curves, and the style of all figures: every pathway has one colour everywhere.

Tables and pictures are apart: a `*_table` function turns stored rows into a small tidy frame with means and 95 %
intervals over videos (`stats.py`), the drawing functions take such a frame and return a Figure, and `save_figure`
writes the picture (png, pdf) with its frame (csv) beside it. Titles come from claims, so a title cannot say what the
numbers do not. Line styles repeat what colours say, for print.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Image, Markdown, display
from matplotlib.pyplot import Artist, Axes, Figure

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.findings import stats

pd.set_option("display.max_colwidth", None)  # tables show their sentences whole
RED, BLUE, GREEN, PURPLE, ORANGE, _, _, PINK, _ = sns.color_palette("Set1").as_hex()
GREY, AMBER, SPATIAL, TEMPORAL = "#666666", "#FFB302", "#9DACBB", "#6E8DAB"
# series: colour, dash pattern, words for the reader. Colours follow the paper's figures.
STYLE: dict[str, tuple[str, str, str]] = {
    "cross-frame": (GREEN, "-", "frame ↛ later frames"),
    "video model": (GREEN, "-", "video model"),
    "image model": (PINK, "--", "image-only base model"),
    "video->question": (PURPLE, "-", "video ↛ question"),
    "video->last": (BLUE, "--", "video ↛ last token"),
    "question->last": (ORANGE, "-", "question ↛ last token"),
    "last->last": (RED, ":", "last token ↛ itself"),
    "question_only->last": (RED, "--", "question without options ↛ last token"),
    "true_option->last": (ORANGE, "-", "true option ↛ last token"),
    "false_options->last": (BLUE, ":", "false options ↛ last token"),
    "video->question_only": (RED, "-", "video ↛ question without options"),
    "question_only->true_option": (RED, "--", "question without options ↛ true option"),
    "video->true_option": (PURPLE, ":", "video ↛ true option"),
    "true option": (AMBER, "-", "true option"),
    "false option": (BLUE, "--", "false options (mean)"),
    "from layer 1": (GREEN, "-", "cut from layer 1 up to here"),
    "to last layer": (GREEN, "--", "cut from here to the last layer"),
    "all pairs": (GREEN, "-", "all pairs of frames this far apart, together"),
    "one pair": (GREEN, "--", "one of these pairs alone (mean)"),
}
READING = (  # how a panel of knockout curves is read, for captions
    "Bands: 95 % intervals over videos. Strokes at the top: the curve differs from zero there (p < 0.05 for the whole "
    "curve). Hollow points: windows cut short by the first or last layer."
)
sns.set_theme(  # the one place where the look of all figures is set
    context="paper", style="ticks", rc={
        "font.family": "DejaVu Sans", "axes.titlelocation": "left", "axes.titlesize": 9, "axes.labelsize": 9,
        "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False,
        "figure.dpi": 110, "savefig.dpi": 180, "pdf.fonttype": 42, "lines.linewidth": 1.8, "axes.linewidth": 0.8,
        "figure.constrained_layout.use": True,
    },
)  # fmt: skip


def save_figure(fig: Figure, name: str, frame: pd.DataFrame, alt: str, *, model: str, out: str = "") -> None:
    """Write NAME.png, NAME.pdf and NAME.csv (the numbers in the picture) to the model's folder in the committed
    figures, or below `out`, and show the picture with `alt` as alternative text and caption. The same numbers write
    the same bytes. Raises StudyError for a folder that cannot be written.
    """
    folder = (Path(out) / "figures" if out else paths.FIGURES) / Path(model).name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fig.savefig(folder / f"{name}.png", metadata={"Software": None})
        fig.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Producer": None})
        frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    except OSError as error:
        reason = error.strerror or error
        raise StudyError(f"cannot write {folder / name}: {reason}; name another folder with --out") from error
    finally:
        plt.close(fig)
    picture = (folder / f"{name}.png").read_bytes()
    display(Image(data=picture, alt=alt, width=int(110 * fig.get_figwidth())), Markdown(f"*{alt}*"))


def task_name(task: str) -> str:
    """A task's name for a reader."""
    return task.replace("_", " ").capitalize()


def knockout_table(rows: pd.DataFrame, baseline: pd.DataFrame, *, series: str = "edge_set") -> pd.DataFrame:
    """Mean change in % per task, series and layer on correctly answered samples, with intervals. `p` tests each curve
    at all layers at once (`stats.max_t`); `clipped` marks windows that the first or last layer cuts short.
    """
    kept = stats.attach(rows, baseline)
    table = stats.task_intervals(kept, "relative_change", [series, "layer"])
    both = pd.concat([kept, kept.assign(task=stats.MEAN_OF_TASKS)])
    tests = {key: stats.max_t(part, "relative_change") for key, part in both.groupby(["task", series])}
    p = pd.concat(tests, names=["task", series]).reset_index(["task", series])
    width = (kept["last_layer"] - kept["first_layer"]).groupby(kept["layer"]).first()
    clipped = (width < width.max()).rename("clipped").reset_index()
    return table.merge(p, on=["task", series, "layer"], how="left").merge(clipped, on="layer")


def emergence_table(emergence: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """Mean probability in % of the true option and of the false options (their mean) per task and layer."""
    rows = emergence[emergence["normed"]]
    kinds = rows["is_answer"].map({True: "true option", False: "false option"})
    rows = rows.assign(series=kinds, probability=100 * rows["probability"])
    means = rows.groupby(["task", "sample_id", "series", "layer"], as_index=False)["probability"].mean()
    return stats.task_intervals(stats.attach(means, baseline), "probability", ["series", "layer"])


def curve_panels(
    table: pd.DataFrame, title: str, ylabel: str, *, series: str = "edge_set", shade: tuple[float, float] | None = None,
    xlabel: str = "layer at the centre of the cut window",
) -> Figure:  # fmt: skip
    """One panel per task and one for their mean: a line and a 95 % band per series, the same y axis everywhere.

    `shade` marks a band of layers that a claim speaks of; READING says what points and strokes mean.
    """
    names = [name for name in STYLE if name in set(table[series])]
    panels = list(dict.fromkeys(table["task"]))
    columns, lines = min(3, len(panels)), -(-len(panels) // 3)
    size = (2.45 * columns + 0.4, 2.05 * lines + 0.95)
    fig, axes = plt.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax, task in zip(axes.flat, panels, strict=False):
        part = table[table["task"] == task]
        _panel(ax, part, series, names, shade)
        weight = "bold" if task == stats.MEAN_OF_TASKS else "normal"
        ax.set_title(f"{task_name(task)} (n = {part['n_samples'].max()})", fontweight=weight)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    low, high = min(table["low"].min(), 0), max(table["high"].max(), 0)
    room = 0.06 * (high - low)
    axes[0, 0].set_ylim(low - room, high + room * (1 + ("p" in table) * len(names)))
    fig.supxlabel(xlabel, fontsize=9)
    # One line of panels is lower than the label is long.
    fig.supylabel(ylabel if lines > 1 else textwrap.fill(ylabel, 30), fontsize=9)
    handles = [plt.Line2D([], [], color=STYLE[n][0], linestyle=STYLE[n][1], label=STYLE[n][2]) for n in names]
    headline(fig, title, handles, ncols=min(3, len(names)), handlelength=2.6, columnspacing=1.4)
    return fig


def _panel(ax: Axes, table: pd.DataFrame, series: str, names: list[str], shade: tuple[float, float] | None) -> None:
    """Lines, bands, clipped windows and tests of one panel."""
    if shade:
        ax.axvspan(*shade, color="#F0F0F0", zorder=0, lw=0)
    ax.axhline(0, color="#999999", lw=0.8, zorder=1)
    for i, name in enumerate(names):
        colour, dash, _ = STYLE[name]
        part = table[table[series] == name].sort_values("layer")
        sns.lineplot(part, x="layer", y="mean", color=colour, linestyle=dash, errorbar=None, ax=ax, legend=False)
        ax.fill_between(part["layer"], part["low"], part["high"], color=colour, alpha=0.18, lw=0)
        if "clipped" in part:
            short = part[part["clipped"]]
            ax.scatter(short["layer"], short["mean"], s=14, facecolor="white", edgecolor=colour, lw=1.0, zorder=4)
        if "p" in part:
            hit = part.loc[part["p"] < 0.05, "layer"]
            top = ax.get_xaxis_transform()
            ax.hlines([0.985 - 0.035 * i] * len(hit), hit - 0.4, hit + 0.4, color=colour, lw=1.8, transform=top)
    ax.set(xlabel="", ylabel="")
    layer_axis(ax, table["layer"].max())


def layer_axis(ax: Axes, n_layers: int) -> None:
    """Layers on x: the first, then every few, and the same margin on both sides."""
    step = next((step for step in (1, 3, 4, 5, 8) if n_layers / step <= 5), 10)
    ax.set(xlim=(0.4, n_layers + 0.6), xticks=sorted({1, *range(step, n_layers + 1, step)}))
    sns.despine(ax=ax)


def headline(fig: Figure, title: str, handles: Sequence[Artist] = (), **legend: object) -> None:
    """The title in bold above everything, and below it a legend of `handles`."""
    fig.legend(
        handles=handles, title=textwrap.fill(title, int(11 * fig.get_figwidth())),  # eleven bold letters an inch
        title_fontproperties={"weight": "bold", "size": 10.5}, alignment="left", loc="outside upper left", **legend,
    )  # fmt: skip


def half(table: pd.DataFrame) -> tuple[float, float]:
    """The layers of the first half, for `shade`."""
    return 0.5, table["layer"].max() / 2 + 0.5


def middle(table: pd.DataFrame) -> tuple[float, float]:
    """The layers of the middle half, for `shade`."""
    return table["layer"].max() / 4 + 0.5, 3 * table["layer"].max() / 4 + 0.5
