"""The model without its weights: as large as the model, prompts as for the model, and no memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from analysis_lib.errors import StudyError
from analysis_lib.models import weights
from analysis_lib.models.skeleton import _ByShape, check_prompt, skeleton

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # GLM-4V's processor
HOW = {"dtype": torch.float32, "attn_implementation": "sdpa", "output_loading_info": True}


def test_it_has_the_models_sizes_and_takes_its_prompts(case):
    folder = Path(case.vlm.hf.name_or_path)
    stored = weights.shapes(weights.weight_files(folder))
    hf, report = skeleton(folder, type(case.vlm.hf), {}, stored, HOW)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    sizes = {name: parameter.shape for name, parameter in hf.named_parameters()}
    assert sizes == {name: parameter.shape for name, parameter in case.vlm.hf.named_parameters()}
    assert all(parameter.is_meta for parameter in hf.parameters())
    check_prompt(replace(case.vlm, hf=hf))
    del stored[next(iter(stored))]
    assert skeleton(folder, type(case.vlm.hf), {}, stored, HOW)[1]["missing_keys"]


def test_more_features_than_tokens_are_counted_without_a_weight(checkpoint, monkeypatch):
    vlm = checkpoint("qwen2_5_vl")
    folder = Path(vlm.hf.name_or_path)
    stored = weights.shapes(weights.weight_files(folder))
    hf, _ = skeleton(folder, type(vlm.hf), {}, stored, HOW)
    owner = type(hf.base_model)
    real = owner.get_video_features

    def twice(*args, **kwargs):
        found = real(*args, **kwargs)
        found.pooler_output = [torch.cat([part, part]) for part in found.pooler_output]
        return found

    monkeypatch.setattr(owner, "get_video_features", twice)
    with pytest.raises(StudyError, match="makes 12 video tokens of 4 frames, .* the model makes 24 features"):
        check_prompt(replace(vlm, hf=hf))


def test_whole_numbers_are_computed_and_what_meets_a_weight_is_a_shape():
    table, ids = torch.empty(3, 4, device="meta"), torch.tensor([2, 0])
    with _ByShape():
        found, more = table[ids] + torch.ones(4), (ids + 1).tolist()
    assert found.is_meta and found.shape == (2, 4) and more == [3, 1]
