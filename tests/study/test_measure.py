"""The rows of a sample: one for each condition, and their values agree with each other and with the published code."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from clips import item, write_task
from conftest import GOLDEN
from sweeps import sweep

from analysis_lib.embedded import quiz
from analysis_lib.errors import StudyError
from analysis_lib.study import measure, runs


def test_one_row_for_each_condition(full):
    assert len(full.baseline) == 4 and full.skipped.empty
    counts = full.knockout.frame().groupby(["sample_id", "edge_set"])["layer"].apply(list)
    assert len(counts) == 8 and all(layers == list(range(1, 13)) for layers in counts)
    assert full.emergence.frame().groupby("sample_id").size().to_dict() == {
        row.sample_id: 12 * len(row.options) for row in full.baseline.itertuples()
    }
    assert {"effective", "random"} <= set(full.pathway["pathway"])


def test_values_agree_with_each_other(full):
    base = full.baseline.set_index("sample_id")
    assert not base["correct"].any() and (base["p_options"].map(len) == base["options"].map(len)).all()
    assert [row.p_options[ord(row.answer) - 65] for row in base.itertuples()] == pytest.approx(base["p_answer"])
    rows = full.knockout
    assert (rows["p_base"].to_numpy() == base.loc[rows["sample_id"], "p_base"].to_numpy()).all()
    assert np.allclose(rows["relative_change"], 100 * (rows["p_knock"] / rows["p_base"] - 1))
    last = full.emergence[(full.emergence["layer"] == 12) & full.emergence["is_answer"]].set_index("sample_id")
    assert last["probability"].to_dict() == pytest.approx(base["p_answer"].to_dict(), abs=1e-6)


def test_published_numbers_come_out_of_a_sweep(golden, tmp_path):
    """The golden clip as a folder of frames, its questions as a benchmark, the command's own road."""
    clip = tmp_path / "video" / "t" / "clip"
    clip.mkdir(parents=True)
    for picture in GOLDEN.glob("frame_*.png"):
        shutil.copy(picture, clip)
    asked = [item("clip", s["question"], s["candidates"], s["answer"]) for s in golden["samples"]]
    write_task(tmp_path, "t", asked)
    found = sweep(tmp_path, tmp_path / "out", edges="all", window=golden["window"], measure="knockout")
    for number, expected in enumerate(golden["samples"]):
        name = f"t/{number:04d}"
        base = found.baseline.set_index("sample_id").loc[name]
        assert base["p_base"] == pytest.approx(expected["base_prob"], abs=1e-4)
        assert base["p_options"] == pytest.approx(expected["option_probs"], abs=1e-4)
        assert base["frame_indices"].tolist() == list(range(8))
        rows = found.knockout[found.knockout["sample_id"] == name]
        assert len(rows) == len(expected["knockout"]) == 11 * 12


def test_pathways_with_given_layers_stand_beside_the_published(root, copy):
    spans = {"cross_frame": (1, 4), "video_question": (2, 8), "question_last": (5, 12)}
    found = sweep(root, copy, samples=1, measure="pathway", ranges=spans)
    assert set(found.pathway["ranges"]) == {"cross_frame 1-4 question_last 5-12 video_question 2-8"}
    assert set(sweep(root, copy, samples=1, measure="pathway").pathway["ranges"]) == {"published"}


def test_controls_answer_without_evidence_in_time(root, copy):
    found = sweep(root, copy, measure="controls").controls
    assert set(found["control"]) == {"text only", "single frame", "shuffled frames"} and len(found) == 12
    wide = found.pivot(index="sample_id", columns="control", values="margin")
    assert (wide.nunique(axis=1) == 3).all()


class Words:
    """A tokenizer that knows some words, and takes others for unknown ones."""

    unk_token_id = 0

    def __init__(self, known):
        self.ids = {word: i for i, word in enumerate(known, start=1)}

    def __call__(self, text):
        return {"input_ids": [self.ids.get(word, 0) for word in text.split()]}


def test_keywords():
    more = {word for words in quiz.NATURAL.values() for word in words}
    small, large = (SimpleNamespace(tokenizer=Words(known)) for known in (["moving"], sorted(more)))
    published = measure.keywords("tvbench:x", large)
    assert {kind: len(words) for kind, words in published.items()} == {"spatial": 19, "temporal": 13}
    own, natural = measure.keywords("embedded", small), measure.keywords("embedded", large)
    assert own == quiz.KEYWORDS and set(natural) == {"spatial", "temporal"}
    assert more | {word for words in own.values() for word in words} == {w for words in natural.values() for w in words}
    assert not {*natural["spatial"]} & {*natural["temporal"]}


def test_ranges_that_leave_the_model_are_refused_before_it_is_loaded(root, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_load", lambda *_: pytest.fail("a model was loaded"))
    spans = {"cross_frame": (1, 4), "question_last": (5, 13), "video_question": (2, 8)}
    with pytest.raises(StudyError, match="question_last=.* must be .* within 1 to 12"):
        sweep(root, tmp_path, measure="pathway", ranges=spans)
