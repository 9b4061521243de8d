"""Single samples for pictures: frames, the words that video tokens show, and attention from words onto frames.

An example is one file in DIR/examples. It holds all layers and all tokens of the question block, so figures can be
redrawn, and other words or layers chosen, without a model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis_lib.errors import StudyError


@dataclass(frozen=True)
class Example:
    """One sample as stored; a video token stands at (T, h, w)."""

    task: str
    sample_id: str
    question: str
    options: tuple[str, ...]
    answer: str
    prediction: str
    kinds: Mapping[str, str]  # of the lens's keywords
    tokens: tuple[str, ...]  # (Q,) pieces of the question block
    frames: np.ndarray  # (T, H, W, 3) uint8, what the model sees (one a temporal patch, where frames are merged)
    words: np.ndarray  # (L, T, h, w), the nearest word of each video token after each layer
    attention: np.ndarray  # (L, Q, T, h, w), from each of `tokens` onto video tokens, mean over heads
    attention_cut: np.ndarray  # the same with cross-frame edges cut in all layers

    def maps(self, word: str) -> dict[str, np.ndarray]:
        """Attention (L, T, h, w) from a word of the question or its options, mean over its tokens, by condition. All
        places where the word stands count. Raises StudyError, listing the words, if it stands nowhere."""
        spelled, owner = [""], []  # words, and which of them each token belongs to
        for token in self.tokens:
            if not (spelled[-1].isalnum() and token.rstrip().isalnum()):  # a space or a sign begins another word
                spelled.append("")
            spelled[-1] += token.strip()
            owner.append(len(spelled) - 1)
        rows = [i for i, at in enumerate(owner) if spelled[at].lower() == word.lower()]
        if not rows:
            known = ", ".join(dict.fromkeys(filter(str.isalnum, spelled)))
            raise StudyError(f"{word!r} is no word of this question; its words: {known}")
        conditions = {"all edges": self.attention, "cross-frame edges cut": self.attention_cut}
        return {name: attention[:, rows].astype(np.float32).mean(1) for name, attention in conditions.items()}


def file_of(folder: Path, sample_id: str) -> Path:
    """Where the example of a sample lies in a results folder."""
    return Path(folder) / "examples" / f"{sample_id.replace('/', '-')}.npz"


def read(file: Path) -> Example:
    """A stored example. Raises StudyError for a damaged file."""
    try:
        with np.load(file) as stored:
            arrays = dict(stored)
        about = json.loads(str(arrays.pop("about")))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise StudyError(f"{file} cannot be read ({error}); delete it to measure it again") from error
    return Example(**about | {name: tuple(about[name]) for name in ("options", "tokens")}, **arrays)
