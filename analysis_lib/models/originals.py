"""Checkpoints in their authors' own formats, as what transformers' own classes load.

Three formats of the paper's models are not transformers' own. The image-only base of the LLaVA-NeXT models is stored as
`llava_next`; the published study runs it through the class of the video model. Mini-InternVL has InternVL-chat's tensor
names and a config of its own. And a fine-tuned checkpoint may hold LoRA adapters beside its weights, in PEFT's format,
or among them; they are added in. Loading stays strict: names and shapes of what is translated are compared as well."""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from analysis_lib.errors import StudyError
from analysis_lib.models.bases import ADAPTER, ADAPTER_WEIGHTS, base_of
from analysis_lib.models.weights import stored_files

FRAMES = 8  # shown to every model of the paper
Tensors = dict[str, torch.Tensor]


def translated(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Arguments for from_pretrained (`config`, `state_dict`, perhaps `key_mapping`), none where transformers reads the
    folder as it is. `config` is the parsed config.json. Raises StudyError for adapters that cannot be added in."""
    translate = FORMATS.get(config.get("model_type"))
    adapted = (folder / ADAPTER).exists() or bool(config.get("lora_alpha"))
    if translate is None and not adapted:
        return {}
    files = [file for file in stored_files(folder) if file.name != ADAPTER_WEIGHTS]
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    if adapted:
        tensors = with_adapters(folder, base_tensors(folder) | tensors, config.get("lora_alpha"))
    if translate is None:
        from transformers import AutoConfig  # heavy

        return {"config": AutoConfig.from_pretrained(folder), "state_dict": tensors}
    return translate(folder, config, tensors)


def _llava_next(folder: Path, config: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    """As the published study runs it: eight frames, each pooled to half its side, no tiles and no newline."""
    from transformers import LlavaConfig  # heavy

    side = config["vision_config"]["image_size"] // config["vision_config"]["patch_size"]
    shape = {"num_frames": FRAMES, "frame_shape": [side, side], "pooling_shape": [FRAMES, side // 2, side // 2]}
    own = {name: value for name, value in config.items() if name not in ("model_type", "architectures")}
    tensors.pop("image_newline", None)
    return {"config": LlavaConfig(**own, **shape), "state_dict": tensors}


INTERNVL_NAMES = {  # for transformers' `key_mapping`: regular expressions in the published names, one after another
    r"^vision_model\.embeddings\.class_embedding": "model.vision_tower.embeddings.cls_token",
    r"^vision_model\.embeddings\.position_embedding": "model.vision_tower.embeddings.position_embeddings",
    r"^vision_model\.embeddings\.patch_embedding": "model.vision_tower.embeddings.patch_embeddings.projection",
    r"^vision_model\.encoder\.layers": "model.vision_tower.encoder.layer",
    r"\.norm1": ".layernorm_before", r"\.norm2": ".layernorm_after",
    r"\.attn\.": ".attention.", r"\.attention\.proj": ".attention.projection_layer",
    r"\.ls1": ".lambda_1", r"\.ls2": ".lambda_2",
    r"^mlp1\.0": "model.multi_modal_projector.layer_norm",
    r"^mlp1\.1": "model.multi_modal_projector.linear_1",
    r"^mlp1\.3": "model.multi_modal_projector.linear_2",
    r"^language_model\.model": "model.language_model",
    r"^language_model\.lm_head": "lm_head",
}  # fmt: skip


def _internvl_chat(folder: Path, config: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    """Mini-InternVL: its config in transformers' terms, the vision tower's joint query-key-value projections parted."""
    from tokenizers import Tokenizer  # heavy
    from transformers import InternVLConfig, InternVLVisionConfig

    placeholder = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<IMG_CONTEXT>")
    if placeholder is None:
        raise StudyError(f"{folder}/tokenizer.json has no token <IMG_CONTEXT>; take it from the original checkpoint")
    vision, text = config["vision_config"], config["llm_config"]
    sizes = "hidden_size intermediate_size num_attention_heads num_hidden_layers image_size patch_size".split()
    downsampled = config.get("downsample_ratio", 0.5)
    tokens = int(vision["image_size"] // vision["patch_size"] * downsampled)
    tower = InternVLVisionConfig(
        **{name: vision[name] for name in (*sizes, "hidden_act", "layer_norm_eps", "norm_type") if name in vision},
        attention_bias=vision.get("qkv_bias", False), use_qk_norm=vision.get("qk_normalization", False),
    )  # fmt: skip
    made = InternVLConfig(
        vision_config=tower, vision_feature_layer=config.get("select_layer", -1), downsample_ratio=downsampled,
        text_config=_phi3(folder, text), tie_word_embeddings=text.get("tie_word_embeddings", False),
        image_token_id=placeholder, image_seq_length=tokens**2,
        num_frames=FRAMES, frame_shape=[tokens, tokens], pooling_shape=[FRAMES, tokens, tokens],
        by_columns=config.get("ps_version", "v1") == "v1",  # pixel shuffle v1: tokens go down a frame's columns
    )  # fmt: skip
    for name in [name for name in tensors if ".attn.qkv." in name]:
        parts = zip("qkv", tensors.pop(name).chunk(3), strict=True)
        tensors |= {name.replace(".qkv.", f".{x}_proj."): part for x, part in parts}
    return {"config": made, "state_dict": tensors, "key_mapping": INTERNVL_NAMES}


def _phi3(folder: Path, text: dict[str, Any]) -> Any:
    from transformers import Phi3Config  # heavy

    if text.get("model_type") != "phi3":
        found = f"of InternVL-chat checkpoints only those with Phi-3 are known, this one has {text.get('model_type')}"
        raise StudyError(f"{folder}: {found}; use its conversion to transformers' own format (-hf)")
    own = {k: v for k, v in text.items() if k not in ("model_type", "auto_map", "architectures", "torch_dtype")}
    scaling = dict(own.pop("rope_scaling", None) or {})
    if scaling.get("type") in ("su", "longrope"):  # the name has changed since
        scaling |= {"type": "longrope", "rope_type": "longrope"}
        scaling.setdefault("original_max_position_embeddings", text.get("original_max_position_embeddings", 4096))
    return Phi3Config(**own, **({"rope_scaling": scaling} if scaling else {}))


FORMATS = {"llava_next": _llava_next, "internvl_chat": _internvl_chat}
PLAIN = {"use_dora": False, "fan_in_fan_out": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none"}


def base_tensors(folder: Path) -> Tensors:
    """The weights of the base under the checkpoint in `folder` (`bases.base_of`), under the names that they have in a
    `llava` checkpoint; none if its own weights are whole."""
    base = base_of(folder)
    return {f"language_model.{name}": tensor for name, tensor in load_file(base).items()} if base else {}


def with_adapters(folder: Path, tensors: Tensors, alpha: float | None = None) -> Tensors:
    """Weights with low-rank adapters added in: W + alpha / r · B A (Hu et al. 2021), summed in float32. They come from
    adapter_model.safetensors, with alpha from adapter_config.json, or stand among the weights, with `alpha`. Raises
    StudyError for other kinds of adapters, for one without a weight, and where there are none."""
    root, low = False, {}
    if (folder / ADAPTER).exists():
        stated = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
        odd = [name for name, plain in PLAIN.items() if stated.get(name, plain) not in (plain, None)]
        if stated.get("peft_type", "LORA") != "LORA" or odd:
            kind = ", ".join(odd) or stated["peft_type"]
            raise StudyError(f"{folder}/{ADAPTER}: only plain LoRA can be added in, not {kind}")
        alpha, root = stated["lora_alpha"], bool(stated.get("use_rslora"))
        low = load_file(folder / ADAPTER_WEIGHTS)
    low = {name: t for name, t in tensors.items() if ".lora_" in name} | low
    base = {_base_name(name): t for name, t in tensors.items() if ".lora_" not in name}
    pairs: dict[str, Tensors] = {}
    for name, tensor in low.items():
        found = re.fullmatch(r"(.+)\.lora_([AB])(?:\.\w+)?\.weight", name)
        if found is None:
            raise StudyError(f"{folder}: {name} is no low-rank adapter; only plain LoRA can be added in")
        pairs.setdefault(found[1], {})[found[2]] = tensor
    if not pairs:
        fix = "take them from the original checkpoint"
        raise StudyError(f"{folder} states adapters (lora_alpha) but holds none; {fix}")
    for path, pair in pairs.items():
        suffix = f".{_base_name(path)}.weight"
        fits = [name for name in base if f".{name}".endswith(suffix)]  # by its end: adapters may be of a part
        if len(fits) != 1:
            raise StudyError(f"{folder}: the adapter of {path} fits {len(fits)} weights; it belongs to another model")
        name = fits[0]
        a, b = (pair[x].float() if x in pair else torch.empty(0) for x in "AB")
        if a.ndim != 2 or b.ndim != 2 or (b.shape[0], a.shape[1]) != base[name].shape or b.shape[1] != len(a):
            raise StudyError(f"{folder}: the adapter of {path} does not fit {name} {tuple(base[name].shape)}")
        scale = alpha / (math.sqrt(len(a)) if root else len(a))
        base[name] = (base[name].float() + scale * (b @ a)).to(base[name].dtype)
    return base


def _base_name(name: str) -> str:
    """A tensor's name without what PEFT puts around the model and its layers."""
    return name.replace("base_model.model.", "").replace(".base_layer.", ".")
