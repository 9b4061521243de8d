"""Single samples for pictures: frames, the words that video tokens show, and attention from words onto frames.

An example is one file in DIR/examples. It holds all layers and all tokens of the question block, so figures can be
redrawn, and other words or layers chosen, without a model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis_lib.errors import StudyError

OPEN, CUT = "all edges", "cross-frame edges cut"


@dataclass(frozen=True)
class Example:
    """One sample as stored.

    `frames` (T, H, W, 3) uint8, what the model sees (one a temporal patch, where frames are merged); `words`
    (L, T, h, w) the nearest word of each video token after each layer; `tokens` the pieces of the question block;
    `attention` and `attention_cut` (L, Q, T, h, w) from each of these onto video tokens, mean over heads, with all
    edges and with cross-frame edges cut in all layers; `kinds` maps each keyword of the lens to its kind.
    """

    task: str
    sample_id: str
    question: str
    options: tuple[str, ...]
    answer: str
    prediction: str
    kinds: Mapping[str, str]
    tokens: tuple[str, ...]
    frames: np.ndarray
    words: np.ndarray
    attention: np.ndarray
    attention_cut: np.ndarray

    def maps(self, word: str) -> dict[str, np.ndarray]:
        """Attention (L, T, h, w) from a word of the question or its options, mean over its tokens, by condition.

        All places where the word stands count. Raises StudyError, listing the words, if it stands nowhere.
        """
        rows = self._places(word)
        conditions = {OPEN: self.attention, CUT: self.attention_cut}
        return {name: attention[:, rows].astype(np.float32).mean(1) for name, attention in conditions.items()}

    def _places(self, word: str) -> list[int]:
        """Indices of the tokens that cover a whole word."""
        owner, spelled = [], []
        for token in self.tokens:
            if not spelled or token[:1].isspace() or not token.strip().isalnum() or not spelled[-1].isalnum():
                spelled.append("")
            spelled[-1] += token.strip()
            owner.append(len(spelled) - 1)
        rows = [i for i, at in enumerate(owner) if spelled[at].lower() == word.lower()]
        if not rows:
            known = ", ".join(dict.fromkeys(s for s in spelled if s.isalnum()))
            raise StudyError(f"{word!r} is no word of this question; its words: {known}")
        return rows


def file_of(folder: Path, sample_id: str) -> Path:
    """Where the example of a sample lies in a results folder."""
    return Path(folder) / "examples" / f"{sample_id.replace('/', '-')}.npz"


def read(file: Path) -> Example:
    """A stored example. Raises StudyError for a damaged file."""
    try:
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
        about = json.loads(str(arrays.pop("about")))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise StudyError(f"{file} cannot be read ({error}); delete it to measure it again") from error
    texts = {name: tuple(about.pop(name)) for name in ("options", "tokens")}
    return Example(**about, **texts, **arrays)
