"""Knockouts: in order, in batches, as the model's own mask argument does it, within memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conditions import sweep

from analysis_lib.errors import StudyError
from analysis_lib.instrument import knockout
from analysis_lib.instrument.checks import load_model
from analysis_lib.instrument.edges import Window, blocked_edges
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.passes import clean_pass, masked_logits

EVERYWHERE = Window(1, 1, 12, tuple(range(1, 13)))


@pytest.mark.parametrize("style", ["center", "inverse", "top_down", "bottom_up"])
def test_batches_equal_single_runs_in_order(tiny_vlm, tiny_inputs, style):
    conditions = sweep(tiny_inputs, ("cross-frame", "question->last"), 5, style)
    together, receipt = knockout_logits(tiny_vlm, tiny_inputs, conditions)
    small, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions, batch=2)
    assert together.shape == (24, 563) and together.dtype == torch.float32
    for i in (0, 7, 23):
        alone, _ = knockout_logits(tiny_vlm, tiny_inputs, [conditions[i]])
        assert torch.allclose(together[i], alone[0], atol=1e-4) and torch.allclose(small[i], alone[0], atol=1e-4)
    assert receipt.conditions == 24 and receipt.measured == 1 and receipt.spot_check_difference < 1e-4


def test_knockout_equals_the_models_own_mask_argument(tiny_vlm, tiny_inputs):
    blocked = blocked_edges("video->question", tiny_inputs.roles)
    ours, _ = knockout_logits(tiny_vlm, tiny_inputs, [Condition("x", EVERYWHERE, blocked)])
    mask = torch.from_numpy(np.tri(tiny_inputs.n, dtype=bool) & ~blocked)[None, None]
    with torch.no_grad():
        theirs = tiny_vlm.hf(inputs_embeds=tiny_inputs.embeds, attention_mask=mask, logits_to_keep=1).logits[0, -1]
    assert torch.allclose(ours[0], theirs, atol=1e-4)
    assert (ours[0] - clean_pass(tiny_vlm, tiny_inputs).logits).abs().max() > 0.1


def test_an_empty_window_changes_nothing(tiny_vlm, tiny_inputs):
    blocked = blocked_edges("cross-frame", tiny_inputs.roles)
    nothing = [Condition("cross-frame", Window(2, 0, 0, ()), blocked)] * 3
    logits, receipt = knockout_logits(tiny_vlm, tiny_inputs, nothing)
    assert torch.allclose(logits[2], clean_pass(tiny_vlm, tiny_inputs).logits, atol=1e-5)
    logits, receipt = knockout_logits(tiny_vlm, tiny_inputs, nothing, mode="full")
    assert torch.equal(logits[2], clean_pass(tiny_vlm, tiny_inputs).logits) and receipt.expected == 0
    assert knockout_logits(tiny_vlm, tiny_inputs, [])[0].shape == (0, 563)


def test_bad_conditions_are_refused(tiny_vlm, tiny_inputs):
    good = blocked_edges("cross-frame", tiny_inputs.roles)
    for window, blocked in (
        (EVERYWHERE, good[:-1]),
        (EVERYWHERE, ~np.tri(tiny_inputs.n, dtype=bool)),
        (Window(13, 13, 13, (13,)), good),
    ):
        with pytest.raises(StudyError):
            knockout_logits(tiny_vlm, tiny_inputs, [Condition("x", window, blocked)])
    with pytest.raises(StudyError, match="mode"):
        knockout_logits(tiny_vlm, tiny_inputs, [], mode="fast")


def test_half_precision_knockouts_pass_their_receipt(tiny_model_dir, tiny_inputs):
    half = load_model(str(tiny_model_dir), dtype="bfloat16", device="cpu")
    inputs = replace(tiny_inputs, embeds=tiny_inputs.embeds.bfloat16())
    logits, receipt = knockout_logits(half, inputs, sweep(inputs, ("video->last",)))
    assert logits.dtype == torch.float32 and receipt.noop_difference == 0 and receipt.max_blocked_weight == 0


@pytest.fixture
def sizes(monkeypatch):
    """How many conditions each complete pass had."""
    found = []

    def spy(vlm, inputs, masks):
        found.append(max(len(mask) for mask in masks.values()))
        if found[-1] > spy.most:
            raise torch.OutOfMemoryError("no memory")
        return masked_logits(vlm, inputs, masks)

    spy.most = 1000
    monkeypatch.setattr(knockout, "masked_logits", spy)
    return found, spy


def test_batch_size_follows_the_memory_limit(tiny_vlm, tiny_inputs, monkeypatch, sizes):
    conditions = sweep(tiny_inputs, ("video->last", "cross-frame"))
    knockout_logits(tiny_vlm, tiny_inputs, conditions, mode="full")
    assert sizes[0] == [24]
    sizes[0].clear()
    monkeypatch.setattr(knockout, "CACHE", 1)
    _, receipt = knockout_logits(tiny_vlm, tiny_inputs, conditions, mode="full")
    assert sizes[0] == [1] * 24 and receipt.spot_check_difference == 0


def test_out_of_memory_halves_the_batch_and_says_so_once(tiny_vlm, tiny_inputs, sizes):
    conditions = sweep(tiny_inputs, ("video->last", "cross-frame"))
    whole, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions, mode="full")
    found, spy = sizes
    found.clear()
    spy.most = 10
    with pytest.warns(UserWarning, match="out of GPU memory") as said:
        halved, receipt = knockout_logits(tiny_vlm, tiny_inputs, conditions, mode="full")
    assert found == [24, 12, 6, 6, 6, 6] and torch.allclose(halved, whole, atol=1e-4)
    assert receipt.fired == receipt.expected and len({str(w.message) for w in said}) == 1
    spy.most = 0
    with pytest.raises(StudyError, match="not even one condition"):
        knockout_logits(tiny_vlm, tiny_inputs, conditions[:1], mode="full")
