"""The exact engine gives the full engine's numbers, and computes less."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conditions import sweep

from analysis_lib.errors import StudyError
from analysis_lib.instrument import exact, passes
from analysis_lib.instrument.edges import Window, blocked_edges, windows
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.passes import clean_pass
from analysis_lib.instrument.receipts import last_digit_moved
from analysis_lib.models.decoder import decoder_layers, unembed
from analysis_lib.models.torchvision_ops import ensure_torchvision

HEADS = range(1, 5)  # query heads of the tiny checkpoint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("style", "k"), [("center", 3), ("center", 1), ("center", 12), ("inverse", 4), ("top_down", 1), ("bottom_up", 1)]
)
def test_exact_equals_full_for_all_edge_sets_and_windows(tiny_vlm, tiny_inputs, style, k):
    conditions = sweep(tiny_inputs, k=k, style=style)
    ours, receipt = knockout_logits(tiny_vlm, tiny_inputs, conditions, mode="exact")
    full, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions, mode="full")
    moved = [last_digit_moved(tiny_inputs, seed) for seed in range(3)]
    moved = torch.stack([knockout_logits(tiny_vlm, one, conditions, mode="full")[0].softmax(-1) for one in moved])
    rounding = (moved - full.softmax(-1)).abs().amax((0, -1))  # (C,), what the prompt's last digit does
    difference = (ours.softmax(-1) - full.softmax(-1)).abs().amax(-1)
    assert (difference < rounding.clamp(min=1e-6)).all()
    assert torch.allclose(ours, full, atol=1e-4)
    assert (full - clean_pass(tiny_vlm, tiny_inputs).logits).abs().max() > 0.1  # something was cut
    assert receipt.fired == receipt.expected > 12 and receipt.spot_check_difference < 1e-4


def test_small_batches_give_the_same(tiny_vlm, tiny_inputs):
    conditions = sweep(tiny_inputs, ("cross-frame", "question->last", "video->true_option"))
    together, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions)
    for batch in (1, 5):
        small, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions, batch=batch)
        assert torch.allclose(small, together, atol=1e-4)


def test_any_mask_is_allowed(tiny_vlm, tiny_inputs):
    n, rng = tiny_inputs.n, np.random.default_rng(0)
    blocked = [np.tril(rng.random((n, n)) < 0.3, -1) for _ in range(3)]
    conditions = [Condition(str(i), w, b) for i, b in enumerate(blocked) for w in windows(12, 3)]
    ours, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions)
    full, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions, mode="full")
    assert torch.allclose(ours, full, atol=1e-4)


def single_heads(inputs, names=("video->last", "true_option->last", "last->last")):
    """Each edge set in each head of each layer; the tiny model has 4 query heads."""
    blocked = {name: blocked_edges(name, inputs.roles) for name in names}
    return [
        Condition(name, window, blocked[name], (head,)) for name in names for window in windows(12, 1) for head in HEADS
    ]


def test_exact_equals_full_for_single_heads(tiny_vlm, tiny_inputs):
    conditions = single_heads(tiny_inputs)
    ours, receipt = knockout_logits(tiny_vlm, tiny_inputs, conditions)
    full, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions, mode="full")
    assert (ours.softmax(-1) - full.softmax(-1)).abs().max() < 5e-6
    assert torch.allclose(ours, full, atol=1e-4)
    clean = clean_pass(tiny_vlm, tiny_inputs).logits
    felt = (full - clean).abs().amax(1).reshape(-1, len(HEADS))
    assert (felt > 1e-3).all(1).any()  # in some layer every head matters, each by its own amount
    assert (felt.diff(dim=1).abs() > 1e-3).any(0).all()
    assert receipt.max_blocked_weight == 0 and receipt.other_heads_difference == 0


def test_all_heads_named_are_all_heads(tiny_vlm, tiny_inputs):
    blocked = blocked_edges("video->last", tiny_inputs.roles)
    window = Window(4, 3, 5, (3, 4, 5))
    some = [Condition("x", window, blocked, heads) for heads in ((), tuple(HEADS), (1, 3))]
    for mode in ("exact", "full"):
        plain, named, part = knockout_logits(tiny_vlm, tiny_inputs, some, mode=mode)[0]
        assert torch.allclose(plain, named, atol=1e-5) and (plain - part).abs().max() > 1e-3


def test_heads_may_cut_rows_before_the_last(tiny_vlm, tiny_inputs):
    blocked = blocked_edges("video->question", tiny_inputs.roles)
    conditions = [Condition("x", window, blocked, (2,)) for window in windows(12, 3)]
    ours, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions)
    full, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions, mode="full")
    assert torch.allclose(ours, full, atol=1e-4)


@torch.no_grad()
def test_heads_are_query_heads_where_keys_are_shared():
    """Four query heads share two key heads; cutting one leaves its partner alone, in both modes."""
    ensure_torchvision()
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 40}
    config = LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **sizes)
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    vlm, n = SimpleNamespace(hf=hf), 10
    inputs = SimpleNamespace(calls=None, embeds=torch.randn(1, n, 32), n=n, decoder_kwargs={})
    blocked = torch.zeros(4, 4, 1, n, dtype=torch.bool)  # condition i cuts head i
    blocked[range(4), range(4), 0, 2:6] = True
    calls, kinds = exact.record(vlm, inputs), range(4)
    ours, fired, sent = exact.staggered(vlm, calls, [n - 1] * 4, [(1,)] * 4, kinds, dict(enumerate(blocked)))
    whole = torch.zeros(4, 4, n, n, dtype=torch.bool)
    whole[:, :, -1:] = blocked
    seen = []
    with passes.measured_attention(vlm, seen.append):
        full, _ = passes.masked_logits(vlm, inputs, {1: whole})
    assert torch.allclose(ours, full, atol=1e-5) and fired == sent == 2
    row = seen[0].weights[:, :, -1, 2:6].amax(-1)  # (conditions, heads)
    assert (row[~torch.eye(4, dtype=torch.bool)] > 0).all() and row.diagonal().abs().max() == 0


def test_heads_that_the_model_lacks_are_refused(tiny_vlm, tiny_inputs):
    blocked = blocked_edges("video->last", tiny_inputs.roles)
    with pytest.raises(StudyError, match=f"model of {len(HEADS)} heads"):
        knockout_logits(tiny_vlm, tiny_inputs, [Condition("x", Window(1, 1, 1, (1,)), blocked, (len(HEADS) + 1,))])


def test_a_cut_that_reaches_other_heads_fails_the_receipt(tiny_vlm, tiny_inputs, monkeypatch):
    """A hook that cuts whole layers instead of one head is found out."""
    condition = single_heads(tiny_inputs, ("video->last",))[5 * len(HEADS)]
    real = passes.attention_mask_hooks

    def any_head(masks):
        return {layer: mask.any(1, keepdim=True) for layer, mask in masks.items()}

    monkeypatch.setattr(passes, "attention_mask_hooks", lambda vlm, masks: real(vlm, any_head(masks)))
    with pytest.raises(StudyError, match="in heads left alone"):
        knockout_logits(tiny_vlm, tiny_inputs, [condition], mode="full")


def test_nothing_cut_gives_the_clean_logits(tiny_vlm, tiny_inputs):
    clean = clean_pass(tiny_vlm, tiny_inputs).logits
    nothing = Condition("x", Window(3, 2, 4, (2, 3, 4)), np.zeros((tiny_inputs.n, tiny_inputs.n), bool))
    empty = Condition("y", Window(2, 0, 0, ()), blocked_edges("cross-frame", tiny_inputs.roles))
    logits, _ = knockout_logits(tiny_vlm, tiny_inputs, [nothing, empty])
    assert torch.allclose(logits, clean.expand(2, -1), atol=1e-4)


def test_the_record_is_the_clean_pass(tiny_vlm, tiny_inputs):
    calls, clean = exact.record(tiny_vlm, tiny_inputs), clean_pass(tiny_vlm, tiny_inputs)
    assert exact.record(tiny_vlm, tiny_inputs) is calls  # made once
    assert replace(tiny_inputs, embeds=-tiny_inputs.embeds).calls is None  # and never for another prompt
    assert len(calls) == 12 and calls[0].keys.shape[2] == tiny_inputs.n
    assert torch.equal(calls[0].hidden, tiny_inputs.embeds)
    assert torch.allclose(calls[5].hidden[0, -1], clean.last[4], atol=1e-5)
    last = decoder_layers(tiny_vlm)[-1](calls[-1].hidden, **{**calls[-1].kwargs, "past_key_values": None})
    assert torch.allclose(unembed(tiny_vlm, last[0, -1]), clean.logits, atol=1e-4)
    read = exact.recorded_states(tiny_vlm, tiny_inputs)
    assert all(torch.equal(getattr(read, name), getattr(clean, name)) for name in ("logits", "last", "video"))


@pytest.fixture
def computed(tiny_vlm):
    """(conditions, rows) of each call of a decoder layer."""
    seen = []

    def see(module, args):
        seen.append(tuple(args[0].shape[:2]))

    handles = [module.register_forward_pre_hook(see) for module in decoder_layers(tiny_vlm)]
    yield seen
    for handle in handles:
        handle.remove()


def run_exact(vlm, inputs, computed, edge_set, layers):
    blocked, calls = blocked_edges(edge_set, inputs.roles), exact.record(vlm, inputs)
    computed.clear()
    row = exact.first_row(blocked)
    cut = {edge_set: torch.from_numpy(blocked[row:])[None]}
    return exact.staggered(vlm, calls, [row] * len(layers), layers, [edge_set] * len(layers), cut)


def test_only_changed_rows_and_layers_are_computed(tiny_vlm, tiny_inputs, computed):
    run_exact(tiny_vlm, tiny_inputs, computed, "video->last", [(7, 8), (11,)])
    assert computed == [(1, 1)] * 4 + [(1, 2)] * 2  # layers 7-10, then 11-12: two conditions side by side


def test_what_conditions_share_is_computed_once(tiny_vlm, tiny_inputs, computed):
    rows = tiny_inputs.n - tiny_inputs.roles.positions("question_block")[0]
    run_exact(tiny_vlm, tiny_inputs, computed, "video->question", [tuple(range(1, last + 1)) for last in range(1, 13)])
    assert computed == [(1, states * rows) for states in range(1, 13)]  # bottom-up: one chain and its tails
    logits, _, _ = run_exact(tiny_vlm, tiny_inputs, computed, "video->question", [(11, 12), (11, 12), (12,)])
    assert computed == [(1, rows), (1, 2 * rows)] and torch.equal(logits[0], logits[1])
