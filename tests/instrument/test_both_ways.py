"""Frames that read each other both ways, as in Molmo 2: edge sets hold what the model's own mask opens, in both modes.

The reference is the untouched model with eager attention, its masks written out pair by pair, layer by layer."""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import census
import census_table
import numpy as np
import pytest
import torch
from tiny_families import SAMPLE

from analysis_lib.errors import StudyError
from analysis_lib.instrument import checks, pathways
from analysis_lib.instrument.checks import load_model
from analysis_lib.instrument.edges import EDGE_SETS, Window, blocked_edges, frame_edge_sets
from analysis_lib.instrument.exact import first_row, record
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.passes import attention_mask_hooks, clean_pass, masked_logits
from analysis_lib.instrument.receipts import fully_blocked_rows, noop_difference
from analysis_lib.models.decoder import decoder_layers, moving_layers
from analysis_lib.models.loading import load_checkpoint
from analysis_lib.models.merging import make_inputs, model_logits
from analysis_lib.study.provenance import of_model
from analysis_lib.study.tables import BOTH_WAYS

FRAMES, DEPTH = 4, 3
LAYERS = [(1,), (3,), (2, 3), (1, 2, 3)]
# Sets that a causal model lacks or has in part.
MORE = (
    "frame 4->frame 1", "frame 1->frame 4", "cross-frame@2", "other frames->frame 1", "frame 2->other frames",
    "frame 2->later frames", "earlier frames->frame 3", "video->video", "frame_text->video", "video->frame_text",
)  # fmt: skip


def _norm(module, x):
    return module.weight * x * (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return census.build("molmo2", tmp_path_factory.mktemp("both") / "molmo2")


@pytest.fixture(scope="module")
def vlm(folder):
    """In float64, with norms written in float64: transformers' own round states to float32 on the way. Its video tokens
    are made as large as text, which random weights make ten thousand times larger: no cut would show."""
    found = load_checkpoint(str(folder), device="cpu")
    found.hf.double()
    found.dtype, found.num_frames = torch.float64, FRAMES
    found.hf.model.multi_modal_projector.image_projector.down_proj.weight.data *= 3e-5
    for module in found.hf.get_decoder().modules():
        if "RMSNorm" in type(module).__name__:
            module.forward = partial(_norm, module)
    return found


@pytest.fixture(scope="module")
def inputs(vlm):
    return make_inputs(vlm, SAMPLE, census_table.frames(FRAMES))


def open_edges(inputs):
    """Every pair that may be read, by the token types that the processor hands out."""
    block = inputs.model_inputs["mm_token_type_ids"][0] == 1
    return [(q, k) for q in range(inputs.n) for k in range(inputs.n) if k <= q or (block[q] and block[k])]


def is_cut(name, roles, q, k):
    """Whether an edge belongs to a set, by what the set's name says."""
    frame = roles.frame_of
    later = int(frame[k] - frame[q]) if frame[q] and frame[k] else 0  # so many frames after the query's
    if name.startswith("cross-frame"):
        return abs(later) == int(name[12:] or abs(later) or -1)
    key, query = name.split("->")
    if "frames" in name:
        named = f"frame {frame[q]}" == query if "frames" in key else f"frame {frame[k]}" == key
        return named and (later < 0 or later > 0 and "other" in name)
    union = {"question": "question_block"}
    return q in roles.positions(union.get(query, query)) and k in roles.positions(union.get(key, key))


def by_hand(inputs, name):
    wanted = np.zeros((inputs.n, inputs.n), bool)
    for q, k in open_edges(inputs):
        wanted[q, k] = bool(is_cut(name, inputs.roles, q, k))
    return wanted


@torch.no_grad()
def eager(vlm, inputs, blocked, layers):
    """Last logits of the model's own forward, with masks of our own in every layer."""
    seen = np.zeros((inputs.n, inputs.n), bool)
    seen[tuple(np.transpose(open_edges(inputs)))] = True

    def put(closed, module, args, kwargs):
        mask = torch.zeros(1, 1, inputs.n, inputs.n, dtype=torch.float64)
        return args, kwargs | {"attention_mask": mask.masked_fill(torch.from_numpy(closed), -torch.inf)}

    with ExitStack() as hooks, pytest.MonkeyPatch.context() as patch:
        patch.setattr(vlm.hf.get_decoder().config, "_attn_implementation", "eager")
        patch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: x.softmax(dim))  # not in float32
        for i, layer in enumerate(decoder_layers(vlm), start=1):
            closed = ~seen | (blocked if i in layers else False)
            hooks.enter_context(layer.register_forward_pre_hook(partial(put, closed), with_kwargs=True))
        return model_logits(vlm, inputs)


@pytest.mark.parametrize("name", [*EDGE_SETS, *MORE])
def test_sets_hold_what_the_mask_opens_and_their_name_says(inputs, name):
    blocked = blocked_edges(name, inputs.roles)
    assert np.array_equal(blocked, by_hand(inputs, name)) and blocked.any()


def test_cross_frame_edges_go_both_ways(inputs):
    cross, each = blocked_edges("cross-frame", inputs.roles), inputs.frame_tokens[0]
    assert inputs.roles.both_ways and cross.sum() == FRAMES * (FRAMES - 1) * each**2
    assert np.array_equal(cross, cross.T) and not np.diag(cross).any()


def test_pairs_rows_columns_and_distances_each_make_up_the_cross_frame_edges(inputs):
    sets = frame_edge_sets(FRAMES, both_ways=True)
    blocked = {name: blocked_edges(name, inputs.roles).astype(int) for name in sets}
    groups = {"pair": [], "row": [], "column": [], "distance": []}
    for name, (query, key, distance) in sets.items():
        kind = "pair" if query and key else "row" if query else "column" if key else "distance" if distance else ""
        groups.get(kind, []).append(blocked[name])
    assert [len(group) for group in groups.values()] == [12, 4, 4, 3] and len(sets) == 24
    assert all(np.array_equal(sum(group), blocked["cross-frame"]) for group in groups.values())
    assert sets["frame 4->frame 1"] == (1, 4, 3) and sets["other frames->frame 1"] == (1, 0, 0)


@pytest.mark.parametrize("name", [*EDGE_SETS, *MORE])
def test_cuts_equal_masked_attention_by_hand_in_both_modes(vlm, inputs, name):
    blocked = by_hand(inputs, name)
    conditions = [Condition(name, Window(ls[0], ls[0], ls[-1], ls), blocked) for ls in LAYERS]
    wanted = torch.stack([eager(vlm, inputs, blocked, ls) for ls in LAYERS])
    for mode in ("exact", "full"):
        found, receipt = knockout_logits(vlm, inputs, conditions, mode=mode)
        assert found.dtype == torch.float64 and (found - wanted).abs().max() < 1e-10
        assert receipt.max_blocked_weight == 0 and receipt.fired == receipt.expected > 0
    felt = (wanted - clean_pass(vlm, inputs).logits).abs().amax(1)  # (windows,)
    assert felt[[0, 2, 3]].min() > 1e-3  # not in the last layer alone, where only the last position is read


def test_random_edges_of_the_block_agree_too(vlm, inputs):
    rng = np.random.default_rng(0)
    blocked = inputs.roles.readable & (rng.random((inputs.n, inputs.n)) < 0.3) & ~np.eye(inputs.n, dtype=bool)
    conditions = [Condition("x", Window(ls[0], ls[0], ls[-1], ls), blocked) for ls in LAYERS]
    wanted = torch.stack([eager(vlm, inputs, blocked, ls) for ls in LAYERS])
    for mode in ("exact", "full"):
        assert (knockout_logits(vlm, inputs, conditions, mode=mode)[0] - wanted).abs().max() < 1e-10


def test_nothing_cut_is_bitwise_the_untouched_model(vlm, inputs):
    assert noop_difference(vlm, inputs) == 0
    own, clean = model_logits(vlm, inputs), clean_pass(vlm, inputs).logits
    nothing = Condition("x", Window(1, 1, 3, (1, 2, 3)), np.zeros((inputs.n, inputs.n), bool))
    assert torch.equal(own, clean) and torch.equal(masked_logits(vlm, inputs, {})[0][0], clean)
    assert torch.equal(knockout_logits(vlm, inputs, [nothing], mode="full")[0][0], clean)
    assert torch.allclose(own, eager(vlm, inputs, nothing.blocked, ()), rtol=0, atol=1e-10)


def test_the_block_is_recomputed_as_one_and_what_comes_after_it_alone(inputs, vlm):
    video, calls = inputs.roles.positions("video"), record(vlm, inputs)
    start = int((inputs.model_inputs["mm_token_type_ids"][0] == 1).nonzero()[0])  # the mark before the first frame
    late = np.zeros((inputs.n, inputs.n), bool)
    late[video[-1], video[-2]] = True  # the last frame's change reaches all that read it
    assert first_row(late, calls) == first_row(blocked_edges("cross-frame", inputs.roles), calls) == start
    question = blocked_edges("video->question", inputs.roles)
    assert first_row(question, calls) == inputs.roles.positions("question_block")[0] > video[-1]


def test_edges_that_the_mask_closes_are_refused(vlm, inputs):
    text, video = inputs.roles.positions("question_block")[0], inputs.roles.positions("video")[0]
    blocked = np.zeros((inputs.n, inputs.n), bool)
    blocked[video, text] = True
    with pytest.raises(StudyError, match="or later keys that the model's mask opens"):
        knockout_logits(vlm, inputs, [Condition("x", Window(1, 1, 1, (1,)), blocked)])
    assert not blocked_edges("question->video", inputs.roles).any()


def test_rows_without_a_key_are_counted_with_later_keys(inputs):
    roles = inputs.roles
    assert fully_blocked_rows(roles.readable, roles.ahead) == inputs.n
    into = blocked_edges("video->video", roles) | blocked_edges("text->video", roles)
    assert fully_blocked_rows(into, roles.ahead) == len(roles.positions("video"))
    assert fully_blocked_rows(np.tri(inputs.n, dtype=bool), roles.ahead) == inputs.n - (roles.ahead.any(1)).sum()


# ---- the checks at the door, and pathways ----


@torch.no_grad()
def test_the_door_opens_and_says_so_and_sees_a_mask_that_no_set_knows(vlm, inputs, monkeypatch):
    monkeypatch.setattr(checks, "made_up_clip", lambda vlm: (SAMPLE, census_table.frames(FRAMES)))
    table = checks.door_test(vlm).set_index("check")
    assert table["passed"].all() and table.loc[checks.LATER + checks.BOTH, "value"] == 0
    unknown = replace(inputs, roles=replace(inputs.roles, ahead=False))
    assert checks._by_later_frames(vlm, unknown) > 1e-3


def test_what_is_stored_says_so_where_a_model_comes_in_by_the_door(folder):
    found = load_model(str(folder), device="cpu")
    assert found.both_ways and of_model(found)["frames_read"] == BOTH_WAYS


def test_image_models_read_ahead_within_a_frame_only(tmp_path):
    vlm = load_checkpoint(str(census.build("gemma3", tmp_path / "gemma3")), device="cpu")
    vlm.num_frames = FRAMES
    roles = make_inputs(vlm, SAMPLE, census_table.frames(FRAMES)).roles
    frame = roles.frame_of
    within = (frame[:, None] == frame) & (frame > 0)
    assert not roles.both_ways and np.array_equal(roles.ahead, np.triu(within, 1))
    assert np.array_equal(blocked_edges("frame 2->frame 2", roles), within & (frame == 2))
    assert not np.triu(blocked_edges("cross-frame", roles), 1).any()


@pytest.fixture(scope="module")
def masks(inputs):
    ranges = pathways.Ranges(cross_frame=(2,), video_question=(1, 2), question_last=(2, 3))
    return pathways.all_pathways(inputs.roles, DEPTH, ranges, seed=0)


def test_pathways_close_edges_to_later_frames_too(vlm, inputs, masks):
    roles, video = inputs.roles, inputs.roles.positions("video")
    first, last = video[0], video[-1]
    for layer, cut in enumerate(masks["effective"], start=1):
        assert not (cut & ~roles.readable).any()
        assert cut[first, last] == cut[last, first] == (layer != 2) and cut[first, first] == (layer == 3)
    for name in ("random", "random_matched"):
        assert sum(m.sum() for m in masks[name]) == sum(m.sum() for m in masks["effective"])
        assert not any((m & ~roles.readable).any() for m in masks[name])
        assert any(np.triu(m, 1).any() for m in masks[name])
    kept, total = pathways.edges_kept(masks["effective"], roles.readable)
    assert total == DEPTH * len(open_edges(inputs))
    assert kept == total - sum(int(mask.sum()) for mask in masks["effective"])
    text = roles.positions("text")[:-1]
    assert not (roles.readable & ~masks["strict"][2])[np.ix_(text, video)].any()  # also the mark before the first frame
    routes = pathways.leak_report(roles, masks["strict"], named=pathways.STOPS)
    assert not (routes["open"] & ~routes["named"]).any() and routes["open"].any()
    _, receipt = pathways.run_pathways(vlm, inputs, masks)
    assert receipt.max_blocked_weight == 0 and receipt.fired == receipt.expected == 2 * DEPTH


@torch.no_grad()
def test_dead_rows_change_nothing_and_live_ones_do(vlm, inputs, masks):
    """The last frame is read by the question alone; what the first frame reads of it keeps it alive a layer below."""
    roles, last = inputs.roles, inputs.roles.positions(f"frame {FRAMES}")
    cut = [blocked_edges(f"frame {FRAMES}->text", roles) | blocked_edges("frame_text->text", roles)] * DEPTH
    hooks = {i: torch.from_numpy(mask)[None, None] for i, mask in enumerate(cut, start=1)}
    live, of_causal = (pathways.live_rows(cut, edges) for edges in (roles.readable, np.tri(inputs.n, dtype=bool)))
    assert moving_layers(vlm) == (1, 2, 3) and [bool(alive[last].all()) for alive in live] == [True, True, False, False]
    assert not of_causal[1][last].any()  # a causal model would not need it
    wanted, _ = masked_logits(vlm, inputs, hooks)
    for poisoned, same in ((live[1:], True), (of_causal[1:], False)):
        with ExitStack() as stack:
            for layer, alive in zip(decoder_layers(vlm), poisoned, strict=True):
                dead = torch.from_numpy(~alive)[None, :, None]
                poison = partial(lambda dead, module, args, output: torch.where(dead, 1e3, output), dead)
                stack.enter_context(layer.register_forward_hook(poison))
            found, _ = masked_logits(vlm, inputs, hooks)
        assert bool((found - wanted).abs().max() < 1e-9) == same


def test_multiplications_are_counted_with_edges_to_later_positions(vlm, inputs):
    config, n, edges = vlm.hf.get_decoder().config, inputs.n, len(open_edges(inputs))
    width, heads, dim = config.hidden_size, config.num_attention_heads, config.head_dim
    row = width * (2 * heads * dim + 3 * config.intermediate_size)
    key_row, edge = width * 2 * config.num_key_value_heads * dim, 2 * heads * dim
    unneeded = (n - 1) * row + edge * (edges - n)  # in the last layer only the last row is needed
    everything = [np.zeros((n, n), bool)] * DEPTH
    wanted = 1 - unneeded / (DEPTH * (n * (row + key_row) + edge * edges))
    assert pathways.flops_kept(vlm, everything, inputs.roles.readable) == pytest.approx(wanted)


@torch.no_grad()
def test_a_frame_feels_no_other_once_all_its_ways_are_cut(vlm, inputs):
    """Cross-frame alone leaves the marks around frames, which read all of them: a way that has its own name."""
    roles = inputs.roles
    changed = inputs.embeds.clone()
    changed[:, roles.positions(f"frame {FRAMES}")] *= -1
    own = len(roles.positions("frame 1"))
    felt = {}
    for names in (("cross-frame",), ("cross-frame", "frame_text->video")):
        mask = torch.from_numpy(np.any([blocked_edges(name, roles) for name in names], axis=0))[None, None]
        with attention_mask_hooks(vlm, dict.fromkeys((1, 2, 3), mask)):
            one, two = (clean_pass(vlm, x).video[:, :own] for x in (inputs, replace(inputs, embeds=changed)))
        felt[names[-1]] = float((one - two).abs().max())
    assert felt["cross-frame"] > 1e-4 and felt["frame_text->video"] == 0
