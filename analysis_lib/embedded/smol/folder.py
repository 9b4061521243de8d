"""A trained network as a checkpoint folder: what LLaVA-NeXT-7B-Video-FT's folder has, with adapters in PEFT's format.

The base's weights are left out; adapter_config.json names it (`bases`).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from analysis_lib.embedded.export import published_config, write_json
from analysis_lib.embedded.smol import network
from analysis_lib.embedded.smol.base import NAME, PLACEHOLDER, load_tokenizer
from analysis_lib.embedded.smol.projector import tower_tensors

ROOM = "base_model.model.language_model.model."  # PEFT's name of the decoder inside a `llava` model
SHOWN = ("preprocessor_config.json", "processor_config.json")  # how pictures are prepared: as for the tower's own model


def write_folder(trained: dict[str, torch.Tensor], base: Path, tower: Path, folder: Path) -> None:
    """Write what was trained as a checkpoint, replacing `folder`. `base` and `tower` are the folders of the language
    model and of the checkpoint that the vision tower was taken from."""
    from safetensors.torch import save_file  # heavy

    partial = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    trained = {name: tensor.detach().cpu() for name, tensor in trained.items()}
    projector = {f"multi_modal_{name}": t for name, t in trained.items() if name.startswith("projector.")}
    _save(save_file, dict(tower_tensors(tower)) | projector, partial / "model.safetensors")
    adapters = {_peft_name(name): t.bfloat16() for name, t in trained.items() if name.startswith("layers.")}
    _save(save_file, adapters, partial / "adapter_model.safetensors")
    write_json(partial / "adapter_config.json", _adapter_config())
    write_json(partial / "config.json", _config(base, tower))
    write_json(partial / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base / name, partial / name)
    for name in SHOWN:
        shutil.copyfile(tower / name, partial / name)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def read_folder(folder: Path) -> dict[str, torch.Tensor]:
    """What was trained, of a checkpoint that `write_folder` wrote, under the names of the network."""
    from safetensors.torch import load_file  # heavy

    own = load_file(folder / "model.safetensors").items()
    found = {name.removeprefix("multi_modal_"): t for name, t in own if name.startswith("multi_modal_projector.")}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        path, which = name.removeprefix(ROOM).removesuffix(".weight").split(".lora_")
        found[f"{path}.{which}"] = tensor.float()
    return found


def is_written(trained: dict[str, torch.Tensor], folder: Path) -> bool:
    """Whether `folder` is a complete checkpoint, with its card, of exactly this."""
    if not (folder / "README.md").exists():
        return False
    stored, kept = read_folder(folder), trained.items()
    adapters = {name: t.bfloat16().float() if name.startswith("layers.") else t for name, t in kept}
    return stored.keys() == adapters.keys() and all(torch.equal(stored[name], t) for name, t in adapters.items())


def _save(save_file: Any, tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensors[name].contiguous() for name in sorted(tensors)}, path, metadata={"format": "pt"})


def _peft_name(name: str) -> str:
    path, _, which = name.rpartition(".")
    return f"{ROOM}{path}.lora_{which}.weight"


def _adapter_config() -> dict[str, Any]:
    stated = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": NAME, "bias": "none"}
    stated |= {"r": network.RANK, "lora_alpha": network.ALPHA, "lora_dropout": 0.0, "inference_mode": True}
    return stated | {"target_modules": sorted(network.TARGETS)}


def _config(base: Path, tower: Path) -> dict[str, Any]:
    text, seen = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (base, tower))
    return published_config() | {
        "image_token_index": load_tokenizer(base).convert_tokens_to_ids(PLACEHOLDER),
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": text["tie_word_embeddings"],
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "vision_config": seen["vision_config"],
        "text_config": {name: value for name, value in text.items() if name != "architectures"},
    }
