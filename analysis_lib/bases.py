"""Language models that checkpoints of adapters stand on: a checkpoint may leave its unchanged weights to a base.

Such a folder holds the vision tower and the projector (model.safetensors) and adapters, and its adapter_config.json
names the base. Bases lie in data/base, git-ignored; `make smol-base` fetches the one that is used here.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from analysis_lib import paths
from analysis_lib.errors import StudyError

FOLDER = paths.DATA / "base"
FETCHED = {"smollm2-135m-instruct": "make smol-base"}  # what to type for a base that is not there


def base_of(folder: Path) -> Path | None:
    """The folder of the base that a checkpoint's adapters stand on; None for a checkpoint that holds all its weights.

    Raises StudyError if the base is needed and not there, or not named.
    """
    from safetensors import safe_open

    stated = folder / "adapter_config.json"
    if not stated.exists():
        return None
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            if any(name.endswith("embed_tokens.weight") for name in file.keys()):  # noqa: SIM118
                return None
    name = json.loads(stated.read_text(encoding="utf-8")).get("base_model_name_or_path") or ""
    return check_base(name.rpartition("/")[2])


def check_base(name: str) -> Path:
    """The folder of the base `name`, if it is complete. Raises StudyError with what to type."""
    folder = FOLDER / name
    if name and (folder / "model.safetensors").is_file():
        return folder
    raise StudyError(
        f"the language model {name!r} is not in {FOLDER}; type: {FETCHED[name]}"
        if name in FETCHED
        else f"the checkpoint's base {name!r} is not in {FOLDER}; put its folder there, or merge the adapters"
    )


def base_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """A base's weights under the names that they have in a `llava` checkpoint."""
    from safetensors.torch import load_file

    return {f"language_model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
