"""Finding a checkpoint, and what its folder says before anything heavy is imported.

An unknown name, a wrong kind of model or a half-finished download ends in one line that says what to do."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.models import weights
from analysis_lib.models.bases import base_of
from analysis_lib.models.families import DECODER_CONFIG, family_of, has_processor
from analysis_lib.models.torchvision_ops import ensure_torchvision

SIZES = {"num_frames": 1, "pooling_shape": 3, "frame_shape": 2}  # of pooled models: how many numbers each is
MOST = 10_000
PARTS = {f"{part}_config" for part in ("text", "vision", "audio", "llm", "thinker")}
NAMES = {"model_type", "dtype", "torch_dtype"}


def find(model: str) -> Path | str:
    """What a model's name means: a checkpoint folder that looks complete (the name of an embedded model in data/models,
    or any folder), or a hub id `owner/name`. Raises StudyError with the fix."""
    for folder in (paths.MODELS / model, Path(model).expanduser()):
        if model and folder.is_dir():
            return check_folder(folder)
    if model and Path(model).expanduser().exists():
        raise StudyError(f"{model} is a file; pass the folder of the checkpoint that it belongs to")
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model):
        return model
    names = sorted(path.parent.name for path in paths.MODELS.glob("*/config.json"))
    embedded = f"an embedded model ({', '.join(names) or 'none here yet; make train makes them'})"
    raise StudyError(f"unknown model {model!r}: no such folder, nor {embedded}, nor a hub id owner/name")


def check_folder(folder: Path) -> Path:
    """The folder, if it holds all files of a checkpoint of a known family; else StudyError naming what it lacks."""
    config = read_config(folder)
    for path in sorted(folder.glob("*_config.json")):  # of processors, tokenizer, adapters
        read_settings(path)
    family = family_of(folder, config)
    if lacking := [key for key in family.config_keys if not config.get(key)]:
        raise StudyError(f"{folder}/config.json does not state {', '.join(lacking)}; a video checkpoint must")
    for key in SIZES.keys() & set(family.config_keys):
        check_sizes(folder, key, config[key])
    weights.check_files(folder)
    base_of(folder)
    needed = ["tokenizer.json"]
    if not (family.protocol == "chat" and any(has_processor(folder, of) for of in ("video", "image"))):
        needed.append("preprocessor_config.json")  # older checkpoints keep the video processor's settings here
    for name in needed:
        if not (folder / name).is_file():
            raise StudyError(f"{folder} holds no {name}; take it from the checkpoint this one was made from")
    return folder


def check_sizes(folder: Path, key: str, stated: Any) -> None:
    """Raise StudyError unless config.json states under `key` a size of a clip, or a list of as many as SIZES says."""
    sizes = stated if isinstance(stated, list) else [stated]
    if len(sizes) != SIZES[key] or not all(type(size) is int and 0 < size <= MOST for size in sizes):
        wanted = f"{SIZES[key]} whole {'number' if SIZES[key] == 1 else 'numbers'} from 1 to {MOST}"
        raise StudyError(f"{folder}/config.json: {key} is {stated!r}, but must be {wanted}")


def read_config(folder: Path) -> dict:
    """The parsed config.json of a checkpoint folder."""
    file = folder / "config.json"
    if not file.is_file():
        raise StudyError(f"{folder} holds no config.json; pass the folder of one checkpoint")
    config = read_settings(file)
    check_kinds(file, config)
    for part in PARTS & config.keys():
        check_kinds(file, config[part] or {}, f"{part}.")
    return config


def check_kinds(file: Path, config: dict, inside: str = "") -> None:
    """Raise StudyError for a part of a config that is no object, or a name in it that is no text."""
    for keys, kind, wanted in ((PARTS, dict, "an object"), (NAMES, str, "a text")):
        for key in sorted(keys & config.keys()):
            if not isinstance(config[key], kind | None):
                raise StudyError(f"{file}: {inside}{key} is {config[key]!r}, but must be {wanted}; download it again")


def read_settings(path: Path) -> dict:
    """A JSON file of settings, parsed; StudyError if it is none."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path} is not valid JSON ({error}); download it again") from None
    if not isinstance(settings, dict):
        raise StudyError(f"{path} holds no settings but a {type(settings).__name__}; download it again")
    return settings


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
    for path in [*weights.stored_files(folder), *([base] if base else [])]:
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
        known = AutoConfig.from_pretrained(source, trust_remote_code=False)
        return known.get_text_config(decoder=True).num_hidden_layers
    except Exception as error:  # the hub client raises many kinds, also from the network libraries under it
        reason = type(error).__name__
        raise StudyError(f"the config of model {source} cannot be read ({reason}); offline, pass its folder") from error
