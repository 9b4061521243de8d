"""How often the network in training answers right, in letters and in words, by kind of question."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch

from analysis_lib.embedded import quiz, world
from analysis_lib.embedded.smol import network
from analysis_lib.embedded.smol.lessons import FRAMES, GRID, SIZE, TIMES, one_frame
from analysis_lib.embedded.smol.rows import Prompts, Row, lay_out

SEED, LENGTH, BATCH = 2_000_000, 144, 15  # of the clips (the benchmark's begin at 1,000,000), tokens a row, rows a pass
KINDS = (*quiz.TASKS, "still")

Counts = Counter[tuple[str, str]]  # (kind, "letters right" | "letters" | "words right" | "words") -> number


def count(half: dict[str, Any], found: torch.Tensor) -> Counts:
    """Right and asked answers of a half of a batch. `found` (n or more,): the argmax over the whole vocabulary wherever
    something is to be said. An answer in words is right if all its words are."""
    right = found[: len(half["said"])].cpu().numpy() == half["said"]
    counts: Counts = Counter()
    for kind, letter, numbers in half["asked"]:
        name = "letters" if letter else "words"
        counts[kind, name] += 1
        counts[kind, f"{name} right"] += int(right[numbers].all())
    return counts


def validation(prompts: Prompts, clips: int, part: int, parts: int) -> list[dict[str, Any]]:
    """Batches of the benchmark's questions about new clips: the `part`-th of `parts` of `clips` a kind."""
    batches = []
    for number, kind in enumerate(KINDS):
        chosen = list(range(part, clips, parts))
        for start in range(0, len(chosen), BATCH):
            rngs = [np.random.default_rng([SEED, number, i]) for i in chosen[start : start + BATCH]]
            batches.append(_questions(prompts, kind, rngs))
    return batches


def _questions(prompts: Prompts, kind: str, rngs: list[np.random.Generator]) -> dict[str, Any]:
    rows, clips = [], []
    for rng in rngs:
        clip = world.make_scenario(rng, kind, TIMES)
        clip = one_frame(clip, 0) if kind == "still" else clip
        asked = quiz.ask(clip, kind, rng)
        row = Row.start(LENGTH, FRAMES * GRID * GRID)
        row.add(prompts.letter(kind, asked.question, asked.options, asked.answer))
        row.add(prompts.words(kind, asked.question, asked.options[asked.answer]))
        rows.append(row)
        clips.append(clip)
    images = np.concatenate([world.render([clip], SIZE, rng) for clip, rng in zip(clips, rngs, strict=True)])
    return {
        "images": np.repeat(images, FRAMES // images.shape[1], axis=1),
        "video": FRAMES * GRID * GRID,
        **lay_out(rows, prompts.system),
    }


def answers(net: network.Network, half: dict[str, Any]) -> torch.Tensor:
    """Logits (n, V) wherever something is to be said, of a half that is on the device (`network.shown`)."""
    system = net.frozen["embed"][half["system"]]
    states = network.decode(net, system, network.embed(net, half, GRID), half["positions"], half["mask"])
    return network.logits(net, states.flatten(0, 1).index_select(0, half["places"]))
