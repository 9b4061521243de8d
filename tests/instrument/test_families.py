"""Every native video family: the exact engine equals full passes, and cuts compose with what the model does itself."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_families
import tiny_originals
import torch
from conditions import all_hooks
from tiny_families import SAMPLE, some_frames

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.instrument import passes
from analysis_lib.instrument.checks import self_test
from analysis_lib.instrument.edges import EDGE_SETS, Window, blocked_edges
from analysis_lib.instrument.exact import first_row, record
from analysis_lib.instrument.knockout import Condition, attention_layers, knockout_logits
from analysis_lib.instrument.passes import attention_mask_hooks, clean_pass, measured_attention
from analysis_lib.models import families
from analysis_lib.models.capture import decoder_call
from analysis_lib.models.decoder import check_decoder, decode, decoder_layers
from analysis_lib.models.merging import make_inputs, model_logits, own_logits

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # GLM-4V's processor

DEPTH = 3
# All layer sets that windows of any size and style have in three layers (only `inverse` has a hole).
LAYERS = [(1,), (2,), (3,), (1, 2), (2, 3), (1, 3), (1, 2, 3)]


def sweep(inputs, names=EDGE_SETS):
    blocked = {name: blocked_edges(name, inputs.roles) for name in names}
    return [Condition(name, Window(ls[0], ls[0], ls[-1], ls), blocked[name]) for name in names for ls in LAYERS]


def both_modes(vlm, inputs, conditions):
    found = [knockout_logits(vlm, inputs, conditions, mode=mode)[0] for mode in ("exact", "full")]
    assert (found[1] - clean_pass(vlm, inputs).logits).abs().max() > 0.05  # something was cut
    return found


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_exact_equals_full_for_all_edge_sets_and_windows(case, kernel, monkeypatch):
    monkeypatch.setattr(case.vlm.hf.get_decoder().config, "_attn_implementation", kernel)
    exact, full = both_modes(case.vlm, replace(case.inputs), sweep(case.inputs))  # a copy has no record yet
    assert (exact.softmax(-1) - full.softmax(-1)).abs().max() < 1e-6
    assert (exact - full).abs().max() < 1e-5


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@torch.no_grad()
def test_the_captured_call_is_the_untouched_model_bit_by_bit(case, kernel, monkeypatch):
    monkeypatch.setattr(case.vlm.hf.get_decoder().config, "_attn_implementation", kernel)
    assert "mm_encoder_outputs" in case.inputs.model_inputs  # the tower is not run again
    own = own_logits(case.vlm, case.inputs)
    nothing = torch.zeros(1, 1, case.inputs.n, case.inputs.n, dtype=torch.bool)
    with attention_mask_hooks(case.vlm, dict.fromkeys(range(1, DEPTH + 1), nothing)) as fired:
        hidden = decode(case.vlm, case.inputs)
    ours = case.vlm.hf.get_output_embeddings()(hidden[:, -len(own) :])[0]
    assert torch.equal(ours, own) and fired.total() == DEPTH


def test_the_instrument_passes_its_own_checks(case):
    table = self_test(case.vlm, case.inputs)
    assert table["passed"].all(), table[~table["passed"]].to_string()
    assert not case.inputs.roles.both_ways  # as `load_model` takes all families of the table to be


@torch.no_grad()
def test_cut_edges_have_no_weight_and_rows_renormalise(case):
    blocked = torch.from_numpy(blocked_edges("video->question", case.inputs.roles))[None, None]
    seen, clean = [], []
    with measured_attention(case.vlm, clean.append):
        decode(case.vlm, case.inputs)
    with measured_attention(case.vlm, seen.append), attention_mask_hooks(case.vlm, {2: blocked}):
        decode(case.vlm, case.inputs)
    numbers = [one.layer for one in seen]
    assert numbers == [layer for layer in (1, 2, 3) if layer in attention_layers(case.vlm)] and 2 in numbers
    cut, untouched = (found[numbers.index(2)].weights for found in (seen, clean))
    assert cut.masked_select(blocked).max() == 0 < untouched.masked_select(blocked).max()
    for one in seen:
        assert torch.allclose(one.weights.sum(-1), torch.ones(()), atol=1e-5)
        assert one.weights.triu(1).max() == 0 and one.kernel_difference < 1e-5


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_everything_is_restored_after_an_interruption(case, error, monkeypatch):
    before, logits = all_hooks(case.vlm), model_logits(case.vlm, case.inputs)

    def stop(*args, **kwargs):
        raise error

    monkeypatch.setattr(decoder_layers(case.vlm)[1].mlp, "forward", stop)
    with pytest.raises(error):
        knockout_logits(case.vlm, case.inputs, sweep(case.inputs, ("cross-frame",)))
    monkeypatch.setattr(case.vlm.hf.get_input_embeddings(), "forward", stop)
    with pytest.raises(error):
        decoder_call(case.vlm, case.inputs.model_inputs)
    monkeypatch.undo()
    assert all_hooks(case.vlm) == before and not passes._observers
    assert torch.equal(model_logits(case.vlm, case.inputs), logits)


# ---- what only some families have ----


def _norm(module, x):
    return module.weight * x * (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()


@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl"])
def test_float64_agrees_to_rounding(checkpoint, family, monkeypatch):
    """With norms written in float64: transformers' own round states to float32 on the way."""
    vlm = checkpoint(family)
    vlm.hf.double()
    vlm.dtype = torch.float64
    for module in vlm.hf.get_decoder().modules():
        if "RMSNorm" in type(module).__name__:
            monkeypatch.setattr(module, "forward", partial(_norm, module))
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    exact, full = both_modes(vlm, inputs, sweep(inputs, ("cross-frame", "video->question", "question->last")))
    assert exact.dtype == torch.float64 and (exact - full).abs().max() < 1e-12


@pytest.mark.parametrize("family", ["qwen3_vl", "glm4v"])
def test_single_heads_where_heads_share_keys(checkpoint, family):
    vlm = checkpoint(family)
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    conditions = [
        replace(one, heads=heads)
        for one in sweep(inputs, ("cross-frame", "video->last", "question->last"))
        for heads in ((2,), (1, 3))
    ]
    exact, full = both_modes(vlm, inputs, conditions)
    assert (exact - full).abs().max() < 1e-5


@torch.no_grad()
def test_layers_with_a_sliding_window_keep_it(checkpoint):
    vlm = checkpoint("llava_onevision")
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    blocked, seen = torch.from_numpy(blocked_edges("video->question", inputs.roles))[None, None], []
    masks = dict.fromkeys((1, 2, 3), blocked)
    with measured_attention(vlm, seen.append), attention_mask_hooks(vlm, masks):
        decode(vlm, inputs)
    far = [bool(one.weights[..., -1, : inputs.n - 24].max() > 0) for one in seen]
    assert inputs.n > 60 and far == [True, False, False]  # the last two layers see 24 positions


def test_features_between_layers_are_added_again(checkpoint):
    vlm = checkpoint("qwen3_vl")
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    added = [call.added for call in record(vlm, inputs)]
    rows = [None if a is None else a.abs().sum(-1)[0] > 0 for a in added]
    assert len(inputs.decoder_kwargs["deepstack_visual_embeds"]) == 2 and rows[2] is None
    assert all(np.array_equal(np.flatnonzero(found), inputs.roles.positions("video")) for found in rows[:2])


def test_a_bidirectional_block_is_never_split(checkpoint):
    """Video tokens of a frame that see each other, as some image models have it."""
    vlm = checkpoint("video_llava")
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    frame = torch.from_numpy(inputs.roles.frame_of)
    together = (frame[:, None] == frame) & (frame > 0)
    inputs.decoder_kwargs = {"attention_mask": torch.ones(inputs.n, inputs.n).tril().bool()[None, None] | together}
    middle = np.zeros((inputs.n, inputs.n), bool)
    row = int(inputs.roles.positions("frame 3")[2])
    middle[row, row - 1] = True
    assert first_row(middle, record(vlm, inputs)) == inputs.roles.positions("frame 3")[0]
    blocked = [middle, blocked_edges("cross-frame", inputs.roles), blocked_edges("video->last", inputs.roles)]
    conditions = [Condition("x", Window(ls[0], ls[0], ls[-1], ls), b) for b in blocked for ls in LAYERS]
    # The untouched model has no such block, so the receipt's no-op would differ: compare the engines alone.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis_lib.instrument.receipts.noop_difference", lambda vlm, inputs: 0.0)
        exact, full = both_modes(vlm, inputs, conditions)
    assert (exact - full).abs().max() < 1e-5


def test_a_row_without_keys_reads_nothing_or_is_refused(checkpoint, monkeypatch):
    vlm = checkpoint("glm4v")
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    blocked = np.zeros((inputs.n, inputs.n), bool)
    blocked[60, :61] = True
    condition = [Condition("row 60", Window(2, 2, 2, (2,)), blocked)]
    found = [knockout_logits(vlm, inputs, condition, mode=mode) for mode in ("exact", "full")]
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5) and found[0][1].fully_blocked_rows == 1
    seen = []
    with torch.no_grad(), measured_attention(vlm, seen.append):
        with attention_mask_hooks(vlm, {2: torch.from_numpy(blocked)[None, None]}):
            decode(vlm, inputs)
    assert seen[1].weights[..., 60, :].max() == 0 and seen[1].kernel_difference < 1e-5
    monkeypatch.setattr(vlm.hf.get_decoder().config, "_attn_implementation", "eager")
    for mode in ("exact", "full"):
        with pytest.raises(StudyError, match="left without any key.*sdpa"):
            knockout_logits(vlm, replace(inputs), condition, mode=mode)


def test_padding_of_the_prompt_stays_masked(checkpoint):
    vlm = checkpoint("internvl")
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    mask = torch.ones(1, inputs.n, dtype=torch.long)
    mask[:, :2] = 0
    inputs.decoder_kwargs = {**inputs.decoder_kwargs, "attention_mask": mask}
    inputs.model_inputs = {**inputs.model_inputs, "attention_mask": mask}
    exact, full = both_modes(vlm, inputs, sweep(inputs, ("cross-frame", "video->question", "question->last")))
    assert (exact - full).abs().max() < 1e-5


def test_two_models_at_once(checkpoint):
    one, two = checkpoint("qwen2_vl"), checkpoint("smolvlm")
    inputs = [make_inputs(vlm, SAMPLE, some_frames()) for vlm in (one, two)]
    alone = [model_logits(vlm, given) for vlm, given in zip((one, two), inputs, strict=True)]
    blocked = torch.from_numpy(blocked_edges("video->question", inputs[0].roles))[None, None]
    with attention_mask_hooks(one, dict.fromkeys((1, 2, 3), blocked)), measured_attention(one, lambda seen: None):
        assert torch.equal(model_logits(two, inputs[1]), alone[1])
        assert not torch.equal(model_logits(one, inputs[0]), alone[0])
    assert torch.equal(model_logits(one, inputs[0]), alone[0])


# ---- what is refused ----


def test_layers_that_mix_in_an_unknown_way_are_refused(checkpoint, monkeypatch):
    monkeypatch.delitem(families.MIXERS, "gated delta net")
    with pytest.raises(StudyError, match="layers 1, 3 move information by Qwen3_5GatedDeltaNet, which is neither"):
        checkpoint("qwen3_5")


def test_a_cut_that_a_recurrence_gets_around_is_found_out(checkpoint, monkeypatch):
    """A gate that is left in place tells later positions what its source says."""
    vlm = checkpoint("qwen3_5")
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    mixer = families.MIXERS["gated delta net"]
    parts = {name: part for name, part in mixer.parts.items() if name != "in_proj_a"}
    monkeypatch.setitem(families.MIXERS, "gated delta net", replace(mixer, parts=parts))
    for mode in ("exact", "full"):
        with pytest.raises(StudyError, match="a cut edge still has weight"):
            knockout_logits(vlm, inputs, sweep(inputs, ("video->question",))[:1], mode=mode)


def test_single_heads_are_cut_where_there_are_heads(checkpoint):
    vlm = checkpoint("qwen3_5")
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    first, second = (replace(one, heads=(2,)) for one in sweep(inputs, ("video->last",))[:2])
    exact, full = (knockout_logits(vlm, inputs, [second], mode=mode)[0] for mode in ("exact", "full"))
    assert attention_layers(vlm) == (2,) and (exact - full).abs().max() < 1e-5
    with pytest.raises(StudyError, match="layers 1 have no query heads"):
        knockout_logits(vlm, inputs, [first])


def test_kernels_without_masks_and_unreachable_decoders_are_refused(checkpoint, monkeypatch):
    vlm = checkpoint("qwen2_vl")
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    monkeypatch.setattr(vlm.hf.get_decoder().config, "_attn_implementation", "flash_attention_2")
    with pytest.raises(StudyError, match="'flash_attention_2' takes no mask"):
        knockout_logits(vlm, inputs, sweep(inputs, ("video->last",)), mode="full")
    with pytest.raises(StudyError, match="cannot be reached"):
        check_decoder(SimpleNamespace(get_decoder=lambda: torch.nn.Linear(2, 2), config=vlm.hf.config))


def test_the_table_in_the_docs_has_every_family_without_a_failure():
    lines = (paths.ROOT / "docs" / "families.md").read_text().partition("\n## Every architecture")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == [
        *tiny_originals.PUBLISHED,
        *tiny_families.FAMILIES,
    ]
    assert all(row[5] == "15 of 15" and row[9] == "6 of 6" for row in rows)
    assert all(float(row[7]) <= max(2e-6, 2 * float(row[8])) for row in rows)  # *last digit*: what rounding alone does
