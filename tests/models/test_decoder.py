"""The output head: float32 logits whatever the model's precision."""

import torch

from analysis_lib.instrument.checks import load_model
from analysis_lib.models.decoder import _listed, unembed


def test_logits_are_float32_also_in_bfloat16(tiny_model_dir, tiny_vlm, tiny_inputs):
    half = load_model(str(tiny_model_dir), dtype="bfloat16", device="cpu")
    state = tiny_inputs.embeds[0, -1]
    logits = unembed(half, state.bfloat16())
    assert half.dtype == torch.bfloat16 and logits.dtype == torch.float32
    assert (logits - logits.bfloat16().float()).abs().max() > 0  # finer than half precision
    assert torch.allclose(logits, unembed(tiny_vlm, state), atol=0.2)


def test_many_layers_in_a_row_are_said_in_short():
    assert _listed([2]) == "2" and _listed([1, 2, 3]) == "1, 2, 3"
    assert _listed([1, 2, 3, 4]) == "1 to 4" and _listed([1, 2, 4, 5]) == "1, 2, 4, 5"
