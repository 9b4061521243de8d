"""One sample merged with its clip, for every model: prompt, video tokens, roles, letters.

Two paths lead there. Native video models bring their own processor (`native.py`); the published study's image models
are shown a clip frame by frame (`pooled.py`). What differs between families is one table (`families.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from analysis_lib.errors import SampleError
from analysis_lib.inputs.records import Question
from analysis_lib.models.native import make_native_inputs
from analysis_lib.models.pooled import make_pooled_inputs, model_inputs
from analysis_lib.models.records import Inputs, VideoLLM


@torch.no_grad()
def make_inputs(vlm: VideoLLM, sample: Question, clip: Any) -> Inputs:
    """Prompt and clip merged.

    `clip` is a Clip or its frames (T, H, W, 3) uint8. Raises SampleError for a bad sample.
    """
    if len(sample.options) > len(vlm.letter_ids):
        raise SampleError(f"{len(sample.options)} options, but the tokenizer has only {len(vlm.letter_ids)} letters")
    if vlm.processor is not None:
        return make_native_inputs(vlm, sample, clip)
    return make_pooled_inputs(vlm, sample, getattr(clip, "frames", clip))


def on_grid(inputs: Inputs, values: np.ndarray) -> np.ndarray:
    """Values (…, N_v) of video tokens as (…, T, h, w), the frame's rows from top to bottom."""
    frames, height, width = inputs.grid
    if inputs.by_columns:
        return values.reshape(*values.shape[:-1], frames, width, height).swapaxes(-1, -2)
    return values.reshape(*values.shape[:-1], frames, height, width)


def model_logits(vlm: VideoLLM, inputs: Inputs) -> torch.Tensor:
    """Last-position logits (V,) in the model's dtype, from its own forward: placeholders in the ids, no hooks."""
    return own_logits(vlm, inputs)[-1]


def own_logits(vlm: VideoLLM, inputs: Inputs) -> torch.Tensor:
    """Logits (rows, V) of the model's own forward, asked for the last row; some models return all rows all the same."""
    given = inputs.model_inputs
    if given is None:
        given = model_inputs(vlm, inputs)
    return vlm.hf(**given, use_cache=False, logits_to_keep=1).logits[0]
