"""What the published code computes on a tiny checkpoint in its own format, reproduced from the folder alone.

Ids, spans, windows and edge counts must be equal, probabilities agree to 1e-4 (float32 sums in another order).
"""

import numpy as np
import pytest
import torch

from analysis_lib.instrument import pathways
from analysis_lib.instrument.edges import EDGE_SETS, blocked_edges, windows
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.lens import answer_emergence
from analysis_lib.instrument.passes import clean_pass
from analysis_lib.models.decoder import final_norm
from analysis_lib.models.merging import make_inputs

TOLERANCE = 1e-4
PUBLISHED_NAMES = dict(
    zip(
        (
            "No cross-frame interactions",
            "Video -/-> Question",
            "Video -/-> Last",
            "Question -/-> Last",
            "Last -/-> Last",
            "Non-option question -/-> Last",
            "True option -/-> Last",
            "False option -/-> Last",
            "Video -/-> Non-option question",
            "Non-option question -/-> True option",
            "Video -/-> True option",
        ),
        EDGE_SETS,
        strict=True,
    )
)


@pytest.fixture(scope="module", params=range(3))
def case(request, golden, tiny_vlm, tiny_frames, make_sample):
    """One golden sample: what is expected, our inputs, our clean pass."""
    expected = golden["samples"][request.param]
    answer = expected["candidates"].index(expected["answer"])
    inputs = make_inputs(tiny_vlm, make_sample(expected["question"], expected["candidates"], answer), tiny_frames)
    return expected, inputs, clean_pass(tiny_vlm, inputs)


def test_prompt_ids_and_spans(case):
    expected, inputs, _ = case
    roles, spans = inputs.roles, expected["spans"]
    assert roles.text == expected["prompt"] and inputs.input_ids == expected["input_ids"]
    assert inputs.n == expected["n_tokens"]
    unions = {
        "video": "video",
        "question": "question_block",
        "question_only": "question_only",
        "true_option": "true_option",
    }
    for theirs, ours in unions.items():
        assert roles.runs(ours) == [tuple(spans[theirs])]
    assert roles.positions("false_options").tolist() == spans["false_options"]
    assert roles.positions("last").tolist() == [spans["last"]]


def test_baseline(case):
    expected, inputs, clean = case
    probability = clean.logits.softmax(-1)
    assert int(probability.argmax()) == expected["base_answer_id"]
    assert inputs.letter_ids[inputs.roles.answer] == expected["gt_id"]
    assert float(probability.max()) == pytest.approx(expected["base_prob"], abs=TOLERANCE)
    assert np.allclose(probability[inputs.letter_ids], expected["option_probs"], atol=TOLERANCE)


def test_knockouts(case, golden, tiny_vlm):
    expected, inputs, _ = case
    blocked = {name: blocked_edges(name, inputs.roles) for name in EDGE_SETS}
    ours = windows(12, golden["window"])
    rows = [(row, PUBLISHED_NAMES[row["edge"]], ours[row["layer"]]) for row in expected["knockout"]]
    logits, receipt = knockout_logits(tiny_vlm, inputs, [Condition(name, w, blocked[name]) for _, name, w in rows])
    assert len(rows) == 132 and receipt.max_blocked_weight == 0
    for (row, _, window), probability in zip(rows, logits.softmax(-1), strict=True):
        assert [window.first - 1, window.last - 1] == row["layers"]
        assert float(probability[expected["base_answer_id"]]) == pytest.approx(row["prob"], abs=TOLERANCE)
        assert float(probability[expected["gt_id"]]) == pytest.approx(row["gt_prob"], abs=TOLERANCE)
        assert int(probability.argmax()) == row["new_answer_id"]


def test_emergence(case, tiny_vlm):
    expected, inputs, clean = case
    ours = answer_emergence(tiny_vlm, inputs, clean)["probability"].to_numpy().reshape(12, -1)
    assert np.allclose(ours, expected["emergence_option_probs"], atol=TOLERANCE)


def test_pathway(case, tiny_vlm):
    expected, inputs, _ = case
    wanted = expected["pathway"]
    ranges = pathways.pathway_ranges(12)
    assert [layer - 1 for layer in ranges.cross_frame] == wanted["cross_frame_layers"]
    assert [layer - 1 for layer in ranges.video_question] == wanted["video_to_question_layers"]
    assert [layer - 1 for layer in ranges.question_last] == wanted["question_to_last_layers"]
    masks = pathways.effective_pathway(inputs.roles, 12, ranges)
    assert pathways.edges_kept(masks, inputs.roles.readable) == (wanted["edges_kept"], wanted["edges_base"])
    probability = pathways.run_pathways(tiny_vlm, inputs, {"effective": masks})[0]["effective"].softmax(-1)
    assert float(probability[expected["base_answer_id"]]) == pytest.approx(wanted["prob"], abs=TOLERANCE)
    assert float(probability[expected["gt_id"]]) == pytest.approx(wanted["gt_prob"], abs=TOLERANCE)
    assert int(probability.argmax()) == wanted["new_answer_id"]


@torch.no_grad()
def test_lens_as_published(case, tiny_vlm):
    """Input embeddings, each layer's input, no norm, but the last layer's normed output: here only to check states."""
    expected, inputs, clean = case
    embedded = inputs.embeds[0, inputs.roles.positions("video")]
    states = torch.stack([embedded, *clean.video[:10], final_norm(tiny_vlm)(clean.video[11])])  # (L, N_v, d)
    probability, top = (states @ tiny_vlm.hf.get_input_embeddings().weight.T).softmax(-1).topk(5)
    wanted = torch.tensor([expected["lens_video_top5"][str(layer)] for layer in range(12)])
    decided = probability > 0  # where float32 underflows to 0 the order is arbitrary
    assert torch.equal(top[decided], wanted[decided]) and decided.float().mean() > 0.9
