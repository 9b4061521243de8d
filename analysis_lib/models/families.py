"""The one table of what differs between model families, and the checks that a family must pass.

A native video model of transformers needs no code of its own (`native.py`): its processor makes the prompt, its
forward the decoder's inputs, and attention is cut through the arguments of its unmodified layers. The table holds the
few facts that cannot be read off processor or model. An architecture that is not in it takes the same path with the
default facts, after checks that stop with one message."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis_lib.errors import StudyError

MASKABLE = ("sdpa", "eager", "flow_measured")  # attention kernels that take a mask for single edges; ours last


@dataclass(frozen=True)
class Family:
    """What the library must know of one `model_type`."""

    hf_class: str = ""  # transformers' class; "": the one that config.json names
    protocol: str = "chat"  # prompt layout; chat: the model's own chat template
    config_keys: tuple[str, ...] = ()  # facts that config.json must state
    num_frames: int = 8  # frames shown
    trailing: int = 0  # placeholder tokens after the last frame that belong to none
    positions: str = "own"  # or "repaired": transformers starts the text after a video inside the video's span of time


FAMILIES = {
    # LLaVA-NeXT-7B-Video-FT: an image model with features pooled over the clip (`merging.py`)
    "llava": Family("LlavaForConditionalGeneration", "mvbench", ("num_frames", "pooling_shape", "frame_shape")),
    "llava_next": Family("LlavaForConditionalGeneration", "mvbench"),  # its image-only base (`originals.py`)
    "internvl_chat": Family("InternVLForConditionalGeneration", "mvbench-phi3", ("llm_config", "vision_config")),
    "llava_next_video": Family(),
    "llava_onevision": Family(trailing=1),  # one newline embedding closes the video
    **dict.fromkeys(("video_llava", "internvl", "smolvlm", "perception_lm", "video_llama_3"), Family()),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), Family(positions="repaired")),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "glm4v"), Family()),
}

DECODER_CONFIG = {"internvl_chat": "llm_config"}  # where a config that transformers cannot read describes the decoder
INSTEAD = {  # what works in place of checkpoints that bring code of their own
    "videollama3_qwen2": "one in transformers' own format (video_llama_3), such as lkhl/VideoLLaMA3-2B-Image-HF",
}


def family_of(folder: Path, config: dict) -> Family:
    """The family of a checkpoint folder, default facts for an unseen kind with a video path; StudyError for others."""
    kind = config.get("model_type")
    if kind in FAMILIES:
        return FAMILIES[kind]
    if kind in INSTEAD:
        raise StudyError(f"{folder}: model type {kind!r} needs code that is not run; use {INSTEAD[kind]}")
    if has_video_processor(folder):
        return Family()
    known = f"{', '.join(FAMILIES)}, and other models of transformers whose folder holds a video processor"
    raise StudyError(f"{folder}: model type {kind!r} is not supported; supported: {known} (this one holds none)")


def has_video_processor(folder: Path) -> bool:
    """Whether the folder says how videos become the model's input."""
    with suppress(FileNotFoundError, ValueError):
        if "video_processor" in json.loads((folder / "processor_config.json").read_text(encoding="utf-8")):
            return True
    return (folder / "video_preprocessor_config.json").is_file()


def check_decoder(hf: Any) -> None:
    """Raise StudyError unless every decoder layer has softmax attention whose edges can be cut."""
    name, decoder = type(hf).__name__, hf.get_decoder()
    if not hasattr(decoder, "layers") or not hasattr(decoder, "norm"):
        found = f"its decoder ({type(decoder).__name__}) has no `layers` and `norm`, so its attention cannot be reached"
        raise StudyError(f"{name}: {found}; name them in models.decoder_layers and models.final_norm")
    if lacking := {i: layer for i, layer in enumerate(decoder.layers, 1) if not hasattr(layer, "self_attn")}:
        parts = next(iter(lacking.values())).named_children()
        mixer = next((type(part).__name__ for n, part in parts if "attn" in n or "mixer" in n), "another kind")
        found = f"layers {', '.join(map(str, lacking))} have no softmax attention ({mixer} instead of self_attn)"
        why = "no edge can be cut there and information would pass, so this model cannot be studied by knockouts"
        raise StudyError(f"{name}: {found}; {why}")
    check_kernel(hf)


def check_kernel(hf: Any) -> None:
    """Raise StudyError if the decoder's attention kernel takes no mask (flash attention)."""
    kernel = hf.get_decoder().config._attn_implementation
    if kernel not in MASKABLE:
        fix = "load the model with attn_implementation sdpa"
        raise StudyError(f"{type(hf).__name__}: attention kernel {kernel!r} takes no mask for single edges; {fix}")
