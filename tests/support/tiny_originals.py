"""Tiny checkpoints in the formats that the paper's models are published in."""

import json
import shutil

import torch
from safetensors.torch import load_file, save_file
from tiny_families import GOLDEN
from transformers import PreTrainedTokenizerFast

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
VISION |= {"image_size": 56, "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "norm_type": "layer_norm"}
VISION |= {"model_type": "intern_vit_6b", "qkv_bias": True, "qk_normalization": False, "drop_path_rate": 0.1}
ROPE = {"type": "su", "short_factor": [1.0] * 8, "long_factor": [1.5] * 8}
TEXT = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "hidden_size": 64, "intermediate_size": 96}
TEXT |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "rope_scaling": ROPE}
TEXT |= {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "rope_theta": 10000.0}
TEXT |= {"sliding_window": 262144, "tie_word_embeddings": False, "auto_map": {"AutoModel": "x"}, "pad_token_id": 0}
TEXT |= {"bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}


def rewrite(folder, tensors=None, **config):
    """Write other tensors and config entries; None removes an entry."""
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    stated = {**json.loads((folder / "config.json").read_text()), **config}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in stated.items() if v is not None}))


def internvl(folder, version):
    """A tiny Mini-InternVL as published: config, tensor names, tokenizer with its three tokens."""
    shutil.copytree(GOLDEN, folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<img>", "</img>", "<IMG_CONTEXT>"]})
    tokenizer.save_pretrained(folder)
    rng = torch.Generator().manual_seed(0)

    def random(*shape, scale=0.3):
        return scale * torch.randn(*shape, generator=rng)

    size, d, v = len(tokenizer), 64, "vision_model.embeddings."
    t = {f"{v}class_embedding": random(1, 1, 32), f"{v}position_embedding": random(1, 17, 32)}
    t |= {f"{v}patch_embedding.weight": random(32, 3, 14, 14), f"{v}patch_embedding.bias": random(32)}
    for i in range(2):
        at = f"vision_model.encoder.layers.{i}."
        for name, rows, columns in (
            ("attn.qkv", 96, 32),
            ("attn.proj", 32, 32),
            ("mlp.fc1", 48, 32),
            ("mlp.fc2", 32, 48),
        ):
            t |= {f"{at}{name}.weight": random(rows, columns), f"{at}{name}.bias": random(rows)}
        for name in ("norm1", "norm2"):
            t |= {f"{at}{name}.weight": 1 + random(32), f"{at}{name}.bias": random(32)}
        t |= {f"{at}ls1": random(32), f"{at}ls2": random(32)}
    for name, shape in (("0", (128,)), ("1", (d, 128)), ("3", (d, d))):
        t |= {f"mlp1.{name}.weight": random(*shape), f"mlp1.{name}.bias": random(shape[0])}
    t |= {"language_model.model.embed_tokens.weight": random(size, d), "language_model.lm_head.weight": random(size, d)}
    t["language_model.model.norm.weight"] = 1 + random(d)
    for i in range(3):
        at = f"language_model.model.layers.{i}."
        shapes = {"self_attn.qkv_proj": (192, d), "self_attn.o_proj": (d, d)}
        shapes |= {"mlp.gate_up_proj": (192, d), "mlp.down_proj": (d, 96)}
        t |= {f"{at}{name}.weight": random(*shape) for name, shape in shapes.items()}
        t |= {f"{at}{name}.weight": 1 + random(d) for name in ("input_layernorm", "post_attention_layernorm")}
    stated = {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "select_layer": -1}
    stated |= {"llm_config": TEXT | {"vocab_size": size}, "vision_config": VISION, "downsample_ratio": 0.5}
    stated |= {"ps_version": version, "template": "phi3-chat", "torch_dtype": "float32"}
    save_file(t, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({k: v for k, v in stated.items() if v is not None}))
    return folder


def image_base(folder):
    """Rewrites a pooled checkpoint as the image-only base is published: another type, no pooling, a newline."""
    pooling = dict.fromkeys(("num_frames", "pooling_shape", "frame_shape", "pooling_method", "use_pooling"))
    newline = {"image_newline": torch.ones(64)}
    rewrite(folder, load_file(folder / "model.safetensors") | newline, model_type="llava_next", **pooling)
    return folder


def says_letters(folder):
    """Rewrites a checkpoint so that it answers A or B to everything."""
    tokens, tensors = PreTrainedTokenizerFast.from_pretrained(folder), load_file(folder / "model.safetensors")
    first, second = tokens.convert_tokens_to_ids(["A", "B"])
    (name,) = (name for name in tensors if name.endswith("lm_head.weight"))
    head = 0.1 * tensors[name]
    head[first], head[second] = 10 * tensors[name][first], -10 * tensors[name][first]
    rewrite(folder, tensors | {name: head})
    return folder


PUBLISHED = {
    "LLaVA-NeXT-7B-Video-FT": lambda folder: shutil.copytree(GOLDEN, folder),
    "llava-v1.6-vicuna-7b-hf": lambda folder: image_base(shutil.copytree(GOLDEN, folder)),
    "Mini-InternVL-4B-Video-FT": lambda folder: internvl(folder, "v2"),
}


def build(name, folder):
    """Write one of the published models, tiny, to `folder`."""
    return says_letters(PUBLISHED[name](folder))
