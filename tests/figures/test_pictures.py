"""Pictures of an example, and of the flow in a results folder."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import planted
import pytest

from analysis_lib import figures, findings
from analysis_lib.errors import StudyError
from analysis_lib.study.examples import Example

FRAMES = np.zeros((2, 4, 4, 3), np.uint8)
KINDS = {"red": "spatial", "grows": "temporal", "shrinks": "temporal"}
EXAMPLE = Example(
    task="t", sample_id="t/0", question="What does the red one do?", options=("It grows.", "It shrinks."), answer="B",
    prediction="B", kinds=KINDS, tokens=(" grows",), frames=FRAMES, words=np.full((6, 2, 1, 1), "the", object),
    attention=np.full((4, 1, 2, 2, 2), 0.1, np.float16), attention_cut=np.full((4, 1, 2, 2, 2), 0.05, np.float16),
)  # fmt: skip


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_words_prefer_keywords():
    words = EXAMPLE.words.copy()
    words[0] = " red"
    fig, _ = figures.words_on_frames(replace(EXAMPLE, words=words))
    assert [ax.texts[0].get_text() for ax in fig.axes] == ["red"] * 2 + ["the"] * 4


def test_the_table_of_words_holds_every_word():
    words = np.array([[[["red", "up"]]], [[["the", "red"]]], [[["the", "the"]]]])
    _, table = figures.words_on_frames(replace(EXAMPLE, words=words, frames=FRAMES[:1]))
    assert len(table) == 6 and list(table.kind) == ["spatial", "", "", "spatial", "", ""]


def test_attention_maps_share_a_scale():
    fig, table = figures.attention(EXAMPLE, "grows")
    tops = {round(float(image.norm.vmax), 3) for ax in fig.axes for image in ax.images[1:]}
    assert tops == {0.1} and "“grows”" in fig.get_suptitle()
    assert len(table) == 2 * 4 * 2 and np.allclose(table.attention, np.repeat([0.4, 0.2], 8), atol=1e-3)


def test_the_word_to_follow_is_temporal_if_there_is_one():
    assert figures.query_word(EXAMPLE) == "grows"
    assert figures.query_word(replace(EXAMPLE, question="Which way is it?", options=(), kinds={})) == "Which"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stored results of a model, with one example."""
    folder, rng = tmp_path_factory.mktemp("tiny") / "embedded-k3-center", np.random.default_rng(0)
    base = planted.baseline(rng, n=8, accuracy=0.9)
    planted.store(folder, baseline=base, knockout=planted.knockout(rng, base), emergence=planted.emergence(rng, base))
    return folder


def test_flow_needs_examples(folder):
    with pytest.raises(StudyError, match="lacks knockouts, emergence or examples"):
        figures.flow(folder, {claim.name: claim for claim in findings.stored_claims(folder)}, "tiny")


def test_flow_shows_the_verdicts(folder, monkeypatch):
    (folder / "examples").mkdir()
    (folder / "examples" / "t-0.npz").touch()
    monkeypatch.setattr("analysis_lib.study.examples.read", lambda file: EXAMPLE)
    claims = {claim.name: claim for claim in findings.stored_claims(folder)}
    fig, table = figures.flow(folder, claims, "tiny")
    assert table.groupby("series").layer.count().eq(12).all() and table["mean"].max() > 30
    for ax, step in zip(fig.axes[1::2], figures.STEPS, strict=True):
        assert claims[step].verdict in ax.get_title(loc="left")
    assert "frames → later frames" in fig.axes[0].texts[0].get_text()
    both = {"settings": {"frames_read": "both ways"}}
    monkeypatch.setattr("analysis_lib.figures.pictures.read_manifest", lambda folder: both)
    fig, _ = figures.flow(folder, claims, "tiny")
    assert "frames → other frames" in fig.axes[0].texts[0].get_text()
    assert type(fig.axes[0].texts[1].arrow_patch.get_arrowstyle()).__name__ == "CurveFilledAB"  # an arrow to each side


def test_trainings_lie_over_each_other_and_say_which_verdicts_change(folder):
    claims = {claim.name: claim for claim in findings.stored_claims(folder)}
    step = next(iter(figures.STEPS))
    turned = claims | {step: replace(claims[step], verdict="undecided")}
    assert claims[step].verdict != "undecided"
    fig, table = figures.trainings({"tiny": folder, "tiny-seed1": folder}, {"tiny": claims, "tiny-seed1": turned})
    assert fig.legends[0].get_title().get_text().startswith("Trained again, tiny gets another verdict on 1 of 4 steps")
    assert f"{claims[step].verdict}, then undecided" in fig.axes[0].get_title(loc="left")
    assert table.groupby(["training", "series"]).layer.count().eq(12).all() and table["training"].nunique() == 2
