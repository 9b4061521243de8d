"""Finding a checkpoint, and what its folder says before anything heavy is imported.

An unknown name, a wrong kind of model or a half-finished download ends in one line that says what to do."""

import hashlib
import json
import re
from pathlib import Path

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.models.bases import base_of
from analysis_lib.models.families import DECODER_CONFIG, family_of, has_processor
from analysis_lib.models.torchvision_ops import ensure_torchvision


def find(model: str) -> Path | str:
    """What a model's name means: a checkpoint folder that looks complete (the name of an embedded model in data/models,
    or any folder), or a hub id `owner/name`. Raises StudyError with the fix."""
    for folder in (paths.MODELS / model, Path(model).expanduser()):
        if model and folder.is_dir():
            return check_folder(folder)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model):
        return model
    names = sorted(path.parent.name for path in paths.MODELS.glob("*/config.json"))
    embedded = f"an embedded model ({', '.join(names) or 'none here yet; make train makes them'})"
    raise StudyError(f"unknown model {model!r}: no such folder, nor {embedded}, nor a hub id owner/name")


def check_folder(folder: Path) -> Path:
    """The folder, if it holds all files of a checkpoint of a known family; else StudyError naming what it lacks."""
    config = read_config(folder)
    family = family_of(folder, config)
    if lacking := [key for key in family.config_keys if not config.get(key)]:
        raise StudyError(f"{folder}/config.json does not state {', '.join(lacking)}; a video checkpoint must")
    if not list(folder.glob("*.safetensors")):
        fix = "download the checkpoint completely, or save it as safetensors"
        raise StudyError(f"{folder} holds no weights (*.safetensors); {fix}")
    base_of(folder)
    needed = ["tokenizer.json"]
    if not (family.protocol == "chat" and any(has_processor(folder, of) for of in ("video", "image"))):
        needed.append("preprocessor_config.json")  # older checkpoints keep the video processor's settings here
    for name in needed:
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


def fetch(model: str) -> tuple[Path, str]:
    """A hub repository's folder, downloaded or found in the cache, and its commit."""
    from huggingface_hub import snapshot_download  # heavy

    try:
        folder = Path(snapshot_download(model, allow_patterns=["*.json", "*.jinja", "*.safetensors"]))
    except Exception as error:  # the hub client raises many kinds, also from the network libraries under it
        hint = f"({type(error).__name__}); offline, pass its folder"
        raise StudyError(f"model {model!r} could not be fetched from the hub {hint}") from None
    return check_folder(folder), folder.name


def weights_sha256(folder: Path) -> str:
    """One hash over all weight files, in the order of their names, and over those of the base that they stand on."""
    digest, base = hashlib.sha256(), base_of(folder)
    for path in [*sorted(folder.glob("*.safetensors")), *([base] if base else [])]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def depth_of(source: Path | str) -> int:
    """Number of decoder layers, from the config alone. StudyError if it cannot be read."""
    from transformers import AutoConfig, PretrainedConfig  # heavy

    ensure_torchvision()
    try:
        stated = PretrainedConfig.get_config_dict(source)[0]
        if stated.get("model_type") in DECODER_CONFIG:  # transformers does not know such a config
            return stated[DECODER_CONFIG[stated["model_type"]]]["num_hidden_layers"]
        return AutoConfig.from_pretrained(source).get_text_config(decoder=True).num_hidden_layers
    except Exception as error:  # the hub client raises many kinds, also from the network libraries under it
        reason = type(error).__name__
        raise StudyError(f"the config of model {source} cannot be read ({reason}); offline, pass its folder") from error
