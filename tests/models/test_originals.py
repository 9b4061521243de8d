"""Checkpoints in their authors' own formats: translated, they compute what the original computes."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from safetensors.torch import load_file, save_file
from tiny_originals import image_base, internvl, rewrite
from torch.nn import functional

from analysis_lib.errors import StudyError
from analysis_lib.instrument.checks import load_model, self_test
from analysis_lib.instrument.edges import EDGE_SETS, blocked_edges, windows
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.models import merging
from analysis_lib.models.merging import make_inputs, model_logits, on_grid

LAYER = "language_model.model.layers.{}.self_attn.{}_proj"


@pytest.fixture
def copy(tmp_path):
    """A copy of the golden checkpoint to rewrite."""
    return shutil.copytree(GOLDEN, tmp_path / "copy")


def logits(folder, frames, sample):
    vlm = load_model(str(folder), device="cpu")
    return model_logits(vlm, make_inputs(vlm, sample, frames))


@pytest.fixture
def asked(tiny_frames, make_sample):
    return tiny_frames, make_sample()


# ---- the image-only base ----


def test_the_image_base_runs_as_the_video_model_does(copy, asked):
    wanted = logits(copy, *asked)
    image_base(copy)
    assert torch.allclose(logits(copy, *asked), wanted, atol=1e-5)
    rewrite(copy, load_file(copy / "model.safetensors") | {"image_newlines": torch.ones(64)})
    with pytest.raises(StudyError, match="unexpected weights: image_newlines"):
        load_model(str(copy))


# ---- adapters ----


def adapters(seed=0, rank=2):
    """(A, B) of query and value projections in every layer, by the name of the projection."""
    rng = torch.Generator().manual_seed(seed)
    return {
        LAYER.format(layer, name): (torch.randn(rank, 64, generator=rng) / 8, torch.randn(64, rank, generator=rng) / 8)
        for layer in range(12)
        for name in "qv"
    }


def beside(folder, pairs, cut="language_model.", **stated):
    """As PEFT stores adapters of a part of the model."""
    low = {}
    for path, (a, b) in pairs.items():
        name = f"base_model.model.{path.removeprefix(cut)}"
        low |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    save_file(low, folder / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "bias": "none", "rank_pattern": {}} | stated
    (folder / "adapter_config.json").write_text(json.dumps(about))


@pytest.mark.parametrize("layout", ["beside", "beside the whole model", "among", "root"])
def test_adapters_are_added_to_the_weights(copy, tmp_path, asked, layout):
    pairs, tensors = adapters(), load_file(copy / "model.safetensors")
    scale = 3 / 2**0.5 if layout == "root" else 3 / 2
    for path, (a, b) in pairs.items():
        tensors[f"{path}.weight"] = tensors[f"{path}.weight"] + scale * b @ a
    added = shutil.copytree(copy, tmp_path / "added")
    rewrite(added, tensors)
    plain, wanted = (logits(folder, *asked) for folder in (copy, added))
    if layout == "among":
        mixed = {}
        for name, tensor in load_file(copy / "model.safetensors").items():
            path, inside = name.removesuffix(".weight"), "language_model.base_model.model.model"
            new = path.replace("language_model.model", inside)
            mixed[f"{new}.base_layer.weight" if path in pairs else f"{new}{name.removeprefix(path)}"] = tensor
            if path in pairs:
                mixed |= {f"{new}.lora_{x}.default.weight": t for x, t in zip("AB", pairs[path], strict=True)}
        rewrite(copy, mixed, lora_alpha=3)
    else:
        beside(copy, pairs, cut="language_model." if layout == "beside" else "", use_rslora=layout == "root")
    assert torch.allclose(logits(copy, *asked), wanted, atol=1e-4) and not torch.allclose(plain, wanted, atol=0.1)


@pytest.mark.parametrize(
    ("stated", "change", "message"),
    [
        ({"use_dora": True}, {}, "only plain LoRA can be added in, not use_dora"),
        ({"peft_type": "VERA"}, {}, "only plain LoRA can be added in, not VERA"),
        ({}, {"x.lora_magnitude_vector": torch.ones(2)}, "x.lora_magnitude_vector is no low-rank adapter"),
        ({}, {"x.layers.0.lora_A.weight": torch.ones(2, 64)}, "fits 0 weights; it belongs to another model"),
        ({}, {"layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 64)}, "q_proj fits 2 weights"),
        ({}, {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 63)}, "does not fit"),
        ({}, {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(1, 64)}, "does not fit"),
    ],
)
def test_other_adapters_are_refused(copy, stated, change, message):
    beside(copy, {LAYER.format(0, "q"): adapters()[LAYER.format(0, "q")]}, **stated)
    low = load_file(copy / "adapter_model.safetensors")
    change = {f"base_model.model.{name}": tensor for name, tensor in change.items()}
    save_file(low | change, copy / "adapter_model.safetensors")
    with pytest.raises(StudyError, match=message):
        load_model(str(copy))


def test_stated_adapters_must_be_there(copy):
    rewrite(copy, lora_alpha=3)
    with pytest.raises(StudyError, match="states adapters .* but holds none"):
        load_model(str(copy))


# ---- Mini-InternVL ----


def original_features(t, pixels, version):
    """The published vision path, written down from its tensors: (T, 4, 64) of pixels (T, 3, 56, 56)."""

    def linear(x, name):
        return functional.linear(x, t[f"{name}.weight"], t[f"{name}.bias"])

    def norm(x, name, eps=1e-6):
        return functional.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], eps)

    v = "vision_model.embeddings."
    x = functional.conv2d(pixels, t[f"{v}patch_embedding.weight"], t[f"{v}patch_embedding.bias"], stride=14)
    x = torch.cat([t[f"{v}class_embedding"].expand(len(x), 1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + t[f"{v}position_embedding"]
    for i in range(2):
        at = f"vision_model.encoder.layers.{i}."
        q, k, w = linear(norm(x, f"{at}norm1"), f"{at}attn.qkv").view(*x.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)
        read = ((q @ k.mT) * 8**-0.5).softmax(-1) @ w
        x = x + t[f"{at}ls1"] * linear(read.transpose(1, 2).flatten(2), f"{at}attn.proj")
        x = x + t[f"{at}ls2"] * linear(functional.gelu(linear(norm(x, f"{at}norm2"), f"{at}mlp.fc1")), f"{at}mlp.fc2")
    x = x[:, 1:].view(len(x), 4, 4, 32)
    # each token holds a square of four patches; in v1 its columns come first
    x = x.view(len(x), 2, 2, 2, 2, 32).permute(0, 1, 3, 2, 4, 5)  # (T, row, column, row within, column within, d)
    x = x.permute(0, 2, 1, 3, 4, 5) if version == "v1" else x
    x = x.reshape(len(x), 4, 128)
    return linear(functional.gelu(linear(norm(x, "mlp1.0", 1e-5), "mlp1.1")), "mlp1.3")


@pytest.mark.parametrize("version", ["v1", "v2"])
@torch.no_grad()
def test_mini_internvl_computes_what_its_tensors_say(tmp_path, version, tiny_frames, make_sample):
    folder = internvl(tmp_path / "original", version)
    vlm, tensors = load_model(str(folder), device="cpu"), load_file(folder / "model.safetensors")
    assert vlm.protocol == "mvbench-phi3" and vlm.num_frames == 8
    wanted = original_features(tensors, merging.pixel_values(vlm, tiny_frames), version)
    found = merging.encode_frames(vlm, tiny_frames)
    assert torch.allclose(found, wanted.flatten(0, 1), atol=1e-4)
    inputs = make_inputs(vlm, make_sample(), tiny_frames)
    assert inputs.grid == (8, 2, 2)
    checks = self_test(vlm, inputs)
    assert checks["passed"].all(), checks[~checks["passed"]]
    corner = on_grid(inputs, np.arange(32))[0]  # tokens of the first frame where they stand in the picture
    assert corner.tolist() == ([[0, 2], [1, 3]] if version == "v1" else [[0, 1], [2, 3]])


def test_mini_internvl_is_cut_alike_in_both_modes(tmp_path, tiny_frames, make_sample):
    """In float64: this random model amplifies the rounding of float32 a hundred times."""
    vlm = load_model(str(internvl(tmp_path / "m", "v2")), device="cpu")
    vlm.hf.double()
    vlm.dtype = torch.float64
    inputs = make_inputs(vlm, make_sample(), tiny_frames)
    blocked = {name: blocked_edges(name, inputs.roles) for name in EDGE_SETS}
    conditions = [Condition(name, cut, blocked[name]) for name in EDGE_SETS for k in (1, 2) for cut in windows(3, k)]
    exact, full = (knockout_logits(vlm, inputs, conditions, mode=mode)[0] for mode in ("exact", "full"))
    assert (exact - full).abs().max() < 1e-6 and full.std(0).max() > 0.05  # cuts differ in what they do


def test_pixel_shuffle_is_v1_where_the_config_says_nothing(tmp_path, asked):
    vlm = load_model(str(internvl(tmp_path / "none", None)), device="cpu")
    assert make_inputs(vlm, asked[1], asked[0]).by_columns


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"llm_config": {"model_type": "internlm2"}}, "only those with Phi-3 are known, this one has internlm2"),
        ({"llm_config": None}, "does not state llm_config"),
    ],
)
def test_other_internvl_chat_models_are_refused(tmp_path, change, message):
    folder = internvl(tmp_path / "other", "v1")
    rewrite(folder, **change)
    with pytest.raises(StudyError, match=message):
        load_model(str(folder))


def test_a_tensor_too_many_is_named(tmp_path):
    folder = internvl(tmp_path / "more", "v1")
    rewrite(folder, load_file(folder / "model.safetensors") | {"vision_model.extra": torch.ones(2)})
    with pytest.raises(StudyError, match="unexpected weights: vision_model.extra"):
        load_model(str(folder))
