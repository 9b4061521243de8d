"""A checkpoint's weights, read strictly, for any model family.

A tensor that is missing, unexpected or of another shape is an error that names it, since a silently untrained layer
gives plausible nonsense.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from analysis_lib.errors import StudyError
from analysis_lib.models.checkpoints import read_config
from analysis_lib.models.families import Family
from analysis_lib.models.originals import translated

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_strict(folder: Path, family: Family, dtype: torch.dtype, device_map: Any = None) -> Any:
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
