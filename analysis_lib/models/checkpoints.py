"""Finding a checkpoint and reading its weights strictly, for any model family.

A checkpoint is judged by its folder alone before anything heavy is imported: an unknown name, a wrong kind of model or
a half-finished download ends in one line that says what to do. Reading is strict too: a tensor that is missing,
unexpected or of another shape is an error that names it, since a silently untrained layer gives plausible nonsense.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.models.families import Family, family_of, has_video_processor
from analysis_lib.models.originals import translated
from analysis_lib.models.prompts import LETTERS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def find(model: str) -> Path | str:
    """What a model's name means: a checkpoint folder that looks complete, or a hub id.

    Accepts the name of an embedded model (a folder in data/models), any folder, or `owner/name`. Raises StudyError
    with the fix.
    """
    for folder in (paths.MODELS / model, Path(model).expanduser()):
        if model and folder.is_dir():
            return check_folder(folder)
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model):
        return model
    embedded = sorted(path.parent.name for path in paths.MODELS.glob("*/config.json"))
    known = ", ".join(embedded) or "none here yet; make train makes them"
    raise StudyError(
        f"unknown model {model!r}: no such folder, nor an embedded model ({known}), nor a hub id owner/name"
    )


def check_folder(folder: Path) -> Path:
    """The folder, if it holds all files of a checkpoint of a known family; else StudyError naming what it lacks."""
    config = read_config(folder)
    family = family_of(folder, config)
    lacking = [key for key in family.config_keys if not config.get(key)]
    if lacking:
        raise StudyError(f"{folder}/config.json does not state {', '.join(lacking)}; a video checkpoint must")
    if not list(folder.glob("*.safetensors")):
        raise StudyError(
            f"{folder} holds no weights (*.safetensors); download the checkpoint completely, or save it as safetensors"
        )
    needed = ["tokenizer.json"]
    if not (family.protocol == "chat" and has_video_processor(folder)):
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
    """Download a hub repository (or find it in the cache): its folder and its commit."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model, allow_patterns=["*.json", "*.jinja", "*.safetensors"]))
    except Exception as error:  # the hub client raises many kinds, also from the network libraries under it
        raise StudyError(
            f"model {model!r} could not be fetched from the hub ({type(error).__name__}); offline, pass its folder"
        ) from None
    return check_folder(folder), folder.name


def load_strict(folder: Path, family: Family, dtype: torch.dtype, device_map: Any = None) -> PreTrainedModel:
    """The model with SDPA attention; StudyError names weights that are missing, unexpected or of another shape.

    `device_map` (see `spread`) lays its parts on several devices; without one it is on the CPU.
    """
    import transformers

    name = family.hf_class or (read_config(folder).get("architectures") or [""])[0]
    if not hasattr(transformers, name or "?"):
        raise StudyError(
            f"{folder}: transformers has no class {name!r} (config.json, architectures); code that comes with a "
            "checkpoint is not run, so use a checkpoint in transformers' own format"
        )

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # its load report would repeat what is raised below
    try:
        given = translated(folder, read_config(folder))
        hf, report = getattr(transformers, name).from_pretrained(
            None if "state_dict" in given else folder, dtype=dtype, attn_implementation="sdpa",
            output_loading_info=True, ignore_mismatched_sizes=True, device_map=device_map, **given,
        )  # fmt: skip
    except StudyError:
        raise
    except Exception as error:  # a torn file surfaces as one of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StudyError(f"{folder}: the weights cannot be read ({reason}); download them again") from error
    for kind in ("missing", "unexpected", "mismatched"):
        lost = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report[f"{kind}_keys"])
        if lost:
            more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
            raise StudyError(f"{folder}: {kind} weights: {', '.join(lost[:3])}{more}; this is not a complete {name}")
    return hf


def weights_sha256(folder: Path) -> str:
    """One hash over all weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def device_for(device: str) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise StudyError(f"unknown device {device!r}; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise StudyError("device cuda asked for, but this torch sees no GPU; use --device cpu")
    return torch.device(device)


def spread(folder: Path, dtype: torch.dtype, place: torch.device) -> str | None:
    """The device map for a model that leaves too little of the GPU's free memory: "auto" (accelerate's: all GPUs, then
    the CPU's memory), else None.
    """
    if place.type != "cuda":
        return None
    from safetensors import safe_open

    weights = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            weights += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return "auto" if weights * dtype.itemsize > 0.8 * torch.cuda.mem_get_info(place)[0] else None


def dtype_for(dtype: str, device: torch.device, config: dict) -> torch.dtype:
    """The dtype asked for. `auto`: float32 on a CPU, elsewhere the one that the checkpoint was stored in."""
    if dtype == "auto":
        nested = config.get("text_config") or {}
        stored = next((c[k] for c in (config, nested) for k in ("dtype", "torch_dtype") if c.get(k)), "float32")
        return torch.float32 if device.type == "cpu" else DTYPES.get(stored, torch.bfloat16)
    if dtype not in DTYPES:
        raise StudyError(f"unknown dtype {dtype!r}; choose auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def letter_ids(tokenizer: Any, folder: Path) -> tuple[int, ...]:
    """Ids of A, B, … up to the first letter that is not one token."""
    vocabulary = tokenizer.get_vocab()
    ids = tuple(vocabulary[letter] for letter in itertools.takewhile(vocabulary.__contains__, LETTERS))
    if len(ids) < 2:
        raise StudyError(
            f"{folder}: the tokenizer has no single tokens for the letters A and B; answers cannot be read"
        )
    return ids
