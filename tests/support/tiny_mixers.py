"""One layer of each kind in `families.MIXERS`, tiny and random, as transformers has it."""

from typing import Any

import torch

KINDS = ("gated delta net", "Kimi delta attention", "Mamba-2", "short convolution")
WIDTH = 16


def build(kind: str) -> torch.nn.Module:
    """The layer, in evaluation mode, with weights large enough for every position to matter."""
    torch.manual_seed(0)
    module = _module(kind).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("A_log", "dt_bias")):
                parameter.uniform_(-2, -1)  # a slow decay
            elif parameter.ndim > 1:
                parameter.normal_(0, 0.5)
    return module.requires_grad_(False)


def _module(kind: str) -> Any:
    import transformers as tf

    if kind == "gated delta net":
        from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5GatedDeltaNet

        heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
        sizes = {"linear_key_head_dim": 4, "linear_value_head_dim": 4}
        config = tf.Qwen3_5TextConfig(hidden_size=WIDTH, num_hidden_layers=4, **heads, **sizes)
        return Qwen3_5GatedDeltaNet(config, 0)
    if kind == "Kimi delta attention":
        from transformers.models.glm5_next.modeling_glm5_next import Glm5NextTextLinearAttention

        types = ["linear_attention"] * 3 + ["indexed_attention"]
        config = tf.Glm5NextTextConfig(
            hidden_size=WIDTH, num_hidden_layers=4, layer_types=types, linear_num_heads=2, linear_head_dim=4
        )
        return Glm5NextTextLinearAttention(config, 0)
    if kind == "Mamba-2":
        from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMamba2Mixer

        config = tf.NemotronHConfig(
            hidden_size=WIDTH, layers_block_type=["linear_attention", "full_attention"], mamba_num_heads=4,
            mamba_head_dim=8, ssm_state_size=4, n_groups=2, chunk_size=8,
        )  # fmt: skip
        return NemotronHMamba2Mixer(config, 0)
    from transformers.models.lfm3.modeling_lfm3 import Lfm3ShortConv

    config = tf.Lfm3Config(hidden_size=WIDTH, num_hidden_layers=2, layer_types=["conv", "full_attention"])
    return Lfm3ShortConv(config, 0)
