"""`python -m analysis_lib check FOLDER` on checkpoints of unusual make-up, whose weights and files are sound.

Each passes all checks, exact equal to full among them, or is refused in one line that names the reason."""

import json
import re

import mutants
import pytest

from analysis_lib.__main__ import main

pytestmark = pytest.mark.filterwarnings("default")  # warnings inside transformers are no errors to a user

EYES, TEXT = "vision_config.", "text_config."
SLIDING = {f"{TEXT}use_sliding_window": True, f"{TEXT}max_window_layers": 0}
SLIDING |= {f"{TEXT}layer_types": ["sliding_attention"] * 3}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
COUNTING = {"text_config": "llama4_text", f"{TEXT}floor_scale": 16, f"{TEXT}intermediate_size_mlp": 48}
WORK = {  # what is unusual: (family, config, processors, how many video tokens eight frames make)
    "four frames a patch": ("qwen2_5_vl", {f"{EYES}temporal_patch_size": 4}, {"temporal_patch_size": 4}, 12),
    "one patch of all frames": ("qwen2_5_vl", {f"{EYES}temporal_patch_size": 8}, {"temporal_patch_size": 8}, 6),
    "frames are not merged": ("qwen3_vl", {f"{EYES}temporal_patch_size": 1}, {"temporal_patch_size": 1}, 16),
    "windows in the tower only": ("qwen2_5_vl", {f"{EYES}fullatt_block_indexes": [], f"{EYES}window_size": 8}, {}, 24),
    "a key a head, tied": (
        "qwen2_5_vl", {f"{TEXT}num_key_value_heads": 4, "tie_word_embeddings": True}, {}, 24,
    ),
    "windows shorter than a frame": ("llava_onevision", {**SLIDING, f"{TEXT}sliding_window": 2}, {}, 32),
    "frames longer than a window, both ways": ("gemma3", {f"{TEXT}sliding_window": 2}, {}, 32),
    "rotation that grows with the prompt": (
        "video_llama_3", {f"{TEXT}rope_parameters": DYNAMIC, f"{TEXT}max_position_embeddings": 32}, {}, 16,
    ),
    "one layer": ("internvl", {f"{TEXT}num_hidden_layers": 1, f"{TEXT}layer_types": ["full_attention"]}, {}, 32),
    "joint projections": ("llava_onevision", {"text_config": "gpt_neox"}, {}, 32),
    "attention that counts its rows": ("llava_onevision", COUNTING, {}, 32),
    "latent keys": ("llava_onevision", {"text_config": "deepseek_v3"}, {}, 32),
}  # fmt: skip
REFUSED = {  # what is unusual: (family, config, processors, why)
    "three frames a patch": (
        "qwen2_5_vl", {f"{EYES}temporal_patch_size": 3}, {"temporal_patch_size": 3}, "merges 3 frames into a patch",
    ),
    "a linear attention": ("llava_onevision", {"text_config": "minimax"}, {}, "move information by MiniMaxLightning"),
    "a mask of its own": ("llava_onevision", {"text_config": "doge"}, {}, "DogeAttention does more with its mask"),
    "tokens that are dropped": (
        "nemotron_h_omni", {"video_pruning_rate": 0.5}, {"video_maintain_aspect_ratio": False},
        r"makes 282 positions of a prompt of 290 tokens.* so turn it off",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_it_passes_all_checks(name, tmp_path, capsys):
    family, config, processors, tokens = WORK[name]
    folder = mutants.build(family, tmp_path / "model", config, processors)
    capsys.readouterr()
    assert main(["check", str(folder), "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] and found["video_tokens"] == tokens
    assert found["checks"][-1]["check"].startswith("exact against full") and found["checks"][-1]["value"] < 1e-4


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line(name, tmp_path, capfd):
    family, config, processors, why = REFUSED[name]
    folder = mutants.build(family, tmp_path / "model", config, processors)
    capfd.readouterr()
    assert main(["check", str(folder), "--device", "cpu"]) == 2
    shown = capfd.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1, shown
    assert re.search(why, shown.err), shown.err
