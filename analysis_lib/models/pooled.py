"""From a clip to a merged prompt for the published study's own models: image models that see a clip frame by frame.

A checkpoint in the format of LLaVA-NeXT-7B-Video-FT is an ordinary `llava` checkpoint whose config also states the
number of frames, and the token grids of a frame before and of a clip after pooling, which follows the projector.
Mini-InternVL is shown frames in the same way, without pooling. Frame processing and pooling are the published ones."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Clip, Question
from analysis_lib.models.prompts import build_prompt
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.models.roles import build_roles

LONGEST_EDGE = 640  # published cap on the long side of a frame before the first resize, in pixels


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
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    video = inputs.roles.positions("video")
    at = int(video[0])
    grown = [*inputs.input_ids[:at], *[vlm.hf.config.image_token_id] * len(video), *inputs.input_ids[at + 1 :]]
    tokens = inputs.embeds[:, video]  # (1, N_v, d)
    image = BaseModelOutputWithPooling(pooler_output=[*tokens] if vlm.hf.config.model_type == "llava" else tokens)
    return {"input_ids": torch.tensor([grown], device=vlm.device), "mm_encoder_outputs": {"image": image}}
