"""What the inputs of a study are: questions that can be asked, questions that cannot, and clips."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

LETTERS = "ABCDEFGH"  # of the options, in order


@dataclass(frozen=True)
class Question:
    """What a prompt needs to know of a question."""

    question: str
    options: tuple[str, ...] = ()  # none: the question is open-ended
    answer: int = 0  # 0-based index of the right option
    reference: str = ""  # the published answer of an open-ended question
    wording: str = "options"  # how the question is put (`models.prompts`)
    stem: str = ""  # the start of a sentence to complete

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
    """A question about a clip of a benchmark."""

    task: str
    sample_id: str
    video: Path  # on disk
    start: float | None = None  # seconds, as `end`
    end: float | None = None
    clip: str = ""  # the video's name inside the benchmark, the unit of the bootstrap
    sha256: str = ""  # identifies question and clip (16 digits)
    rule: str = "middle"  # of sampling (`videos.sample_indices`)


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
