"""Finding a checkpoint and reading its weights strictly, for any model family.

A checkpoint is judged by its folder alone before anything heavy is imported: an unknown name, a wrong kind of model or
a half-finished download ends in one line that says what to do. Reading is strict too: a tensor that is missing,
unexpected or of another shape is an error that names it, since a silently untrained layer gives plausible nonsense.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis_lib import paths
from analysis_lib.errors import StudyError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Family:
    """What the library must know of one `model_type`."""

    hf_class: str
    protocol: str
    config_keys: tuple[str, ...]  # facts that its config must state


def find(model: str, families: Mapping[str, Family]) -> Path | str:
    """What a model's name means: a checkpoint folder that looks complete, or a hub id.

    Accepts the name of an embedded model (a folder in data/models), any folder, or `owner/name`. Raises StudyError
    with the fix.
    """
    for folder in (paths.MODELS / model, Path(model).expanduser()):
        if model and folder.is_dir():
            return check_folder(folder, families)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model):
        return model
    embedded = sorted(path.parent.name for path in paths.MODELS.glob("*/config.json"))
    known = ", ".join(embedded) or "none here yet; make train makes them"
    raise StudyError(
        f"unknown model {model!r}: no such folder, nor an embedded model ({known}), nor a hub id owner/name"
    )


def check_folder(folder: Path, families: Mapping[str, Family]) -> Path:
    """The folder, if it holds all files of a checkpoint of a known family; else StudyError naming what it lacks."""
    config = read_config(folder)
    family = families.get(config.get("model_type"))
    if family is None:
        raise StudyError(
            f"{folder}: model type {config.get('model_type')!r} is not supported; supported: {', '.join(families)}"
        )
    lacking = [key for key in family.config_keys if not config.get(key)]
    if lacking:
        raise StudyError(f"{folder}/config.json does not state {', '.join(lacking)}; a video checkpoint must")
    if not list(folder.glob("*.safetensors")):
        raise StudyError(
            f"{folder} holds no weights (*.safetensors); download the checkpoint completely, or save it as safetensors"
        )
    for name in ("tokenizer.json", "preprocessor_config.json"):
        if not (folder / name).is_file():
            raise StudyError(f"{folder} holds no {name}; take it from the checkpoint this one was made from")
    return folder


def read_config(folder: Path) -> dict:
    """The parsed config.json of a checkpoint folder."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{folder} holds no config.json; pass the folder of one checkpoint") from None
    except ValueError as error:
        raise StudyError(f"{folder}/config.json is not valid JSON ({error}); download it again") from None


def fetch(model: str, families: Mapping[str, Family]) -> tuple[Path, str]:
    """Download a hub repository (or find it in the cache): its folder and its commit."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the hub client raises many kinds, also from the network libraries under it
        raise StudyError(
            f"model {model!r} could not be fetched from the hub ({type(error).__name__}); offline, pass its folder"
        ) from None
    return check_folder(folder, families), folder.name


def load_strict(folder: Path, family: Family, dtype: torch.dtype) -> PreTrainedModel:
    """The model with SDPA attention; StudyError names weights that are missing, unexpected or of another shape."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # its load report would repeat what is raised below
    try:
        hf, report = getattr(transformers, family.hf_class).from_pretrained(
            folder, dtype=dtype, attn_implementation="sdpa", output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # a torn file surfaces as one of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StudyError(f"{folder}: the weights cannot be read ({reason}); download them again") from error
    for kind in ("missing", "unexpected", "mismatched"):
        names = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report[f"{kind}_keys"])
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise StudyError(
                f"{folder}: {kind} weights: {', '.join(names[:3])}{more}; this is not a complete {family.hf_class}"
            )
    return hf


def weights_sha256(folder: Path) -> str:
    """One hash over all weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
