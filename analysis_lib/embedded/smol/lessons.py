"""What `smol` learns from: clips with all that can be asked about them, stills, and drills from text alone.

A batch is a pure function of its random generator, so training resumes at any step with the data it would have seen.
Half of the video clips are the benchmark's, with one thing that acts; in the others every thing acts, so that one clip
answers several questions. A question is asked twice, in words and with options; the two share their beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis_lib.embedded import world
from analysis_lib.embedded.quiz import TASKS, VERBS
from analysis_lib.embedded.smol.facts import NUMBERS, Fact, caption, still_facts, video_facts
from analysis_lib.embedded.smol.rows import Branch, Prompts, Row, lay_out
from analysis_lib.embedded.smol.wording import STATEMENTS, WORDINGS
from analysis_lib.inputs.videos import sample_indices

SIZE, FRAMES, GRID = 48, 8, 3  # frame side in pixels, frames of a clip, pooled tokens per side of a frame
TIMES = world.video_times(np.array(sample_indices(world.N_VIDEO_FRAMES, FRAMES, fps=world.FPS)))
WORDS = (*VERBS.values(), *world.DIAGONALS, *NUMBERS, *world.COLOURS, *world.SHAPES, *world.SCENES)
HEROES = ("moving_direction", "moving_direction", "action_antonym", "action_sequence", "still")  # first things taken


@dataclass(frozen=True)
class Plan:
    """What a half of a batch holds: `clips` rows about clips (or stills, unless `video`) and `drills` rows from text
    (below 1: one row in so many halves), of `length` tokens at most; the share of questions that are asked with options
    too, of TASKS, of clips in which every thing acts, and of drills that read a caption."""

    clips: int
    drills: float
    length: int
    video: bool
    lettered: float = 1.0
    shares: tuple[float, ...] = (0.2,) * len(TASKS)
    busy: float = 0.5
    read: float = 0.0


# ---- clips ----


def busy_clip(rng: np.random.Generator) -> world.Scenario:
    """A clip in which two or three things act, before a scene that changes in a third of the clips."""
    clip = world.make_scenario(rng, "scene_transition" if rng.random() < 1 / 3 else "still", TIMES)
    total = int(rng.integers(2, world.MAX_OBJECTS + 1))
    while True:
        things: list[world.Thing] = []
        for _ in range(12):
            hero = world.make_scenario(rng, str(rng.choice(HEROES)), TIMES).things[0]
            if all(_apart(hero, other) for other in things):
                things.append(hero)
            if len(things) == total:
                return replace(clip, things=things)


def _apart(one: world.Thing, other: world.Thing) -> bool:
    gap = np.hypot(one.x - other.x, one.y - other.y).min()
    return one.colour != other.colour and gap > world.MIN_GAP


def one_frame(clip: world.Scenario, frame: int) -> world.Scenario:
    """One frame of a clip as a clip of its own, without the things that cannot be seen in it."""
    things = []
    for thing in clip.things:
        arrays = {n: getattr(thing, n)[frame : frame + 1] for n in ("x", "y", "radius", "opacity", "white")}
        if arrays["opacity"][0] > 0.5:
            things.append(replace(thing, **arrays))
    scenes = clip.scenes[::-1] if clip.mix[frame] > 0.5 else clip.scenes
    return replace(clip, things=things, scenes=scenes, mix=np.zeros(1))


# ---- what is asked ----


def _worded(rng: np.random.Generator, kind: str, names: dict[str, str]) -> str:
    return str(rng.choice(WORDINGS[kind])).format(**names)


def options_of(fact: Fact, rng: np.random.Generator, number: int) -> tuple[tuple[str, ...], int]:
    """Options in random order, `number` at most, and the index of the right one."""
    wrong = rng.permutation([other for other in fact.pool if other != fact.answer])[: number - 1]
    options = tuple(str(option) for option in rng.permutation([fact.answer, *wrong]))
    return options, options.index(fact.answer)


def ask(prompts: Prompts, fact: Fact, text: str, rng: np.random.Generator, lettered: bool) -> list[Branch]:
    """The question in words and, if `lettered`, with options: two, or as many as there are."""
    words = prompts.words(fact.kind, text, fact.answer)
    if not lettered:
        return [words]
    options, answer = options_of(fact, rng, 2 if rng.random() < 0.5 else 4)
    return [prompts.letter(fact.kind, text, options, answer), words]


def _clip_row(rng: np.random.Generator, prompts: Prompts, plan: Plan, task: str, video: int) -> tuple[Row, Any]:
    if not plan.video:
        whole = world.make_scenario(rng, str(rng.choice(["still", *TASKS])), TIMES)
        clip = one_frame(whole, int(rng.integers(FRAMES)))
        facts, first = still_facts(clip), []
    else:
        clip = busy_clip(rng) if rng.random() < plan.busy else world.make_scenario(rng, task, TIMES)
        facts = video_facts(clip)
        first = [fact for fact in facts if fact.kind == task]
    row = Row.start(plan.length, video)
    row.add(prompts.words("caption", _worded(rng, "caption", {}), caption(clip, plan.video)))
    rest = [fact for fact in facts if fact not in first]
    rest = [rest[i] for i in np.argsort(rng.random(len(rest)) + [fact.kind == "moves" for fact in rest])]  # these last
    for fact in [*first, *rest]:
        lettered = bool(rng.random() < plan.lettered)
        for branch in ask(prompts, fact, _worded(rng, fact.kind, fact.names), rng, lettered):
            row.add(branch)
    return row, clip


def _drill_row(rng: np.random.Generator, prompts: Prompts, plan: Plan) -> Row:
    """Questions whose answer is said in words, before the question or after its options: letters alone are to be
    learned. After the options any of them may be said, so all are, each in a branch of its own."""
    row, room = Row.start(plan.length, 0), True
    while room:
        clip = busy_clip(rng) if rng.random() < 0.5 else world.make_scenario(rng, "scene_transition", TIMES)
        facts = [fact for fact in [*still_facts(clip), *video_facts(clip)] if fact.kind in STATEMENTS]
        fact = facts[rng.integers(len(facts))]
        if rng.random() < 0.5:
            fact = replace(fact, pool=tuple(dict.fromkeys((*fact.pool, *WORDS))))
        options, answer = options_of(fact, rng, int(rng.integers(2, 5)))
        question = _worded(rng, fact.kind, fact.names)
        if rng.random() < 0.3:
            said = STATEMENTS[fact.kind].format(answer=fact.answer, **fact.names)
            room = row.add(prompts.letter("drill", f"{said} {question}", options, answer))
        else:
            room = all([row.add(prompts.told("drill", question, options, i)) for i in range(len(options))])
    return row


def _read_row(rng: np.random.Generator, prompts: Prompts, plan: Plan) -> Row:
    """Questions about a clip that is told and not shown: which of several things is meant has to be found in words."""
    row = Row.start(plan.length, 0)
    clip = busy_clip(rng) if rng.random() < 0.5 else world.make_scenario(rng, "still", TIMES)
    clip = clip if plan.video else one_frame(clip, 0)
    facts = video_facts(clip) if plan.video else still_facts(clip)
    told = caption(clip, plan.video)
    for fact in (facts[i] for i in rng.permutation(len(facts))):
        text = f"{told}. {_worded(rng, fact.kind, fact.names)}"
        for branch in ask(prompts, replace(fact, kind="read"), text, rng, lettered=True):
            row.add(branch)
    return row


def make_half(rng: np.random.Generator, prompts: Prompts, plan: Plan) -> dict[str, Any]:
    """Half of a batch: rows about clips, then drills.

    Returns images (clips, T, S, S, 3) uint8; `video`, the number of video tokens at the start of the first `clips`
    rows; and what `rows.lay_out` makes of the rows.
    A still is one frame, or the same frame eight times in 15 % of the halves, as the study shows stills.
    """
    repeat = FRAMES if not plan.video and rng.random() < 0.15 else 1
    video = GRID * GRID * (FRAMES if plan.video else repeat)
    tasks = [str(rng.choice(TASKS, p=plan.shares)) for _ in range(plan.clips)]
    made = [_clip_row(rng, prompts, plan, task, video) for task in tasks]
    drills = int(plan.drills) or int(rng.random() < plan.drills)
    kinds = [_read_row if plan.read and rng.random() < plan.read else _drill_row for _ in range(drills)]
    rows = [row for row, _ in made] + [kind(rng, prompts, plan) for kind in kinds]
    images = world.render([clip for _, clip in made], SIZE, rng)
    return {
        "images": np.repeat(images, repeat, axis=1),
        "video": video,
        **lay_out(rows, prompts.system),
    }
