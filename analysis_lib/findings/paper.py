"""The paper's findings ("Map the Flow", arXiv 2510.13251), one function each, with what would falsify it.

Every function takes stored tables and returns a `Claim`; name, statement, threshold and unit stand above it. The
baseline comes last and decides which samples enter: those that the untouched model gets right, as in the paper; for
pathways all. Definitions are the paper's words made exact: "early-to-middle" is the first
half of the depth, "middle" the middle half, "middle-to-late" the second half. The paper's own table E(b), put through
these functions, comes out as reproduced for its four models."""

import numpy as np
import pandas as pd

from analysis_lib.findings import claims, stats
from analysis_lib.findings.analysed import Analysed, Table, attach
from analysis_lib.findings.bootstrap import across_tasks, replicates, replicates_of, summed, together
from analysis_lib.findings.claims import LOSS, ORDER, SMALLEST, band, centre, drops, finding
from analysis_lib.study.rows import as_rows, matched

OF_DEPTH = "of the depth"
INTO_LAST = ("true_option->last", "question_only->last", "false_options->last")
Effect = tuple[pd.Series, Table | Analysed, *tuple[str, ...]]  # replicates, rows, the parts in words (`claims.decide`)


def _share(reps: pd.Series) -> str:
    """The estimate of a depth, for prose."""
    return "no depth" if np.isnan(reps.iloc[0]) else f"{100 * reps.iloc[0]:.0f} %"


@finding("above chance", "The model answers above chance", LOSS)
def above_chance(baseline: pd.DataFrame) -> Effect:
    """The model can do the tasks. Effect: accuracy minus chance. Falsified at chance: then there is no flow to map."""
    rows = baseline.assign(chance=100 / baseline["options"].map(len), accuracy=100.0 * baseline["correct"].astype(bool))
    chance, accuracy = (across_tasks(replicates(rows, v, ["task"]))["mean"] for v in ("chance", "accuracy"))
    return accuracy - chance, rows, f"Accuracy {accuracy[0]:.1f} %, chance {chance[0]:.1f} %."


@finding("time decides", "The answers need the order of the frames", LOSS)
def temporal_evidence(controls: pd.DataFrame, baseline: pd.DataFrame) -> Effect:
    """Effect: accuracy minus that of the best control (no video, one frame, shuffled frames). Falsified if a control
    keeps the accuracy: then questions can be answered without time."""
    rows = pd.concat([baseline.assign(control="full"), controls.merge(baseline[["task", "sample_id"]])])
    reps = 100 * across_tasks(replicates(rows, "correct", ["control", "task"]))
    full, others = reps["full"], reps.drop(columns="full")
    best = others.iloc[0].idxmax()
    because = f"Accuracy {full[0]:.1f} %; the best control ({best}) reaches {others[best][0]:.1f} %."
    return full - others.max(axis=1), rows, because


@finding("cross-frame early", "Frames exchange information in the first half of the layers", SMALLEST)
def cross_frame_early(knockout: Table, baseline: pd.DataFrame) -> Effect:
    """Figure 2. Effect: mean drop with windows in the first half of the layers minus that in the second. Falsified if
    cutting cross-frame attention hurts late as much as early, or nowhere."""
    curves, rows = drops(knockout, baseline, "cross-frame")
    early, late = band(curves["cross-frame"], 0, 0.5), band(curves["cross-frame"], 0.5, 1)
    parts = f"Mean drop {early[0]:.1f} % in the first half of the layers, {late[0]:.1f} % in the second."
    return early - late, rows, parts


@finding("video training", "Video training adds the exchange between frames", SMALLEST)
def video_training(knockout: Table, image_knockout: Table, baseline: pd.DataFrame) -> Effect:
    """Figure 2. Effect: mean drop in the first half of the layers, video model minus its image-only base, on samples
    that the video model gets right (each its own answer). Falsified if the base depends on other frames as much."""
    both = matched({"image": image_knockout, "video": knockout}, ["edge_set", "task", "sample_id", "layer"])
    rows, names = Analysed(both, baseline, edge_set=["cross-frame"]), ("relative_change_image", "relative_change_video")
    changes = (replicates(rows.parts("layer", name), name, ["task", "layer"]) for name in names)
    image, video = (-band(across_tasks(change), 0, 0.5) for change in changes)
    return video - image, rows, f"Mean drop {video[0]:.1f} % in the video model, {image[0]:.1f} % in the image model."


@finding("first half decides", "Without cross-frame attention in the first half of the layers answers are lost",
         LOSS, span=100)  # fmt: skip
def early_half_accuracy(first: Table, second: Table, baseline: pd.DataFrame) -> Effect:
    """Tables 2 and B. Effect: answers lost if the first half is cut minus the second, from the rows of `first` (cuts
    from layer 1) and `second` (to the last) that cut exactly half. Falsified if both halves cost the same."""
    rows = _lost(first, second, baseline)
    lost = across_tasks(replicates(rows.assign(lost=100.0 * rows["lost"]), "lost", ["layers", "task"]))
    early, late = (lost[layers] for layers in lost)
    because = f"{early[0]:.1f} % of the answers are lost in the first half, {late[0]:.1f} % in the second."
    return early - late, rows, because


def lost_answers(first: Table, second: Table, baseline: pd.DataFrame) -> pd.DataFrame:
    """Right answers in % that are lost when one half of the layers is cut, per task (paper, tables 2 and B)."""
    rows = _lost(first, second, baseline)
    return stats.task_intervals(rows, "lost", ["layers"], scale=100).set_index(["task", "layers"])


def _lost(first: Table, second: Table, baseline: pd.DataFrame) -> pd.DataFrame:
    """The rows that cut exactly the first or the second half: which `layers`, and whether the answer is `lost`."""
    n_layers, found = max(as_rows(second).values("last_layer")), []
    for table, start, end in ((first, 1, n_layers // 2), (second, n_layers // 2 + 1, n_layers)):
        cut = {"first_layer": [start], "last_layer": [end], "edge_set": ["cross-frame"]}
        found.append(as_rows(table).frame(**cut).assign(layers=f"{start} to {end}"))
    rows = attach(pd.concat(found), baseline)
    return rows.assign(lost=rows["prediction"] != rows["prediction_base"])


def margin_changes(knockout: Table, baseline: pd.DataFrame) -> pd.DataFrame:
    """Mean change of the logit margin (right letter minus best other one) with its interval, for windows around layers
    of the first and of the second half, on right answers ("correct") and on all."""
    change = as_rows(knockout).computed(
        "margin", ("margin_knock", "margin_base"), lambda rows: rows["margin_knock"] - rows["margin_base"]
    )
    n_layers, halves = max(change.values("layer")), {True: "first half", False: "second half"}
    parts = (
        part.assign(samples=keep, layers=(part["layer"] <= n_layers / 2).map(halves))
        for keep in ("correct", "all")
        for part in Analysed(change, baseline, keep).parts("layer", "margin")
    )
    return stats.mean_interval(parts, "margin", ["samples", "layers"])


@finding("integration in the middle", "Video meets the question in the middle layers", SMALLEST)
def integration_in_the_middle(knockout: Table, baseline: pd.DataFrame) -> Effect:
    """Figure 3. Effect: mean drop when video->question is cut with windows in the middle half of the depth minus that
    elsewhere. Falsified if the first and last quarter matter as much."""
    curves, rows = drops(knockout, baseline, "video->question")
    middle, rest = (band(curves["video->question"], 0.25, 0.75, inside=inside) for inside in (True, False))
    return middle - rest, rows, f"Mean drop {middle[0]:.1f} % in the middle half, {rest[0]:.1f} % elsewhere."


@finding("integration before answer", "The question takes in the video before the last token reads the question",
         ORDER, OF_DEPTH)  # fmt: skip
def integration_before_answer(knockout: Table, baseline: pd.DataFrame) -> Effect:
    """Figure 3. Effect: depth of the question->last drop minus depth of the video->question drop, each weighted with
    the drop. Falsified if both sit at the same depth, or if one of the two routes carries nothing."""
    curves, rows = drops(knockout, baseline, "video->question", "question->last")
    early, late = centre(curves["video->question"]), centre(curves["question->last"])
    return late - early, rows, f"Centres at {_share(early)} and {_share(late)} of the depth."


@finding("temporal words later", "Temporal words come up deeper than spatial words", ORDER, OF_DEPTH)
def temporal_words_later(lens: Table, baseline: pd.DataFrame) -> Effect:
    """Figure 4. Effect: mean depth of temporal minus spatial keywords; each hit (a video token whose top word is a
    keyword) counts once. Falsified if both kinds sit at the same depth, or if one never comes up."""
    deepest = max(as_rows(lens).values("layer"), default=0)
    depths = as_rows(lens).computed("depth", ("count", "layer"), lambda r: r["count"] * (r["layer"] - 0.5) / deepest)
    rows = Analysed(depths, baseline, kind=["spatial", "temporal"])
    by, parts = ["kind", "task"], rows.parts("kind", "count", "depth")
    sums = [[summed(part, value, by) for value in ("count", "depth")] for part in parts]
    hits, depth = (replicates_of(together([pair[i] for pair in sums], by), by) for i in (0, 1))
    places = across_tasks(depth / hits.where(hits > 0)).reindex(columns=["spatial", "temporal"])
    spatial, temporal = (places[kind] for kind in places)
    because = f"Mean depth {_share(spatial)} for spatial words, {_share(temporal)} for temporal words."
    return temporal - spatial, rows, because


@finding("answer in the second half", "The answer becomes readable in the second half of the layers", 0.0, OF_DEPTH)
def answer_in_second_half(emergence: Table, baseline: pd.DataFrame) -> Effect:
    """Figure 9. Effect: depth at which the true option's probability (final norm and output head on every layer's
    state) reaches half of its last value, minus 0.5. Falsified if the answer is readable in the first half."""
    at, rows = claims.answer_depth(emergence, baseline)
    return at - 0.5, rows, f"Half of the last value is reached at {_share(at)} of the depth."


@finding("answer after integration", "The answer becomes readable after video and question have met", ORDER, OF_DEPTH)
def answer_after_integration(emergence: Table, knockout: Table, baseline: pd.DataFrame) -> Effect:
    """Figures 3 and 9. Effect: depth at which the true option reaches half of its last probability minus the depth of
    the video->question drop, under the same draws of videos. Falsified if the answer is there before."""
    late, rows = claims.answer_depth(emergence, baseline)
    curves, cut = drops(knockout, baseline, "video->question")
    early = centre(curves["video->question"])
    return late - early, rows | cut, f"Integration sits at {_share(early)} of the depth, the answer at {_share(late)}."


@finding("true option dominates", "The last token reads the answer from the true option", SMALLEST)
def true_option_dominates(knockout: Table, baseline: pd.DataFrame) -> Effect:
    """Figure 7. Effect: mean drop over all layers when true_option->last is cut, minus the larger of the drops for the
    question without options and the false options. Falsified if another source carries as much."""
    curves, rows = drops(knockout, baseline, *INTO_LAST)
    true, *others = (curves[name].mean(axis=1) for name in INTO_LAST)
    parts = ", ".join(f"{name} {mean[0]:.1f} %" for name, mean in zip(INTO_LAST, [true, *others], strict=True))
    return true - np.maximum(*others), rows, f"Mean drop over all layers: {parts}."


@finding("pathway keeps accuracy", "The effective pathway keeps the accuracy", -LOSS, span=100)
def pathway_keeps_accuracy(pathway: pd.DataFrame, baseline: pd.DataFrame) -> Effect:
    """Table 3. Effect: accuracy with the pathway minus full accuracy, all samples. Non-inferiority: reproduced if a
    loss of 5 points is excluded, falsified if it is larger, undecided without an accuracy above chance to keep."""
    rows = claims.pathway_answers(pathway, baseline)
    reps = 100 * across_tasks(replicates(rows, "correct", ["pathway", "task"]))
    because = f"Accuracy {reps['full'][0]:.1f} % with full attention, {reps['effective'][0]:.1f} % with the pathway."
    able = above_chance(baseline).verdict == "reproduced"
    doubt = "" if able else "The model is not above chance: nothing can be lost."
    return reps["effective"] - reps["full"], rows, because, doubt


@finding("pathway beats random", "Random edges of the same number lose more", SMALLEST, span=100)
def pathway_beats_random(pathway: pd.DataFrame, baseline: pd.DataFrame) -> Effect:
    """Table 3. Effect: accuracy with the pathway minus that with as many random edges. Falsified if chance edges do as
    well: then the pathway names nothing special."""
    rows = claims.pathway_answers(pathway, baseline)
    reps = 100 * across_tasks(replicates(rows, "correct", ["pathway", "task"]))
    because = f"Accuracy {reps['effective'][0]:.1f} % with the pathway, {reps['random'][0]:.1f} % with random edges."
    return reps["effective"] - reps["random"], rows, because


@finding("most edges closed", "Most attention edges can be closed", 40.0, "% of the edges")
def most_edges_closed(pathway: pd.DataFrame, baseline: pd.DataFrame) -> Effect:
    """Table 3: 42 to 63 %. Effect: share of edges that the pathway closes. Falsified if it keeps more than 60 %."""
    rows = attach(pathway[pathway["pathway"] == "effective"], baseline, keep="all")
    rows = rows.assign(closed=100 * (1 - rows["edges_kept"] / rows["edges_total"]))
    closed = across_tasks(replicates(rows, "closed", ["task"]))["mean"]
    return closed, rows, f"The pathway keeps {100 - closed[0]:.1f} % of the edges."
