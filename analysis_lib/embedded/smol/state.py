"""The stored state of a training: one file that is replaced whole, and the curve of right answers beside it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analysis_lib.embedded.smol.learner import Learner

MEASURES = ("letters right", "letters", "words right", "words")


def record(work: Path, facts: dict[str, Any], counts: Counter) -> None:
    """Append to curve.csv: `facts`, and what was asked and right, one row a kind of question."""
    kinds = sorted({kind for kind, _ in counts})
    rows = [facts | {"kind": kind} | {m.replace(" ", "_"): counts[kind, m] for m in MEASURES} for kind in kinds]
    path = work / "curve.csv"
    pd.DataFrame(rows).to_csv(path, mode="a", header=not path.exists(), index=False)


def keep(work: Path, learner: Learner, state: dict[str, Any]) -> None:
    """Store what is needed to go on."""
    stored = {"flats": [flat.detach() for flat in learner.flats], "optimizer": learner.optimizer.state_dict()}
    save(work / "state.pt", stored | state | {"counts": dict(state["counts"])})


def save(path: Path, value: Any) -> None:
    """torch.save, whole or not at all."""
    partial = path.with_name(path.name + ".tmp")
    torch.save(value, partial)
    os.replace(partial, path)


def stored(work: Path, device: torch.device) -> dict[str, Any]:
    """The stored state: number of the stage, step in it, seconds that a worker's processor spent, counts since the last
    record, and, if there is one, what to go on from."""
    file = work / "state.pt"
    if not file.exists():
        return {"stage": 0, "step": 0, "seconds": 0.0, "counts": Counter()}
    found = torch.load(file, map_location=device, weights_only=True)
    return found | {"counts": Counter(found["counts"])}


def restore(work: Path, learner: Learner, device: torch.device) -> dict[str, Any]:
    """Load the stored state into the learner if there is one, and say where it stands (`stored`)."""
    found = stored(work, device)
    if "flats" in found:
        learner.optimizer.load_state_dict(found.pop("optimizer"))
        with torch.no_grad():
            for flat, old in zip(learner.flats, found.pop("flats"), strict=True):
                flat.copy_(old)
    return found


def rewind(work: Path, stages: list[str], number: int, step: int) -> None:
    """Drop rows of the curve that were written after `step` of stage `number`: they will come again."""
    path = work / "curve.csv"
    if not path.exists():
        return
    curve = pd.read_csv(path)
    before = curve["stage"].map(stages.index)
    curve = curve[(before < number) | ((before == number) & (curve["step"] <= step))]
    partial = path.with_name(path.name + ".tmp")
    curve.to_csv(partial, index=False)
    os.replace(partial, path)
