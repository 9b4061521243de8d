"""The instrument in one walk: a merged prompt and edges to cut go in; logits, readings and a receipt come out."""

import torch

from analysis_lib.instrument import lens, pathways
from analysis_lib.instrument.checks import self_test
from analysis_lib.instrument.edges import blocked_edges, default_window, windows
from analysis_lib.instrument.exact import recorded_states
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.models.decoder import decoder_layers


def test_a_prompt_goes_in_and_logits_with_their_proof_come_out(tiny_vlm, tiny_inputs):
    depth = len(decoder_layers(tiny_vlm))

    # What is cut: an edge set, as (n, n) bool [query, key], in one window of layers around each layer.
    blocked = blocked_edges("video->question", tiny_inputs.roles)
    cuts = windows(depth, default_window(depth))
    conditions = [Condition("video->question", window, blocked) for window in cuts]
    assert blocked.shape == (tiny_inputs.n, tiny_inputs.n) and cuts[5].layers == (5, 6, 7)

    # Knockouts: one row of logits each. The fast way and complete passes agree.
    logits, receipt = knockout_logits(tiny_vlm, tiny_inputs, conditions)
    full, _ = knockout_logits(tiny_vlm, tiny_inputs, conditions[:2], mode="full")
    assert logits.shape == (12, 563) and torch.allclose(logits[:2], full, atol=1e-4)

    # The proof: nothing read a cut edge, an empty mask changed nothing, all masks arrived.
    assert receipt.max_blocked_weight == receipt.noop_difference == 0 and receipt.fired == receipt.expected > 0
    assert receipt.conditions == 12 and receipt.measured == 1

    # The untouched pass, read layer by layer: at the last position, and at the video positions.
    clean = recorded_states(tiny_vlm, tiny_inputs)
    assert (logits - clean.logits).abs().max() > 0.1  # something was cut
    emergence = lens.answer_emergence(tiny_vlm, tiny_inputs, clean)
    words, _ = lens.logit_lens(tiny_vlm, clean, {"spatial": ["up"]})
    maps = lens.attention_maps(tiny_vlm, tiny_inputs, [tiny_inputs.n - 1], without=blocked)  # (L, Q, N_v)
    assert len(emergence) == depth * 4 and len(words) == depth and maps.shape == (depth, 1, 32)

    # Pathways: all edges but the named routes are cut; how far is the answer, and what stays open?
    masks = pathways.all_pathways(tiny_inputs.roles, depth, pathways.pathway_ranges(depth), seed=0)
    found, proof = pathways.run_pathways(tiny_vlm, tiny_inputs, {"strict": masks["strict"]})
    routes = pathways.leak_report(tiny_inputs.roles, masks["strict"], named=pathways.STOPS)
    assert found["strict"].shape == (563,) and proof.max_blocked_weight == 0
    kept = pathways.flops_kept(tiny_vlm, masks["strict"], tiny_inputs.roles.readable)
    assert not (routes["open"] & ~routes["named"]).any() and kept < 1


def test_a_model_is_checked_before_it_is_trusted(tiny_vlm, tiny_inputs):
    table = self_test(tiny_vlm, tiny_inputs)
    assert table["passed"].all() and list(table) == ["check", "value", "wanted", "passed"]
