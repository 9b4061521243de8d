"""A model is tried in one command: checks, costs, and what comes next."""

import json

import pytest
import torch

from analysis_lib.__main__ import main
from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Clip
from analysis_lib.instrument import checks
from analysis_lib.instrument import trial as trials
from analysis_lib.instrument.trial import report, trial
from analysis_lib.models import merging


@pytest.fixture(scope="module")
def hybrid(checkpoint):
    return checkpoint("qwen3_5").hf.name_or_path


def test_a_trial_says_what_a_study_needs_to_know(hybrid, capsys):
    assert main(["check", hybrid, "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] and found["layers"] == 3 and found["layers_with_softmax_attention"] == 1
    assert len(found["checks"]) == 20 and found["tokens"] > found["video_tokens"] > 0
    assert found["seconds_a_sample"] > 0 and found["forecast"]["hours"] == pytest.approx(
        found["forecast"]["questions"] * found["seconds_a_sample"] / 3600
    )
    page = report(found)
    assert "2 of them recurrent" in page and found["next"] in page and "FAIL" not in page


def test_a_model_that_does_not_fit_ends_with_2_and_no_next_step(hybrid, monkeypatch, capsys):
    monkeypatch.setattr(checks, "_around_all_cuts", lambda vlm, inputs: 0.5)
    assert main(["check", hybrid, "--device", "cpu"]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "FAIL change of the last logits by others when all edges are cut 0.5" in said and "sweep" not in said


def test_an_exact_mode_that_differs_from_full_is_seen(hybrid, monkeypatch, capsys):
    real = trials.knockout_logits

    def off(vlm, inputs, conditions, mode="exact"):
        logits, receipt = real(vlm, inputs, conditions, mode=mode)
        return logits + (1 if mode == "exact" else 0), receipt

    monkeypatch.setattr(trials, "knockout_logits", off)  # by far more than rounding
    assert main(["check", hybrid, "--device", "cpu"]) == 2
    assert "FAIL exact against full, over all edge sets" in capsys.readouterr().out


def test_frames_that_are_not_where_they_are_thought_are_seen(checkpoint, monkeypatch):
    """Tokens assigned to the wrong frames: the last frame's to the first."""
    vlm, real = checkpoint("internvl"), merging.make_native_inputs
    assert checks.door_test(vlm)["passed"].all()

    def turned(vlm, sample, clip):
        inputs = real(vlm, sample, clip)
        last = max(inputs.roles.frame_of)
        names = [f"frame {last + 1 - int(n[6:])}" if n.startswith("frame ") else n for n in inputs.roles.names]
        inputs.roles = type(inputs.roles)(tuple(names), *list(vars(inputs.roles).values())[1:5])
        return inputs

    monkeypatch.setattr(merging, "make_native_inputs", turned)
    table = checks.door_test(vlm).set_index("check")
    assert table.loc["blanked frames that move other tokens more than theirs", "value"] == 2


def test_information_that_moves_around_all_cuts_is_seen(checkpoint, monkeypatch):
    """A layer's feed-forward that also reads the position before."""
    vlm = checkpoint("internvl")
    inputs = merging.make_inputs(vlm, *checks.made_up_clip(vlm))
    assert checks._around_all_cuts(vlm, inputs) == 0
    mlp = vlm.hf.get_decoder().layers[1].mlp
    own = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda x: own(x + x.roll(1, 1)))
    assert checks._around_all_cuts(vlm, inputs) > 0.01


def test_an_unknown_model_is_one_line():
    with pytest.raises(StudyError, match="unknown model 'nowhere'"):
        trial("nowhere")


def test_frames_that_read_later_frames_are_seen(checkpoint):
    """A decoder that lets every video token read every other one."""
    vlm, real = checkpoint("video_llava"), merging.make_native_inputs
    assert checks.door_test(vlm)["passed"].all()

    def both_ways(vlm, sample, clip):
        inputs = real(vlm, sample, clip)
        video = torch.from_numpy(inputs.roles.frame_of > 0)
        seen = torch.ones(inputs.n, inputs.n).tril().bool() | (video[:, None] & video)
        inputs.decoder_kwargs = {"attention_mask": seen[None, None]}
        return inputs

    inputs = both_ways(vlm, *_with_clip(vlm))
    assert checks._by_later_frames(vlm, inputs) > 0.01 > checks._by_later_frames(vlm, real(vlm, *_with_clip(vlm)))


def _with_clip(vlm):
    question, frames = checks.made_up_clip(vlm)
    count = range(len(frames))
    return question, Clip(frames, tuple(count), tuple(map(float, count)), "")
