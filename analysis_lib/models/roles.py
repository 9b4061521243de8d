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
    last          the position that predicts the answer"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs.records import LETTERS
from analysis_lib.models.prompts import Prompt, Span


@dataclass(frozen=True)
class Roles:
    """The role of each of n positions, with the characters each covers."""

    names: tuple[str, ...]  # (n,)
    spans: tuple[Span, ...]  # (n,) in `text`; video tokens carry the placeholder's
    text: str
    sentence: tuple[int, ...]  # positions of the bare question sentence
    answer: int  # 0-based index of the right option
    # (n, n) bool [query, key > query], the later positions that the model lets each read; False: it is causal.
    ahead: np.ndarray | bool = field(default=False, compare=False, repr=False)

    @cached_property
    def frame_of(self) -> np.ndarray:
        """(n,) int: the 1-based frame of each video token, 0 for text."""
        return np.array([int(name[6:]) if name.startswith("frame ") else 0 for name in self.names])

    @property
    def readable(self) -> np.ndarray:
        """(n, n) bool [query, key], all edges there are: to the position itself, to earlier ones, and `ahead`."""
        return np.tri(len(self.names), dtype=bool) | self.ahead

    @cached_property
    def both_ways(self) -> bool:
        """Whether frames read later frames too."""
        later = (self.frame_of > 0)[:, None] & (self.frame_of[:, None] < self.frame_of)  # (n, n) frames of the keys
        return bool((self.ahead & later).any())

    def positions(self, which: str) -> np.ndarray:
        """Sorted positions of a role or of a union of roles, named below. Raises StudyError for an unknown name."""
        names = np.array(self.names)
        option, true = np.char.startswith(names, "option "), names == f"option {LETTERS[self.answer]}"
        unions = {
            "video": self.frame_of > 0,
            "text": self.frame_of == 0,
            "options": option,
            "true_option": true,
            "false_options": option & ~true,
            "question_block": option | (names == "question"),  # the paper's "question"
            "question_only": np.isin(np.arange(len(names)), self.sentence),  # its "non-option question"
            "after_video": (names == "system") & (np.cumsum(self.frame_of) > 0),  # template text before the question
        }
        if which not in {*unions, *self.names, "frame_text", "tail", "response"}:
            raise StudyError(f"unknown role {which!r}; known: {', '.join(dict.fromkeys([*self.names, *unions]))}")
        return np.flatnonzero(unions.get(which, names == which))

    def runs(self, which: str) -> list[tuple[int, int]]:
        """The role's positions as half-open runs of neighbours, in order."""
        at = self.positions(which)
        runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
        return [(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]

    def quote(self, first: int, stop: int) -> str:
        """The prompt text that positions first..stop-1 cover."""
        starts, ends = zip(*self.spans[first:stop], strict=True)
        return self.text[min(starts) : max(ends)]


def build_roles(prompt: Prompt, offsets: Sequence[Span], *, grid: tuple[int, int, int], answer: int) -> Roles:
    """Roles of a merged prompt whose placeholder grows into T*h*w video tokens, frame after frame. `offsets` are the
    tokenizer's spans, with one token for the placeholder; else SampleError, which `expanded_roles` raises too."""
    at = [i for i, span in enumerate(offsets) if tuple(span) == prompt.spans["image"]]
    if (found := len(at)) != 1:
        raise SampleError(f"the video placeholder became {found} tokens instead of one; the tokenizer does not know it")
    video = np.arange(1, grid[0] + 1).repeat(grid[1] * grid[2])
    spans = [*offsets[: at[0]], *[offsets[at[0]]] * len(video), *offsets[at[0] + 1 :]]
    frame_of = np.insert(np.zeros(len(offsets) - 1, int), at * len(video), video)
    return expanded_roles(prompt, spans, frame_of, answer=answer)


def expanded_roles(prompt: Prompt, offsets: Sequence[Span], frame_of: np.ndarray, *, answer: int) -> Roles:
    """Roles of a prompt whose placeholder is expanded in the text already, as processors of native models do it.
    `frame_of` (n,) is the 1-based frame of each video token, 0 for text; where a model merges two frames into one
    temporal patch, "frame" means this patch. Other tokens of the expansion are `frame_text`. Raises SampleError if
    text is lost at the end, or an option has no token of its own."""
    if offsets[-1][1] != len(prompt.text):
        raise SampleError("the prompt does not end with its last character; the tokenizer adds or drops text there")
    starts, stops = np.array(offsets).T

    def overlaps(part: str) -> np.ndarray:
        return np.maximum(starts, prompt.spans[part][0]) < np.minimum(stops, prompt.spans[part][1])

    options = [name for name in prompt.spans if name.startswith("option ")]
    parts = ["image", *options, "question_block"]  # a token that overlaps several belongs to the first
    cases = [*map(overlaps, parts), starts >= prompt.spans["question_block"][1]]
    text = np.select(cases, ["frame_text", *options, "question", "tail"], "system").tolist()
    names = [f"frame {frame}" if frame else name for frame, name in zip(frame_of, text, strict=True)]
    names[-1] = "last"
    if missing := [name for name in options if name not in names]:
        raise SampleError(f"{missing[0]} has no token of its own")
    spans = tuple(zip(starts.tolist(), stops.tolist(), strict=True))
    return Roles(tuple(names), spans, prompt.text, tuple(np.flatnonzero(overlaps("question")).tolist()), answer)
