"""The style of all figures, and how a figure is saved. Every pathway has one colour everywhere, and line styles repeat
what colours say, for print. Titles come from claims or from the numbers: none says what the numbers do not."""

import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import PIL.Image
import seaborn as sns
from IPython.display import Image, Markdown, display

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.findings import claims, stats

pd.set_option("display.max_colwidth", None)  # tables show their sentences whole
Drawn = tuple[plt.Figure, pd.DataFrame]  # a figure and the table of the numbers in it
RED, BLUE, GREEN, PURPLE, ORANGE, _, _, PINK, _ = sns.color_palette("Set1").as_hex()
GREY, AMBER = "#666666", "#FFB302"
VERDICTS = {"reproduced": GREEN, "undecided": AMBER, "not reproduced": RED}
STYLE = {  # series: colour, dash pattern, words for the reader; colours follow the paper's figures
    "cross-frame": (GREEN, "-", "frame ↛ later frames"),
    "video model": (GREEN, "-", "video model"), "image model": (PINK, "--", "image-only base model"),
    "video->question": (PURPLE, "-", "video ↛ question"), "video->last": (BLUE, "--", "video ↛ last token"),
    "question->last": (ORANGE, "-", "question ↛ last token"), "last->last": (RED, ":", "last token ↛ itself"),
    "question_only->last": (RED, "--", "question without options ↛ last token"),
    "true_option->last": (ORANGE, "-", "true option ↛ last token"),
    "false_options->last": (BLUE, ":", "false options ↛ last token"),
    "video->question_only": (RED, "-", "video ↛ question without options"),
    "question_only->true_option": (RED, "--", "question without options ↛ true option"),
    "video->true_option": (PURPLE, ":", "video ↛ true option"),
    "true option": (AMBER, "-", "true option"), "false option": (BLUE, "--", "false options (mean)"),
    "from layer 1": (GREEN, "-", "cut from layer 1 up to here"),
    "to last layer": (GREEN, "--", "cut from here to the last layer"),
    "all pairs": (GREEN, "-", "all pairs of frames this far apart, together"),
    "one pair": (GREEN, "--", "one of these pairs alone (mean)"),
}  # fmt: skip
sns.set_theme(context="paper", style="ticks", rc={  # the one place where the look of all figures is set
    "font.family": "DejaVu Sans", "axes.titlelocation": "left", "axes.titlesize": 9, "axes.labelsize": 9,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False, "figure.dpi": 110,
    "savefig.dpi": 130, "pdf.fonttype": 42, "lines.linewidth": 1.8, "axes.linewidth": 0.8, "axes.spines.top": False,
    "axes.spines.right": False, "figure.constrained_layout.use": True,
})  # fmt: skip


def save(fig: plt.Figure, name: str, table: pd.DataFrame, alt: str, *, model: str, out: str = "") -> None:
    """Write NAME.png, NAME.pdf and NAME.csv (the numbers in the picture) to the model's folder in the committed
    figures, or below `out`, and show the picture with `alt` as alternative text and caption. The same numbers write
    the same bytes. Raises StudyError for a folder that cannot be written."""
    folder = (Path(out) / "figures" if out else paths.FIGURES) / Path(model).name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_png(fig, folder / f"{name}.png")
        fig.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Producer": None})
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    except OSError as error:
        failed = f"cannot write {folder / name}: {error.strerror or error}"
        raise StudyError(f"{failed}; name another folder with --out") from error
    finally:
        plt.close(fig)
    picture = (folder / f"{name}.png").read_bytes()
    display(Image(data=picture, alt=alt, width=int(110 * fig.get_figwidth())), Markdown(f"*{alt}*"))


def _write_png(fig: plt.Figure, file: Path) -> None:
    """In 256 colours, a third of the bytes: pictures travel inside notebooks. The paper stays white."""
    fig.savefig(buffer := BytesIO(), format="png")
    whole = PIL.Image.open(buffer).convert("RGB")
    whole.quantize(256, PIL.Image.Quantize.MEDIANCUT, kmeans=2, dither=PIL.Image.Dither.NONE).save(file, optimize=True)


def words_of(series: str, readers: str = "later") -> str:
    """Words for a series, or for a step of the flow, of a model whose frames are read by `readers` frames
    (`findings.neighbours`)."""
    words = STYLE[series][2] if series in STYLE else series
    return words.replace("later frames", f"{readers} frames")


def task_name(task: str) -> str:
    """A task's name for a reader."""
    return task.replace("_", " ").capitalize()


def panel_title(ax: plt.Axes, part: pd.DataFrame, between: str = " ", **font: object) -> None:
    """The task of a panel, bold for the mean of tasks, and its number of questions."""
    task = part["task"].iloc[0]
    weight = "bold" if task == stats.MEAN_OF_TASKS else "normal"
    ax.set_title(f"{task_name(task)}{between}(n = {part['n_samples'].max()})", fontweight=weight, **font)


def task_axes(n: int, panel: tuple[float, float], around: tuple[float, float], **shared: bool) -> tuple:
    """A figure and axes (lines, columns) for `n` panels, three a line; (wide, high) in inches a panel and around."""
    lines, columns = -(-n // 3), min(3, n)
    size = (panel[0] * columns + around[0], panel[1] * lines + around[1])
    fig, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, **shared)
    for ax in axes.flat[n:]:
        ax.set_visible(False)
    return fig, axes


def layer_axis(ax: plt.Axes, n_layers: int) -> None:
    """Layers on x: the first, then every few, and the same margin on both sides."""
    step = next((step for step in (1, 3, 4, 5, 8) if n_layers / step <= 5), 10)
    ax.set(xlim=(0.4, n_layers + 0.6), xticks=sorted({1, *range(step, n_layers + 1, step)}))


def headline(fig: plt.Figure, title: str, handles: Sequence[plt.Artist] = (), **legend: object) -> None:
    """The title in bold above everything, and below it a legend of `handles`."""
    title = textwrap.fill(title, int(11 * fig.get_figwidth()))  # eleven bold letters an inch
    fig.legend(handles=handles, title=title, title_fontproperties={"weight": "bold", "size": 10.5}, alignment="left",
               loc="outside upper left", **legend)  # fmt: skip


def strongest(table: pd.DataFrame, what: str, form: str) -> str:
    """A title from the numbers: the cell with the largest drop, for tasks together, if it differs from zero and is as
    large as a drop must be to count (`claims.SMALLEST`). `form` names a cell by its columns."""
    every, least = stats.overall(table), claims.SMALLEST
    cell = every.loc[every["mean"].idxmin()]
    words = STYLE[cell["edge_set"]][2] if "edge_set" in cell else ""
    name, drop = form.format(**cell, words=words), f"{max(-cell['mean'], 0):.1f}\u00a0%"
    if cell["mean"] <= -least and cell["p"] < 0.05:
        return f"The {what} that matters most: {name} (drop of {drop})"
    return f"No {what} alone costs the answer {least:g}\u00a0% for certain; the largest drop is {drop} ({name})"
