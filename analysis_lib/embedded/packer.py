"""Questions as rows of token ids: several about one clip share the clip's tokens.

A row is a prefix (system text and video) and K branches of equal length. A branch attends to the prefix and to itself,
at the positions it would have alone, so packing changes the cost and not the function. There are two kinds of targets:
words, to be said by a middle layer, and letters, to be said by the last. Where a question with options ends, both are
asked for: the answer's word first, then its letter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from analysis_lib.embedded import world
from analysis_lib.embedded.quiz import VERBS
from analysis_lib.inputs.records import LETTERS, Question
from analysis_lib.models.prompts import build_prompt

IGNORE = -100  # no loss at this position
END = 2  # id of </s>


@dataclass(frozen=True)
class Branch:
    """Token ids; the word and the letter to be said at each position (IGNORE: none); a word added there (0: none);
    1 where the words of options stand."""

    ids: list[int]
    words: list[int]
    letters: list[int]
    added: list[int]
    options: list[int]

    def cut(self, length: int) -> Branch:
        """The first `length` positions."""
        return Branch(*(part[:length] for part in (self.ids, self.words, self.letters, self.added, self.options)))


class Packer:
    """Turns clips and questions into rows of token ids."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is the embedded models' own, loaded."""
        self.tokenizer = tokenizer
        self.image = tokenizer.convert_tokens_to_ids("<image>")
        self._encode = lru_cache(maxsize=200_000)(self._encode_text)

    def _encode_text(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        out = self.tokenizer(text, return_offsets_mapping=True)
        return out["input_ids"], out["offset_mapping"]

    def prefix(self, video_tokens: int) -> list[int]:
        """Ids of the system text and the video, up to the question, with `video_tokens` placeholders."""
        ids, _ = self._split(Question("Q", ("a", "b"), 0))
        at = ids.index(self.image)
        return ids[:at] + [self.image] * video_tokens + ids[at + 1 :]

    def _split(self, question: Question) -> tuple[list[int], list[int]]:
        prompt = build_prompt(question, "mvbench")
        ids, offsets = self._encode(prompt.text)
        start = prompt.spans["question_block"][0]
        cut = next(i for i, (a, b) in enumerate(offsets) if b > start and b > a)
        return ids[:cut], ids[cut:]

    def letter(self, question: Question) -> Branch:
        """The question in the study's protocol: at the open parenthesis the answer's first word, then its letter."""
        _, block = self._split(question)
        none = [IGNORE] * (len(block) - 1)
        word, letter = self.first_word(question.options[question.answer]), self._letters[question.answer]
        start, end = block.index(self._options), len(block) - self._ending
        options = [int(start <= i < end) for i in range(len(block))]
        return Branch(block, [*none, word], [*none, letter], [0] * len(block), options)

    def open(self, question: Question) -> Branch:
        """The question without its options, answered in words after the same ending."""
        _, block = self._split(Question("Q", ("a", "b"), 0))
        ids = self._encode(f"Question: {question.question}")[0][1:] + block[-self._ending :]
        return self._answered(ids, question.options[question.answer])

    def told(self, text: str) -> Branch:
        """A description of the clip."""
        return self._answered(self._encode("Describe the video. ASSISTANT:")[0][1:], text)

    def _answered(self, ids: list[int], text: str) -> Branch:
        answer = self._encode(text)[0][1:]
        ids, words = [*ids, *answer], [IGNORE] * (len(ids) - 1) + [*answer, END]
        return Branch(ids, words, [IGNORE] * len(ids), [0] * len(ids), [0] * len(ids))

    def first_word(self, text: str) -> int:
        """Id of a text's first word."""
        return self._encode(text)[0][1]

    @cached_property
    def _options(self) -> int:
        return self.tokenizer.convert_tokens_to_ids("Options")

    @cached_property
    def _letters(self) -> list[int]:
        return self.tokenizer.convert_tokens_to_ids(list(LETTERS))

    @cached_property
    def _ending(self) -> int:
        """Number of tokens from the end of the options to the open parenthesis, found by changing the last option."""
        blocks = [self._split(Question("Q", ("a", option), 0))[1] for option in ("b", "c")]
        return next(i for i, (x, y) in enumerate(zip(blocks[0][::-1], blocks[1][::-1], strict=True)) if x != y)

    def drill(self, rng: np.random.Generator) -> Branch:
        """Two to four options, then four times the first word of any of them, added to a "(", and there its letter."""
        n = int(rng.integers(2, 5))
        if rng.random() < 0.25:
            texts = [[int(word)] for word in rng.permutation(self.words)[:n]]
        else:
            phrases = rng.permutation(PHRASES[rng.integers(len(PHRASES))])
            distinct = {self.first_word(str(phrase)): str(phrase) for phrase in phrases}
            texts = [self._encode(phrase)[0][1:] for phrase in [*distinct.values()][:n]]
        newline, left, right = (self.tokenizer.convert_tokens_to_ids(c) for c in "\n()")
        ids = self._encode("Options:")[0][1:]
        for letter, text in zip(self._letters, texts, strict=False):
            ids = [*ids, newline, left, letter, right, *text]
        letters, added, options = [IGNORE] * len(ids), [0] * len(ids), [1] * len(ids)
        for i in rng.integers(len(texts), size=4):  # drawn anew each time: the letters said before are no help
            ids = [*ids, left, self._letters[i]]
            letters, added = [*letters, self._letters[i], IGNORE], [*added, texts[i][0], 0]
        return Branch(ids, [IGNORE] * len(ids), letters, added, options + [0] * (len(ids) - len(options)))

    @cached_property
    def words(self) -> np.ndarray:
        """Ids of whole words."""
        vocabulary = self.tokenizer.get_vocab().items()
        return np.array(sorted(i for word, i in vocabulary if word.startswith("▁") and len(word) > 2))


PHRASES = (
    list(VERBS.values()),
    list(world.DIAGONALS),
    list("0123"),
    list(world.COLOURS),
    list(world.SHAPES),
    list(world.SCENES),
    ["left", "right", "top", "bottom"],
    [f"{a} to {b}" for a in world.SCENES for b in world.SCENES if a != b],
)


def lay_out(rows: list[list[Branch]], prefix: list[int], at: int, video: int, length: int) -> dict[str, Any]:
    """Rows of branches behind a common prefix as arrays; keys as in `lessons.make_batch`."""
    start, count = len(prefix), len(rows[0])
    shape = (len(rows), start + count * length)
    laid = {name: np.full(shape, IGNORE, np.int64) for name in ("words", "letters")}
    laid |= {name: np.zeros(shape, np.int64) for name in ("ids", "added", "options")}
    laid["ids"][:, :start] = prefix
    for i, row in enumerate(rows):
        for j, branch in enumerate(row):
            first, n = start + j * length, len(branch.ids)
            if n > length:
                raise ValueError(f"a branch of {n} tokens does not fit into {length}")
            for name, values in laid.items():
                values[i, first : first + n] = getattr(branch, name)
    own = np.triu(np.full((length, length), -1e9, np.float32), 1)
    mask = np.concatenate([np.zeros((length, start), np.float32), own], 1)[None, None]
    positions = np.concatenate([np.arange(start), *[start + np.arange(length)] * count])[None]
    return {**laid, "positions": positions, "mask": mask, "at": at, "video": video}
