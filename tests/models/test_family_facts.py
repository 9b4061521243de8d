"""The table of families: which checkpoint takes which path, and features that transformers' own path loses."""

from types import SimpleNamespace

import pytest
import torch

from analysis_lib.models import families
from analysis_lib.models.families import FAMILIES, IMAGES, facts_of, family_of

POOLED = {"num_frames": 8, "pooling_shape": [8, 1, 1], "frame_shape": [2, 2]}


@pytest.mark.parametrize(
    ("config", "template", "wanted"),
    [
        ({"model_type": "llava", **POOLED}, True, "llava"),  # a video model of the paper, whatever else its folder has
        ({"model_type": "llava", "num_frames": 8}, True, "llava"),  # which then is refused for what it does not state
        ({"model_type": "llava"}, True, None),
        ({"model_type": "llava"}, False, "llava"),
        ({"model_type": "llava_next"}, True, "llava_next"),  # its base, on Vicuna
        ({"model_type": "llava_next", "text_config": {"model_type": "llama"}}, True, "llava_next"),
        ({"model_type": "llava_next", "text_config": {}}, True, "llava_next"),  # Llama is what a config leaves out
        ({"model_type": "llava_next", "text_config": {"model_type": "mistral"}}, True, None),
        ({"model_type": "llava_next", "text_config": {"model_type": "mistral"}}, False, "llava_next"),
    ],
)
def test_llava_is_the_papers_model_or_shown_frames_as_images(tmp_path, config, template, wanted):
    (tmp_path / "preprocessor_config.json").write_text("{}")
    if template:
        (tmp_path / "chat_template.jinja").write_text("x")
    assert family_of(tmp_path, config) is (FAMILIES[wanted] if wanted else IMAGES)


def test_a_video_processor_comes_before_an_image_processor(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("x")
    assert family_of(tmp_path, {"model_type": "new"}) is IMAGES
    (tmp_path / "video_preprocessor_config.json").write_text("{}")
    assert family_of(tmp_path, {"model_type": "new"}) == facts_of("new") == families.Family()


def test_kimis_features_are_those_of_its_tower_and_projector_in_order():
    seen = torch.arange(24.0).view(6, 1, 4)
    called = {}

    def tower(pixels, grid_thw):
        called.update(pixels=pixels, grid=grid_thw)
        return SimpleNamespace(pooler_output=seen)

    model = SimpleNamespace(vision_tower=tower, mm_projector=lambda tokens: 2 * tokens)
    given = {"pixel_values_videos": torch.ones(3), "video_grid_thw": torch.tensor([[4, 2, 2]])}
    (found,) = facts_of("kimi_k25").encode(model, given).pooler_output
    assert torch.equal(found, 2 * seen[:, 0]) and called["grid"] is given["video_grid_thw"]
    assert called["pixels"] is given["pixel_values_videos"]


@pytest.mark.parametrize("listed", [False, True])
def test_nemotrons_features_are_a_list_of_videos_whatever_transformers_returns(listed):
    seen = torch.arange(24.0).view(2, 3, 4)
    model = SimpleNamespace(
        get_video_features=lambda pixels: SimpleNamespace(pooler_output=[seen] if listed else seen, pixels=pixels)
    )
    found = facts_of("nemotron_h_omni").encode(model, {"pixel_values_videos": torch.ones(1)}).pooler_output
    assert isinstance(found, list) and torch.equal(torch.cat(found), seen)
