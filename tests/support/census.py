"""Tiny random checkpoints of every architecture of the installed transformers whose processor takes videos.

Nothing is written per architecture but what SPECIAL says: the configuration is transformers' default with its sizes
shrunk, special tokens are those that the processor's source names, patches and grids stay as they are by default.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import tiny_families
import torch

# ---- which there are ----


def architectures() -> dict[str, str]:
    """`model_type` to its class that writes text, "" if there is none, for all whose processor takes videos."""
    from analysis_lib.models.torchvision_ops import ensure_torchvision

    ensure_torchvision()
    from transformers.models.auto import modeling_auto, processing_auto
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

    writers = {**modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}
    writers |= modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    found = set(VIDEO_PROCESSOR_MAPPING_NAMES)
    for kind in writers:
        name = special(kind, "cls") or processing_auto.PROCESSOR_MAPPING_NAMES.get(kind)
        with suppress(ImportError):  # of packages for speech
            if name and "video_processor" in _class(name).get_attributes():
                found.add(kind)
    return {kind: writers.get(kind, "") for kind in sorted(found)}


def image_architectures() -> dict[str, str]:
    """`model_type` to its class that writes text, for all whose processor takes images and no videos."""
    from analysis_lib.models.torchvision_ops import ensure_torchvision

    ensure_torchvision()
    from transformers.models.auto import modeling_auto, processing_auto

    writers = {**modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES}
    writers |= modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    found = {}
    for kind in sorted(writers.keys() - architectures().keys()):
        name = special(kind, "cls") or processing_auto.PROCESSOR_MAPPING_NAMES.get(kind)
        with suppress(ImportError):
            if name and "image_processor" in _class(name).get_attributes():
                found[kind] = writers[kind]
    return found


def fingerprint(kind: str) -> str:
    """Eight digits that change with the architecture's source in the installed transformers, and with what is special
    about it here: rows of another fingerprint are tried again."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    folder = Path(importlib.import_module("transformers").__file__).parent / "models" / model_type_to_module_name(kind)
    digest = hashlib.sha256(repr((SPECIAL.get(kind), UNBUILT.get(kind))).encode())
    for file in sorted(folder.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def _class(name: Any) -> Any:
    import transformers

    return getattr(transformers, name if isinstance(name, str) else name[0])


# ---- sizes ----

WIDTH, HEADS, LAYERS = 64, 4, 3
TEXT = {
    "hidden_size": WIDTH, "intermediate_size": 48, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24,
    "num_attention_heads": HEADS, "head_dim": 16, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "moe_num_experts": 4, "num_experts_per_tok": 2, "moe_k": 2, "top_k_experts": 2, "n_group": 1, "topk_group": 1,
    "max_position_embeddings": 4096, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_num_heads": 2, "linear_head_dim": 8, "q_lora_rank": 16, "kv_lora_rank": 8,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "qk_head_dim": 16, "v_head_dim": 8,
    "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 2, "first_k_dense_replace": 1,
    "dense_intermediate_size": 48, "shared_intermediate_size": 24, "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0, "global_head_dim": 16, "index_head_dim": 16, "index_n_heads": 4,
    "moe_shared_expert_intermediate_size": 24, "ffn_dim": 48, "word_embed_proj_dim": WIDTH,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_heads": 2, "depth": 2, "embed_dim": 32,
    "num_hidden_layers": 2, "out_hidden_size": WIDTH, "num_key_value_heads": 2, "head_dim": 16, "projection_dim": 32,
    "hidden_dim": 32, "mlp_dim": 48, "num_layers": 2, "text_hidden_size": WIDTH,
}  # fmt: skip
AUDIO = {
    "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "output_dim": WIDTH,
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48,
    "downsample_hidden_size": 16, "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


def shrunk(config: dict, path: str = "") -> dict:
    """A configuration's dict with its sizes replaced and its lists of layers thinned out, sub-configurations alike."""
    if any(word in path for word in ("audio", "speech", "sound", "talker", "code2wav", "token2wav")):
        sizes = AUDIO
    else:
        sizes = VISION if any(word in path for word in ("vision", "visual", "vit", "qformer")) else TEXT
    depth, layers = config.get("num_hidden_layers") or config.get("depth") or 0, LAYERS if sizes is TEXT else 2
    lists = {key: value for key, value in config.items() if isinstance(value, list) and depth and len(value) == depth}
    keep = list(dict.fromkeys(place for value in lists.values() for place in map(value.index, value)))
    keep = sorted((keep + [i for i in range(depth) if i not in keep])[: max(layers, len(keep))])
    found = {}
    for key, value in config.items():
        if isinstance(value, dict) and (key.endswith("_config") or "model_type" in value) and "per_layer" not in key:
            found[key] = shrunk(value, f"{path}/{key}")
        elif key in lists:  # each kind of layer once, then others
            found[key] = [value[i] for i in keep]
        elif key in ("num_hidden_layers", "depth", "num_layers") and value == depth:
            found[key] = len(keep)
        elif key in sizes and isinstance(value, int) and not isinstance(value, bool):
            found[key] = sizes[key]
        elif key == "moe_intermediate_size" and isinstance(value, list):
            found[key] = [24] * len(value)
        elif key == "per_layer_config":
            found[key] = {}
        else:
            found[key] = _rope(value) if isinstance(value, dict) else value
    if sizes is TEXT and "num_key_value_heads" in config:
        found["num_key_value_heads"] = (
            HEADS if config["num_key_value_heads"] == config.get("num_attention_heads") else 2
        )
    if "partial_rotary_factor" in found:
        found["partial_rotary_factor"] = 1.0
    return found


def _rope(value: dict) -> dict:
    """Rotary parameters for heads of 16."""
    changed = {"mrope_section": [4, 2, 2], "partial_rotary_factor": 1.0}
    return {
        key: _rope(inner) if isinstance(inner, dict) else changed.get(key, inner) if inner is not None else None
        for key, inner in value.items()
    }


# ---- what differs ----

# Of each architecture: "config" (dotted key: value), "video" and "image" (arguments of the processors), "around" (what
# the chat template puts before and after the video), "processor" (more arguments), "tokens" (tokenizer attributes).
VISION_MARKS = ("<|vision_start|>", "<|vision_end|>")
GLM = {"around": ("<|begin_of_video|>", "<|end_of_video|>"), "rope": [4, 2, 2]}
INDEXER = {"n_heads": 2, "kv_heads": 1, "head_dim": 16, "budget": 64, "compress_ratio": 4}
WHOLE = {part: {"patch_size": 16, "scale_resolution": 64, "max_slice_nums": 1} for part in ("video", "image")}
MERGED_EARLY = {"insert_layer_id": 0}  # the first of two layers; by default it is the seventh
PATCH_16 = {"video": {"patch_size": 16}, "image": {"patch_size": 16}}
EYES = dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), 2)
EYES |= {"model_type": "gemma4_vision", "hidden_size": 32, "intermediate_size": 48, "head_dim": 16}
OMNI_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
GEMMA = {
    "config": {"text_config.pad_token_id": 0, "vision_config": EYES},
    "more": ("<|audio|>",),
    "tokens": {"boa_token": "<|boa|>", "eoa_token": "<|eoa|>", "audio_token": "<|audio|>"},
}
SHOWN = {"boi_token": "<start_of_image>", "image_token": "<image_soft_token>", "eoi_token": "<end_of_image>"}
LLAVA = {
    "processor": {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    "tokens": {"image_token": "<image>"},
}
BLIP = {"tokens": {"image_token": "<image>", "video_token": "<video>"}}
SPECIAL: dict[str, dict[str, Any]] = {
    "glm46v": GLM,
    "glm4v_moe": GLM,
    "glmga": {**GLM, "cls": "Glm46VProcessor"},
    "glm5_next": {"around": GLM["around"], "config": {"text_config.qk_rope_head_dim": 0, "text_config.qk_head_dim": 8}},
    "cosmos3_omni": {"cls": "Qwen3VLProcessor", "around": VISION_MARKS},
    "molmo2": {"config": {"adapter_config.vision_feature_layer": [1, 0], "vision_config.num_position_embeddings": 16,
                          "adapter_config.hidden_size": 32, "adapter_config.text_hidden_size": WIDTH,
                          "text_config.num_hidden_layers": LAYERS, "text_config.rope_scaling_layers": [0, 2]},
               "ids": {"image_token_id": "<im_patch>"}},
    "muse_glimmer": {"config": {"out_hidden_size": 128, "projector_hidden_size": WIDTH}},
    "cohere_compass": {
        "around": VISION_MARKS, "config": {"text_config.rope_parameters": {"full_attention": OMNI_ROPE}},
    },
    "cosmos3_edge": {"around": ("", "")},
    "lfm3_vl": {"around": VISION_MARKS},
    "kimi_k25": {"config": {"vision_config.projection_hidden_size": 32, "projection_hidden_size": 32,
                            "text_config.head_dim": 8},  # of the part that is rotated
                 "frames": 8},  # four make a temporal patch
    "qwen4_exp": {
        "around": VISION_MARKS,
        "config": {f"text_config.indexer_{key}": value for key, value in INDEXER.items()},
    },
    "qwen2_5_omni": {
        "around": ("<|vision_bos|>", "<|vision_eos|>"), "of": "thinker_config",
        "model": "Qwen2_5OmniThinkerForConditionalGeneration",
        "ids": {"thinker_config.vision_start_token_id": "<|vision_bos|>"},
        "config": {"thinker_config.text_config.rope_parameters": OMNI_ROPE},
    },
    "qwen3_omni_moe": {
        "ids": {"thinker_config.vision_start_token_id": "<|vision_start|>"},
        "config": {"thinker_config.text_config.rope_parameters": {**OMNI_ROPE, "mrope_interleaved": True}},
        **PATCH_16,
        "around": ("<|vision_start|>", "<|vision_end|>"), "of": "thinker_config",
        "model": "Qwen3OmniMoeThinkerForConditionalGeneration",
    },
    **dict.fromkeys(("qwen3_5_moe", "exaone4_5", "hyperclovax_vision_v2"), {"around": VISION_MARKS}),
    "ernie4_5_vl_moe": {"video": {"draw_on_frames": False}, "rope": [2, 2, 4],
                        "around": ("<|video_start|>", "<|video_end|>")},
    "gemma4": GEMMA,
    "gemma4_unified": GEMMA,
    "dots3_note": {
        "config": {
            **{f"vision_config.adapter_{key}_dim": value for key, value in {"in": 32, "out": WIDTH}.items()},
            "audio_config.adapter_input_size": 32, "audio_config.adapter_out_dim": WIDTH,
        }
    },
    "muse_spark": {
        "config": {"out_hidden_size": 128, "projector_hidden_size": WIDTH} | {
            f"audio_config.{key}": value
            for key, value in {"patch_sizes": [2], "hidden_sizes": [16], "depths": [1], "num_hidden_layers": 1,
                               "out_hidden_size": WIDTH}.items()
        }
    },
    "minicpm_ocr": WHOLE,
    "minicpmv4_6": {**WHOLE, "config": MERGED_EARLY},
    "minicpmv4_7": {**WHOLE, "config": MERGED_EARLY, "ids": {
        f"{what}_{side}_id": f"<|{what}_{side}|>" for what in ("image", "slice") for side in ("start", "end")
    }},
    "nemotron_h_omni": {
        "image": {"norm_mean": [0.5] * 3, "norm_std": [0.5] * 3},
        "video": {"norm_mean": [0.5] * 3, "norm_std": [0.5] * 3, "video_target_num_patches": 16},
        "config": {"vision_hidden_size": 32, "projector_hidden_size": WIDTH},
        "starts_itself": True,  # its processor lets the tokenizer add a start token, whatever it is told
    },
    "minimax_m3_vl": {"config": {"text_config.layer_types": ["full_attention", "minimax_m3_sparse", "full_attention"]}},
    "llava": LLAVA,
    "llava_next": {**LLAVA, "config": {"text_config.model_type": "mistral", "image_grid_pinpoints": [[56, 56]]},
                   "image": {"image_grid_pinpoints": [[56, 56]]}},
    "vipllava": {**LLAVA, "config": {"vision_feature_layers": [-1, -2, 0]}},
    "gemma3": {"config": {"mm_tokens_per_image": 4}, "processor": {"image_seq_length": 4}, "tokens": SHOWN,
               "ids": {"image_token_index": "<image_soft_token>"}},
    **dict.fromkeys(("mistral3", "mistral_large4"), {
        "more": ("[IMG]", "[IMG_BREAK]", "[IMG_END]"), "ids": {"image_token_index": "[IMG]"},
        "processor": {"patch_size": 16, "spatial_merge_size": 2},
    }),
    "deepseek_vl": {"processor": {"num_image_tokens": 16}},
    "janus": {"processor": {"num_image_tokens": 16}, "config": {"vision_config.projection_dim": WIDTH}},
    "llama4": {"ids": {"image_token_index": "<|patch|>"},
               "config": {"text_config.num_hidden_layers": 3, "text_config.moe_layers": [0, 2],
                          "text_config.no_rope_layers": [1, 0, 1],
                          "text_config.layer_types": ["chunked_attention", "full_attention", "chunked_attention"],
                          "vision_config.intermediate_size": 128, "vision_config.projector_input_dim": 32,
                          "vision_config.projector_output_dim": 32, "vision_config.vision_output_dim": 32}},
    "idefics3": {"processor": {"image_seq_len": 4},
                 "image": {"max_image_size": {"longest_edge": 128}, "do_image_splitting": False}},
    "aria": {"processor": {"size_conversion": {980: 4}},
             "config": {"vision_config.image_size": 980, "vision_config.patch_size": 140,
                        "projector_patch_to_query_dict": {49: 4}}},
    "glm_ocr": {**GLM, "cls": "Glm46VProcessor"},
    "paddleocr_vl": {"rope": [4, 2, 2]},
    "lfm2_vl": {"image": {"min_image_tokens": 4, "max_image_tokens": 16, "do_image_splitting": False},
                "config": {"text_config.layer_types": ["conv", "full_attention", "conv"],
                           "text_config.num_hidden_layers": 3}},
    "instructblip": BLIP,
    "instructblipvideo": BLIP,
}  # fmt: skip


UNBUILT = {  # no tiny checkpoint is made of these, for the reason that a user would be told
    "diffusion_gemma": "it denoises whole blocks of text; no token is predicted from the last position",
    **dict.fromkeys(("florence2", "udop"), "it is an encoder-decoder; its decoder reads the prompt by cross-attention"),
}


# Of those that take images only, these have no tiny checkpoint yet: their processors count patches in their own way.
UNTRIED = (
    "aya_vision", "blip", "chameleon", "cohere2_vision", "deepseek_ocr2", "deepseek_vl_hybrid", "emu3", "fuyu",
    "gemma3n", "granite4_vision", "granite_docling", "hunyuan_vl", "inkling_mm_model", "ovis2", "paligemma",
    "phi4_multimodal",
    "pi0", "pp_chart2table", "pp_formulanet", "qianfan_ocr", "shieldgemma2", "step3p7", "unlimited_ocr",
)  # fmt: skip


def special(kind: str, what: str) -> Any:
    """What SPECIAL says of an architecture, {} if nothing."""
    return SPECIAL.get(kind, {}).get(what, {})


# ---- the checkpoint ----


def build(kind: str, folder: Path) -> Path:
    """Write the architecture's tiny checkpoint with its processor."""
    from analysis_lib.models.torchvision_ops import ensure_torchvision

    ensure_torchvision()
    if kind in tiny_families.FAMILIES:
        return tiny_families.build(kind, folder, says_letters=True)
    processor = _processor(kind)
    torch.manual_seed(0)
    model = _model(kind, processor).eval()
    if kind in image_architectures():  # projectors that start as zeros would show nothing
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    tiny_families.enlarge(model, processor.tokenizer, says_letters=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    named = {**json.loads(file.read_text()), "tokenizer_class": special(kind, "class") or "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(named))
    return folder


def _processor(kind: str) -> Any:
    from transformers.models.auto import image_processing_auto, processing_auto
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

    cls = _class(special(kind, "cls") or processing_auto.PROCESSOR_MAPPING_NAMES[kind])
    tokenizer = _tokenizer(kind, cls)
    module = sys_module(cls)
    parts = {"tokenizer": tokenizer}
    attributes = cls.get_attributes()
    if "image_processor" in attributes:
        images = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
        named = images.get(kind) or images.get(module.__name__.split(".")[-2]) or {}
        name = special(kind, "image_cls") or (
            named.get("pil") or named.get("torchvision") if isinstance(named, dict) else named
        )
        side = 0 if "video_processor" in attributes else _side(kind)
        parts["image_processor"] = _made(_class(name), special(kind, "image"), side)
    if "video_processor" in attributes:
        named = VIDEO_PROCESSOR_MAPPING_NAMES.get(kind) or VIDEO_PROCESSOR_MAPPING_NAMES.get(
            module.__name__.split(".")[-2]
        )
        parts["video_processor"] = _made(_class(named["torchvision"]), special(kind, "video"))
    if "feature_extractor" in attributes:
        parts["feature_extractor"] = _class(FEATURE_EXTRACTOR_MAPPING_NAMES.get(kind, "WhisperFeatureExtractor"))()
    if "qformer_tokenizer" in attributes:
        parts["qformer_tokenizer"] = tokenizer
    processor = cls(**parts, **special(kind, "processor"))
    before, after = special(kind, "around") or ("", "")
    of = "video" if "video_processor" in attributes else "image"
    token = getattr(processor, f"{of}_token", None) or f"<{of}>"
    turn = tiny_families.TURN.replace("<s>", "") if special(kind, "starts_itself") else tiny_families.TURN
    processor.chat_template = turn.replace("'video'", f"'{of}'").replace("VIDEO", before + token + after + "\n")
    return processor


def sys_module(cls: type) -> Any:
    """The module that defines a class."""
    return importlib.import_module(cls.__module__)


def _side(kind: str) -> int:
    """Pixels of an image of 4 x 4 patches, by the default size of the architecture's patches."""
    from transformers import AutoConfig

    patch = getattr(getattr(AutoConfig.for_model(kind), "vision_config", None), "patch_size", None) or 14
    return 4 * (patch if isinstance(patch, int) else patch[0])


def _made(cls: Any, given: dict, side: int = 0) -> Any:
    """A processor of a modality, told to make few patches in the way that it understands; images have `side` pixels
    where an architecture takes nothing else."""
    size = getattr(cls, "size", None)
    if side and isinstance(size, dict) and not hasattr(cls, "merge_size"):
        given = {"size": dict.fromkeys(size, side), **given}
        given |= {"crop_size": dict.fromkeys(("height", "width"), side)} if getattr(cls, "crop_size", None) else {}
    elif isinstance(size, dict) and "size" not in given:
        patch = getattr(cls, "patch_size", 14)
        area = (patch * getattr(cls, "merge_size", 2) * 2) ** 2
        frames = 4 if "Video" in cls.__name__ else 1
        known = {"shortest_edge": area // 4, "longest_edge": area * 2 * frames, "height": 4 * patch, "width": 4 * patch}
        given = {"size": {key: known[key] for key in size if key in known} or size, **given}
    return cls(**given)


def _tokenizer(kind: str, cls: type) -> Any:
    """The golden tokenizer with all special tokens that the processor's source names, or takes from a tokenizer."""
    from transformers import PreTrainedTokenizerFast

    source = inspect.getsource(sys_module(cls))
    texts = re.findall(r"""["'](<\|?[^"'<>\s{}]+\|?>|<\|[^"'<>\s{}]+\|>)["']""", source)
    names = {n: f"<|{n.removesuffix('_token')}|>" for n in re.findall(r"tokenizer\.(\w+_token)\b", source)}
    for name, text in re.findall(r"""(\w+_token)["']?\s*[=:]\s*["'](<[^"']+>)["']""", source):
        names[name] = text
    names |= special(kind, "tokens")
    standard = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
    names = {name: text for name, text in names.items() if name not in standard}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tiny_families.GOLDEN / "tokenizer.json"), bos_token="<s>", eos_token="</s>",
        pad_token="</s>", extra_special_tokens=names,
    )  # fmt: skip
    texts += [value for name, value in vars(cls).items() if name.endswith("_TOKEN") and isinstance(value, str)]
    more = [*texts, *special(kind, "around"), *special(kind, "more")]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(dict.fromkeys(t for t in more if t))}, replace_extra_special_tokens=False
    )
    return tokenizer


def _model(kind: str, processor: Any) -> Any:
    from transformers import AutoConfig

    tokenizer = processor.tokenizer
    default = AutoConfig.for_model(kind)
    config = shrunk(copy.deepcopy(default.to_dict()))
    _place_tokens(config, processor)
    if kind in image_architectures() and "image_size" in config.get("vision_config", {}):
        config["vision_config"]["image_size"] = _side(kind)
    ids = {key: tokenizer.convert_tokens_to_ids(token) for key, token in special(kind, "ids").items()}
    if "rope" in SPECIAL.get(kind, {}):
        config["text_config"]["rope_parameters"]["mrope_section"] = special(kind, "rope")
    for dotted, value in {**special(kind, "config"), **ids}.items():
        *path, key = dotted.split(".")
        inner = config
        for name in path:
            inner = inner[name]
        inner[key] = value
    _vocabulary(config, len(tokenizer), 0 if "gemma" in kind else None)
    cls = _class(special(kind, "model") or (architectures() | image_architectures())[kind])
    if special(kind, "of"):
        default, config = getattr(default, special(kind, "of")), config[special(kind, "of")]
    return cls(type(default).from_dict(config))


def _vocabulary(config: dict, size: int, pad: int | None) -> None:
    for key, value in config.items():
        if isinstance(value, dict):
            _vocabulary(value, size, pad)
        elif key in ("vocab_size", "vocab_size_per_layer_input"):
            config[key] = size
        elif key in ("pad_token_id",):
            config[key] = pad
        elif key in ("bos_token_id", "eos_token_id"):
            config[key] = {"bos_token_id": 1, "eos_token_id": 2}[key]


def _place_tokens(config: dict, processor: Any) -> None:
    """The ids that a configuration states for placeholders and marks are those of the tokenizer."""
    tokenizer = processor.tokenizer
    for key, value in list(config.items()):
        if isinstance(value, dict):
            _place_tokens(value, processor)
        stem = re.fullmatch(r"(\w+?)_token_(?:id|index)", str(key)) or re.fullmatch(r"(\w+)_(?:token_)?id", str(key))
        if (
            not stem
            or not (isinstance(value, int) or stem[1] in ("image", "video"))
            or stem[1] in ("bos", "eos", "pad", "forced_eos", "decoder_start")
        ):
            continue
        token = getattr(processor, f"{stem[1]}_token", None) or getattr(tokenizer, f"{stem[1]}_token", None)
        if not isinstance(token, str):
            words = [{"start": "(start|begin|bos)", "end": "(end|eos)"}.get(word, word) for word in stem[1].split("_")]
            listed = [t for t in tokenizer.get_added_vocab() if all(re.search(word, t) for word in words)]
            token = min(listed, key=len, default=None)
        if token and not (value is None and tokenizer.convert_tokens_to_ids(token) is None):
            config[key] = tokenizer.convert_tokens_to_ids(token)
