"""What a clip shows, as things that can be asked about, and as a caption."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from analysis_lib.embedded import world
from analysis_lib.embedded.quiz import VERBS, place

DISPLACED = (*world.STRAIGHT, *world.DIAGONALS)
NUMBERS = ("0", "1", "2", "3")
QUARTERS = tuple(f"{height} {side}" for height in ("top", "bottom") for side in ("left", "right"))


@dataclass(frozen=True)
class Fact:
    """Something a clip shows: the kind of question that asks for it, what the wording names, the answer, and the words
    that options are drawn from."""

    kind: str
    answer: str
    pool: tuple[str, ...]
    names: dict[str, str] = field(default_factory=dict)


def behaviour(thing: world.Thing) -> str:
    """What the thing does, as captions say it."""
    if thing.behaviour == "static":
        return "stays"
    if thing.behaviour == "sequence":
        return " then ".join(VERBS[event] for event in thing.events)
    return VERBS.get(thing.behaviour, f"moves {thing.behaviour}")


def caption(clip: world.Scenario, video: bool) -> str:
    """Everything in the clip, things from left to right: where each one is first (and last), and (`video`) what it
    does."""
    parts = [" to ".join(clip.scenes) if clip.mix.any() else clip.scenes[0]]
    for thing in sorted(clip.things, key=lambda thing: thing.x[0]):
        where = f"{place(thing)} to {place_at(thing, -1)}" if thing.behaviour in DISPLACED else place(thing)
        parts.append(f"{thing.name} {where} {behaviour(thing)}" if video else f"{thing.name} {where}")
    return ", ".join(parts)


def place_at(thing: world.Thing, frame: int) -> str:
    """The quarter of the frame in which a thing is then."""
    return place(replace(thing, x=thing.x[[frame]], y=thing.y[[frame]]))


def still_facts(clip: world.Scenario) -> list[Fact]:
    """What the clip's first frame answers."""
    facts = [
        Fact("scene", clip.scenes[0], tuple(world.SCENES)),
        Fact("shown", str(len(clip.things)), NUMBERS),
    ]
    for thing in clip.things:
        named = {"thing": thing.name, "colour": thing.colour, "shape": thing.shape}
        facts.append(Fact("shape", thing.shape, world.SHAPES, named))
        if sum(other.shape == thing.shape for other in clip.things) == 1:
            facts.append(Fact("colour", thing.colour, tuple(world.COLOURS), named))
        height, side = place(thing).split()
        if abs(thing.x[0] - 0.5) > 0.07:
            facts.append(Fact("side", side, ("left", "right"), named))
        if abs(thing.y[0] - 0.5) > 0.07:
            facts.append(Fact("height", height, ("top", "bottom"), named))
    return facts


def thing_facts(thing: world.Thing) -> list[Fact]:
    """What a clip shows of one thing."""
    named, what = {"thing": thing.name}, thing.behaviour
    pair = next((p for p in world.ANTONYMS if what in p), None)
    facts = []
    if pair is not None:
        facts.append(Fact("action_antonym", VERBS[what], tuple(VERBS[p] for p in pair), named))
    if what in world.DIAGONALS:
        facts.append(Fact("moving_direction", what, tuple(world.DIAGONALS), named))
    if what in ("left", "right"):
        facts.append(Fact("moving_direction", what, ("left", "right"), named))
    if what == "sequence":
        pool = tuple(VERBS[event] for event in thing.events)
        for when, answer in zip(("first", "last"), pool, strict=True):
            facts.append(Fact("action_sequence", answer, pool, named | {"when": when}))
    dx, dy = {**world.STRAIGHT, **world.DIAGONALS}.get(what, (0, 0))
    if dx:
        facts.append(Fact("across", "left" if dx < 0 else "right", ("left", "right"), named))
    if dy:
        facts.append(Fact("upward", "up" if dy < 0 else "down", ("up", "down"), named))
    if what == "static" or what in DISPLACED:
        facts.append(Fact("moves", "no" if what == "static" else "yes", ("yes", "no"), named))
    return facts + [fact for frame in (0, -1) for fact in moment_facts(thing, frame)]


def moment_facts(thing: world.Thing, frame: int) -> list[Fact]:
    """What a clip's first (0) or last (-1) frame shows of a thing, as far as what the thing does has to do with it."""
    kind, moment = (("start", "at the start"), ("end", "at the end"))[frame]
    named = {"thing": thing.name, "moment": moment}
    what, first = thing.behaviour, frame == 0
    if what in ("grow", "shrink"):
        return [Fact("size", "small" if first == (what == "grow") else "large", ("small", "large"), named)]
    if what in ("appear", "disappear"):
        return [Fact("seen", "no" if first == (what == "appear") else "yes", ("yes", "no"), named)]
    middle = min(abs(thing.x[frame] - 0.5), abs(thing.y[frame] - 0.5)) < 0.05
    if what == "sequence" or middle:
        return []
    return [Fact(kind, place_at(thing, frame), QUARTERS, named)]


def video_facts(clip: world.Scenario) -> list[Fact]:
    """What the clip's course answers; scenes first, then each thing, then the number of those that move."""
    facts = []
    if clip.mix.any():
        before, after = clip.scenes
        facts.append(Fact("scene_transition", f"{before} to {after}", (f"{before} to {after}", f"{after} to {before}")))
    facts += [fact for thing in clip.things for fact in thing_facts(thing)]
    if not any(thing.behaviour == "sequence" for thing in clip.things):
        moved = sum(thing.behaviour in DISPLACED for thing in clip.things)
        facts.append(Fact("object_count", str(moved), NUMBERS))
    return facts
