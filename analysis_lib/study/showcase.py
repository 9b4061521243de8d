"""Measures one sample for pictures and stores it as an `examples.Example`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Sample
from analysis_lib.instrument import lens
from analysis_lib.instrument.edges import blocked_edges
from analysis_lib.models.merging import on_grid
from analysis_lib.models.records import VideoLLM
from analysis_lib.paths import write_atomic
from analysis_lib.study.answers import ask

LARGEST = 336  # pixels; frames are stored no larger


def write(vlm: VideoLLM, sample: Sample, file: Path, keywords: Mapping[str, Sequence[str]]) -> None:
    """Measure one sample and store it. Raises SampleError for a bad sample, StudyError if it cannot be written."""
    answer = ask(vlm, sample)
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
