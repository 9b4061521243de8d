"""Stored tables with a planted answer, in the columns of the store: what a study of a known model would have
measured.
"""

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis_lib.paths import write_atomic
from analysis_lib.study.tables import SCHEMAS, schema, to_bytes

TASKS = {"action_antonym": 2, "action_sequence": 4, "moving_direction": 4, "object_count": 4, "scene_transition": 2}
BUMPS = {  # edge set: depth of the largest drop, width, size in %
    "cross-frame": (0.25, 0.12, 40), "video->question": (0.45, 0.12, 50), "question->last": (0.75, 0.10, 60),
    "video->last": (0.5, 0.2, 1), "last->last": (0.5, 0.2, 1), "question_only->last": (0.6, 0.2, 6),
    "true_option->last": (0.75, 0.10, 55), "false_options->last": (0.75, 0.10, -4),
    "video->question_only": (0.4, 0.15, 20), "question_only->true_option": (0.5, 0.15, 15),
    "video->true_option": (0.45, 0.15, 25),
}  # fmt: skip


def stacked(parts):
    """One frame from dicts of columns, one below the other; a single value fills its part."""
    sizes = [max(map(np.size, part.values())) for part in parts]
    filled = {name: [np.broadcast_to(part[name], n) for part, n in zip(parts, sizes, strict=True)] for name in parts[0]}
    return pd.DataFrame({name: np.concatenate(columns) for name, columns in filled.items()})


def baseline(rng, n=40, accuracy=0.95):
    """One row per question; two questions share a video."""
    rows = []
    for task, options in TASKS.items():
        for i in range(n):
            answer, correct = "ABCD"[i % options], rng.random() < accuracy
            prediction = answer if correct else "ABCD"[(i + 1) % options]
            p = rng.dirichlet(np.ones(options) * 0.2) * 0.1
            p["ABCD".index(prediction)] += 0.9
            rows.append({
                "task": task, "sample_id": f"{task}/{i:04d}", "video": f"{task}/{i // 2}.mp4", "question": "?",
                "options": [f"option {j}" for j in range(options)], "answer": answer, "n_tokens": 120, "n_frames": 8,
                "frame_indices": list(range(8)), "prediction": prediction, "correct": correct, "p_base": float(p.max()),
                "margin_base": 3.0 if correct else -2.0, "p_options": p,
            })  # fmt: skip
    return pd.DataFrame(rows)


def knockout(rng, base, edge_sets=tuple(BUMPS), n_layers=12, scale=1.0, noise=6.0, first_last=None):
    """Curves with one bump each; `first_last(layer)` gives the cut layers (a window of 3 if absent)."""
    layers = np.arange(1, n_layers + 1)
    first_last = first_last or (lambda layer: (max(1, layer - 1), min(n_layers, layer + 1)))
    tables = []
    for row in base.itertuples():
        level = rng.normal(1, 0.3)
        for edge_set in edge_sets:
            place, width, size = BUMPS[edge_set]
            drop = scale * size * level * np.exp(-0.5 * (((layers - 0.5) / n_layers - place) / width) ** 2)
            change = np.maximum(-drop + rng.normal(0, noise, n_layers) * (drop != 0), -100)
            prediction = np.where(
                rng.random(n_layers) < np.clip(-change / 120, 0, 1),
                "ABCD"[(ord(row.prediction) - 64) % 2],
                row.prediction,
            )
            first, last = zip(*(first_last(layer) for layer in layers), strict=True)
            tables.append({
                "task": row.task, "sample_id": row.sample_id, "edge_set": edge_set, "layer": layers,
                "first_layer": first, "last_layer": last, "p_base": row.p_base,
                "p_knock": row.p_base * (1 + change / 100), "relative_change": change, "margin_base": row.margin_base,
                "margin_knock": row.margin_base + change / 20, "prediction": prediction,
            })  # fmt: skip
    return stacked(tables)


def from_bins(base, n_layers, curves):
    """Knockouts with the mean changes of bins of five layers, as in the paper's table E(b); samples scatter around
    them.
    """
    rng, tables = np.random.default_rng(0), []
    for edge_set, bins in curves.items():
        means = np.repeat(bins, 5)[:n_layers]
        table = pd.DataFrame(means + rng.normal(0, 1, (len(base), n_layers)), columns=range(1, n_layers + 1))
        table[["task", "sample_id"]] = base[["task", "sample_id"]].to_numpy()
        tables.append(
            table.melt(["task", "sample_id"], var_name="layer", value_name="relative_change").assign(edge_set=edge_set)
        )
    return pd.concat(tables, ignore_index=True).astype({"layer": int})


def emergence(rng, base, n_layers=12, place=0.7):
    """The true option's probability rises at `place` of the depth."""
    tables = []
    for row in base.itertuples():
        rise = 0.9 / (1 + np.exp(-(np.arange(1, n_layers + 1) / n_layers - place + rng.normal(0, 0.02)) / 0.04))
        for i, option in enumerate("ABCD"[: len(row.options)]):
            for normed in (True, False):
                p = rise if option == row.answer else 0.15 * rise * (1 - rise / 1.1) / max(1, i)
                tables.append({
                    "task": row.task, "sample_id": row.sample_id, "layer": range(1, n_layers + 1), "option": option,
                    "is_answer": option == row.answer, "probability": p if normed else p**1.5, "normed": normed,
                })  # fmt: skip
    return stacked(tables)


def lens(rng, base, n_layers=12):
    """Spatial words in the first half, temporal words deeper."""
    words = {
        "red": ("spatial", 0.3),
        "circle": ("spatial", 0.4),
        "beach": ("spatial", 0.45),
        "grows": ("temporal", 0.75),
        "up": ("temporal", 0.85),
    }
    layers = np.arange(1, n_layers + 1)
    tables = [
        {
            "task": row.task, "sample_id": row.sample_id, "layer": layers, "keyword": word, "kind": kind,
            "count": rng.poisson(4 * np.exp(-0.5 * ((layers / n_layers - place) / 0.2) ** 2)),
        }
        for row in base.itertuples() for word, (kind, place) in words.items()
    ]  # fmt: skip
    return stacked(tables)


def pathway(rng, base, kept=0.42, accuracy=None):
    """Answers under pruned attention; pathways lose the given share of right answers."""
    loss = {"effective": 0.01, "random": 0.5} | (accuracy or {})
    rows = []
    for row in base.itertuples():
        for name, lost in loss.items():
            wrong = rng.random() < lost
            rows.append({
                "task": row.task, "sample_id": row.sample_id, "video": row.video, "pathway": name,
                "edges_kept": int(kept * 87120), "edges_total": 87120, "flops_kept": 0.9, "p_base": row.p_base,
                "p_pruned": row.p_base * (0.2 if wrong else 0.97), "prediction_base": row.prediction,
                "prediction": "X" if wrong else row.prediction, "correct": row.correct and not wrong,
            })  # fmt: skip
    return pd.DataFrame(rows)


def controls(rng, base):
    """Answers without temporal evidence: near chance."""
    names = ("text only", "single frame", "shuffled frames")
    table = base.merge(pd.DataFrame({"control": names}), how="cross")[
        ["task", "control", "sample_id", "video", "options"]
    ]
    chance = 1 / table.options.map(len)
    return table.assign(correct=rng.random(len(table)) < chance).drop(columns="options")


def store(folder, **frames):
    """Write tables as stored in a results folder; columns that they lack are empty."""
    for name, frame in frames.items():
        columns = {column: frame[column] if column in frame else [None] * len(frame) for column in SCHEMAS[name]}
        rows = pa.Table.from_pandas(pd.DataFrame(columns), schema(name), preserve_index=False)
        write_atomic(folder / f"{name}.parquet", to_bytes(name, rows))
