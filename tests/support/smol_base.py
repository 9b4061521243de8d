"""A tiny random language model in the place of the base, with a small tokenizer of the same interface."""

import json

import torch
from safetensors.torch import save_file

from analysis_lib.embedded import vocabulary
from analysis_lib.models.torchvision_ops import ensure_torchvision

ensure_torchvision()
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402


def tiny_config(**other):
    """A decoder of three layers with grouped heads and tied embeddings, as the base has."""
    sizes = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=6, head_dim=4)
    rope = {"rope_theta": 100000.0, "rope_type": "default"}
    return LlamaConfig(
        **sizes | dict(num_key_value_heads=2, vocab_size=50, tie_word_embeddings=True, rope_parameters=rope) | other
    )


def tiny_decoder(seed=0, **other):
    """The model with weights large enough that each matters."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(tiny_config(**other)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def write_tiny_base(folder):
    """A base's folder: config, weights without the output head, tokenizer."""
    vocabulary.build_tokenizer(folder)
    ids = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    size = max(token["id"] for token in ids) + 1
    model = tiny_decoder(vocab_size=size, bos_token_id=1, eos_token_id=2, pad_token_id=2)
    tensors = {name: t.contiguous() for name, t in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_diff_dict() | {"architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
