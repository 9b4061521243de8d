"""Pictures of single questions and of the whole flow: stored examples, and what other figures measured and tested."""

import re
import textwrap
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from analysis_lib.errors import StudyError
from analysis_lib.figures.curves import answer_table, knockout_table
from analysis_lib.figures.style import STYLE, VERDICTS, Drawn, headline, layer_axis, words_of
from analysis_lib.findings import Claim, neighbours, stats
from analysis_lib.study import examples
from analysis_lib.study.examples import Example
from analysis_lib.study.rows import stored_rows
from analysis_lib.study.tables import read_manifest, read_table

STEPS = {  # the claim on each step of the flow: its curve, words for the reader
    "cross-frame early": ("cross-frame", "frames → later frames"),
    "integration in the middle": ("video->question", "video → question"),
    "integration before answer": ("question->last", "question → last token"),
    "answer in the second half": ("true option", "answer at the last token"),
}
LACKS = "{} lacks knockouts, emergence or examples; run the notebooks 01 to 03 first"
LINES = ("-", "--", ":", "-.")  # of the first training, and of others
WORDS = {"spatial": "#5C6B7A", "temporal": "#C2410C"}


def query_word(example: Example) -> str:
    """The word of an example's question and options to follow: its first temporal keyword, or else its longest word."""
    words = re.findall(r"\w+", " ".join([example.question, *example.options]))
    temporal = (word for word in words if example.kinds.get(word.lower()) == "temporal")
    return next(temporal, max(words, key=len))


def words_on_frames(example: Example) -> Drawn:
    """The words that video tokens show, printed on the frames, for three bands of layers from shallow to deep. A cell
    shows the keyword that tops most of the band's layers, or else, small and pale, its most frequent word."""
    frames, words = example.frames, example.words  # (T, H, W, 3), (L, T, h, w)
    fig, axes = plt.subplots(3, len(frames), figsize=(1.18 * len(frames) + 0.5, 4.59), squeeze=False)
    for line, part in zip(axes, np.array_split(np.arange(len(words)), 3), strict=True):
        for t, ax in enumerate(line):
            ax.imshow(frames[t], extent=(0, words.shape[3], words.shape[2], 0), alpha=0.55)
            for y, x in np.ndindex(words.shape[2:]):
                _word(ax, x + 0.5, y + 0.5, words[part, t, y, x], example.kinds)
        line[0].set_ylabel(f"layers {part[0] + 1}\u2013{part[-1] + 1}", fontsize=8.5)
    _frame_grid(axes)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour, label=f"{kind} keyword") for kind, colour in WORDS.items()]
    headline(fig, f"Words on video tokens: {example.question}", handles, ncols=2)
    table = _long(words, "word", "layer", "frame", "row", "column")
    return fig, table.assign(kind=table["word"].map(example.kinds).fillna(""))


def attention(example: Example, word: str) -> Drawn:
    """Where one word looks, with all edges and with cross-frame edges cut: on the frames (mean over the middle half of
    the layers), and per layer and frame. Both conditions share one colour scale, so brighter means more."""
    frames, maps = example.frames, example.maps(word)  # (L, T, h, w) by condition
    first, last = len(example.words) // 4, 3 * len(example.words) // 4
    inside = {name: array[first:last].mean(axis=0) for name, array in maps.items()}  # (T, h, w)
    by_frame = {name: array.sum(axis=(2, 3)) for name, array in maps.items()}  # (L, T)
    top, most = (max(array.max() for array in parts.values()) for parts in (inside, by_frame))
    fig = plt.figure(figsize=(1.02 * len(frames) + 0.6, 1.15 * len(maps) + 3.1))
    above, below = fig.subfigures(2, 1, height_ratios=[1.15 * len(maps), 2.4])
    axes = above.subplots(len(maps), len(frames), squeeze=False)
    for line, (name, array) in zip(axes, inside.items(), strict=True):
        extent = (0, array.shape[2], array.shape[1], 0)
        for ax, frame, seen in zip(line, frames, array, strict=True):
            ax.imshow(frame.mean(axis=2), extent=extent, cmap="gray")
            ax.imshow(seen, extent=extent, cmap="magma", vmin=0, vmax=top, alpha=0.6)
        line[0].set_ylabel(textwrap.fill(name, 14), fontsize=8)
    _frame_grid(axes)
    grids = below.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    for ax, (name, array) in zip(grids, by_frame.items(), strict=True):
        grid = pd.DataFrame(array, index=range(1, len(array) + 1), columns=range(1, len(frames) + 1))
        bar = {"cbar": True, "cbar_kws": {"label": "attention to the frame"}} if ax is grids[-1] else {"cbar": False}
        sns.heatmap(grid, cmap="magma", vmin=0, vmax=most, ax=ax, **bar)
        for edge in (first, last):
            ax.axhline(edge, color="white", lw=1, ls=":")
        ax.set(title=name, xlabel="frame", ylabel="layer" if ax is grids[0] else "")
        ax.tick_params(axis="both", labelsize=7, rotation=0)
    fig.suptitle(f"Where “{word}” looks: {example.question}", x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    parts = [_long(array, "attention", "layer", "frame").assign(condition=name) for name, array in by_frame.items()]
    return fig, pd.concat(parts)[["layer", "frame", "condition", "attention"]]


def flow(folder: Path, claims: dict[str, Claim], name: str) -> Drawn:
    """The study in one picture: what each route carries, layer by layer, from the frames to the answer, in the model
    `name` whose results are in `folder`. `claims` are by name, those of STEPS among them; an example is sketched."""
    files, table = sorted((folder / "examples").glob("*.npz")), _routes(folder)
    if not files or not STEPS.keys() <= claims.keys():
        raise StudyError(LACKS.format(folder))
    example = examples.read(files[0])
    readers = neighbours(read_manifest(folder)).readers
    fig, axes = plt.subplots(len(STEPS), 2, figsize=(7.8, 5.4), width_ratios=[1, 2.1], sharex="col")
    top = 1.22 * table["high"].max()
    for number, ((claim, (series, words)), (left, right)) in enumerate(zip(STEPS.items(), axes, strict=True), start=1):
        _sketch(left, f"{number}  {words_of(words, readers)}", series, example)
        _ridge(right, table[table["series"] == series].sort_values("layer"), series, claims[claim], top)
    axes[-1, 1].set_xlabel("layer of the language model  (input → output)", fontsize=9)
    title = f"Where {name}'s answer comes from, layer by layer ({table['n_samples'].max()} questions)"
    fig.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return fig, table


def _routes(folder: Path) -> pd.DataFrame:
    """A row per step of STEPS and layer, `series, layer, mean, low, high, n_samples, n_videos`: what is lost when the
    route is cut there, or how probable the answer is, in %. Mean over tasks."""
    cuts, baseline = [series for series, _ in STEPS.values()], read_table(folder, "baseline")
    knockout, emergence = stored_rows(folder, "knockout", edge_set=cuts), stored_rows(folder, "emergence")
    if not (len(knockout) and len(emergence)):
        raise StudyError(LACKS.format(folder))
    cut = knockout_table(knockout, baseline)
    cut = cut.assign(series=cut["edge_set"], mean=-cut["mean"], low=-cut["high"], high=-cut["low"])  # losses
    answer = answer_table(emergence, baseline)
    table = stats.overall(pd.concat([cut, answer[answer["series"] == "true option"]], ignore_index=True))
    return table[["series", "layer", "mean", "low", "high", "n_samples", "n_videos"]]


def trainings(folders: Mapping[str, Path], claims: Mapping[str, Mapping[str, Claim]]) -> Drawn:
    """The steps of the flow in trainings of one model that differ in their seed, over each other. `folders` hold their
    results, by name, and `claims` their claims, by that name and the claim's; the first is the one reported."""
    table = pd.concat([_routes(folder).assign(training=name) for name, folder in folders.items()], ignore_index=True)
    fig, axes = plt.subplots(2, 2, figsize=(7.8, 4.9), sharex=True, sharey=True)
    lines = dict(zip(folders, cycle(LINES), strict=False))
    first, said = next(iter(folders)), {name: {s: claims[name][s].verdict for s in STEPS} for name in folders}
    readers = neighbours(read_manifest(folders[first])).readers
    for ax, (step, (series, words)) in zip(axes.flat, STEPS.items(), strict=True):
        for name, dashes in lines.items():
            part = table[(table["series"] == series) & (table["training"] == name)].sort_values("layer")
            ax.plot(part["layer"], part["mean"], color=STYLE[series][0], ls=dashes)
            ax.fill_between(part["layer"], part["low"], part["high"], color=STYLE[series][0], alpha=0.2, lw=0)
        verdicts = dict.fromkeys(said[name][step] for name in folders)
        ax.set_title(f"{words_of(words, readers)}: {', then '.join(verdicts)}", fontsize=8.5)
        ax.axhline(0, color="#999999", lw=0.8)
        layer_axis(ax, part["layer"].max())
    for left, below in zip(axes[:, 0], axes[1], strict=True):
        left.set_ylabel("%")
        below.set_xlabel("layer of the language model")
    counts = table.groupby("training")["n_samples"].max()
    labels = {name: f"{name} ({counts[name]} questions)" for name in folders}
    handles = [plt.Line2D([], [], color="#444444", ls=dashes, label=labels[name]) for name, dashes in lines.items()]
    count = sum(len({verdicts[step] for verdicts in said.values()}) > 1 for step in STEPS)
    title = f"Trained again, {first} gets another verdict on {count} of {len(STEPS)} steps from frames to answer"
    headline(fig, title, handles, ncols=len(handles))
    return fig, table


def _ridge(ax: plt.Axes, part: pd.DataFrame, series: str, claim: Claim, top: float) -> None:
    """One curve as a filled ridge with its band, its largest value and the verdict on its claim."""
    colour = STYLE[series][0]
    for low, high in ((0, part["mean"]), (part["low"], part["high"])):
        ax.fill_between(part["layer"], low, high, color=colour, alpha=0.35, lw=0)
    sns.lineplot(part, x="layer", y="mean", color=colour, errorbar=None, ax=ax, legend=False)
    peak = part.loc[part["mean"].idxmax()]
    word = "probability of the answer" if series == "true option" else "of the answer lost when cut"
    depth = peak["layer"] / part["layer"].max()
    side = "left" if depth < 0.35 else "right" if depth > 0.65 else "center"
    text = f" {peak['mean']:.0f} % {word}, layer {peak['layer']:.0f} "
    ax.annotate(text, (peak["layer"], peak["mean"]), ha=side, va="bottom", fontsize=8)
    box = {"facecolor": VERDICTS[claim.verdict], "alpha": 0.2, "lw": 0, "pad": 2}
    ax.set_title(f" {claim.statement}: {claim.verdict} ", fontsize=8, pad=5, bbox=box)
    ax.axhline(0, color="#999999", lw=0.8)
    ax.set(ylim=(min(0, part["low"].min()), top), xlabel="", ylabel="%", yticks=[0, 50] if top > 60 else [0, 20])
    layer_axis(ax, part["layer"].max())


def _sketch(ax: plt.Axes, name: str, series: str, example: Example) -> None:
    """The route as a small drawing: thumbnails, the question and the last token."""
    colour, frames = STYLE[series][0], example.frames
    question = textwrap.fill(example.question, 20, max_lines=4, placeholder=" …")
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2.0, "mutation_scale": 12}
    box = {"facecolor": "#F3F3F3", "lw": 0, "pad": 3}
    ax.axis("off")
    ax.text(0, 3.9, name, fontsize=9, fontweight="bold", color="#222222", va="top")
    if series == "cross-frame":
        for i, frame in enumerate(frames[np.linspace(0, len(frames) - 1, 4).round().astype(int)]):
            ax.imshow(frame, extent=(0.2 + 2.4 * i, 2.2 + 2.4 * i, 0.2, 2.2), aspect="auto")
        arrow |= {"connectionstyle": "arc3,rad=-0.45", "arrowstyle": "-|>" if "later" in name else "<|-|>"}
        for start in (1.2, 3.6, 6.0):
            ax.annotate("", (start + 2.4, 2.25), (start, 2.25), arrowprops=arrow)
    elif series == "video->question":
        for i, frame in enumerate(frames[:: max(1, len(frames) // 3)][:3]):
            x, y = 0.2 + 0.4 * i, 0.2 + 0.35 * i
            ax.imshow(frame, extent=(x, x + 2, y, y + 2), aspect="auto", zorder=i)
        ax.annotate("", (5.0, 1.5), (3.3, 1.5), arrowprops=arrow)
        ax.text(5.3, 1.5, question, fontsize=7, va="center", bbox=box)
    elif series == "question->last":
        ax.text(0.2, 1.5, question, fontsize=7, va="center", bbox=box)
        ax.annotate("", (7.4, 1.5), (5.3, 1.5), arrowprops=arrow)
        ax.text(7.8, 1.5, "(", fontsize=12, va="center", family="monospace", bbox=box)
    else:
        box |= {"facecolor": colour, "alpha": 0.5}
        ax.text(0.2, 1.5, "Best option: (", fontsize=8, va="center", family="monospace")
        ax.text(4.9, 1.5, example.answer, fontsize=12, va="center", fontweight="bold", bbox=box)
    ax.set(xlim=(0, 10), ylim=(0, 4))


def _frame_grid(axes: np.ndarray) -> None:
    """Axes (rows, T) without ticks, the frames' numbers above."""
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
    for t, ax in enumerate(axes[0], start=1):
        ax.set_title(f"frame {t}", fontsize=8, loc="center")


def _word(ax: plt.Axes, x: float, y: float, shown: np.ndarray, kinds: dict[str, str]) -> None:
    """Print the word of one cell."""
    names, counts = np.unique([word.strip() for word in shown], return_counts=True)
    best = max(zip(names, counts, strict=True), key=lambda pair: (pair[0] in kinds, pair[1]))[0]
    size, centred = min(7.5, 30 / max(len(best), 4)), {"ha": "center", "va": "center"}
    if best in kinds:
        box = {"facecolor": WORDS[kinds[best]], "lw": 0, "pad": 1.2, "alpha": 0.92}
        ax.text(x, y, best, fontsize=size, color="white", bbox=box, fontweight="bold", **centred)
    else:
        ax.text(x, y, best[:9], fontsize=min(5.5, size), color="black", alpha=0.6, **centred)


def _long(array: np.ndarray, value: str, *axes: str) -> pd.DataFrame:
    """An array as one row per cell, with a 1-based column for each of its axes."""
    places = pd.MultiIndex.from_product([range(1, n + 1) for n in array.shape], names=axes)
    return pd.Series(array.ravel(), places, name=value).reset_index()
