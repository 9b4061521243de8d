"""Questions about the rendered clips, and the embedded benchmark: mp4 files and questions in TVBench's folder layout.

Each task has one wording and options in random order. Text alone cannot guess the answer: the wrong option of a
two-option question is the time-reversed event (or the other of two events that both happen), and the others draw from a
closed list. Still questions ask what one frame shows; the image-only model learns from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

from analysis_lib.embedded.world import (
    ANTONYMS,
    COLOURS,
    DIAGONALS,
    SCENES,
    SHAPES,
    VIDEO_SIZE,
    Scenario,
    Thing,
    make_scenario,
    render,
    video_times,
    write_video,
)
from analysis_lib.errors import StudyError
from analysis_lib.inputs.formats import EMBEDDED_TASKS
from analysis_lib.inputs.records import Question

VERBS = {
    "grow": "grows",
    "shrink": "shrinks",
    "appear": "appears",
    "disappear": "disappears",
    "rise": "rises",
    "fall": "falls",
    "jump": "jumps",
    "blink": "blinks",
    "swell": "swells",
    "flash": "flashes",
}
TASKS = EMBEDDED_TASKS
KEYWORDS = {
    "spatial": [*COLOURS, *SHAPES, *SCENES],
    "temporal": [*VERBS.values(), *DIAGONALS, "first", "last", "move"],
}
# Other words for the same, for a model whose vocabulary was not made for this world. Left, right, top and bottom name
# places as well as ways, so they are in neither list.
NATURAL = {
    "spatial": """color colors colour shape shapes object objects thing things background scene corner side middle
        centre center edge tree trees sand water grass snow sky building buildings road floor room round
        squares circles circular triangles triangular dark bright light""".split(),
    "temporal": """moves moving moved movement motion goes going rise rising rose raised fall falling fell grow growing
        grew growth larger bigger shrink shrinking smaller appear appearing appeared emerge disappear
        disappearing disappeared vanish vanished fade fading jump jumping jumped spin turn turns turning
        stop stops stopped stay stays remain remains change changes changing changed become becomes becoming
        up down upward downward upwards downwards toward towards across forward then before after next later
        now begin begins start starts end ends finally until while when time times transition sequence
        direction north south east west northward""".split(),
}


def _choose(rng: np.random.Generator, text: str, answer: str, others: list[str], n: int) -> Question:
    wrong = [str(o) for o in rng.permutation([o for o in others if o != answer])[: n - 1]]
    options = [str(o) for o in rng.permutation([answer, *wrong])]
    return Question(text, tuple(options), options.index(answer))


def ask(scenario: Scenario, task: str, rng: np.random.Generator) -> Question:
    """The task's question about this clip, options in random order."""
    hero = scenario.things[0]
    if task == "moving_direction":
        text = f"In which direction does the {hero.name} move in the video?"
        return _choose(rng, text, hero.behaviour, list(DIAGONALS), 4)
    if task == "action_antonym":
        pair = next(p for p in ANTONYMS if hero.behaviour in p)
        text = f"What does the {hero.name} do in the video?"
        return _choose(rng, text, VERBS[hero.behaviour], [VERBS[p] for p in pair], 2)
    if task == "action_sequence":
        which = rng.integers(2)
        text = f"What does the {hero.name} do {('first', 'last')[which]} in the video?"
        return _choose(rng, text, VERBS[hero.events[which]], [VERBS[e] for e in hero.events], 2)
    if task == "object_count":
        moved = sum(o.behaviour != "static" for o in scenario.things)
        return _choose(rng, "How many objects move in the video?", str(moved), list("0123"), 4)
    if task == "scene_transition":
        turns = [f"{a} to {b}" for a, b in (scenario.scenes, scenario.scenes[::-1])]
        return _choose(rng, "How does the scene change in the video?", turns[0], turns, 2)
    return ask_still(scenario, rng)


def place(thing: Thing) -> str:
    """The quarter of the frame in which a thing begins."""
    return f"{'top' if thing.y[0] < 0.5 else 'bottom'} {'left' if thing.x[0] < 0.5 else 'right'}"


def ask_still(scenario: Scenario, rng: np.random.Generator) -> Question:
    """A question that one frame answers: which scene, how many, which colour, which shape, where."""
    kind, hero = rng.integers(5), scenario.things[rng.integers(len(scenario.things))]
    unique = sum(o.shape == hero.shape for o in scenario.things) == 1
    axis = rng.integers(2)
    if kind == 0:
        return _choose(rng, "Which scene is shown?", scenario.scenes[0], list(SCENES), 4)
    if kind == 1:
        return _choose(rng, "How many objects are shown?", str(len(scenario.things)), list("0123"), 4)
    if kind == 2 and unique:
        text = f"What colour is the {hero.shape}?"
        return _choose(rng, text, hero.colour, list(COLOURS), 4)
    if kind == 3 and abs((hero.x, hero.y)[axis][0] - 0.5) > 0.07:
        places = (["left", "right"], ["top", "bottom"])[axis]
        text = f"{('On which side', 'At which height')[axis]} is the {hero.name}?"
        return _choose(rng, text, place(hero).split()[1 - axis], places, 2)
    return _choose(rng, f"Which shape is {hero.colour}?", hero.shape, list(SHAPES), 3)


def write_benchmark(folder: Path, *, questions_per_task: int = 120, seed: int = 1_000_000) -> Path:
    """Render the embedded benchmark in TVBench's layout unless `folder` already holds it; return the folder.

    Test seeds begin at 1,000,000; training never goes there. `manifest.json` holds one hash per clip, of the frames
    before encoding.

    Raises:
        StudyError: the folder cannot be written.
    """
    settings = {"questions_per_task": questions_per_task, "seed": seed, "version": 1}
    manifest = folder / "manifest.json"
    if manifest.exists() and json.loads(manifest.read_text())["settings"] == settings:
        return folder
    print(f"rendering the embedded benchmark: {questions_per_task} clips for each of {len(TASKS)} tasks", flush=True)
    partial, hashes = folder.with_name(folder.name + ".partial"), {}
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for t, task in enumerate(TASKS):
            (partial / "video" / task).mkdir(parents=True)
            (partial / "json").mkdir(exist_ok=True)
            items = []
            for i in range(questions_per_task):
                rng = np.random.default_rng([seed, t, i])
                scenario = make_scenario(rng, task, video_times())
                question, name = ask(scenario, task, rng), f"{task}_{i:04d}.mp4"
                frames = render([scenario], VIDEO_SIZE, rng)[0]
                write_video(partial / "video" / task / name, frames)
                hashes[f"{task}/{name}"] = hashlib.sha256(frames.tobytes()).hexdigest()[:16]
                items.append(
                    {
                        "video": name,
                        "question": question.question,
                        "candidates": list(question.options),
                        "answer": question.options[question.answer],
                    }
                )
            (partial / "json" / f"{task}.json").write_text(json.dumps(items, indent=1))
        (partial / "manifest.json").write_text(json.dumps({"settings": settings, "frames_sha256": hashes}, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except OSError as error:
        reason = error.strerror or error
        raise StudyError(
            f"cannot write the embedded benchmark to {folder}: {reason}; free space or allow writing"
        ) from error
    return folder
