"""Single samples for pictures: frames, the words that video tokens show, and attention from words onto frames.

An example is one file in DIR/examples. It holds all layers and all tokens of the question block, so figures can be
redrawn, and other words or layers chosen, without a model.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis_lib.errors import StudyError
from analysis_lib.study.tables import write_atomic

if TYPE_CHECKING:
    from analysis_lib.inputs.benchmarks import Sample
    from analysis_lib.models.loading import VideoLLM

LARGEST = 336  # pixels; frames are stored no larger
OPEN, CUT = "all edges", "cross-frame edges cut"


@dataclass(frozen=True)
class Example:
    """One sample as stored.

    `frames` (T, H, W, 3) uint8, what the model sees (one a temporal patch, where frames are merged); `words`
    (L, T, h, w) the nearest word of each video token after each layer; `tokens` the pieces of the question block;
    `attention` and `attention_cut` (L, Q, T, h, w) from each of these onto video tokens, mean over heads, with all
    edges and with cross-frame edges cut in all layers;
    `kinds` maps each keyword of the lens to its kind.
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
        return {
            OPEN: self.attention[:, rows].astype(np.float32).mean(1),
            CUT: self.attention_cut[:, rows].astype(np.float32).mean(1),
        }

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


def write(vlm: VideoLLM, sample: Sample, file: Path, keywords: Mapping[str, Sequence[str]]) -> None:
    """Measure one sample and store it. Raises SampleError for a bad sample, StudyError if it cannot be written."""
    from analysis_lib.instrument import lens
    from analysis_lib.instrument.edges import blocked_edges
    from analysis_lib.models.loading import on_grid
    from analysis_lib.study import measure

    answer = measure.ask(vlm, sample)
    inputs, roles, grid = answer.inputs, answer.inputs.roles, answer.inputs.grid
    if grid is None:
        raise StudyError(f"{vlm.name} shows frames with different numbers of tokens; their maps cannot be drawn")
    crops = vlm.processor is None or bool(getattr(vlm.processor.video_processor, "do_center_crop", False))
    queries = roles.positions("question_block")
    top = lens.logit_lens(vlm, inputs, answer.clean, {})[1]  # (L, N_v)
    cut = blocked_edges("cross-frame", roles)
    maps = [lens.attention_maps(vlm, inputs, queries, without=without) for without in (None, cut)]  # (L, Q, N_v) each
    about = {
        "task": sample.task,
        "sample_id": sample.sample_id,
        "question": sample.question,
        "options": sample.options,
        "answer": sample.letter,
        "prediction": answer.base.prediction,
        "kinds": {word: kind for kind, words in keywords.items() for word in words},
        "tokens": [roles.quote(int(i), int(i) + 1) for i in queries],
    }
    spelled = {int(i): vlm.tokenizer.decode([int(i)]).strip() for i in np.unique(top)}
    arrays = {
        "about": np.array(json.dumps(about, ensure_ascii=False)),
        "frames": seen_by_model(answer.clip.frames[:: len(answer.clip.frames) // grid[0]], crop=crops),
        "words": on_grid(inputs, np.vectorize(spelled.__getitem__, otypes=[str])(top)),
        "attention": on_grid(inputs, maps[0]).astype(np.float16),
        "attention_cut": on_grid(inputs, maps[1]).astype(np.float16),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(file, buffer.getvalue())


def seen_by_model(frames: np.ndarray, *, crop: bool = True) -> np.ndarray:
    """What the vision tower sees of frames (T, H, W, 3), no side over 336 pixels: the central square, or all of it."""
    from PIL import Image

    height, width = frames.shape[1:3]
    if crop:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        frames, height, width = frames[:, top : top + side, left : left + side], side, side
    longest = max(height, width)
    if longest <= LARGEST:
        return frames
    size = (width * LARGEST // longest, height * LARGEST // longest)  # PIL wants (width, height)
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in frames])
