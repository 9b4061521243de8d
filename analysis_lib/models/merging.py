"""One sample merged with its clip, for every model: prompt, video tokens, roles, letters.

Two paths lead there. Native video models bring their own processor (`native.py`); the published study's image models
are shown a clip frame by frame (`pooled.py`). What differs between families is one table (`families.py`)."""

import numpy as np
import torch

from analysis_lib.errors import SampleError
from analysis_lib.inputs.records import Clip, Question
from analysis_lib.models.native import make_native_inputs
from analysis_lib.models.pooled import make_pooled_inputs, model_inputs
from analysis_lib.models.records import Inputs, VideoLLM


@torch.no_grad()
def make_inputs(vlm: VideoLLM, sample: Question, clip: Clip | np.ndarray) -> Inputs:
    """Prompt and clip merged. `clip` may be bare frames (T, H, W, 3) uint8, which count as one a second. Fewer than the
    model is shown are each repeated. Raises SampleError for a bad sample or clip."""
    if len(sample.options) > len(vlm.letter_ids):
        raise SampleError(f"{len(sample.options)} options, but the tokenizer has only {len(vlm.letter_ids)} letters")
    frames = clip if isinstance(clip, np.ndarray) else clip.frames
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise SampleError(f"frames must be (T, H, W, 3) uint8 with T >= 1, not {frames.shape} {frames.dtype}")
    if len(frames) > vlm.num_frames:
        raise SampleError(f"{len(frames)} frames given, the model takes {vlm.num_frames}; sample them first")
    if clip is frames:
        clip = Clip(frames, tuple(range(len(frames))), tuple(map(float, range(len(frames)))), "")
    inputs = (make_pooled_inputs if vlm.processor is None else make_native_inputs)(vlm, sample, clip)
    inputs.letter_ids = _answer_ids(vlm, sample, inputs.roles.text)
    return inputs


def _answer_ids(vlm: VideoLLM, sample: Question, text: str) -> list[int]:
    """Vocabulary entries of the options' letters; of an open-ended question the one with which its answer goes on after
    the prompt `text` (its published answer's first token, a space before it where the prompt ends in a word)."""
    if sample.options:
        return list(vlm.letter_ids[: len(sample.options)])
    line = text[text.rfind("\n") + 1 :]
    line += "" if not line or line[-1] in " (" else " "
    encoded = vlm.tokenizer(line + sample.reference, add_special_tokens=False, return_offsets_mapping=True)
    after = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    found = [token for token, (_, stop) in after if stop > len(line)]
    if not found:
        raise SampleError(f"the answer {sample.reference!r} has no token of its own")
    return found[:1]


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
    given = model_inputs(vlm, inputs) if inputs.model_inputs is None else inputs.model_inputs
    return vlm.hf(**given, use_cache=False, logits_to_keep=1).logits[0]
