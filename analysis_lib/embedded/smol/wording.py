"""How things are asked: several wordings of each kind of question, and some that training never shows.

The benchmark's own wording is the first of each task. `HELD_OUT` is for tests alone.
"""

from __future__ import annotations

import re

WORDINGS: dict[str, tuple[str, ...]] = {
    "moving_direction": (
        "In which direction does the {thing} move in the video?",
        "Where is the {thing} heading?",
        "Which way does the {thing} go?",
        "What is the direction of the {thing}'s movement?",
    ),
    "action_antonym": (
        "What does the {thing} do in the video?",
        "What happens to the {thing}?",
        "Which verb describes the {thing} in this clip?",
        "What can be seen of the {thing} over time?",
    ),
    "action_sequence": (
        "What does the {thing} do {when} in the video?",
        "What is the {when} thing that the {thing} does?",
        "Which action of the {thing} comes {when}?",
        "What does the {thing} do {when} of all?",
    ),
    "object_count": (
        "How many objects move in the video?",
        "What is the number of moving objects?",
        "How many of the objects change their place?",
        "Count the objects that move.",
    ),
    "scene_transition": (
        "How does the scene change in the video?",
        "What is the change of scene?",
        "Which scenes are shown, in order?",
        "From which scene to which does the video go?",
    ),
    "moves": ("Does the {thing} move in the video?", "Does the {thing} change its place?"),
    "across": ("Does the {thing} move to the left or to the right?", "To which side does the {thing} move?"),
    "upward": ("Does the {thing} move up or down?", "Is the {thing} going up or down?"),
    "start": ("Where is the {thing} at the start?", "Where is the {thing} first?"),
    "end": ("Where is the {thing} at the end?", "Where is the {thing} last?"),
    "size": ("How large is the {thing} {moment}?", "What size does the {thing} have {moment}?"),
    "seen": ("Can the {thing} be seen {moment}?", "Is the {thing} there {moment}?"),
    "scene": ("Which scene is shown?", "What is in the background?", "Where was this recorded?"),
    "shown": ("How many objects are shown?", "What is the number of objects?"),
    "colour": ("What colour is the {shape}?", "Which colour does the {shape} have?"),
    "side": ("On which side is the {thing}?", "Is the {thing} on the left or on the right?"),
    "height": ("At which height is the {thing}?", "Is the {thing} at the top or at the bottom?"),
    "shape": ("Which shape is {colour}?", "What is the {colour} thing?"),
    "caption": ("Describe the video.", "What is shown?", "Tell what happens."),
}
HELD_OUT: dict[str, tuple[str, ...]] = {
    "moving_direction": ("Towards which side does the {thing} travel?", "The {thing} moves. Which direction is it?"),
    "action_antonym": ("Which of these does the {thing} do?", "Over the clip, what does the {thing} do?"),
    "action_sequence": ("Of its two actions, which does the {thing} do {when}?", "{when}, what does the {thing} do?"),
    "object_count": ("How many things are moving here?", "Tell the number of objects in motion."),
    "scene_transition": ("Which change of scene takes place?", "What does the background turn from and into?"),
}
STATEMENTS: dict[str, str] = {  # what a drill says before it asks, in place of a video
    "moving_direction": "The {thing} moves {answer}.",
    "action_antonym": "The {thing} {answer}.",
    "object_count": "{answer} objects move.",
    "scene_transition": "The scene changes from {answer}.",
    "scene": "The scene is the {answer}.",
    "shown": "There are {answer} objects.",
    "colour": "The {shape} is {answer}.",
    "side": "The {thing} is on the {answer}.",
    "height": "The {thing} is at the {answer}.",
    "shape": "The {answer} is {colour}.",
}


def reworded(kind: str, text: str, wording: str) -> str:
    """The benchmark's question `text` of this kind, put in another wording. Raises ValueError if it is none."""
    own = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(WORDINGS[kind][0]))
    found = re.fullmatch(own, text)
    if found is None:
        raise ValueError(f"{text!r} is not the benchmark's question of {kind}")
    put = wording.format(**found.groupdict())
    return put[0].upper() + put[1:]
