"""The language model that a checkpoint's adapters stand on, where its folder does not hold it.

A published checkpoint may consist of low-rank adapters and the few weights that are new, and name the base they belong
to. Bases lie in data/base, beside the repository's own files and not among them. A base is part of what a checkpoint
computes, so it is part of its hash."""

import json
from pathlib import Path

from safetensors import safe_open

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.models.weights import stored_files

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASES = paths.DATA / "base"
FETCHED = {"smollm2-135m-instruct": "make base"}  # what to type for a base that is not there


def base_of(folder: Path) -> Path | None:
    """The weights of the base under the checkpoint in `folder`; None if its own are whole. Raises StudyError if the
    base is needed and not there, or not named."""
    stated = folder / ADAPTER
    if not stated.exists():
        return None
    for file in stored_files(folder):
        with safe_open(file, "numpy") as held:
            if any(name.endswith("embed_tokens.weight") for name in held.keys()):  # noqa: SIM118
                return None
    name = json.loads(stated.read_text(encoding="utf-8")).get("base_model_name_or_path") or ""
    return check_base(name.rpartition("/")[2]) / "model.safetensors"


def check_base(name: str) -> Path:
    """The folder of the base `name`, if it is complete. Raises StudyError with what to type."""
    if name and (BASES / name / "model.safetensors").is_file():
        return BASES / name
    fix = f"type: {FETCHED[name]}" if name in FETCHED else "put its folder there, or merge the adapters"
    raise StudyError(f"the language model {name!r} under this checkpoint is not in {BASES}; {fix}")
