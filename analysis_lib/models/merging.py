"""One sample merged with its clip, for every model: prompt, video tokens, roles, letters.

Two paths lead there. Native video models bring their own processor (`native.py`); the published study's image models
are shown a clip frame by frame. A checkpoint in the format of LLaVA-NeXT-7B-Video-FT is an ordinary `llava` checkpoint
whose config also states the number of frames, and the token grids of a frame before and of a clip after pooling, which
follows the projector; Mini-InternVL is shown frames in the same way, without pooling. Frame processing and pooling are
the published ones. What differs between families is one table (`families.py`)."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs.records import Clip, Question
from analysis_lib.models.native import make_native_inputs
from analysis_lib.models.prompts import build_prompt
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.models.roles import build_roles

LONGEST_EDGE = 640  # published cap on the long side of a frame before the first resize, in pixels


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


def make_pooled_inputs(vlm: VideoLLM, sample: Question, clip: Clip) -> Inputs:
    """Prompt and clip merged, but for the letters. Raises SampleError for a bad sample."""
    grid = tuple(vlm.hf.config.pooling_shape)  # (T, h, w)
    prompt = build_prompt(sample, vlm.protocol)
    encoded = vlm.tokenizer(prompt.text, return_offsets_mapping=True)
    roles = build_roles(prompt, encoded["offset_mapping"], grid=grid, answer=sample.answer)
    ids = list(encoded["input_ids"])
    at = int(roles.positions("video")[0])  # of the placeholder
    video = encode_frames(vlm, clip.frames)
    words = torch.tensor([*ids[:at], 0, *ids[at + 1 :]], device=vlm.device)  # the placeholder may have no embedding
    text = vlm.hf.get_input_embeddings()(words)  # (len(ids), d)
    embeds = torch.cat([text[:at], video.to(text.dtype), text[at + 1 :]])[None]  # (1, n, d)
    counts, by_columns = (grid[1] * grid[2],) * grid[0], getattr(vlm.hf.config, "by_columns", False)
    return Inputs(ids, embeds, roles, [], embeds.shape[1], counts, grid, by_columns=by_columns)


def pixel_values(vlm: VideoLLM, frames: np.ndarray) -> torch.Tensor:
    """(T, 3, S, S) model input from (T, H, W, 3) uint8 frames, in the two published steps: a bicubic resize that keeps
    the aspect and never goes below the vision tower's size; then the CLIP processor: short edge to that size, centre
    crop (the sides of a wide video are lost), normalise."""
    height, width = frames.shape[1:3]
    short, long = sorted((height, width))
    edge = max(vlm.image_processor.size["shortest_edge"], min(short, int(min(long, LONGEST_EDGE) / (long / short))))
    other = int(edge * long / short)
    size = (edge, other) if height >= width else (other, edge)  # PIL wants (width, height)
    images = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]
    return vlm.image_processor(images, return_tensors="pt")["pixel_values"].to(vlm.device, vlm.dtype)


def encode_frames(vlm: VideoLLM, frames: np.ndarray) -> torch.Tensor:
    """Video tokens (N_v, d), frame after frame, row by row, from (T, H, W, 3) uint8 frames; fewer frames than the model
    takes are each repeated, as published."""
    wanted, rows, columns = vlm.num_frames, *vlm.hf.config.frame_shape
    pixels = pixel_values(vlm, frames)
    features = torch.stack([*vlm.hf.get_image_features(pixel_values=pixels).pooler_output])  # (T, rows*columns, d)
    if features.shape[1] != rows * columns:
        raise StudyError(f"{features.shape[1]} patches a frame, but config.json states frame_shape [{rows}, {columns}]")
    if len(features) < wanted:
        features = features.repeat_interleave(wanted // len(features) + 1, dim=0)[:wanted]
    order = (3, 0, 2, 1) if getattr(vlm.hf.config, "by_columns", False) else (3, 0, 1, 2)
    volume = features.view(wanted, rows, columns, -1).permute(order)  # (d, T, rows, columns)
    pooled = torch.nn.functional.adaptive_avg_pool3d(volume, tuple(vlm.hf.config.pooling_shape))
    return pooled.flatten(1).T.contiguous()  # (T*h*w, d)


def model_inputs(vlm: VideoLLM, inputs: Inputs) -> dict[str, Any]:
    """What the model's own forward takes: ids with one placeholder for each video token, and the features."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling  # heavy

    video = inputs.roles.positions("video")
    at = int(video[0])
    grown = [*inputs.input_ids[:at], *[vlm.hf.config.image_token_id] * len(video), *inputs.input_ids[at + 1 :]]
    tokens = inputs.embeds[:, video]  # (1, N_v, d)
    image = BaseModelOutputWithPooling(pooler_output=[*tokens] if vlm.hf.config.model_type == "llava" else tokens)
    return {"input_ids": torch.tensor([grown], device=vlm.device), "mm_encoder_outputs": {"image": image}}


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
