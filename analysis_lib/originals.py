"""Checkpoints in their authors' own formats, as what transformers' own classes load.

Three formats of the paper's models are not transformers' own. The image-only base of the LLaVA-NeXT models is stored as
`llava_next`; the published study runs it through the class of the video model, without its tiles. Mini-InternVL
stores InternVL-chat's tensor names and a config of its own. And a fine-tuned checkpoint may hold LoRA adapters beside
its weights, in PEFT's format or among the weights; they are added in. All three are translations of a config and of
named tensors; loading stays strict, since what is translated goes through the same comparison of names and shapes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from analysis_lib.bases import base_of, base_tensors
from analysis_lib.errors import StudyError

FRAMES = 8  # shown to every model of the paper
Tensors = dict[str, torch.Tensor]


def translated(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Arguments `config` and `state_dict` for from_pretrained; empty where transformers reads the folder as it is.

    `config` is the parsed config.json. Raises StudyError for adapters that cannot be added in.
    """
    translate = FORMATS.get(config.get("model_type"))
    adapted = (folder / ADAPTER).exists() or bool(config.get("lora_alpha"))
    if translate is None and not adapted:
        return {}
    tensors = _read(*(file for file in sorted(folder.glob("*.safetensors")) if file.name != ADAPTER_WEIGHTS))
    if adapted:
        base = base_of(folder)
        tensors |= {} if base is None else base_tensors(base)
        tensors = with_adapters(folder, tensors, config.get("lora_alpha"))
    if translate is None:
        from transformers import AutoConfig

        return {"config": AutoConfig.from_pretrained(folder), "state_dict": tensors}
    made, tensors = translate(folder, config, tensors)
    return {"config": made, "state_dict": tensors}


def _read(*files: Path) -> Tensors:
    from safetensors.torch import load_file

    return {name: tensor for file in files for name, tensor in load_file(file).items()}


# ---- the image-only base of LLaVA-NeXT ----


def _llava_next(folder: Path, config: dict[str, Any], tensors: Tensors) -> tuple[Any, Tensors]:
    """As the published study runs it: eight frames, each pooled to half its side, no tiles and no newline."""
    from transformers import LlavaConfig

    side = config["vision_config"]["image_size"] // config["vision_config"]["patch_size"]
    shape = {"num_frames": FRAMES, "frame_shape": [side, side], "pooling_shape": [FRAMES, side // 2, side // 2]}
    own = {name: value for name, value in config.items() if name not in ("model_type", "architectures")}
    return LlavaConfig(**own, **shape), {name: t for name, t in tensors.items() if name != "image_newline"}


# ---- Mini-InternVL ----

IN_LAYER = {  # of the vision tower
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.projection_layer",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
}
NAMES = (  # what a tensor's name begins with: theirs, transformers'
    ("vision_model.embeddings.class_embedding", "model.vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "model.vision_tower.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding", "model.vision_tower.embeddings.patch_embeddings.projection"),
    ("vision_model.encoder.layers", "model.vision_tower.encoder.layer"),
    ("mlp1.0", "model.multi_modal_projector.layer_norm"),
    ("mlp1.1", "model.multi_modal_projector.linear_1"),
    ("mlp1.3", "model.multi_modal_projector.linear_2"),
    ("language_model.model", "model.language_model"),
    ("language_model.lm_head", "lm_head"),
)


def _internvl_chat(folder: Path, config: dict[str, Any], tensors: Tensors) -> tuple[Any, Tensors]:
    from transformers import InternVLConfig, InternVLVisionConfig, Phi3Config

    text, vision = dict(config["llm_config"]), dict(config["vision_config"])
    scaling = dict(text.pop("rope_scaling", None) or {})
    if scaling.get("type") in ("su", "longrope"):  # the name has changed since
        scaling |= {"type": "longrope", "rope_type": "longrope"}
        scaling.setdefault("original_max_position_embeddings", text.get("original_max_position_embeddings", 4096))
    kind = text.pop("model_type", None)
    if kind != "phi3":
        raise StudyError(
            f"{folder}: of InternVL-chat checkpoints only those with Phi-3 are known, this one has {kind}; use its "
            "conversion to transformers' own format (-hf)"
        )
    own = {name: value for name, value in text.items() if name not in ("auto_map", "architectures", "torch_dtype")}
    keys = "hidden_size intermediate_size num_attention_heads num_hidden_layers image_size patch_size hidden_act"
    side = vision["image_size"] // vision["patch_size"]
    tokens = int(side * config.get("downsample_ratio", 0.5))
    made = InternVLConfig(
        vision_config=InternVLVisionConfig(
            **{name: vision[name] for name in [*keys.split(), "layer_norm_eps"] if name in vision},
            attention_bias=vision.get("qkv_bias", False),
            use_qk_norm=vision.get("qk_normalization", False),
            norm_type=vision.get("norm_type", "layer_norm"),
        ),
        text_config=Phi3Config(**own, **({"rope_scaling": scaling} if scaling else {})),
        image_token_id=_context_token(folder),
        image_seq_length=tokens**2,
        downsample_ratio=config.get("downsample_ratio", 0.5),
        vision_feature_layer=config.get("select_layer", -1),
        tie_word_embeddings=text.get("tie_word_embeddings", False),
        num_frames=FRAMES,
        frame_shape=[tokens, tokens],
        pooling_shape=[FRAMES, tokens, tokens],
        by_columns=config.get("ps_version", "v1") == "v1",
    )
    return made, {name: tensor for old, t in tensors.items() for name, tensor in _internvl_tensors(old, t)}


def _context_token(folder: Path) -> int:
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")).get("added_tokens", ())
    found = [token["id"] for token in added if token["content"] == "<IMG_CONTEXT>"]
    if not found:
        raise StudyError(f"{folder}/tokenizer.json has no token <IMG_CONTEXT>; take it from the original checkpoint")
    return found[0]


def _internvl_tensors(name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """A tensor under its name in transformers; the vision tower's joint query, key and value projection as three."""
    start, new = next(((old, new) for old, new in NAMES if name.startswith(old + ".") or name == old), ("", ""))
    name = new + name[len(start) :]
    layer = re.fullmatch(r"(model\.vision_tower\.encoder\.layer\.\d+\.)(.+)", name)
    if layer is None:
        return [(name, tensor)]
    prefix, own = layer.groups()
    if own.startswith("attn.qkv."):
        kind = own.rpartition(".")[2]
        return [(f"{prefix}attention.{x}_proj.{kind}", t) for x, t in zip("qkv", tensor.chunk(3), strict=True)]
    for old, new in IN_LAYER.items():
        if own == old or own.startswith(old + "."):
            own = new + own[len(old) :]
            break
    return [(prefix + own, tensor)]


FORMATS: dict[str, Callable] = {"llava_next": _llava_next, "internvl_chat": _internvl_chat}
DECODER_CONFIG = {"internvl_chat": "llm_config"}  # where a config that transformers cannot read describes the decoder


# ---- adapters ----

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PLAIN = {"use_dora": False, "fan_in_fan_out": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none"}


def with_adapters(folder: Path, tensors: Tensors, alpha: float | None = None) -> Tensors:
    """Weights with low-rank adapters added in: W + alpha / r · B A (Hu et al. 2021), summed in float32.

    They come from adapter_model.safetensors, with alpha from adapter_config.json, or stand among the weights, with
    `alpha`. Raises StudyError for other kinds of adapters, for one without a weight, and where there are none.
    """
    root, low = False, {}
    if (folder / ADAPTER).exists():
        stated = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        odd = [name for name, plain in PLAIN.items() if stated.get(name, plain) not in (plain, None)]
        if stated.get("peft_type", "LORA") != "LORA" or odd:
            raise StudyError(
                f"{folder}/{ADAPTER}: only plain LoRA can be added in, not {', '.join(odd) or stated['peft_type']}"
            )
        alpha, root = stated["lora_alpha"], bool(stated.get("use_rslora"))
        low = _read(folder / ADAPTER_WEIGHTS)
    inside = {name: t for name, t in tensors.items() if ".lora_" in name}
    base = {_base_name(name): t for name, t in tensors.items() if name not in inside}
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in {**inside, **low}.items():
        found = re.fullmatch(r"(.+)\.lora_([AB])(?:\.\w+)?\.weight", name)
        if found is None:
            raise StudyError(f"{folder}: {name} is no low-rank adapter; only plain LoRA can be added in")
        pairs.setdefault(found[1], {})[found[2]] = tensor
    if not pairs:
        raise StudyError(
            f"{folder} states adapters (lora_alpha) but holds none; take them from the original checkpoint"
        )
    for path, pair in pairs.items():
        name = _weight_of(folder, _base_name(path), base)
        a, b = (pair[x].float() if x in pair else torch.empty(0) for x in "AB")
        if a.ndim != 2 or b.ndim != 2 or (b.shape[0], a.shape[1]) != base[name].shape or b.shape[1] != len(a):
            raise StudyError(f"{folder}: the adapter of {path} does not fit {name} {tuple(base[name].shape)}")
        scale = alpha / (math.sqrt(len(a)) if root else len(a))
        base[name] = (base[name].float() + scale * (b @ a)).to(base[name].dtype)
    return base


def _base_name(name: str) -> str:
    """A tensor's name without what PEFT puts around the model and its layers."""
    return name.replace("base_model.model.", "").replace(".base_layer.", ".")


def _weight_of(folder: Path, path: str, tensors: Tensors) -> str:
    """The one weight that an adapter's path names, from its end if the adapter was made for a part of the model."""
    found = [name for name in tensors if f".{name}".endswith(f".{path}.weight")]
    if len(found) != 1:
        raise StudyError(f"{folder}: the adapter of {path} fits {len(found)} weights; it belongs to another model")
    return found[0]
