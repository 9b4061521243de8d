"""What the inputs of a study are: questions that can be asked, questions that cannot, and clips."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

LETTERS = "ABCDEFGH"  # of the options, in order


@dataclass(frozen=True)
class Question:
    """What a prompt needs to know of a question.

    `answer` is the 0-based index of the right option. An open-ended question has no options, `reference` is its
    published answer; `wording` and `stem` say how it is put (`models.prompts`).
    """

    question: str
    options: tuple[str, ...] = ()
    answer: int = 0
    reference: str = ""
    wording: str = "options"
    stem: str = ""

    @property
    def letter(self) -> str:
        """The right option's letter, empty for an open-ended question."""
        return LETTERS[self.answer] if self.options else ""

    @property
    def answer_text(self) -> str:
        """The right option's text, or the published answer of an open-ended question."""
        return self.options[self.answer] if self.options else self.reference


@dataclass(frozen=True, kw_only=True)
class Sample(Question):
    """A question about a clip of a benchmark.

    `video` is the clip's place on disk, `clip` its name inside the benchmark (the unit of the bootstrap); `start` and
    `end` are in seconds. `sha256` identifies question and clip (16 digits), `rule` is the benchmark's sampling rule
    (`videos.sample_indices`).
    """

    task: str
    sample_id: str
    video: Path
    start: float | None = None
    end: float | None = None
    clip: str = ""
    sha256: str = ""
    rule: str = "middle"


@dataclass(frozen=True)
class Skip:
    """A requested question that cannot be measured, and why."""

    task: str
    sample_id: str
    reason: str
    clip: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Clip:
    """Frames (T, H, W, 3) uint8 RGB, their indices in the file and times in seconds, and a hash of their bytes."""

    frames: np.ndarray
    indices: tuple[int, ...]
    seconds: tuple[float, ...]
    sha256: str
