"""Loading a checkpoint into a `VideoLLM`, strictly, through unmodified classes of transformers.

A tensor that is missing, unexpected or of another shape is an error that names it, since a silently untrained layer
gives plausible nonsense."""

import itertools
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from analysis_lib.errors import StudyError, reason_of
from analysis_lib.inputs.records import LETTERS
from analysis_lib.models import checkpoints, weights
from analysis_lib.models.bases import base_of
from analysis_lib.models.decoder import check_decoder
from analysis_lib.models.devices import device_for, keep_digits, keep_freed_memory
from analysis_lib.models.families import FAMILIES, Family, family_of
from analysis_lib.models.originals import translated
from analysis_lib.models.processing import processor_and_template
from analysis_lib.models.prompts import prompt_end
from analysis_lib.models.records import VideoLLM
from analysis_lib.models.skeleton import check_prompt, skeleton
from analysis_lib.models.torchvision_ops import ensure_torchvision

LEAST = (5, 23)  # of transformers: earlier ones ignore the features that `merging.model_inputs` hands over, silently
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_checkpoint(model: str, *, dtype: str = "auto", device: str = "auto") -> VideoLLM:
    """Load a model for inference, with SDPA attention. `dtype` auto: float32 on a CPU, the checkpoint's own on a GPU.
    `device` auto: cuda if there is one, and all GPUs if the model does not fit the first. Raises StudyError for a
    transformers that is too old, for weights that do not fit the model, a processor or prompt that does not, and for
    anything that `checkpoints.find` refuses, all before memory for the model is asked for."""
    _check_transformers()
    place = device_for(device)
    source = checkpoints.find(model)
    folder, revision = (source, None) if isinstance(source, Path) else checkpoints.fetch(source)
    ensure_torchvision()

    config = checkpoints.read_config(folder)
    family = family_of(folder, config)
    _quiet()
    cls, wanted = _class(folder, config, family), _dtype(dtype, place, config)
    files = [*weights.weight_files(folder), *filter(None, [base_of(folder)])]
    stored = weights.shapes(files)
    weights.check_depth(folder, config, stored)
    device_map = spread(stored, wanted, place) if device == "auto" else None
    _check_memory(folder, stored, wanted, device_map)
    given = _given(folder, config if family.protocol != "chat" else {**config, "model_type": None})
    how = {"dtype": wanted, "attn_implementation": "sdpa"}
    how |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    hf, report = skeleton(folder, cls, given, stored, how)
    _check_report(folder, cls, report)
    _check_decoder(folder, hf)
    tokenizer, image_processor, processor, template = _readers(folder, family)
    vlm = VideoLLM(
        name=folder.name if revision is None else model.split("/")[1],
        hf=hf, image_processor=image_processor,
        num_frames=family.num_frames if family.protocol == "chat" else hf.config.num_frames,
        letter_ids=_letters(folder, tokenizer, prompt_end(family.protocol, template)),
        weights_sha256="", revision=revision, device=torch.device("cpu"), dtype=wanted,
        tokenizer=tokenizer, processor=processor, template=template,
        protocol=family.protocol, positions=family.positions, shown=family.shown,
    )  # fmt: skip
    check_prompt(vlm)
    _check_numbers(files)
    hf = _load(folder, cls, device_map, given, how)
    keep_freed_memory()
    keep_digits(place, wanted)
    return replace(
        vlm, hf=(hf.to(place) if device_map is None else hf).eval().requires_grad_(False),
        weights_sha256=checkpoints.weights_sha256(folder), device=place, dtype=hf.dtype,
    )  # fmt: skip


def _check_transformers() -> None:
    found = version("transformers")
    if tuple(int(number) for number in found.split(".")[:2]) < LEAST:
        needed = ".".join(map(str, LEAST))
        raise StudyError(
            f"transformers {found} is installed, which drops a video's tokens; {needed} or later is needed"
        )


def _dtype(dtype: str, device: torch.device, config: dict) -> torch.dtype:
    """The dtype asked for. `auto`: float32 on a CPU, elsewhere the one that the checkpoint was stored in."""
    if dtype == "auto":
        nested = config.get("text_config") or {}
        stored = next((c[k] for c in (config, nested) for k in ("dtype", "torch_dtype") if c.get(k)), "float32")
        return torch.float32 if device.type == "cpu" else DTYPES.get(stored, torch.bfloat16)
    if dtype not in DTYPES:
        raise StudyError(f"unknown dtype {dtype!r}; choose auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def spread(stored: weights.Shapes, dtype: torch.dtype, place: torch.device) -> str | None:
    """Device map "auto" (all GPUs, then the CPU's memory) if the model leaves the GPU too little memory, else None."""
    if place.type != "cuda":
        return None
    size = weights.parameters(stored) * dtype.itemsize
    return "auto" if size > 0.8 * torch.cuda.mem_get_info(place)[0] else None


def _check_memory(folder: Path, stored: weights.Shapes, dtype: torch.dtype, device_map: str | None) -> None:
    """Raise StudyError if the weights do not fit the memory that is free: the CPU's, over which every model goes, and
    that of the GPUs over which it is spread."""
    from accelerate.utils import get_max_memory  # heavy

    held = get_max_memory()  # bytes that are free, by device
    free = sum(held.values()) if device_map else held.get("cpu", max(held.values()))
    if (size := weights.parameters(stored) * dtype.itemsize) > free:
        found = f"its weights take {size / 2**30:.1f} GiB in {str(dtype)[6:]}, and {free / 2**30:.1f} GiB are free"
        raise StudyError(f"{folder}: {found}; use a smaller model, --dtype bfloat16 or another machine")


def _readers(folder: Path, family: Family) -> tuple[Any, Any, Any, str]:
    """What makes the prompt: tokenizer, image processor of pooled models, processor and chat template of others."""
    from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast  # heavy

    pooled = family.protocol != "chat"
    try:
        # As saved in the folder: AutoTokenizer may rebuild a tokenizer from its class name, with other ids.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        image_processor = CLIPImageProcessorPil.from_pretrained(folder) if pooled else None
    except Exception as error:  # a torn file surfaces as one of many kinds
        found = f"its tokenizer or image processor cannot be read ({reason_of(error)})"
        raise StudyError(f"{folder}: {found}; download it again") from error
    processor, template = (None, "") if pooled else processor_and_template(folder, tokenizer, family.shown)
    return tokenizer, image_processor, processor, template


def _letters(folder: Path, tokenizer: Any, end: str) -> tuple[int, ...]:
    """Vocabulary entries of A, B, …, as far as each is one token of its own behind a prompt's `end`. Raises StudyError
    if those of A and B are not."""
    vocabulary, start, found = tokenizer.get_vocab(), tokenizer(end)["input_ids"], []
    for letter in itertools.takewhile(vocabulary.__contains__, LETTERS):
        if tokenizer(end + letter)["input_ids"] != [*start, vocabulary[letter]]:
            break
        found.append(vocabulary[letter])
    if len(found) < 2:
        lack = LETTERS[len(found)]
        why = f"joins {end[-1] + lack!r} to one token" if lack in vocabulary else f"has no token {lack!r}"
        found = f"the tokenizer {why}, so there are no single tokens for the letters A and B"
        raise StudyError(f"{folder}: {found}; answers cannot be read")
    return tuple(found)


def _class(folder: Path, config: dict, family: Family) -> Any:
    """transformers' class of a checkpoint; StudyError if there is none."""
    import transformers  # heavy

    named = config.get("architectures")
    name = family.hf_class or (named[0] if isinstance(named, list) and named else "")
    cls = getattr(transformers, str(name) or "?", None)
    if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel):
        kind, own = config.get("model_type"), getattr(cls.config_class, "model_type", None)
        if own in FAMILIES and kind != own and not family.hf_class:  # facts of one family, weights of another
            raise StudyError(f"{folder}: config.json says model type {kind!r}, but {name} is of {own!r}; correct it")
        return cls
    own = "; it comes with the checkpoint (auto_map)" if config.get("auto_map") else ""
    fix = "code that comes with a checkpoint is not run, so use a checkpoint in transformers' own format"
    raise StudyError(f"{folder}: transformers has no class {name!r} (config.json, architectures){own}; {fix}")


def _check_decoder(folder: Path, hf: Any) -> None:
    """`decoder.check_decoder`; StudyError for a class that has no such thing as a decoder or an output head."""
    try:
        check_decoder(hf)
    except StudyError:
        raise
    except Exception as error:  # whatever else transformers has classes for
        found = f"{type(hf).__name__} is no model that writes text ({reason_of(error)})"
        raise StudyError(f"{folder}: {found}; use one ForConditionalGeneration") from error


def _given(folder: Path, config: dict) -> dict[str, Any]:
    """`originals.translated`; StudyError for what it cannot read."""
    try:
        return translated(folder, config)
    except StudyError:
        raise
    except Exception as error:  # their configs may lack anything
        raise StudyError(f"{folder}: config.json or weights cannot be translated ({reason_of(error)})") from error


def _load(folder: Path, cls: Any, device_map: Any, given: dict[str, Any], how: dict[str, Any]) -> Any:
    """The model, on the CPU or laid on several devices by `device_map`; StudyError names weights that do not fit."""
    try:
        source = None if "state_dict" in given else folder
        hf, report = cls.from_pretrained(source, device_map=device_map, **how, **given)
    except Exception as error:  # a torn file surfaces as one of many kinds
        found = f"the weights cannot be read ({reason_of(error)})"
        raise StudyError(f"{folder}: {found}; download them again") from error
    _check_report(folder, cls, report)
    return hf


def _check_report(folder: Path, cls: Any, report: dict[str, Any]) -> None:
    """Raise StudyError that names weights which are missing, left over or of another shape."""
    for kind in ("missing", "unexpected", "mismatched"):
        if lost := sorted(str(key[0] if isinstance(key, tuple) else key) for key in report[f"{kind}_keys"]):
            more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
            fix = f"this is not a complete {cls.__name__}"
            raise StudyError(f"{folder}: {kind} weights: {', '.join(lost[:3])}{more}; {fix}")


def _check_numbers(files: list[Path]) -> None:
    """Raise StudyError for a weight that is no number (NaN): one is enough to make every answer none."""
    for path in files:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                if tensor.numel() and tensor.is_floating_point():
                    plain = tensor.float() if tensor.itemsize < 2 else tensor
                    if plain.aminmax()[0].isnan():  # in one pass, and without a mask as large as the weights
                        raise StudyError(f"{path}: {name} holds NaN; download it again, or train it again")


def _quiet() -> None:
    """No bars and no load report of transformers, which would repeat what is raised here."""
    import transformers  # heavy

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
