"""What the embedded models learn from: labelled frames, and clips packed with questions about them.

A batch is a pure function of its seed, so training resumes at any step with the data it would have seen. `packer.py`
lays questions out as rows of token ids. Drills teach letters alone, from text: lettered options, then their words in
another order, each handed over at the place where a middle layer would have found it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from analysis_lib.embedded import world
from analysis_lib.embedded.packer import Packer, lay_out
from analysis_lib.embedded.quiz import TASKS, VERBS, ask, place
from analysis_lib.inputs.records import Question
from analysis_lib.inputs.videos import sample_indices

SIZE, PATCH, FRAMES, GRID = 48, 8, 8, 3  # frame side and patch side in pixels, frames, pooled tokens per side
PATCHES = SIZE // PATCH
TIMES = world.video_times(np.array(sample_indices(world.N_VIDEO_FRAMES, FRAMES, fps=world.FPS)))


def caption(clip: world.Scenario, video: bool) -> str:
    """Everything in the clip, things from left to right."""
    parts = [" to ".join(clip.scenes) if clip.mix.any() else clip.scenes[0]]
    for thing in sorted(clip.things, key=lambda thing: thing.x[0]):
        if not video:
            what = [place(thing)]
        elif thing.behaviour == "static":
            what = []
        elif thing.behaviour == "sequence":
            what = [VERBS[event] for event in thing.events]
        else:
            what = [VERBS.get(thing.behaviour, thing.behaviour)]
        parts.append(" ".join([thing.name, *what]))
    return ", ".join(parts)


def _fewer(question: Question, rng: np.random.Generator) -> Question:
    """The same question with two of its options."""
    wrong = [i for i in range(len(question.options)) if i != question.answer]
    keep = sorted([question.answer, int(rng.choice(wrong))])
    return replace(question, options=tuple(question.options[i] for i in keep), answer=keep.index(question.answer))


def _still(clip: world.Scenario, frame: int) -> world.Scenario:
    """One frame of a clip as a clip of its own."""
    for thing in clip.things:
        for name in ("x", "y", "radius", "opacity", "white"):
            setattr(thing, name, getattr(thing, name)[frame : frame + 1])
    scenes = clip.scenes[::-1] if clip.mix[frame] > 0.5 else clip.scenes
    return replace(clip, scenes=scenes, mix=np.zeros(1))


def make_drill(rng: np.random.Generator, packer: Packer, *, rows: int, length: int) -> dict[str, Any]:
    """A batch of drills: four a row behind the start token. Keys as in `make_batch`, without a video."""
    branches = [[packer.drill(rng).cut(length) for _ in range(4)] for _ in range(rows)]
    return lay_out(branches, [1], 0, 0, length)


def make_batch(
    rng: np.random.Generator,
    packer: Packer,
    *,
    clips: int,
    video: bool,
    letters: bool,
    questions: int,
    length: int,
    shares: tuple[float, ...] | None = None,
) -> dict[str, Any]:
    """One batch of packed rows: `questions` a clip, with options if `letters`, else in words; and a caption (with
    `letters` one more question in every second row).

    Returns images (B, T, S, S, 3) uint8; ids, words, letters, added, options (B, P + K·length); positions
    (1, P + K·length); mask (1, 1, length, P + length) additive; `at`, the position of the first video token, and
    `video`, their number. Stills show one frame, or the same frame eight times in 15 % of the batches.
    """
    repeat = FRAMES if not video and rng.random() < 0.15 else 1
    rows, scenarios = [], []
    for _ in range(clips):
        task = str(rng.choice(TASKS, p=shares)) if video else "still"
        clip = world.make_scenario(rng, task if video else str(rng.choice(["still", *TASKS[3:]])), TIMES)
        clip = clip if video else _still(clip, int(rng.integers(FRAMES)))
        scenarios.append(clip)
        if letters:
            row = [packer.letter(_question(clip, task, rng)) for _ in range(questions)]
        else:
            row = [packer.open(_open_question(clip, task, rng, i)) for i in range(questions)]
        told = rng.random() < 0.5 or not letters
        last = packer.told(caption(clip, video)) if told else packer.letter(_question(clip, task, rng))
        row.append(last.cut(length))
        rows.append(row)
    images = np.repeat(world.render(scenarios, SIZE, rng), repeat, axis=1)  # (B, T, S, S, 3)
    prefix = packer.prefix(images.shape[1] * GRID * GRID)
    laid = lay_out(rows, prefix, prefix.index(packer.image), images.shape[1] * GRID * GRID, length)
    return {"images": images, **laid}


def _question(clip: world.Scenario, task: str, rng: np.random.Generator) -> Question:
    question = ask(clip, task, rng)
    return _fewer(question, rng) if task == "still" and rng.random() < 0.5 else question


def _open_question(clip: world.Scenario, task: str, rng: np.random.Generator, number: int) -> Question:
    """The task's question first. A number says little, so in clips for counting the second question is what one thing
    does, and the third is which things move, where any of them is right: before one is said, all must be known.
    """
    if task != "object_count" or number == 0:
        return ask(clip, task, rng)
    if number == 2:
        moving = [thing.name for thing in clip.things if thing.behaviour != "static"]
        return Question("Which objects move in the video?", (str(rng.choice(moving or ["0"])),), 0)
    thing = clip.things[rng.integers(len(clip.things))]
    does = "stays" if thing.behaviour == "static" else VERBS.get(thing.behaviour, thing.behaviour)
    return Question(f"What does the {thing.name} do in the video?", (does,), 0)


# ---- labelled frames ----


def make_frames(rng: np.random.Generator, *, clips: int) -> dict[str, np.ndarray]:
    """Single frames with a label per patch.

    Returns images (B, 3, S, S, 3) uint8; colour (0 none, 6 white) and shape (0 none) (B, 3, 6, 6); centre
    (B, 3, 6, 6, 3): the shape's centre from the frame's middle in patches, and its size; scene (B, 3).
    """
    times = TIMES[rng.permutation(FRAMES)[:3]]
    scenarios = [world.make_scenario(rng, str(rng.choice(TASKS)), times) for _ in range(clips)]
    colour = np.zeros((clips, 3, PATCHES, PATCHES), np.int64)
    shape, centre = np.zeros_like(colour), np.zeros((*colour.shape, 3), np.float32)
    scene = np.zeros((clips, 3), np.int64)
    for i, clip in enumerate(scenarios):
        before, after = (list(world.SCENES).index(name) for name in clip.scenes)
        scene[i] = np.where(clip.mix > 0.5, after, before)
        for thing in clip.things:
            hit, where = _covered(thing)
            white = hit & (thing.white > 0.5)[:, None, None]
            colour[i][hit] = list(world.COLOURS).index(thing.colour) + 1
            colour[i][white] = len(world.COLOURS) + 1
            shape[i][hit] = world.SHAPES.index(thing.shape) + 1
            centre[i][hit] = where[hit]
    images = world.render(scenarios, SIZE, rng)
    return {"images": images, "colour": colour, "shape": shape, "centre": centre, "scene": scene}


def _covered(thing: world.Thing) -> tuple[np.ndarray, np.ndarray]:
    """Which patches (T, 6, 6) the thing covers, and its centre and size, the same for each (T, 6, 6, 3)."""
    middle = (np.arange(PATCHES) + 0.5) / PATCHES
    reach = thing.radius[:, None, None] + 0.035
    dx = thing.x[:, None, None] - middle[None, None, :]
    dy = thing.y[:, None, None] - middle[None, :, None]
    hit = (np.abs(dx) < reach) & (np.abs(dy) < reach) & (thing.opacity > 0.5)[:, None, None]
    where = np.stack([(thing.x - 0.5) * PATCHES, (thing.y - 0.5) * PATCHES, thing.radius * 20 - 2], -1)
    return hit, np.broadcast_to(where[:, None, None], (*hit.shape, 3))
