"""The scores of a finished checkpoint, through the study's own loader and on mp4 files, and its model card."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis_lib.embedded import quiz, world
from analysis_lib.embedded.door import load_benchmark
from analysis_lib.embedded.smol import network
from analysis_lib.embedded.smol.base import PACKAGE, SHA256
from analysis_lib.embedded.smol.wording import HELD_OUT, reworded
from analysis_lib.inputs.records import Question
from analysis_lib.inputs.videos import load_clip
from analysis_lib.models.loading import load_checkpoint
from analysis_lib.models.merging import make_inputs, model_logits

STILLS, STILL_SEED = 120, 3_000_000  # questions about stills, and their seed
CARD = """# {name}

{what} The language model is SmolLM2-135M-Instruct (Apache-2.0). Nothing in its training chose a layer: next-token loss
on captions, on answers in words and on letters, nothing else.

| fact | value |
|---|---|
| format | `llava` with `pooling_shape` and `num_frames`, adapters beside it: that of LLaVA-NeXT-7B-Video-FT |
| decoder | 30 layers, width 576, 9 heads on 3 key-value heads; low-rank adapters (rank {rank}) on all its linear maps |
| vision tower, video tokens | that of `embedded-image`, frozen; 8 frames × 3 × 3 |
| weights sha256 | `{sha}` (adapters) |
| base, not in this folder | `{package}`, file sha256 `{base}`; `make base` |

## Training

By `make train MODEL=smol SEED={seed}`; the stages up to this checkpoint:

| stage | steps | clips a step | minutes | on |
|---|---|---|---|---|
{stages}

The projector starts in closed form, by ridge regression onto the words that describe each patch. Drills ask, from text
alone, for the letter of an answer that was just said. Code: `analysis_lib/embedded/smol/`. Clips are rendered as
training goes, none is shown twice; their seeds are [{seed}, stage, step, half], the benchmark's begin at 1,000,000.

## Scores

Right letters in %, argmax over the whole vocabulary, on the embedded benchmark (mp4 files). *New wordings*: the same
clips, asked in wordings that training never showed. *Stills*: {stills} questions about single frames.

| task | right | new wordings | chance |
|---|---|---|---|
{scores}
"""


@dataclass(frozen=True)
class Spent:
    """What a stage took: its name, steps, clips a step, seconds, and where it ran."""

    name: str
    steps: int
    clips: int
    seconds: float
    device: str


def _right(vlm: Any, sample: Any, frames: np.ndarray) -> bool:
    inputs = make_inputs(vlm, sample, frames)
    return int(model_logits(vlm, inputs).argmax()) == inputs.letter_ids[sample.answer]


def _stills() -> Iterator[tuple[Question, np.ndarray]]:
    """Questions about single frames, (1, H, W, 3) uint8."""
    for i in range(STILLS):
        rng = np.random.default_rng([STILL_SEED, i])
        clip = world.make_scenario(rng, "still", np.zeros(1))
        asked = quiz.ask(clip, "still", rng)
        yield Question(asked.question, asked.options, asked.answer), world.render([clip], world.VIDEO_SIZE, rng)[0]


@torch.no_grad()
def score(folder: Path) -> pd.DataFrame:
    """By task, and for stills: share of right letters in %, the same in new wordings, chance, number of questions."""
    vlm, rows = load_checkpoint(str(folder)), []
    for sample in load_benchmark("embedded")[0]:
        frames = load_clip(sample.video, vlm.num_frames, start=sample.start, end=sample.end, rule=sample.rule).frames
        wordings = HELD_OUT[sample.task]
        other = reworded(sample.task, sample.question, wordings[len(rows) % len(wordings)])
        found = [_right(vlm, put, frames) for put in (sample, replace(sample, question=other))]
        rows.append((sample.task, *found, 1 / len(sample.options)))
    rows += [("stills", _right(vlm, asked, frames), np.nan, 1 / len(asked.options)) for asked, frames in _stills()]
    frame = pd.DataFrame(rows, columns=["task", "right", "new", "chance"])
    numbers = frame["task"].value_counts()
    return 100 * frame.astype({"right": float, "new": float}).groupby("task").mean().assign(questions=numbers / 100)


def write_card(folder: Path, *, seed: int, spent: list[Spent]) -> None:
    """Score the checkpoint in `folder` and write its model card."""
    found, video = score(folder), not folder.name.endswith("image")
    tasks = found.drop("stills")
    lines = [_line(task, row) for task, row in tasks.iterrows()]
    lines += [_line("**mean of tasks**", tasks.mean()), _line("stills", found.loc["stills"])]
    tuned = "A Video LLM: `smol-image`, tuned on five video tasks."
    card = CARD.format(
        name=folder.name,
        what=tuned if video else "A Video LLM before it has seen a video: it learned from stills.",
        rank=network.RANK,
        sha=hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest(),
        package=PACKAGE,
        base=SHA256,
        seed=seed,
        stages="\n".join(f"| {s.name} | {s.steps} | {s.clips} | {s.seconds / 60:.0f} | {s.device} |" for s in spent),
        stills=STILLS,
        scores="\n".join(lines),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _line(task: str, row: pd.Series) -> str:
    new = "–" if np.isnan(row["new"]) else f"{row['new']:.1f}"
    return f"| {task} | {row['right']:.1f} | {new} | {row['chance']:.0f} |"
