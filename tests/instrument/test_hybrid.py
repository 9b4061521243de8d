"""A hybrid with planted flow: only one layer moves information, so cuts must matter there, and nowhere else."""

import numpy as np
import pytest
import torch
from tiny_families import SAMPLE, some_frames

from analysis_lib.instrument.edges import Window, blocked_edges
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.passes import clean_pass
from analysis_lib.instrument.pathways import flops_kept, run_pathways
from analysis_lib.models.decoder import attention_of, decoder_layers, mixer_of
from analysis_lib.models.merging import make_inputs


def planted(vlm, layer):
    """The model in which every layer but one moves nothing."""
    for number, module in enumerate(decoder_layers(vlm), start=1):
        attention, mixer = attention_of(module), mixer_of(module)
        if number != layer:
            (attention.o_proj if mixer is None else mixer.out_proj).weight.zero_()
        elif mixer is not None:
            mixer.A_log.fill_(-6)  # a memory that is longer than the prompt
    return vlm


def effects(vlm, inputs, name, mode):
    """The largest change of a logit by cutting the edge set in each layer alone."""
    blocked = blocked_edges(name, inputs.roles)
    conditions = [Condition(name, Window(layer, layer, layer, (layer,)), blocked) for layer in (1, 2, 3)]
    logits, _ = knockout_logits(vlm, inputs, conditions, mode=mode)
    return (logits - clean_pass(vlm, inputs).logits).abs().amax(1)


@pytest.mark.parametrize("layer", [1, 2, 3])  # a recurrence, softmax attention, a recurrence
@pytest.mark.parametrize("mode", ["exact", "full"])
@torch.no_grad()
def test_cuts_matter_where_information_moves_and_only_there(checkpoint, layer, mode):
    vlm = planted(checkpoint("qwen3_5"), layer)
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    for name in ("video->last", "question->last", "text->last"):
        found = effects(vlm, inputs, name, mode)
        others = [i for i in range(3) if i != layer - 1]
        assert found[layer - 1] > 1e-4 > 1e-5 > found[others].max(), (name, found)


@pytest.mark.parametrize("layer", [1, 2, 3])
@torch.no_grad()
def test_a_cut_hides_from_the_answer_exactly_what_it_names(checkpoint, layer):
    """With the video cut from the last position where information moves, another video changes nothing; uncut, it
    does. Frames 2 and later alone hide themselves, and not the first."""
    vlm = planted(checkpoint("qwen3_5"), layer)
    one, other = (make_inputs(vlm, SAMPLE, some_frames(seed)) for seed in (0, 1))
    assert (clean_pass(vlm, one).logits - clean_pass(vlm, other).logits).abs().max() > 1e-4
    where = Window(layer, layer, layer, (layer,))
    for name, hidden in (("video->last", True), ("frame 2->last", False)):
        found = [
            knockout_logits(vlm, x, [Condition(name, where, blocked_edges(name, x.roles))])[0] for x in (one, other)
        ]
        gap = (found[0] - found[1]).abs().max()
        assert gap < 1e-5 if hidden else gap > 1e-4


@torch.no_grad()
def test_pathways_run_through_both_kinds_of_layers(checkpoint):
    """Any masks, also those in which each row has sources of its own."""
    vlm = checkpoint("qwen3_5")
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    n, rng = inputs.n, np.random.default_rng(0)
    masks = {"none": [np.zeros((n, n), bool)] * 3, "random": [np.tril(rng.random((n, n)) < 0.2, -1) for _ in range(3)]}
    logits, receipt = run_pathways(vlm, inputs, masks)
    assert torch.allclose(logits["none"], clean_pass(vlm, inputs).logits, atol=1e-5)
    assert (logits["random"] - logits["none"]).abs().max() > 1e-3 and receipt.fired == receipt.expected == 6
    diagonal, readable = [np.tril(np.ones((n, n), bool), -1)] * 3, inputs.roles.readable
    assert 1 > flops_kept(vlm, masks["none"], readable) > flops_kept(vlm, diagonal, readable) > 0
