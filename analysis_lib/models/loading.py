"""Loading a checkpoint into a `VideoLLM`, strictly, through unmodified classes of transformers.

A tensor that is missing, unexpected or of another shape is an error that names it, since a silently untrained layer
gives plausible nonsense."""

import ctypes
import itertools
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import LETTERS
from analysis_lib.models import checkpoints
from analysis_lib.models.decoder import check_decoder
from analysis_lib.models.families import Family, family_of
from analysis_lib.models.originals import translated
from analysis_lib.models.processing import processor_and_template
from analysis_lib.models.records import VideoLLM
from analysis_lib.models.torchvision_ops import ensure_torchvision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_checkpoint(model: str, *, dtype: str = "auto", device: str = "auto") -> VideoLLM:
    """Load a model for inference, with SDPA attention. `dtype` auto: float32 on a CPU, the checkpoint's own on a GPU.
    `device` auto: cuda if there is one, and all GPUs if the model does not fit the first. Raises StudyError for weights
    that do not fit the model, and for anything that `checkpoints.find` refuses."""
    place = device_for(device)
    source = checkpoints.find(model)
    folder, revision = (source, None) if isinstance(source, Path) else checkpoints.fetch(source)
    ensure_torchvision()
    from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast  # heavy

    config = checkpoints.read_config(folder)
    family = family_of(folder, config)
    wanted = _dtype(dtype, place, config)
    device_map = spread(folder, wanted, place) if device == "auto" else None
    hf = _load_strict(folder, config, family, wanted, device_map)
    check_decoder(hf)
    # As saved in the folder: AutoTokenizer may rebuild a tokenizer from its class name, with other ids.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    chat = family.protocol == "chat"
    processor, template = processor_and_template(folder, tokenizer, family.shown) if chat else (None, "")
    vocabulary = tokenizer.get_vocab()
    letters = list(itertools.takewhile(vocabulary.__contains__, LETTERS))  # each one token
    if len(letters) < 2:
        lack = "the tokenizer has no single tokens for the letters A and B"
        raise StudyError(f"{folder}: {lack}; answers cannot be read")
    _keep_freed_memory()
    return VideoLLM(
        name=folder.name if revision is None else model.split("/")[1],
        hf=(hf.to(place) if device_map is None else hf).eval().requires_grad_(False),
        image_processor=None if chat else CLIPImageProcessorPil.from_pretrained(folder),
        num_frames=family.num_frames if chat else hf.config.num_frames,
        letter_ids=tuple(vocabulary[letter] for letter in letters),
        weights_sha256=checkpoints.weights_sha256(folder), revision=revision, device=place, dtype=hf.dtype,
        tokenizer=tokenizer, processor=processor, template=template,
        protocol=family.protocol, positions=family.positions, shown=family.shown,
    )  # fmt: skip


def device_for(device: str) -> torch.device:
    """The device that auto, cpu or cuda means here; StudyError for others, and for cuda without a GPU."""
    if device not in ("auto", "cpu", "cuda"):
        raise StudyError(f"unknown device {device!r}; choose auto, cpu or cuda")
    seen = torch.cuda.is_available()
    if device == "cuda" and not seen:
        raise StudyError("device cuda asked for, but this torch sees no GPU; use --device cpu")
    return torch.device("cuda" if seen and device != "cpu" else "cpu")


def _dtype(dtype: str, device: torch.device, config: dict) -> torch.dtype:
    """The dtype asked for. `auto`: float32 on a CPU, elsewhere the one that the checkpoint was stored in."""
    if dtype == "auto":
        nested = config.get("text_config") or {}
        stored = next((c[k] for c in (config, nested) for k in ("dtype", "torch_dtype") if c.get(k)), "float32")
        return torch.float32 if device.type == "cpu" else DTYPES.get(stored, torch.bfloat16)
    if dtype not in DTYPES:
        raise StudyError(f"unknown dtype {dtype!r}; choose auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def spread(folder: Path, dtype: torch.dtype, place: torch.device) -> str | None:
    """Device map "auto" (all GPUs, then the CPU's memory) if the model leaves the GPU too little memory, else None."""
    if place.type != "cuda":
        return None
    weights = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            weights += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    return "auto" if weights * dtype.itemsize > 0.8 * torch.cuda.mem_get_info(place)[0] else None


def _load_strict(folder: Path, config: dict, family: Family, dtype: torch.dtype, device_map: Any) -> Any:
    """The model, on the CPU or laid on several devices by `device_map`; StudyError names weights that do not fit."""
    import transformers  # heavy

    name = family.hf_class or (config.get("architectures") or [""])[0]
    if not hasattr(transformers, name or "?"):
        fix = "code that comes with a checkpoint is not run, so use a checkpoint in transformers' own format"
        raise StudyError(f"{folder}: transformers has no class {name!r} (config.json, architectures); {fix}")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # its load report would repeat what is raised below
    try:
        given = translated(folder, config if family.protocol != "chat" else {**config, "model_type": None})
        hf, report = getattr(transformers, name).from_pretrained(
            None if "state_dict" in given else folder, dtype=dtype, attn_implementation="sdpa",
            output_loading_info=True, ignore_mismatched_sizes=True, device_map=device_map, **given,
        )  # fmt: skip
    except StudyError:
        raise
    except Exception as error:  # a torn file surfaces as one of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "torch.nn.functional.scaled_dot_product_attention" in reason:
            raise StudyError(f"{folder}: transformers has no SDPA attention for {name}; no edge can be cut") from error
        raise StudyError(f"{folder}: the weights cannot be read ({reason}); download them again") from error
    for kind in ("missing", "unexpected", "mismatched"):
        if lost := sorted(str(key[0] if isinstance(key, tuple) else key) for key in report[f"{kind}_keys"]):
            more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
            raise StudyError(f"{folder}: {kind} weights: {', '.join(lost[:3])}{more}; this is not a complete {name}")
    return hf


def _keep_freed_memory() -> None:
    """Let the C library keep up to 256 MiB that tensors free (glibc only). Else it returns them and asks for new pages
    at every layer, which costs a sweep on a CPU up to a quarter of its time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for threshold in (-1, -3) if mallopt else ():  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        mallopt(threshold, 1 << 28)
