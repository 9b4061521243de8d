"""The published study's own models: frame processing, pooling, repeated frames."""

import numpy as np
import pytest
import torch

from analysis_lib.models import merging


def test_short_clips_repeat_each_frame(tiny_vlm, tiny_frames):
    short = merging.encode_frames(tiny_vlm, tiny_frames[:3])
    repeated = merging.encode_frames(tiny_vlm, tiny_frames[[0, 0, 0, 1, 1, 1, 2, 2]])
    assert short.shape == (32, 64) and torch.allclose(short, repeated, atol=1e-6)


def test_pooling_is_the_mean_of_each_cell_of_one_frame(tiny_vlm, tiny_frames):
    pixels = merging.pixel_values(tiny_vlm, tiny_frames)
    with torch.no_grad():
        full = tiny_vlm.hf.get_image_features(pixel_values=pixels).pooler_output[5].view(4, 4, -1)
    tokens = merging.encode_frames(tiny_vlm, tiny_frames).view(8, 2, 2, -1)
    assert torch.allclose(tokens[5, 0, 1], full[0:2, 2:4].mean((0, 1)), atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 64, 48), (8, 200, 90), (8, 30, 300), (8, 56, 56)])
def test_any_frame_size_becomes_the_tower_size(tiny_vlm, shape):
    frames = np.zeros((*shape, 3), np.uint8)
    assert merging.pixel_values(tiny_vlm, frames).shape == (8, 3, 56, 56)
