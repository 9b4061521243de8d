"""Effective pathways: ranges, masks, controls, leaks, and what would be saved."""

import numpy as np
import pytest
import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument import pathways
from analysis_lib.instrument.edges import blocked_edges
from analysis_lib.instrument.passes import attention_mask_hooks, clean_pass, masked_logits
from analysis_lib.instrument.pathways import STOPS, Ranges, leak_report, live_rows, pathway_ranges
from analysis_lib.models.decoder import decoder_layers


@pytest.fixture(scope="module")
def masks(tiny_inputs):
    return pathways.all_pathways(tiny_inputs.roles, 12, pathway_ranges(12), seed=0)


def test_given_ranges_win_and_are_checked():
    given = {"cross_frame": (1, 2), "video_question": (2, 2), "question_last": (3, 4)}
    assert pathway_ranges(4, given=given) == Ranges((1, 2), (2,), (3, 4))
    for wrong in ({**given, "question_last": (3, 5)}, {**given, "cross_frame": (2, 1)}, {"cross_frame": (1, 2)}):
        with pytest.raises(StudyError, match="within 1 to 4"):
            pathway_ranges(4, given=wrong)


def test_published_rules_layer_by_layer(tiny_inputs, masks):
    roles, effective = tiny_inputs.roles, masks["effective"]
    video, question = roles.positions("video"), roles.positions("question_block")
    for layer, cut in enumerate(effective, start=1):
        open_edges = np.tri(tiny_inputs.n, dtype=bool) & ~cut
        assert not open_edges[-1, -1] and not open_edges[-1, video].any()
        assert open_edges[-1, question].all() == (7 <= layer <= 10)
        assert open_edges[np.ix_(question, video)].all() == (3 <= layer <= 8)
        assert bool(open_edges[video[-1], video[0]]) == (3 <= layer <= 6)
        assert bool(open_edges[video[0], video[0]]) == (layer <= 8)
        assert bool(open_edges[question[3], question[3]]) == (layer <= 10)
        assert open_edges[video[0], 0] and open_edges[roles.positions("tail")][:, video].all()


def test_ranges_may_be_empty(tiny_inputs):
    masks = pathways.effective_pathway(tiny_inputs.roles, 2, Ranges((), (), ()))
    assert all(mask.sum() == masks[0].sum() for mask in masks)


def test_random_control_cuts_as_many_edges_not_before_the_video(tiny_inputs, masks):
    control = masks["random"]
    counts = {int(mask.sum()) for mask in control}
    assert sum(m.sum() for m in control) == sum(m.sum() for m in masks["effective"]) and max(counts) - min(counts) <= 1
    assert not any(mask[:, :50].any() or np.triu(mask, 1).any() for mask in control)
    assert not np.array_equal(control[0], control[1])


def test_matched_control_cuts_as_many_edges_of_each_kind(tiny_inputs, masks):
    roles = tiny_inputs.roles
    for name in ("cross-frame", "video->question", "question->last", "video->last", "last->last"):
        block = blocked_edges(name, roles)
        counts = [[int((mask & block).sum()) for mask in masks[which]] for which in ("effective", "random_matched")]
        assert sum(counts[0]) == sum(counts[1]) and max(counts[1]) - min(counts[1]) <= 1
    assert not any(mask[roles.positions("tail")].any() for mask in masks["random_matched"])


def test_controls_depend_on_the_seed_alone(tiny_inputs, masks):
    for draw in (pathways.random_control, pathways.matched_control):
        one, same, other = (draw(tiny_inputs.roles, masks["effective"], seed=s) for s in (3, 3, (3, 1)))
        assert all(map(np.array_equal, one, same)) and not all(map(np.array_equal, one, other))


def test_a_control_that_cannot_cut_enough_is_refused(tiny_inputs):
    everything = [np.tri(tiny_inputs.n, dtype=bool)] * 2
    with pytest.raises(StudyError, match="random control"):
        pathways.random_control(tiny_inputs.roles, everything, seed=0)


def test_published_rules_leak_through_the_template(tiny_inputs, masks):
    report = leak_report(tiny_inputs.roles, masks["effective"]).set_index("route")
    assert report.loc["video -> question_block -> last", ["named", "arrives"]].tolist() == [True, 7]
    leak = report.loc["video -> tail -> last"]
    assert leak["open"] and not leak["named"] and leak["arrives"] == 2
    assert not report.loc["video -> last", "open"]


def test_strict_pathway_keeps_the_template_within_the_questions_limits(tiny_inputs, masks):
    report = leak_report(tiny_inputs.roles, masks["strict"], named=STOPS)
    assert not (report["open"] & ~report["named"]).any() and report.loc[report["open"], "arrives"].min() == 7


def test_no_route_is_open_without_any_video_edge(tiny_inputs):
    roles = tiny_inputs.roles
    closed = [blocked_edges("video->text", roles)] * 12
    assert not leak_report(roles, closed)["open"].any()


@torch.no_grad()
def test_dead_rows_change_nothing(tiny_vlm, tiny_inputs, masks):
    """Poison every row that liveness calls dead: the answer must stay, bit for bit."""
    cut = masks["strict"]
    hooks = {i: torch.from_numpy(mask)[None, None] for i, mask in enumerate(cut, start=1)}
    wanted, _ = masked_logits(tiny_vlm, tiny_inputs, hooks)
    live, handles = live_rows(cut, tiny_inputs.roles.readable), []
    for layer, alive in zip(decoder_layers(tiny_vlm), live[1:], strict=True):
        dead = torch.from_numpy(~alive)

        def poison(module, args, output, dead=dead):
            return torch.where(dead[None, :, None], 1e3, output)

        handles.append(layer.register_forward_hook(poison))
    try:
        poisoned, _ = masked_logits(tiny_vlm, tiny_inputs, hooks)
    finally:
        for handle in handles:
            handle.remove()
    assert sum(int((~alive).sum()) for alive in live) > 100 and torch.allclose(wanted, poisoned, atol=1e-5)


def test_flops_kept_by_hand(tiny_vlm, tiny_inputs, masks):
    n, readable = tiny_inputs.n, tiny_inputs.roles.readable
    everything = [np.zeros((n, n), bool)] * 12
    row, key_row = 64 * (2 * 64 + 3 * 192), 64 * 2 * 64
    dense = 12 * (n * (row + key_row) + 2 * 64 * n * (n + 1) // 2)
    unneeded = (n - 1) * row + 2 * 64 * n * (n - 1) // 2  # in the last layer only the last row is needed
    assert pathways.flops_kept(tiny_vlm, everything, readable) == pytest.approx(1 - unneeded / dense)
    kept = {name: pathways.flops_kept(tiny_vlm, cut, readable) for name, cut in masks.items()}
    assert kept["strict"] < kept["effective"] < 1


def test_edges_kept_of_an_open_model_are_all(tiny_inputs):
    assert pathways.edges_kept([np.zeros((10, 10), bool)] * 3, np.tri(10, dtype=bool)) == (165, 165)


def test_pathways_run_in_one_batch_and_prove_it(tiny_vlm, tiny_inputs, masks):
    logits, receipt = pathways.run_pathways(tiny_vlm, tiny_inputs, masks)
    assert list(logits) == ["effective", "strict", "random", "random_matched", "all_cross_frame_off"]
    alone, single = pathways.run_pathways(tiny_vlm, tiny_inputs, {"strict": masks["strict"]})
    assert torch.allclose(alone["strict"], logits["strict"], atol=1e-4)
    clean = clean_pass(tiny_vlm, tiny_inputs).logits
    assert all((row - clean).abs().max() > 1e-2 for row in logits.values())
    for one in (receipt, single):
        assert one.max_blocked_weight == 0 and one.fired == one.expected == 24 and one.noop_difference == 0


def test_masks_of_another_prompt_or_depth_are_refused(tiny_vlm, tiny_inputs, masks):
    for wrong in (masks["effective"][:-1], [np.zeros((3, 3), bool)] * 12):
        with pytest.raises(StudyError, match="12 masks"):
            pathways.run_pathways(tiny_vlm, tiny_inputs, {"wrong": wrong})


def test_one_layer_cut_everywhere_is_the_same_as_hooks(tiny_vlm, tiny_inputs):
    cut = blocked_edges("video->question", tiny_inputs.roles)
    logits = pathways.run_pathways(tiny_vlm, tiny_inputs, {"one": [cut] * 12})[0]["one"]
    mask = torch.from_numpy(cut)[None, None]
    with attention_mask_hooks(tiny_vlm, {i: mask for i in range(1, 13)}):
        assert torch.allclose(clean_pass(tiny_vlm, tiny_inputs).logits, logits, atol=1e-5)
