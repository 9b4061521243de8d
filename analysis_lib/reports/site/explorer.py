"""The explorer's data: what the stored tables say, as scripts of compact JSON that a page loads when it needs them.

A *set* is a model on a benchmark. Its curves carry the intervals and tests of `findings`, computed here; the page only
draws them. Values of single questions are packed: probabilities in units of 0.0001, margins of 0.01 logits, 16 bits a
value. Scripts and not JSON files, because a page that was opened from a disk may load the former only."""

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from analysis_lib import paths
from analysis_lib.figures.style import GREY, STYLE, task_name
from analysis_lib.findings import stats
from analysis_lib.findings.analysed import attach
from analysis_lib.inputs.records import LETTERS
from analysis_lib.study.tables import read_table

FOLDER = re.compile(r"(?P<benchmark>.+)-k(?P<k>\d+)-(?P<style>\w+)")
WINDOWS = {  # how the explorer calls the windows of a style
    "center": "{} around the layer", "inverse": "all but {} around the layer", "bottom_up": "layer 1 up to the layer",
    "top_down": "the layer up to the last",
}  # fmt: skip
METRICS = {"relative_change": "probability (%)", "margin_change": "margin (logits)"}
DASHES = {"-": "solid", "--": "dashed", ":": "dotted"}


def script(name: str, content: object) -> bytes:
    """A file that hands `content` over to the page under `name`."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"explorer.put({json.dumps(name)},{text});\n".encode()


def packed(values: np.ndarray, kind: type) -> str:
    """Whole numbers in base64, little end first, in C order."""
    info = np.iinfo(kind)
    whole = np.clip(np.rint(np.nan_to_num(values)), info.min, info.max)
    return base64.b64encode(whole.astype(np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def stored_sets(root: Path = paths.RESULTS) -> dict[str, list[Path]]:
    """The results folders of each MODEL/BENCHMARK, centred windows first. Where there are no knockouts, options or
    right answers there is nothing to explore."""
    found = {}
    for at in (file.parent for file in sorted(root.glob("*/*/knockout.parquet"))):
        parts, baseline = FOLDER.fullmatch(at.name), read_table(at, "baseline")
        able = baseline["options"].map(len).gt(1).all() and baseline["correct"].any()
        if parts and able and len(read_table(at, "knockout")):
            found.setdefault(f"{at.parent.name}/{parts['benchmark']}", []).append(at)
    return {key: sorted(folders, key=lambda at: not at.name.endswith("-center")) for key, folders in found.items()}


def tables(folders: list[Path]) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """The knockouts of a set window by window: name, words for the reader, rows, baseline. Rows are those of right
    answers, with `margin_change`."""
    for at in folders:
        style, k = FOLDER.fullmatch(at.name)["style"], int(FOLDER.fullmatch(at.name)["k"])
        baseline, widths = read_table(at, "baseline"), read_table(at, "widths")
        parts = [(f"k{k}-{style}", style, k, read_table(at, "knockout"))]
        parts += [(f"w{size}-{style}", style, size, rows) for size, rows in widths.groupby("window")]
        for name, style, size, rows in parts:
            rows = attach(rows, baseline)
            rows = rows.assign(margin_change=rows["margin_knock"] - rows["margin_base"])
            words = WINDOWS[style].format(f"{size} layer{'s' * (size > 1)}")
            few = f", {rows['sample_id'].nunique()} questions" * name.startswith("w")
            yield name, words + few, rows.sort_values(["edge_set", "layer", "sample_id"]), baseline


def curves(rows: pd.DataFrame, baseline: pd.DataFrame) -> dict:
    """One window's curves: edge set → task → n, and for each metric mean, bounds and p by layer."""
    found = {}
    for metric in METRICS:
        table = stats.change_table(rows, baseline, ["layer"], metric).sort_values("layer")
        for (edge_set, task), part in table.groupby(["edge_set", "task"], sort=False):
            curve = found.setdefault(edge_set, {}).setdefault(task, {})
            curve |= {"n": int(part["n_samples"].max()), "videos": int(part["n_videos"].max())}
            numbers = part[["mean", "low", "high", "p"]].round(4).astype(object).replace({np.nan: None})
            curve[metric] = {name: numbers[name].tolist() for name in numbers}
    return found


def answers(rows: pd.DataFrame, order: list[str]) -> dict:
    """One window's answers: the questions asked, as places in `order`, and for each edge set probability and margin
    after the cut (layers × questions, `packed`) and the letters answered, "?" for anything else."""
    found = {}
    for edge_set, part in rows.groupby("edge_set"):
        grids = part.pivot(index="layer", columns="sample_id", values=["p_knock", "margin_knock", "prediction"])
        letters = (word if word in tuple(LETTERS) else "?" for word in grids["prediction"].to_numpy().ravel())
        found[edge_set] = {
            "asked": [order.index(name) for name in grids["p_knock"].columns],
            "p": packed(1e4 * grids["p_knock"].to_numpy(float), np.uint16),
            "margin": packed(100 * grids["margin_knock"].to_numpy(float), np.int16),
            "said": "".join(letters),
        }
    return found


def questions(baseline: pd.DataFrame, at_hand: set[str]) -> list[dict]:
    """What was asked and what the untouched model answered, in the order of the baseline's rows. `at_hand` are the
    hashes of the frames of which there is a picture."""
    rows = baseline.assign(options=baseline["options"].map(list), p_options=baseline["p_options"].map(list))
    rows = rows.assign(p=rows["p_base"], margin=rows["margin_base"], n_frames=rows["frame_indices"].map(len))
    rows = rows.assign(frames=rows["frames_sha256"].where(rows["frames_sha256"].isin(at_hand), ""))
    columns = "sample_id task question answer options p_options p margin frames n_frames"
    return rows[columns.split()].to_dict("records")


def _window(at: tuple[str, str, pd.DataFrame, pd.DataFrame]) -> tuple[str, dict, dict]:
    """What the page needs of one window: its name, its curves, its answers."""
    name, words, rows, baseline = at
    spans = rows.groupby("layer")[["first_layer", "last_layer"]].first()
    about = {"words": words, "first": spans["first_layer"].tolist(), "last": spans["last_layer"].tolist()}
    return name, about | {"edges": curves(rows, baseline)}, answers(rows, baseline["sample_id"].tolist())


def files(sets: dict[str, list[Path]], at_hand: set[str]) -> Iterator[tuple[str, bytes]]:
    """Every script of the explorer but those of pictures, as (path, content); `at_hand` as for `questions`."""
    with ProcessPoolExecutor(2) as pool:
        jobs = ((key, pool.submit(_window, at)) for key, folders in sets.items() for at in tables(folders))
        done = [(key, job.result()) for key, job in list(jobs)]
    used, tasks = set(), {stats.MEAN_OF_TASKS}
    for key, group in groupby(done, key=lambda job: job[0]):
        windows = {}
        for _, (name, about, said) in group:
            windows[name] = about
            used |= about["edges"].keys()
            yield f"{key}/{name}.js", script(f"{key}/{name}", said)
        baseline = read_table(sets[key][0], "baseline")
        tasks |= set(baseline["task"])
        yield f"{key}/curves.js", script(f"{key}/curves", windows)
        yield f"{key}/questions.js", script(f"{key}/questions", questions(baseline, at_hand))
    edges = {name: STYLE.get(name, (GREY, "-", name.replace("->", " ↛ "))) for name in [*STYLE, *sorted(used)]}
    look = {n: {"colour": c, "dash": DASHES[d], "words": w} for n, (c, d, w) in edges.items() if n in used}
    names = {task: task_name(task) for task in sorted(tasks, key=lambda task: (task != stats.MEAN_OF_TASKS, task))}
    index = {"sets": list(sets), "metrics": METRICS, "edges": look, "tasks": names, "mean": stats.MEAN_OF_TASKS}
    yield "index.js", script("index", index)
