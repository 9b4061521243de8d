"""What every position of a merged prompt is: a partition into roles.

The tokenizer reports which characters of the prompt each token covers; the prompt knows the character span of each of
its parts; the model knows how many tokens the one placeholder grows into. Together these say what a position is
without reading decoded text. A token that overlaps an option even partly belongs to that option (the first, if it
overlaps two), one that overlaps the question block otherwise belongs to `question`. Hence each position has exactly
one role:

    system        start token, system text, and role tags up to the question, also those after the video
    frame 1..T    video tokens of one frame
    frame_text    text between frames (timestamps, separators), in models that have it
    question      the block from `Question:` to the last option, less the options (label, sentence, line breaks)
    option A..    letter and text of one option
    tail          template text after the options
    response      what an open-ended answer has said so far (the token before the last may be `open_response`)
    last          the position that predicts the answer
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs.records import LETTERS
from analysis_lib.models.prompts import Prompt


@dataclass(frozen=True)
class Roles:
    """The role of each of n positions, with the characters each covers.

    `names` (n,) role names, `spans` (n,) half-open character spans in `text` (video tokens carry the placeholder's),
    `sentence` positions of the bare question sentence, `answer` 0-based index of the right option.
    """

    names: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    text: str
    sentence: tuple[int, ...]
    answer: int

    @cached_property
    def frame_of(self) -> np.ndarray:
        """(n,) int: the 1-based frame of each video token, 0 for text."""
        return np.array([int(name[6:]) if name.startswith("frame ") else 0 for name in self.names])

    def positions(self, which: str) -> np.ndarray:
        """Sorted positions of a role or of a union of roles, named below.

        `question_block` is the paper's "question", `question_only` its "non-option question"; `after_video` is the
        template text between video and question (part of `system`). Raises StudyError for an unknown name.
        """
        names = np.array(self.names)
        option, true = np.char.startswith(names, "option "), names == f"option {LETTERS[self.answer]}"
        unions = {
            "video": self.frame_of > 0,
            "text": self.frame_of == 0,
            "options": option,
            "true_option": true,
            "false_options": option & ~true,
            "question_block": option | (names == "question"),
            "question_only": np.isin(np.arange(len(names)), self.sentence),
            "after_video": (names == "system") & (np.cumsum(self.frame_of) > 0),
        }
        if which not in {*unions, *self.names, "frame_text", "tail", "response"}:
            raise StudyError(f"unknown role {which!r}; known: {', '.join(dict.fromkeys([*self.names, *unions]))}")
        return np.flatnonzero(unions.get(which, names == which))

    def runs(self, which: str) -> list[tuple[int, int]]:
        """The role's positions as half-open runs of neighbours, in order."""
        at = self.positions(which)
        pieces = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
        return [(int(piece[0]), int(piece[-1]) + 1) for piece in pieces if len(piece)]

    def quote(self, first: int, stop: int) -> str:
        """The prompt text that positions first..stop-1 cover."""
        starts, ends = zip(*self.spans[first:stop], strict=True)
        return self.text[min(starts) : max(ends)]


def build_roles(
    prompt: Prompt, offsets: Sequence[tuple[int, int]], *, grid: tuple[int, int, int], answer: int
) -> Roles:
    """Roles of a merged prompt whose placeholder grows into T*h*w video tokens, frame after frame.

    `offsets` are the tokenizer's character spans, one a token, with one token for the placeholder. Raises SampleError
    if these do not fit: no or several placeholder tokens, text lost at the end, or an option without a token of its
    own.
    """
    at = [i for i, span in enumerate(offsets) if tuple(span) == prompt.spans["image"]]
    if len(at) != 1:
        raise SampleError(
            f"the video placeholder became {len(at)} tokens instead of one; the tokenizer does not know it"
        )
    video = np.arange(1, grid[0] + 1).repeat(grid[1] * grid[2]).tolist()
    before, after = at[0], len(offsets) - at[0] - 1
    spans = [*offsets[:before], *[prompt.spans["image"]] * len(video), *offsets[before + 1 :]]
    return expanded_roles(prompt, spans, [0] * before + video + [0] * after, answer=answer)


def expanded_roles(
    prompt: Prompt, offsets: Sequence[tuple[int, int]], frame_of: Sequence[int], *, answer: int
) -> Roles:
    """Roles of a prompt whose placeholder is expanded in the text already, as processors of native models do it.

    `frame_of` (n,) is the 1-based frame of each video token, 0 for text; where a model merges two frames into one
    temporal patch, "frame" means this patch. Other tokens of the expansion are `frame_text`. Raises SampleError as
    `build_roles` does.
    """
    if offsets[-1][1] != len(prompt.text):
        raise SampleError("the prompt does not end with its last character; the tokenizer adds or drops text there")
    spans = tuple((int(start), int(stop)) for start, stop in offsets)
    names = [f"frame {frame}" if frame else _role(span, prompt) for frame, span in zip(frame_of, spans, strict=True)]
    names[-1] = "last"
    missing = [name for name in prompt.spans if name.startswith("option ") and name not in names]
    if missing:
        raise SampleError(f"{missing[0]} has no token of its own")
    sentence = tuple(i for i, span in enumerate(spans) if _overlap(span, prompt.spans["question"]))
    return Roles(tuple(names), spans, prompt.text, sentence, answer)


def _role(span: tuple[int, int], prompt: Prompt) -> str:
    """The role of a token of text. A token that overlaps two parts belongs to the first that is named here."""
    options = [name for name in prompt.spans if name.startswith("option ")]
    for part in ("image", *options, "question_block"):
        if _overlap(span, prompt.spans[part]):
            return {"image": "frame_text", "question_block": "question"}.get(part, part)
    return "tail" if span[0] >= prompt.spans["question_block"][1] else "system"


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])
