"""Writes an embedded model as a checkpoint folder in the format of LLaVA-NeXT-7B-Video-FT, with its model card."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from analysis_lib.lessons import FRAMES, GRID, PATCHES, SIZE
from analysis_lib.network import HEADS, LAYERS, MEAN, STD, WIDTH

CARD = """# {name}

{what}
Trained from nothing by `make train` ({command}). Code: `analysis_lib/train.py`; data: `analysis_lib/lessons.py`.

| fact | value |
|---|---|
| format | `llava` with `pooling_shape` and `num_frames`, as LLaVA-NeXT-7B-Video-FT is published |
| decoder | {layers} layers, width {width}, {heads} heads, {parameters:.1f} M parameters with the vision tower |
| video tokens | {frames} frames × {grid} × {grid} |
| data | rendered clips, training seeds {seed}0 to {seed}9 (test clips: seed 1,000,000) |
| stages | {stages} |
| weights sha256 | `{sha}` |

Scores on the embedded benchmark are measured in `notebooks/executed/embedded/00_baseline_and_checks.ipynb`.
"""


def export(model: Any, tokenizer_folder: Path, folder: Path, *, seed: int, stages: str, video: bool) -> None:
    """Write a checkpoint in the published layout, with its processor files and model card, replacing `folder`."""
    from safetensors.torch import save_file

    partial = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(tokenizer_folder, partial)
    tensors = {_published(name): t.float().contiguous().cpu() for name, t in model.state_dict().items()}
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_diff_dict() | {
        "architectures": ["PllavaForConditionalGeneration"],
        "model_type": "llava",
        "num_frames": FRAMES,
        "frame_shape": [PATCHES, PATCHES],
        "pooling_shape": [FRAMES, GRID, GRID],
        "pooling_method": "avg",
        "use_pooling": True,
        "dtype": "float32",
    }
    config["text_config"].pop("_attn_implementation", None)
    _write_json(partial / "config.json", config)
    _write_json(partial / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    size = {"height": SIZE, "width": SIZE}
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIZE}, "crop_size": size}
    processor |= {"image_mean": MEAN, "image_std": STD, "resample": 3, "rescale_factor": 1 / 255}
    processor |= dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), True)
    _write_json(partial / "preprocessor_config.json", processor)
    _write_json(partial / "processor_config.json", {"shortest_edge": SIZE, "longest_edge": 640, "center_pad": False})
    sha = hashlib.sha256((partial / "model.safetensors").read_bytes()).hexdigest()
    what = "A small Video LLM: the image model, tuned on five video tasks." if video else "A small image LLM."
    card = CARD.format(
        name=folder.name,
        what=what,
        command=f"seed {seed}",
        layers=LAYERS,
        width=WIDTH,
        heads=HEADS,
        frames=FRAMES,
        grid=GRID,
        parameters=sum(t.numel() for t in tensors.values()) / 1e6,
        seed=seed,
        stages=stages,
        sha=sha,
    )
    (partial / "README.md").write_text(card)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def _published(name: str) -> str:
    """The tensor's name in published checkpoints."""
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        return "language_model.model." + name.removeprefix("language_model.")
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return "vision_tower.vision_model." + name.removeprefix("vision_tower.")
    return "language_model.lm_head.weight" if name == "lm_head.weight" else name


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
