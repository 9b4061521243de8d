"""Receipts prove that cuts happened: what does not cut, fire or agree is an error."""

import json
import math
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace

import pytest
import torch
from conditions import sweep

from analysis_lib.errors import StudyError
from analysis_lib.instrument import passes, receipts
from analysis_lib.instrument.checks import self_test
from analysis_lib.instrument.edges import blocked_edges
from analysis_lib.instrument.knockout import knockout_logits
from analysis_lib.instrument.passes import masked_logits
from analysis_lib.instrument.receipts import Receipt


def test_receipt_of_a_sweep(tiny_vlm, tiny_inputs):
    _, receipt = knockout_logits(tiny_vlm, tiny_inputs, sweep(tiny_inputs))
    assert receipt.max_blocked_weight == 0 and receipt.noop_difference == 0 and receipt.fully_blocked_rows == 0
    assert receipt.kernel_difference < 1e-4 and receipt.fired == receipt.expected > 12


def test_a_hook_that_does_not_cut_is_an_error(tiny_vlm, tiny_inputs, monkeypatch):
    def idle(layer, blocked, fired, module, args, kwargs):
        fired[layer] += 1

    monkeypatch.setattr(passes, "_cut", idle)
    with pytest.raises(StudyError, match="still has weight"):
        knockout_logits(tiny_vlm, tiny_inputs, sweep(tiny_inputs, ("video->question",))[:4])


def test_a_hook_that_does_not_fire_is_an_error(tiny_vlm, tiny_inputs, monkeypatch):
    monkeypatch.setattr(passes, "_cut", lambda layer, blocked, fired, module, args, kwargs: None)
    with pytest.raises(StudyError, match="applied 0 times"):
        knockout_logits(tiny_vlm, tiny_inputs, sweep(tiny_inputs, ("video->question",))[:4], mode="full")
    with pytest.raises(StudyError, match="masks were applied 12 times, not 15"):  # all but those of the full repeat
        knockout_logits(tiny_vlm, tiny_inputs, sweep(tiny_inputs, ("video->question",))[:4])


def test_receipts_merge_and_serialise():
    one = Receipt(noop_difference=0.25, fired=3, expected=3, conditions=2, measured=1)
    both = one.merge(Receipt(max_blocked_weight=0.5, fired=1, expected=1, conditions=1, measured=1))
    assert both == Receipt(0.5, 0.0, 0.25, 0.0, fired=4, expected=4, conditions=3, measured=2)
    assert json.loads(json.dumps(asdict(both)))["fired"] == 4
    with pytest.raises(StudyError):
        both.check(torch.float32)


def test_a_number_that_is_none_proves_nothing(tiny_vlm, tiny_inputs, monkeypatch):
    for others in ([Receipt(noop_difference=math.nan), Receipt()], [Receipt(), Receipt(noop_difference=math.nan)]):
        with pytest.raises(StudyError, match="noop_difference is not a number"):
            Receipt().merge(*others).check(torch.float32)
    mask = {1: torch.from_numpy(blocked_edges("video->last", tiny_inputs.roles))[None, None]}
    seen = [passes.Seen(1, torch.zeros(1, 1, tiny_inputs.n, tiny_inputs.n), gap) for gap in (math.nan, 0.0)]

    @contextmanager
    def measured(vlm, observe, layers):
        yield [observe(one) for one in seen]

    monkeypatch.setattr(receipts, "measured_attention", measured)
    monkeypatch.setattr(receipts, "_other_heads", lambda *_: 0.0)
    logits = masked_logits(tiny_vlm, tiny_inputs, mask)[0][0]
    assert math.isnan(receipts.measure(tiny_vlm, tiny_inputs, mask, logits).kernel_difference)


def test_a_condition_that_differs_alone_is_an_error():
    gap = Receipt(spot_check_difference=0.01)
    gap.check(torch.bfloat16)
    with pytest.raises(StudyError, match="run alone differs by 0.01"):
        gap.check(torch.float32)


def test_a_difference_is_held_against_the_conditions_own_rounding(tiny_vlm, tiny_inputs):
    Receipt(spot_check_difference=0.01, rounding=0.002).check(torch.float32)
    with pytest.raises(StudyError, match="run alone differs"):
        Receipt(spot_check_difference=0.01, rounding=0.0005).check(torch.float32)
    mask = {3: torch.from_numpy(blocked_edges("video->last", tiny_inputs.roles))[None, None]}
    logits = masked_logits(tiny_vlm, tiny_inputs, mask)[0][0]
    assert receipts.measure(tiny_vlm, tiny_inputs, mask, logits).rounding == 0  # not needed, so not measured
    receipt = receipts.measure(tiny_vlm, tiny_inputs, mask, logits + 0.01)
    assert 0 < receipt.rounding < 1e-3 < receipt.spot_check_difference
    with pytest.raises(StudyError, match="run alone differs"):
        receipt.check(torch.float32)


def test_self_test_passes_and_can_fail(tiny_vlm, tiny_inputs, monkeypatch):
    table = self_test(tiny_vlm, tiny_inputs)
    assert list(table.columns) == ["check", "value", "wanted", "passed"] and len(table) == 15
    assert table["passed"].all(), table[~table["passed"]]
    monkeypatch.setattr(tiny_vlm, "noops", {})
    monkeypatch.setattr(receipts, "noop_difference", lambda vlm, inputs: 0.5)
    assert not self_test(tiny_vlm, tiny_inputs)["passed"].all()


def test_the_noop_is_measured_once_per_prompt_and_kernel(tiny_vlm, tiny_inputs, monkeypatch):
    asked = []
    monkeypatch.setattr(tiny_vlm, "noops", {})
    monkeypatch.setattr(receipts, "noop_difference", lambda vlm, inputs: asked.append(inputs) or 0.0)
    other = replace(tiny_inputs, embeds=tiny_inputs.embeds + 1)
    for inputs in (tiny_inputs, tiny_inputs, other):
        receipts.measure(tiny_vlm, inputs, {}, torch.zeros(1))
    assert asked == [tiny_inputs, other]


def test_a_cut_that_nobody_could_measure_is_refused(tiny_vlm, tiny_inputs, monkeypatch):
    monkeypatch.setattr(receipts, "measured_attention", lambda *_: nullcontext())
    with pytest.raises(StudyError, match="attention in layers .* could not be measured"):
        knockout_logits(tiny_vlm, tiny_inputs, sweep(tiny_inputs, ("cross-frame",)))
