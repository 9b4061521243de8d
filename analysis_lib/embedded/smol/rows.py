"""Questions about one clip as one row of tokens: a tree whose root is the video.

Every question must see the system text, the video and itself, at the positions it would have alone. Questions that
begin alike share their beginning: a token's branch is the path from the root to it. So an open answer costs little
beside the same question with options, and a row gives the same function as its questions one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from analysis_lib.embedded.smol.base import PLACEHOLDER
from analysis_lib.inputs.records import LETTERS, Question
from analysis_lib.models.prompts import build_prompt

PROTOCOL = "mvbench"  # that of `llava` checkpoints in `families`


@dataclass(frozen=True)
class Branch:
    """A prompt's token ids behind the video, and the ids to be said there. `kind` names what is asked, for counting;
    `letter`: whether a letter is said."""

    prompt: tuple[int, ...]
    said: tuple[int, ...]
    kind: str
    letter: bool


class Prompts:
    """Turns questions into branches with the base's tokenizer, in the study's own prompt format."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is that of the checkpoint: the base's, with a placeholder."""
        self.tokenizer = tokenizer
        self.image = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        self.end = tokenizer.eos_token_id
        self.letters = tuple(tokenizer.convert_tokens_to_ids(list(LETTERS)))
        self._encode = lru_cache(maxsize=100_000)(lambda text: tuple(tokenizer(text)["input_ids"]))
        whole = self._encode(build_prompt(Question("Q", ("a", "b")), PROTOCOL).text)
        self.system = whole[: whole.index(self.image)]  # ids before the video, the same for every question

    def _behind(self, text: str) -> tuple[int, ...]:
        ids = self._encode(text)
        return ids[ids.index(self.image) + 1 :]

    def letter(self, kind: str, text: str, options: tuple[str, ...], answer: int) -> Branch:
        """The question in the study's protocol, answered by the option's letter."""
        prompt = build_prompt(Question(text, options), PROTOCOL).text
        return Branch(self._behind(prompt), (self.letters[answer],), kind, True)

    def told(self, kind: str, text: str, options: tuple[str, ...], answer: int) -> Branch:
        """The question with options, then the right one in words, then the letter: a look-up and nothing else."""
        prompt = build_prompt(Question(text, options), PROTOCOL).text
        before, turn, after = prompt.rpartition(" ASSISTANT:")
        prompt = f"{before} The answer is {options[answer]}.{turn}{after}"
        return Branch(self._behind(prompt), (self.letters[answer],), kind, True)

    def words(self, kind: str, text: str, answer: str) -> Branch:
        """The question without options, answered in words and closed by the end token."""
        prompt = build_prompt(Question(text, ("a", "b")), PROTOCOL)
        start = f"{prompt.text[: prompt.spans['question'][1]]} ASSISTANT:"
        said = self._behind(f"{start} {answer}")[len(self._behind(start)) :]
        return Branch(self._behind(start), (*said, self.end), kind, False)


@dataclass
class Row:
    """One row under construction, `length` tokens at most. Lists over its nodes: token id (0 where a video token
    stands), parent (-1: none) and depth; and over what was asked: the branch, and the places where it says its ids."""

    length: int
    video: int
    ids: list[int]
    parents: list[int]
    depths: list[int]
    asked: list[tuple[Branch, range]]

    @classmethod
    def start(cls, length: int, video: int) -> Row:
        """A row that holds `video` video tokens and nothing else."""
        return cls(length, video, [0] * video, list(range(-1, video - 1)), list(range(video)), [])

    def add(self, branch: Branch) -> bool:
        """Add a branch, sharing what begins like another one; False if it does not fit."""
        at, shared = self.video - 1, 0
        children = {(p, i): n for n, (p, i) in enumerate(zip(self.parents, self.ids, strict=True)) if n >= self.video}
        prompt = branch.prompt
        while shared < len(prompt) - 1 and (at, prompt[shared]) in children:
            at, shared = children[at, prompt[shared]], shared + 1
        rest = [*prompt[shared:], *branch.said[:-1]]
        if len(self.ids) + len(rest) > self.length:
            return False
        for token in rest:
            self.depths.append(self.depths[at] + 1 if at >= 0 else 0)
            self.parents.append(at)
            self.ids.append(token)
            at = len(self.ids) - 1
        self.asked.append((branch, range(at - len(branch.said) + 1, at + 1)))
        return True


def lay_out(rows: list[Row], system: tuple[int, ...]) -> dict[str, Any]:
    """Rows behind the ids `system` as arrays: ids and positions (B, L) int64, the attention mask (B, 1, L, P + L)
    float32, 0 where a token may look and -inf elsewhere, and `system` (P,). L is the longest row; places that no token
    fills see the system text alone. What is to be said, n ids in all: `places` (n,), counted through all rows, `said`
    (n,) and `lettered` (n,) bool; `asked` tells of each answer its kind, whether it is a letter, and which of the n
    it is.
    """
    length, start = max(len(row.ids) for row in rows), len(system)
    ids, positions = np.zeros((2, len(rows), length), np.int64)
    seen = np.zeros((len(rows), length, start + length), bool)
    seen[:, :, :start] = True
    for b, row in enumerate(rows):
        n = len(row.ids)
        ids[b, :n], positions[b, :n] = row.ids, np.array(row.depths) + start
        own = seen[b, :, start:]
        for i, parent in enumerate(row.parents):
            if parent >= 0:
                own[i] = own[parent]
            own[i, i] = True
    mask = np.where(seen, np.float32(0), np.float32(-np.inf))[:, None]
    return {"ids": ids, "positions": positions, "mask": mask, "system": np.array(system), **_said(rows, length)}


def _said(rows: list[Row], length: int) -> dict[str, Any]:
    places, said, lettered, asked = [], [], [], []
    for b, row in enumerate(rows):
        for branch, at in row.asked:
            asked.append((branch.kind, branch.letter, range(len(said), len(said) + len(at))))
            places += [b * length + place for place in at]
            said += branch.said
            lettered += [branch.letter] * len(at)
    arrays = {"places": np.array(places, np.int64), "said": np.array(said, np.int64), "lettered": np.array(lettered)}
    return arrays | {"asked": asked}
