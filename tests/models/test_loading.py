"""Loading: strict, early refusals, published frame processing."""

import ctypes
import json
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from analysis_lib import paths
from analysis_lib.errors import SampleError, StudyError
from analysis_lib.instrument.checks import load_model, self_test
from analysis_lib.instrument.passes import clean_pass
from analysis_lib.models import loading, pooled
from analysis_lib.models.checkpoints import find
from analysis_lib.models.decoder import unembed
from analysis_lib.models.merging import make_inputs


@pytest.fixture
def broken(tiny_model_dir, tmp_path):
    """A copy of the tiny checkpoint to break."""
    return shutil.copytree(tiny_model_dir, tmp_path / "broken")


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


NORM = "language_model.model.layers.3.input_layernorm.weight"


@pytest.mark.parametrize(
    ("kind", "change", "name"),
    [
        ("missing", lambda t: t.pop(NORM), "layers.3.input_layernorm"),
        ("unexpected", lambda t: t.update({"language_model.model.extra": torch.zeros(2)}), "extra"),
        ("mismatched", lambda t: t.update({NORM: torch.zeros(3)}), "layers.3.input_layernorm"),
    ],
)
def test_wrong_weights_are_named(broken, kind, change, name):
    edit_weights(broken, change)
    with pytest.raises(StudyError, match=f"{kind} weights: .*{name}"):
        load_model(str(broken))


def test_torn_weight_file_is_one_line(broken):
    (broken / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(StudyError, match="cannot be read") as caught:
        load_model(str(broken))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("model.safetensors", "holds no weights"),
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer.json"),
    ],
)
def test_incomplete_folder_is_refused(broken, lost, message):
    (broken / lost).unlink()
    with pytest.raises(StudyError, match=message):
        find(str(broken))


def test_other_kinds_of_checkpoint_are_refused(broken):
    edit_config(broken, model_type="bert")
    with pytest.raises(StudyError, match="'bert' is not supported; supported: llava"):
        find(str(broken))
    edit_config(broken, model_type="llava", pooling_shape=None)
    with pytest.raises(StudyError, match="does not state pooling_shape"):
        find(str(broken))


def test_names_of_models(monkeypatch, tiny_model_dir, tmp_path):
    monkeypatch.setattr(paths, "MODELS", tiny_model_dir.parent)
    assert find("tiny") == tiny_model_dir
    assert find(str(tiny_model_dir)) == tiny_model_dir
    assert find("owner/name") == "owner/name"
    for unknown in ("nope", str(tmp_path / "nope"), ""):
        with pytest.raises(StudyError, match="unknown model .*tiny"):
            find(unknown)


def test_hub_model_offline_says_to_pass_a_folder():
    with pytest.raises(StudyError, match="owner/name.*pass its folder"):
        load_model("owner/name")


def test_checking_a_name_imports_no_transformers():
    code = "import sys; from analysis_lib.models.checkpoints import find\ntry: find('nope')\nexcept ValueError: pass\n"
    code += "assert 'transformers' not in sys.modules and 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=paths.ROOT)


def test_bad_device_and_dtype(tiny_model_dir):
    for wrong in ({"device": "tpu"}, {"dtype": "int8"}):
        with pytest.raises(StudyError, match="choose auto"):
            load_model(str(tiny_model_dir), **wrong)


def test_hash_changes_with_the_weights(tiny_vlm, broken):
    assert len(tiny_vlm.weights_sha256) == 64
    edit_weights(broken, lambda t: t[NORM].add_(1e-3))
    assert load_model(str(broken), device="cpu").weights_sha256 != tiny_vlm.weights_sha256


def test_untied_head_is_the_stored_one(tiny_vlm, tiny_model_dir):
    stored = load_file(tiny_model_dir / "model.safetensors")["language_model.lm_head.weight"]
    assert torch.equal(tiny_vlm.hf.get_output_embeddings().weight, stored)


def test_short_clips_repeat_each_frame(tiny_vlm, tiny_frames):
    short = pooled.encode_frames(tiny_vlm, tiny_frames[:3])
    repeated = pooled.encode_frames(tiny_vlm, tiny_frames[[0, 0, 0, 1, 1, 1, 2, 2]])
    assert short.shape == (32, 64) and torch.allclose(short, repeated, atol=1e-6)


def test_pooling_is_the_mean_of_each_cell_of_one_frame(tiny_vlm, tiny_frames):
    pixels = pooled.pixel_values(tiny_vlm, tiny_frames)
    with torch.no_grad():
        full = tiny_vlm.hf.get_image_features(pixel_values=pixels).pooler_output[5].view(4, 4, -1)
    tokens = pooled.encode_frames(tiny_vlm, tiny_frames).view(8, 2, 2, -1)
    assert torch.allclose(tokens[5, 0, 1], full[0:2, 2:4].mean((0, 1)), atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 64, 48), (8, 200, 90), (8, 30, 300), (8, 56, 56)])
def test_any_frame_size_becomes_the_tower_size(tiny_vlm, shape):
    frames = np.zeros((*shape, 3), np.uint8)
    assert pooled.pixel_values(tiny_vlm, frames).shape == (8, 3, 56, 56)


def test_bad_frames_are_refused(tiny_vlm, tiny_frames, make_sample):
    for frames in (tiny_frames[:0], tiny_frames[0], tiny_frames / 255, np.concatenate([tiny_frames, tiny_frames])):
        with pytest.raises(SampleError, match="frames"):
            make_inputs(tiny_vlm, make_sample(), frames)


def test_more_options_than_letters_is_a_bad_sample(tiny_vlm, tiny_frames, make_sample):
    with pytest.raises(SampleError, match="letters"):
        make_inputs(tiny_vlm, make_sample(options=[str(i) for i in range(8)]), tiny_frames)


def test_logits_are_float32_also_in_bfloat16(tiny_model_dir, tiny_vlm, tiny_inputs):
    half = load_model(str(tiny_model_dir), dtype="bfloat16", device="cpu")
    state = tiny_inputs.embeds[0, -1]
    logits = unembed(half, state.bfloat16())
    assert half.dtype == torch.bfloat16 and logits.dtype == torch.float32
    assert (logits - logits.bfloat16().float()).abs().max() > 0  # finer than half precision
    assert torch.allclose(logits, unembed(tiny_vlm, state), atol=0.2)


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
    cases = ((size, torch.float32, "auto"), (2 * size, torch.float32, None), (size, torch.half, None))
    for memory, dtype, wanted in cases:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=memory: (free, 2**40))
        assert loading.spread(tiny_model_dir, dtype, torch.device("cuda")) == wanted
    assert loading.spread(tiny_model_dir, torch.float32, torch.device("cpu")) is None


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
def test_memory_that_tensors_free_is_used_again(tiny_model_dir):
    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(10 << 20)  # 40 MiB, which glibc by itself takes from the system anew each time
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    load_model(str(tiny_model_dir))
    # The system takes pages back for reasons of its own, so the best of some tries counts.
    assert min(faults() for _ in range(9)) < 1000  # of 10,240 pages
