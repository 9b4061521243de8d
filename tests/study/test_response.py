"""Knockouts on a model's own answer: it is what the model says, verbs are found in it, and roles say who spoke."""

from dataclasses import replace

import census
import census_table
import numpy as np
import pytest
import tiny_families
import torch
from published import write_vcgbench

from analysis_lib.errors import StudyError
from analysis_lib.instrument.edges import blocked_edges, windows
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.receipts import noop_difference
from analysis_lib.models.loading import load_checkpoint
from analysis_lib.models.merging import make_inputs, model_logits
from analysis_lib.study import response, runs
from analysis_lib.study.response import continued, generate, verb_tokens

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # GLM-4V's processor


class Pieces:
    """A tokenizer whose tokens are given pieces of text."""

    def __init__(self, text):
        self.pieces = text.split("|")

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)


@pytest.mark.parametrize(
    ("text", "verbs"),
    [
        ("The| man| opens| the| door|,| walks| in|,| and| sits| down|.", ["opens", "walks", "sits"]),
        ("The| man| is| put|ti|ng| a| bag", ["put"]),  # helping verbs do not count, nor do later pieces
        ("She| has| left| and| has| a| bag", ["left", "has"]),
        ("A| red| ball", []),
    ],
)
def test_verbs_are_found_at_their_first_token(text, verbs):
    tokenizer = Pieces(text)
    found = verb_tokens(tokenizer, range(len(tokenizer.pieces)))
    assert [tokenizer.pieces[i].strip() for i in found] == verbs


def test_no_answer_has_no_verbs():
    assert verb_tokens(Pieces("x"), []) == []


def test_the_answer_is_what_complete_passes_say(tiny_vlm, tiny_inputs):
    said = generate(tiny_vlm, tiny_inputs, longest=6)
    for at, token in enumerate(said[1:], start=1):
        assert int(model_logits(tiny_vlm, continued(tiny_vlm, tiny_inputs, said[:at])).argmax()) == token


def test_every_family_goes_on_after_its_prompt(case):
    said = generate(case.vlm, case.inputs, longest=4)
    longer = continued(case.vlm, case.inputs, said[:3])
    assert int(model_logits(case.vlm, longer).argmax()) == said[3]
    assert noop_difference(case.vlm, longer) == 0 and longer.n == case.inputs.n + 3 == len(longer.roles.spans)
    assert longer.roles.names[-4:] == ("tail", "response", "response", "last")


@pytest.mark.parametrize("kind", ["molmo2", "gemma3", "gemma4"])
def test_masks_that_the_model_made_for_the_prompt_are_made_anew(kind, tmp_path):
    vlm = load_checkpoint(str(census.build(kind, tmp_path / kind)), device="cpu")
    vlm.num_frames = 4
    inputs = make_inputs(vlm, tiny_families.SAMPLE, census_table.frames(4))
    said = generate(vlm, inputs, longest=3)
    longer, video = continued(vlm, inputs, said[:2]), inputs.roles.frame_of > 0
    assert int(model_logits(vlm, longer).argmax()) == said[2] and noop_difference(vlm, longer) == 0
    ahead, before = (blocked_edges("video->video", one.roles) for one in (longer, inputs))
    assert np.array_equal(ahead[:-2, :-2], before) and not ahead[-2:].any()
    assert np.triu(before, 1).any() == (kind != "gemma4") and before[video].any()
    conditions = [Condition("x", window, ahead) for window in windows(3, 1)[:2]]
    exact, full = (knockout_logits(vlm, longer, conditions, mode=mode)[0] for mode in ("exact", "full"))
    assert (exact - full).abs().max() < 1e-4


def test_an_unknown_argument_per_position_is_refused(tiny_vlm, tiny_inputs):
    odd = replace(tiny_inputs, decoder_kwargs={"shades": torch.zeros(1, tiny_inputs.n)})
    with pytest.raises(StudyError, match="how 'shades' goes on"):
        continued(tiny_vlm, odd, [3, 4])


def test_an_answer_ends_where_the_model_ends_it(tiny_vlm, tiny_inputs, monkeypatch):
    first, *_ = generate(tiny_vlm, tiny_inputs, longest=3)
    monkeypatch.setattr(tiny_vlm.hf.generation_config, "eos_token_id", [first, 1])
    assert generate(tiny_vlm, tiny_inputs, longest=3) == []


@pytest.fixture
def vcgbench(tmp_path):
    """The folder of a benchmark with open-ended questions, as `sweep` takes it."""
    return f"vcgbench:{write_vcgbench(tmp_path / 'vcg')}"


@pytest.mark.slow
def test_a_sweep_follows_the_verbs_of_the_answer(vcgbench, tiny_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(response, "verb_tokens", lambda tokenizer, said: [0, 2, 3, 5, 7])
    monkeypatch.setattr(response, "LONGEST", 8)
    run = dict(model=str(tiny_model_dir), benchmark=vcgbench, tasks="temporal", out=tmp_path / "out", device="cpu")
    found = runs.sweep(measure=["response"], **run)
    rows = found.response
    assert set(rows["edge_set"]) == set(response.EDGE_SETS) and len(rows) == 3 * 5 * 12
    assert rows["anchor"].unique().tolist() == [1, 2, 3] and rows["p_base"].between(0, 1).all()
    assert (rows["relative_change"] != 0).any() and not found.skipped.size
    assert len(runs.sweep(measure=["response"], compute=False, **run).response) == len(rows)
