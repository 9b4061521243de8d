"""Tiny random checkpoints of every native video family, written to disk with tokenizer, processor and chat template.

Each is an ordinary `save_pretrained` folder of transformers' own classes: three decoder layers, width 32, a vision
tower of one or two layers. The tokenizer is the golden checkpoint's with the family's placeholder tokens added.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis_lib.inputs.records import Question

GOLDEN = Path(__file__).parents[1] / "goldens" / "pllava_tiny"
FRAMES = 4
SAMPLE = Question("What moves?", ("a cat", "a dog", "a dog runs"), 1)

TURN = "{% for m in messages %}<s>{{ m.role }}: {% for c in m.content %}{% if c.type == 'video' %}VIDEO{% else %}"
TURN += "{{ c.text }}{% endif %}{% endfor %}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"

QWEN = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
VISION = ("<|vision_start|>", "<|vision_end|>")
LLAVA = {"image_token": "<image>", "video_token": "<video>"}
FAMILIES = {
    "llava_next_video": LLAVA,
    "llava_onevision": LLAVA,
    "video_llava": LLAVA,
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    "smolvlm": {
        "image_token": "<image>",
        "video_token": "<video>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    },
    "perception_lm": {"image_token": "<|image|>", "video_token": "<|video|>"},
    "video_llama_3": QWEN,
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "qwen3_vl": QWEN,
    "qwen3_vl_moe": QWEN,
    "glm4v": {"image_token": "<|image|>", "video_token": "<|video|>"},
    "qwen3_5": QWEN,
}
EXTRA = {
    "qwen2_vl": VISION,
    "qwen2_5_vl": VISION,
    "qwen3_vl": VISION,
    "qwen3_vl_moe": VISION,
    "qwen3_5": VISION,
    "glm4v": ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
}
CLASSES = {"llava_next_video": "LlamaTokenizer", "video_llava": "LlamaTokenizer", "smolvlm": "GPT2Tokenizer"}
CLASSES["glm4v"] = "PreTrainedTokenizerFast"
AROUND = dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5"), VISION)
AROUND["glm4v"] = ("<|begin_of_video|>", "<|end_of_video|>")


def some_frames(seed: int = 0, count: int = FRAMES) -> np.ndarray:
    """(count, 20, 24, 3) uint8 of noise."""
    return np.random.default_rng(seed).integers(1, 255, (count, 20, 24, 3), dtype=np.uint8)


def build(family: str, folder: Path, *, says_letters: bool = False) -> Path:
    """Write the family's tiny checkpoint to `folder`; with `says_letters` it answers A or B to everything."""
    from analysis_lib.models.torchvision_ops import ensure_torchvision

    ensure_torchvision()
    processor = _processor(family)
    torch.manual_seed(0)
    model = _model(family, processor.tokenizer).eval()
    enlarge(model, processor.tokenizer, says_letters=says_letters)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    file = folder / "tokenizer_config.json"  # with the class that published checkpoints name
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "tokenizer_class": CLASSES.get(family, "Qwen2Tokenizer")})
    )
    return folder


@torch.no_grad()
def enlarge(model: Any, tokenizer: Any, *, says_letters: bool) -> None:
    """Random weights five times as large as usual: 0.02 would leave attention flat and every effect tiny."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(5)
    if says_letters:  # whatever the state, one of two opposite directions wins
        first, second = tokenizer.convert_tokens_to_ids(["A", "B"])
        head = (model.get_output_embeddings() or model.language_model.get_output_embeddings()).weight
        letter = 10 * head[first]
        head *= 0.1
        head[first], head[second] = letter, -letter


def as_published_before(folder: Path) -> Path:
    """Rewrites a folder's processor into the separate files that checkpoints had before transformers 5."""
    config = json.loads((folder / "processor_config.json").read_text())
    for part, name in (("image_processor", "preprocessor"), ("video_processor", "video_preprocessor")):
        (folder / f"{name}_config.json").write_text(json.dumps(config.pop(part)))
    (folder / "processor_config.json").write_text(json.dumps(config))
    template = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    return folder


def _tokenizer(family: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    names = FAMILIES[family]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(GOLDEN / "tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="</s>",
        extra_special_tokens=names,
    )  # fmt: skip
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(EXTRA.get(family, ()))}, replace_extra_special_tokens=False
    )
    return tokenizer


def _processor(family: str) -> Any:
    import transformers as tf

    tokenizer = _tokenizer(family)
    before, after = AROUND.get(family, ("", ""))
    template = TURN.replace("VIDEO", before + FAMILIES[family]["video_token"] + after + "\n")
    square, short = {"height": 16, "width": 16}, {"shortest_edge": 16}
    area = {"shortest_edge": 16 * 16, "longest_edge": 24 * 24}
    patches = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2, "size": area}
    kw = {"tokenizer": tokenizer, "chat_template": template}
    if family == "llava_next_video":
        return tf.LlavaNextVideoProcessor(
            image_processor=tf.LlavaNextImageProcessor(size=short, crop_size=square),
            video_processor=tf.LlavaNextVideoVideoProcessor(size=short, crop_size=square),
            patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1, **kw,
        )  # fmt: skip
    if family == "llava_onevision":
        return tf.LlavaOnevisionProcessor(
            image_processor=tf.LlavaOnevisionImageProcessor(size=square),
            video_processor=tf.LlavaOnevisionVideoProcessor(size=square),
            num_image_tokens=16, vision_feature_select_strategy="full", **kw,
        )  # fmt: skip
    if family == "video_llava":
        return tf.VideoLlavaProcessor(
            image_processor=tf.VideoLlavaImageProcessor(size=short, crop_size=square),
            video_processor=tf.VideoLlavaVideoProcessor(size=short, crop_size=square),
            patch_size=8, **kw,
        )  # fmt: skip
    if family == "internvl":
        return tf.InternVLProcessor(
            image_processor=tf.GotOcr2ImageProcessor(size=square),
            video_processor=tf.InternVLVideoProcessor(size=square), image_seq_length=4, **kw,
        )  # fmt: skip
    if family == "smolvlm":
        edge = {"longest_edge": 16}
        return tf.SmolVLMProcessor(
            image_processor=tf.SmolVLMImageProcessor(size=edge, max_image_size=edge),
            video_processor=tf.SmolVLMVideoProcessor(size=edge, max_image_size=edge), image_seq_len=4, **kw,
        )  # fmt: skip
    if family == "perception_lm":
        return tf.PerceptionLMProcessor(
            image_processor=tf.PerceptionLMImageProcessor(tile_size=16),
            video_processor=tf.PerceptionLMVideoProcessor(size=square), patch_size=4, pooling_ratio=2, **kw,
        )  # fmt: skip
    if family == "video_llama_3":
        flat = {
            **patches,
            "temporal_patch_size": 1,
            "size": {"shortest_edge": 4 * 16 * 16, "longest_edge": 4 * 24 * 24},
        }
        return tf.VideoLlama3Processor(
            image_processor=tf.VideoLlama3ImageProcessor(**flat),
            video_processor=tf.VideoLlama3VideoProcessor(**flat), **kw,
        )  # fmt: skip
    names = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "glm4v": "Glm4v"}
    video = dict.fromkeys(("qwen3_vl", "qwen3_vl_moe", "qwen3_5"), tf.Qwen3VLVideoProcessor) | {
        "glm4v": tf.Glm4vVideoProcessor
    }
    video = video.get(family, tf.Qwen2VLVideoProcessor)
    image = tf.Glm4vImageProcessor if family == "glm4v" else tf.Qwen2VLImageProcessor
    if family in ("glm4v", "qwen3_vl", "qwen3_vl_moe", "qwen3_5"):  # theirs are sizes of all frames together
        patches["size"] = {"shortest_edge": 16 * 16 * 2, "longest_edge": 24 * 24 * 4}
    return getattr(tf, names.get(family, "Qwen3VL") + "Processor")(
        image_processor=image(**patches), video_processor=video(**patches), **kw
    )


def _model(family: str, tokenizer: Any) -> Any:
    import transformers as tf

    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in FAMILIES[family].items()}
    base = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {**base, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 4096}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    mrope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    square = {**tower, "image_size": 16, "patch_size": 4}
    grid = {"depth": 2, "num_heads": 2, "patch_size": 4, "temporal_patch_size": 2, "spatial_merge_size": 2}
    if family in ("llava_next_video", "video_llava"):
        vision = {**square, "model_type": "clip_vision_model", "projection_dim": 16}
        if family == "video_llava":
            vision["patch_size"] = 8
        extra = {} if family == "video_llava" else {"image_grid_pinpoints": [[16, 16]]}
        cfg = {"llava_next_video": tf.LlavaNextVideoConfig, "video_llava": tf.VideoLlavaConfig}[family](
            vision_config=vision, text_config={**text, "model_type": "llama"},
            image_token_index=ids["image_token"], video_token_index=ids["video_token"], **extra,
        )  # fmt: skip
        cls = {"llava_next_video": "LlavaNextVideo", "video_llava": "VideoLlava"}[family]
        return getattr(tf, cls + "ForConditionalGeneration")(cfg)
    if family == "llava_onevision":
        windows = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
        cfg = tf.LlavaOnevisionConfig(
            vision_config={**square, "model_type": "siglip_vision_model", "vision_use_head": False},
            text_config={**text, "model_type": "qwen2", **windows}, image_grid_pinpoints=[[16, 16]],
            image_token_index=ids["image_token"], video_token_index=ids["video_token"],
        )  # fmt: skip
        return tf.LlavaOnevisionForConditionalGeneration(cfg)
    if family == "internvl":
        cfg = tf.InternVLConfig(
            vision_config={**square, "image_size": [16, 16], "patch_size": [4, 4]},
            text_config={**text, "model_type": "qwen3", "head_dim": 8}, image_seq_length=4,
            image_token_id=ids["context_image_token"],
        )  # fmt: skip
        return tf.InternVLForConditionalGeneration(cfg)
    if family == "smolvlm":
        cfg = tf.SmolVLMConfig(
            vision_config=square, text_config={**text, "model_type": "llama"}, scale_factor=2,
            image_token_id=ids["image_token"],
        )  # fmt: skip
        return tf.SmolVLMForConditionalGeneration(cfg)
    places = {"image_token_id": ids["image_token"], "video_token_id": ids["video_token"]}
    if family == "perception_lm":
        tiny = {"img_size": [16, 16], "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "global_pool": ""}
        tiny |= {"ref_feat_shape": [4, 4], "use_post_transformer_norm": False}
        vision = tf.TimmWrapperConfig(architecture="vit_pe_core_tiny_patch16_384", do_pooling=False, model_args=tiny)
        cfg = tf.PerceptionLMConfig(
            vision_config=vision, text_config={**text, "model_type": "llama"}, projector_pooling_ratio=2, **places
        )
        return tf.PerceptionLMForConditionalGeneration(cfg)
    if family == "video_llama_3":
        cfg = tf.VideoLlama3Config(
            vision_config={**tower, "patch_size": 4}, text_config={**text, "model_type": "qwen2"}, **places
        )
        return tf.VideoLlama3ForConditionalGeneration(cfg)
    marks = ("image", "video") if family == "glm4v" else ("vision",)
    for mark in marks:
        for side, word in (("start", "begin_of"), ("end", "end_of")):
            token = f"<|{word}_{mark}|>" if family == "glm4v" else f"<|vision_{side}|>"
            places[f"{mark}_{side}_token_id"] = tokenizer.convert_tokens_to_ids(token)
    text["rope_parameters"] = mrope
    if family == "qwen2_vl":
        vision = {**grid, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
        return tf.Qwen2VLForConditionalGeneration(tf.Qwen2VLConfig(vision_config=vision, text_config=text, **places))
    vision = {**grid, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32}
    if family == "qwen2_5_vl":
        vision |= {"window_size": 16, "fullatt_block_indexes": [1]}
        return tf.Qwen2_5_VLForConditionalGeneration(
            tf.Qwen2_5_VLConfig(vision_config=vision, text_config=text, **places)
        )
    if family.startswith("qwen3_vl"):
        vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16}
        text["head_dim"] = 8
        if family == "qwen3_vl_moe":
            text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        name = "Qwen3VLMoe" if family == "qwen3_vl_moe" else "Qwen3VL"
        config = getattr(tf, name + "Config")(vision_config=vision, text_config=text, **places)
        return getattr(tf, name + "ForConditionalGeneration")(config)
    if family == "qwen3_5":  # a gated delta net below and above softmax attention
        vision["num_position_embeddings"] = 16
        text |= {"head_dim": 16, "layer_types": ["linear_attention", "full_attention", "linear_attention"]}
        text |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8}
        text |= {"linear_value_head_dim": 8, "rope_parameters": {**mrope, "partial_rotary_factor": 0.5}}
        config = tf.Qwen3_5Config(vision_config=vision, text_config=text, **places)
        return tf.Qwen3_5ForConditionalGeneration(config)
    vision["image_size"] = 16
    return tf.Glm4vForConditionalGeneration(tf.Glm4vConfig(vision_config=vision, text_config=text, **places))
