"""The one table of what differs between model families, and the checks that a family must pass.

A native video model of transformers needs no code of its own (`native.py`): its processor makes the prompt, its
forward the decoder's inputs, and attention is cut through the arguments of its unmodified layers. The table holds the
few facts that cannot be read off processor or model. An architecture that is not in it takes the same path with the
default facts, after checks that stop with one message."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis_lib.errors import StudyError


@dataclass(frozen=True)
class Family:
    """What the library must know of one `model_type`."""

    hf_class: str = ""  # transformers' class; "": the one that config.json names
    protocol: str = "chat"  # prompt layout; chat: the model's own chat template
    config_keys: tuple[str, ...] = ()  # facts that config.json must state
    num_frames: int = 8  # frames shown
    trailing: int = 0  # placeholder tokens after the last frame that belong to none
    positions: str = "own"  # or "repaired": transformers starts the text after a video inside the video's span of time
    shown: str = "video"  # or "frames as images": the clip's sampled frames, as so many images
    encode: Callable[[Any, dict], Any] | None = None  # the video's features where transformers' own path fails


FAMILIES = {
    # LLaVA-NeXT-7B-Video-FT: an image model with features pooled over the clip (`merging.py`)
    "llava": Family("LlavaForConditionalGeneration", "mvbench", ("num_frames", "pooling_shape", "frame_shape")),
    "llava_next": Family("LlavaForConditionalGeneration", "mvbench"),  # its image-only base (`originals.py`)
    "internvl_chat": Family("InternVLForConditionalGeneration", "mvbench-phi3", ("llm_config", "vision_config")),
    "llava_next_video": Family(),
    "llava_onevision": Family(trailing=1),  # one newline embedding closes the video
    **dict.fromkeys(("video_llava", "internvl", "smolvlm", "perception_lm", "video_llama_3"), Family()),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), Family(positions="repaired")),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "glm4v"), Family()),
}


IMAGES = Family(shown="frames as images")  # of architectures that take images only


def _kimi_features(model: Any, given: dict[str, Any]) -> Any:
    """Of Kimi-K2.5's own tower and projector. The tower averages the frames of a chunk; transformers 5.23 then splits
    the features as if it had not, and stops."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling  # heavy

    seen = model.vision_tower(given["pixel_values_videos"], grid_thw=given["video_grid_thw"]).pooler_output
    return BaseModelOutputWithPooling(pooler_output=[model.mm_projector(seen).squeeze(1)])


def _nemotron_features(model: Any, given: dict[str, Any]) -> Any:
    """Of Nemotron-H Omni's own path for videos, as the list of videos that its forward joins; transformers 5.23 hands
    over the one tensor, and stops."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling  # heavy

    seen = model.get_video_features(given["pixel_values_videos"]).pooler_output  # (patches in time, tokens, d)
    return BaseModelOutputWithPooling(pooler_output=[seen] if hasattr(seen, "shape") else seen)


TRIED = {  # facts of architectures that are tried at the door all the same
    "kimi_k25": Family(encode=_kimi_features),
    "nemotron_h_omni": Family(encode=_nemotron_features),
    "ernie4_5_vl_moe": Family(positions="repaired"),
}


@dataclass(frozen=True)
class Mixer:
    """A kind of layer that moves information between positions without softmax attention, told by its submodules.

    `parts` says what each submodule's output holds for a position, as (size, what it is) in order, given the layer:
    "write" and "gate" are what the position hands to later ones (left out as 0 and, before a sigmoid or softplus, as
    minus infinity), "read" a query that a convolution also mixes, "own" what only the position itself uses."""

    children: frozenset[str]
    parts: dict[str, Callable[[Any], tuple[tuple[int, str], ...]]]
    conv: str = "conv1d"  # the convolution, for its reach


def _children(names: str) -> frozenset[str]:
    return frozenset(names.split())


MIXERS = {
    "gated delta net": Mixer(  # Qwen3.5
        _children("conv1d norm out_proj in_proj_qkv in_proj_z in_proj_b in_proj_a"),
        {
            "in_proj_qkv": lambda m: ((m.key_dim, "read"), (m.key_dim + m.value_dim, "write")),
            "in_proj_b": lambda m: ((m.num_v_heads, "gate"),),
            "in_proj_a": lambda m: ((m.num_v_heads, "gate"),),
        },
    ),
    "Kimi delta attention": Mixer(  # GLM-5-Next
        _children("q_proj k_proj v_proj conv1d forget_gate b_proj g_a_proj g_b_proj o_norm o_proj"),
        {
            "q_proj": lambda m: ((m.qkv_dim, "read"),),
            **dict.fromkeys(("k_proj", "v_proj", "forget_gate"), lambda m: ((-1, "write"),)),
            "b_proj": lambda m: ((m.num_heads, "gate"),),
        },
    ),
    "Mamba-2": Mixer(  # Nemotron-H
        _children("conv1d in_proj norm out_proj"),
        {
            "in_proj": lambda m: (
                (m.intermediate_size, "own"),
                (m.intermediate_size + m.n_groups * m.ssm_state_size, "write"),
                (m.n_groups * m.ssm_state_size, "read"),
                (m.num_heads, "gate"),
            )
        },
    ),
    "short convolution": Mixer(  # LFM
        _children("conv in_proj out_proj"),
        {"in_proj": lambda m: ((m.conv.in_channels, "write"), (2 * m.conv.in_channels, "own"))},
        "conv",
    ),
}
POINTWISE = ("mlp", "moe")  # `block_type` of layers that move nothing between positions (Nemotron-H)

DECODER_CONFIG = {"internvl_chat": "llm_config"}  # where a config that transformers cannot read describes the decoder
INSTEAD = {  # what works in place of checkpoints that bring code of their own
    "videollama3_qwen2": "one in transformers' own format (video_llama_3), such as lkhl/VideoLLaMA3-2B-Image-HF",
}
QFORMER = "its Q-Former reads the question, so video tokens hold it before any layer that could be cut"
CROSS = "it reads images by cross-attention between its layers, so no token of the prompt holds a frame"
REFUSED = dict.fromkeys(("instructblip", "instructblipvideo"), QFORMER) | dict.fromkeys(("mllama", "idefics"), CROSS)


def facts_of(kind: str) -> Family:
    """What the tables say of a `model_type`, the default facts if nothing."""
    return FAMILIES.get(kind) or TRIED.get(kind) or Family()


def family_of(folder: Path, config: dict) -> Family:
    """The family of a checkpoint folder, default facts for an unseen kind that takes videos, or images where it takes
    none; StudyError for others."""
    kind = config.get("model_type")
    if kind in FAMILIES and not (_is_plain(kind, config) and has_template(folder)):
        return FAMILIES[kind]
    if kind in INSTEAD:
        raise StudyError(f"{folder}: model type {kind!r} needs code that is not run; use {INSTEAD[kind]}")
    if kind in REFUSED:
        raise StudyError(f"{folder}: model type {kind!r} cannot be studied: {REFUSED[kind]}")
    if has_processor(folder, "video"):
        return facts_of(kind)
    if has_processor(folder, "image") and has_template(folder):
        return IMAGES
    known = f"{', '.join(FAMILIES)}, and other models of transformers whose folder holds a video processor"
    found = "or an image processor and a chat template (this one does not)"
    raise StudyError(f"{folder}: model type {kind!r} is not supported; supported: {known}, {found}")


def _is_plain(kind: str, config: dict) -> bool:
    """Whether a checkpoint has the type of one of the paper's models and is none: LLaVA that states nothing of a video,
    LLaVA-NeXT on another language model than Llama's kind."""
    stated = any(config.get(key) for key in FAMILIES[kind].config_keys)
    text = config.get("text_config")
    of_llama = not isinstance(text, dict) or text.get("model_type", "llama") == "llama"
    return (kind == "llava" and not stated) or (kind == "llava_next" and not of_llama)


def has_template(folder: Path) -> bool:
    """Whether the folder holds a chat template, in one of the files that transformers reads."""
    for name in ("processor_config.json", "tokenizer_config.json"):
        with suppress(FileNotFoundError, ValueError):
            if json.loads((folder / name).read_text(encoding="utf-8")).get("chat_template"):
                return True
    return any((folder / f"chat_template.{kind}").is_file() for kind in ("jinja", "json"))


def has_processor(folder: Path, of: str) -> bool:
    """Whether the folder says how videos, or images, become the model's input."""
    with suppress(FileNotFoundError, ValueError):
        if f"{of}_processor" in json.loads((folder / "processor_config.json").read_text(encoding="utf-8")):
            return True
    return (folder / f"{'video_' if of == 'video' else ''}preprocessor_config.json").is_file()


def mixer_kind(module: Any) -> str | None:
    """Which of MIXERS a module is: its submodules are those of the kind and no others."""
    names = {name for name, child in module.named_children() if next(child.parameters(), None) is not None}
    return next((kind for kind, mixer in MIXERS.items() if mixer.children == names), None)
