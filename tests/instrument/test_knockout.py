"""Knockouts happen, prove it, compose with the model's own mask, and leave nothing behind."""

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument import knockout, passes, receipts
from analysis_lib.instrument.checks import load_model, self_test
from analysis_lib.instrument.edges import EDGE_SETS, Window, blocked_edges, windows
from analysis_lib.instrument.knockout import Condition, Receipt, knockout_logits
from analysis_lib.instrument.passes import attention_mask_hooks, clean_pass, masked_logits, measured_attention
from analysis_lib.instrument.receipts import noop_difference
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.merging import model_logits
from analysis_lib.models.torchvision_ops import ensure_torchvision

EVERYWHERE = Window(1, 1, 12, tuple(range(1, 13)))


def sweep(inputs, names=EDGE_SETS, k=3, style="center"):
    blocked = {name: blocked_edges(name, inputs.roles) for name in names}
    return [Condition(name, window, blocked[name]) for name in names for window in windows(12, k, style)]


def all_hooks(vlm):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in vlm.hf.modules())


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


def test_receipt_of_a_sweep(tiny_vlm, tiny_inputs):
    _, receipt = knockout_logits(tiny_vlm, tiny_inputs, sweep(tiny_inputs))
    assert receipt.max_blocked_weight == 0 and receipt.noop_difference == 0 and receipt.fully_blocked_rows == 0
    assert receipt.kernel_difference < 1e-4 and receipt.fired == receipt.expected > 12


def test_no_op_is_bitwise_the_untouched_model(tiny_vlm, tiny_inputs):
    assert noop_difference(tiny_vlm, tiny_inputs) == 0
    clean = clean_pass(tiny_vlm, tiny_inputs)
    assert torch.equal(clean.logits, model_logits(tiny_vlm, tiny_inputs))
    assert torch.equal(masked_logits(tiny_vlm, tiny_inputs, {})[0][0], clean.logits)


def test_clean_states_are_residual_states(tiny_vlm, tiny_inputs):
    clean = clean_pass(tiny_vlm, tiny_inputs)
    with torch.no_grad():
        states = tiny_vlm.hf(inputs_embeds=tiny_inputs.embeds, output_hidden_states=True).hidden_states
    assert clean.last.shape == (12, 64) and clean.video.shape == (12, 32, 64)
    for layer in range(1, 12):  # the model's own list has its last entry normed
        assert torch.allclose(states[layer][0, -1], clean.last[layer - 1], atol=1e-5)
        assert torch.allclose(states[layer][0, 50:82], clean.video[layer - 1], atol=1e-5)


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


def test_half_precision_knockouts_pass_their_receipt(tiny_model_dir, tiny_inputs):
    half = load_model(str(tiny_model_dir), dtype="bfloat16", device="cpu")
    inputs = replace(tiny_inputs, embeds=tiny_inputs.embeds.bfloat16())
    logits, receipt = knockout_logits(half, inputs, sweep(inputs, ("video->last",)))
    assert logits.dtype == torch.float32 and receipt.noop_difference == 0 and receipt.max_blocked_weight == 0


def test_receipts_merge_and_serialise():
    one = Receipt(noop_difference=0.25, fired=3, expected=3, conditions=2, measured=1)
    both = one.merge(Receipt(max_blocked_weight=0.5, fired=1, expected=1, conditions=1, measured=1))
    assert both == Receipt(0.5, 0.0, 0.25, 0.0, fired=4, expected=4, conditions=3, measured=2)
    assert json.loads(json.dumps(both.to_dict()))["fired"] == 4
    with pytest.raises(StudyError):
        both.check(torch.float32)


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


def test_a_cut_that_nobody_could_measure_is_refused(tiny_vlm, tiny_inputs, monkeypatch):
    monkeypatch.setattr(receipts, "measured_attention", lambda *_: nullcontext())
    with pytest.raises(StudyError, match="attention in layers .* could not be measured"):
        knockout_logits(tiny_vlm, tiny_inputs, sweep(tiny_inputs, ("cross-frame",)))
