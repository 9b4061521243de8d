"""Passes: true states, cuts composed with the model's own mask, weights as the kernel has them, nothing left behind."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conditions import all_hooks, sweep

from analysis_lib.instrument import passes
from analysis_lib.instrument.edges import Window
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.passes import attention_mask_hooks, clean_pass, masked_logits, measured_attention
from analysis_lib.instrument.receipts import noop_difference
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.merging import model_logits
from analysis_lib.models.torchvision_ops import ensure_torchvision

EVERYWHERE = Window(1, 1, 12, tuple(range(1, 13)))


def test_clean_states_are_residual_states(tiny_vlm, tiny_inputs):
    clean = clean_pass(tiny_vlm, tiny_inputs)
    with torch.no_grad():
        states = tiny_vlm.hf(inputs_embeds=tiny_inputs.embeds, output_hidden_states=True).hidden_states
    assert clean.last.shape == (12, 64) and clean.video.shape == (12, 32, 64)
    for layer in range(1, 12):  # the model's own list has its last entry normed
        assert torch.allclose(states[layer][0, -1], clean.last[layer - 1], atol=1e-5)
        assert torch.allclose(states[layer][0, 50:82], clean.video[layer - 1], atol=1e-5)


def test_no_op_is_bitwise_the_untouched_model(tiny_vlm, tiny_inputs):
    assert noop_difference(tiny_vlm, tiny_inputs) == 0
    clean = clean_pass(tiny_vlm, tiny_inputs)
    assert torch.equal(clean.logits, model_logits(tiny_vlm, tiny_inputs))
    assert torch.equal(masked_logits(tiny_vlm, tiny_inputs, {})[0][0], clean.logits)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_everything_is_restored_after_an_interruption(tiny_vlm, tiny_inputs, error, monkeypatch):
    before, logits = all_hooks(tiny_vlm), model_logits(tiny_vlm, tiny_inputs)

    def stop(*args, **kwargs):
        raise error

    monkeypatch.setattr(decoder_layers(tiny_vlm)[7].mlp, "forward", stop)
    with pytest.raises(error):
        knockout_logits(tiny_vlm, tiny_inputs, sweep(tiny_inputs, ("cross-frame",)))
    with pytest.raises(error), measured_attention(tiny_vlm, lambda seen: None):
        clean_pass(tiny_vlm, tiny_inputs)
    monkeypatch.undo()
    assert all_hooks(tiny_vlm) == before and not passes._observers
    assert tiny_vlm.hf.get_decoder().config._attn_implementation == "sdpa"
    assert torch.equal(model_logits(tiny_vlm, tiny_inputs), logits)


def test_a_fully_blocked_row_is_counted_and_never_reads_the_future(tiny_vlm, tiny_inputs):
    blocked = np.zeros((tiny_inputs.n, tiny_inputs.n), bool)
    blocked[60, :61] = True
    condition = Condition("row 60", EVERYWHERE, blocked)
    logits, receipt = knockout_logits(tiny_vlm, tiny_inputs, [condition])
    assert receipt.fully_blocked_rows == 1 and not logits.isnan().any()
    later = tiny_inputs.embeds.clone()
    later[0, 70:] *= -1
    mask = {i: torch.from_numpy(blocked)[None, None] for i in range(1, 13)}
    with attention_mask_hooks(tiny_vlm, mask):
        states = [
            clean_pass(tiny_vlm, replace(tiny_inputs, embeds=e)).video[:, 10] for e in (tiny_inputs.embeds, later)
        ]
    assert torch.equal(*states)


def random_decoder(kind, **options):
    """A text model dressed as a VideoLLM, for what depends on the decoder alone."""
    ensure_torchvision()
    from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

    config = {"llama": LlamaConfig, "mistral": MistralConfig}[kind](
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=40,
        **options,
    )
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    return SimpleNamespace(hf=hf), torch.randn(1, 24, 32)


@torch.no_grad()
def test_a_sliding_window_of_the_model_stays():
    vlm, embeds = random_decoder("mistral", sliding_window=5)
    plain = vlm.hf(inputs_embeds=embeds).logits
    seen = []
    nothing = torch.zeros(1, 1, 24, 24, dtype=torch.bool)
    with attention_mask_hooks(vlm, {1: nothing, 2: nothing}), measured_attention(vlm, seen.append):
        hooked = vlm.hf(inputs_embeds=embeds).logits
    assert torch.equal(plain, hooked)
    assert seen[0].weights[0, :, 20, :16].max() == 0 and seen[0].weights[0, :, 20, 16].min() > 0


@torch.no_grad()
def test_measured_weights_explain_the_kernel_with_grouped_keys():
    vlm, embeds = random_decoder("llama")
    seen = []
    plain = vlm.hf(inputs_embeds=embeds).logits
    with measured_attention(vlm, seen.append):
        measured = vlm.hf(inputs_embeds=embeds).logits
    assert torch.equal(plain, measured) and [s.layer for s in seen] == [1, 2]
    for one in seen:
        assert one.weights.shape == (1, 4, 24, 24) and one.kernel_difference < 1e-5
        assert torch.allclose(one.weights.sum(-1), torch.ones(1, 4, 24)) and one.weights.triu(1).max() == 0
