"""Loading: strict, in the dtype and on the device asked for, over several devices, without giving memory back."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_originals import rewrite

from analysis_lib.errors import StudyError
from analysis_lib.instrument.checks import load_model, self_test
from analysis_lib.instrument.passes import clean_pass
from analysis_lib.models import loading, weights
from analysis_lib.models.merging import make_inputs


@pytest.fixture
def copy(tiny_model_dir, tmp_path):
    """A copy of the tiny checkpoint to break."""
    return shutil.copytree(tiny_model_dir, tmp_path / "copy")


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    rewrite(folder, tensors)


NORM = "language_model.model.layers.3.input_layernorm.weight"


@pytest.mark.parametrize(
    ("kind", "change", "name"),
    [
        ("missing", lambda t: t.pop(NORM), "layers.3.input_layernorm"),
        ("unexpected", lambda t: t.update({"language_model.model.extra": torch.zeros(2)}), "extra"),
        ("mismatched", lambda t: t.update({NORM: torch.zeros(3)}), "layers.3.input_layernorm"),
    ],
)
def test_wrong_weights_are_named(copy, kind, change, name):
    edit_weights(copy, change)
    with pytest.raises(StudyError, match=f"{kind} weights: .*{name}"):
        load_model(str(copy))


def test_torn_weight_file_is_one_line(copy):
    (copy / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(StudyError, match="cannot be read") as caught:
        load_model(str(copy))
    assert "\n" not in str(caught.value)


def test_bad_device_and_dtype(tiny_model_dir):
    for wrong in ({"device": "tpu"}, {"dtype": "int8"}):
        with pytest.raises(StudyError, match="choose auto"):
            load_model(str(tiny_model_dir), **wrong)


@pytest.mark.parametrize(
    "found, refused", [("5.17.0", True), ("4.57.1", True), ("5.23.0", False), ("6.0.0.dev0", False)]
)
def test_an_old_transformers_is_refused(monkeypatch, found, refused):
    monkeypatch.setattr(loading, "version", lambda _: found)
    with pytest.raises(StudyError, match=f"transformers {found} is installed.*5.23" if refused else "unknown device"):
        loading.load_checkpoint("embedded", device="tpu")


def test_hash_changes_with_the_weights(tiny_vlm, copy):
    assert len(tiny_vlm.weights_sha256) == 64
    edit_weights(copy, lambda t: t[NORM].add_(1e-3))
    assert load_model(str(copy), device="cpu").weights_sha256 != tiny_vlm.weights_sha256


def test_shards_in_a_folder_below_are_the_same_model(tiny_vlm, copy):
    (copy / "inner").mkdir()
    (copy / "model.safetensors").rename(copy / "inner" / "part.safetensors")
    names = weights.shapes([copy / "inner" / "part.safetensors"])
    listed = {"metadata": {}, "weight_map": dict.fromkeys(names, "inner/part.safetensors")}
    (copy / weights.INDEX).write_text(json.dumps(listed))
    found = load_model(str(copy), device="cpu")
    assert found.weights_sha256 == tiny_vlm.weights_sha256
    pairs = zip(found.hf.parameters(), tiny_vlm.hf.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_untied_head_is_the_stored_one(tiny_vlm, tiny_model_dir):
    stored = load_file(tiny_model_dir / "model.safetensors")["language_model.lm_head.weight"]
    assert torch.equal(tiny_vlm.hf.get_output_embeddings().weight, stored)


@pytest.mark.slow
def test_a_model_spread_over_devices_gives_the_same_numbers(
    tiny_model_dir, tiny_frames, golden, make_sample, monkeypatch
):
    """Weights offloaded to disk stand in for a second device: their modules must be called, never their weights."""
    parts = "vision_tower multi_modal_projector language_model.embed_tokens language_model.norm".split()
    where = {f"model.{part}": "cpu" for part in [*parts, "language_model.rotary_emb"]} | {"lm_head": "disk"}
    where |= {f"model.language_model.layers.{i}": "disk" if i in (0, 4, 11) else "cpu" for i in range(12)}
    first = golden["samples"][0]
    sample = make_sample(first["question"], first["candidates"], first["candidates"].index(first["answer"]))
    for dtype in ("float32", "bfloat16"):
        logits = []
        for device_map in (None, where):
            monkeypatch.setattr(loading, "spread", lambda *_, found=device_map: found)
            vlm = load_model(str(tiny_model_dir), dtype=dtype)
            inputs = make_inputs(vlm, sample, tiny_frames)
            logits.append(clean_pass(vlm, inputs).logits)
        assert vlm.hf.get_output_embeddings().weight.is_meta and logits[1].dtype == torch.float32
        assert torch.equal(*logits)
        assert self_test(vlm, inputs)["passed"].all()


def test_a_model_is_spread_when_the_first_gpu_is_too_small(tiny_model_dir, monkeypatch):
    size = sum(f.stat().st_size for f in tiny_model_dir.glob("*.safetensors"))  # float32, and a short header
    stored = weights.shapes(weights.weight_files(tiny_model_dir))
    cases = ((size, torch.float32, "auto"), (2 * size, torch.float32, None), (size, torch.half, None))
    for memory, dtype, wanted in cases:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=memory: (free, 2**40))
        assert loading.spread(stored, dtype, torch.device("cuda")) == wanted
    assert loading.spread(stored, torch.float32, torch.device("cpu")) is None
