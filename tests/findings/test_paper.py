"""Each finding on tables with a planted answer: the paper's own numbers, its opposite, and nothing at all."""

import numpy as np
import pandas as pd
import planted
import pytest

from analysis_lib import findings
from analysis_lib.errors import StudyError
from analysis_lib.findings import published as published_numbers
from analysis_lib.instrument.pathways import PUBLISHED

# the paper's models, and what they are called in `pathways.PUBLISHED`
MODELS = {"LLaVA-NeXT-7B-Video-FT": "llava", "LLaVA-NeXT-13B-Video-FT": "llava",
          "Mini-InternVL-4B-Video-FT": "internvl", "VideoLLaMA3-7B": "video_llama_3"}  # fmt: skip
TABLE_E = {(MODELS[name], row[0]): row[1:] for name, row in published_numbers.TABLE_E.items()}
ROUTES = ("cross-frame", "video->question", "question->last")


@pytest.fixture(scope="module")
def base():
    return planted.baseline(np.random.default_rng(0), n=16)


@pytest.fixture(scope="module")
def knock(base):
    return planted.knockout(np.random.default_rng(1), base)


def published(base, model):
    return planted.from_bins(base, model[1], dict(zip(ROUTES, TABLE_E[model], strict=True)))


@pytest.mark.parametrize("model", TABLE_E)
def test_the_papers_own_table_is_reproduced(base, model):
    table = published(base, model)
    found = [findings.cross_frame_early(table, base), findings.integration_in_the_middle(table, base),
             findings.integration_before_answer(table, base)]  # fmt: skip
    assert [claim.verdict for claim in found] == ["reproduced"] * 3


@pytest.mark.parametrize("model", TABLE_E)
def test_the_rule_gives_the_papers_ranges(base, model):
    one = base[base.correct].iloc[:1]
    columns = {"layer": range(1, model[1] + 1), "task": one.task.iloc[0], "sample_id": one.sample_id.iloc[0]}
    table = pd.concat(
        pd.DataFrame({**columns, "edge_set": route, "relative_change": np.repeat(bins, 5)[: model[1]]})
        for route, bins in zip(ROUTES, TABLE_E[model], strict=True)
    )
    assert findings.effective_ranges(table, one) == PUBLISHED[model]


def test_a_small_model_has_bins_of_two_layers_and_silence_keeps_one_bin(base, knock):
    ranges = findings.effective_ranges(knock, base)
    assert all(first % 2 == 1 and last % 2 == 0 for first, last in ranges.values())
    silent = knock.assign(relative_change=0.0)
    assert set(findings.effective_ranges(silent, base).values()) == {(1, 2)}  # something stays open


KNOCKOUT_CLAIMS = (findings.cross_frame_early, findings.integration_in_the_middle, findings.integration_before_answer,
                   findings.true_option_dominates)  # fmt: skip


@pytest.mark.parametrize("claim", KNOCKOUT_CLAIMS)
def test_planted_knockouts_are_found(base, knock, claim):
    assert claim(knock, base).verdict == "reproduced"


@pytest.mark.parametrize("claim", KNOCKOUT_CLAIMS)
def test_no_effect_is_not_reproduced(base, knock, claim):
    assert claim(knock.assign(relative_change=0.0), base).verdict == "not reproduced"


@pytest.mark.parametrize("claim", [findings.cross_frame_early, findings.integration_before_answer])
def test_the_opposite_order_is_not_reproduced(base, knock, claim):
    assert claim(knock.assign(layer=13 - knock.layer), base).verdict == "not reproduced"


def test_video_training_compares_the_same_samples(base, knock):
    image = planted.knockout(np.random.default_rng(2), base.iloc[::2], ["cross-frame"], scale=0.05)
    found = findings.video_training(knock, image, base)
    assert found.verdict == "reproduced" and found.n <= len(base) / 2
    assert findings.video_training(knock, knock, base).verdict == "not reproduced"
    with pytest.raises(StudyError, match="no rows"):
        findings.video_training(knock, image.assign(task="another"), base)


def halves(rng, base):
    up = planted.knockout(rng, base, ["cross-frame"], first_last=lambda layer: (1, layer))
    down = planted.knockout(rng, base, ["cross-frame"], first_last=lambda layer: (layer, 12))
    up.loc[up.last_layer == 6, "prediction"] = "X"
    down.loc[down.first_layer == 7, "prediction"] = (
        base.set_index("sample_id").prediction.loc[down.sample_id[down.first_layer == 7]].to_numpy()
    )
    return up, down


def test_accuracy_of_the_two_halves(base):
    up, down = halves(np.random.default_rng(3), base)
    found = findings.early_half_accuracy(up, down, base)
    assert (found.effect, found.verdict) == (
        100.0,
        "reproduced",
    ) and found.low < 100  # all lost against none lost, and yet not certain


def test_lost_answers_of_each_half(base):
    table = findings.lost_answers(*halves(np.random.default_rng(3), base), base)
    assert set(table.index.get_level_values("layers")) == {"1 to 6", "7 to 12"}
    assert (table.xs("1 to 6", level="layers")["mean"] == 100).all()
    assert (table.xs("7 to 12", level="layers")["mean"] == 0).all()
    assert (table["high"] > 0).all()  # never seen in a few videos is not never


def test_answer_emerges_late_and_after_integration(base, knock):
    late, early = (planted.emergence(np.random.default_rng(4), base, place=place) for place in (0.7, 0.2))
    assert findings.answer_in_second_half(late, base).effect == pytest.approx(0.2, abs=0.02)
    assert findings.answer_in_second_half(early, base).verdict == "not reproduced"
    assert findings.answer_after_integration(late, knock, base).verdict == "reproduced"
    assert findings.answer_after_integration(early, knock, base).verdict == "not reproduced"


def test_temporal_words(base):
    table = planted.lens(np.random.default_rng(5), base)
    assert findings.temporal_words_later(table, base).verdict == "reproduced"
    swapped = table.assign(kind=table.kind.map({"spatial": "temporal", "temporal": "spatial"}))
    assert findings.temporal_words_later(swapped, base).verdict == "not reproduced"
    silent = table.assign(count=table["count"] * (table.kind == "spatial"))
    found = findings.temporal_words_later(silent, base)
    assert (found.verdict, found.number) == ("not reproduced", "no effect to locate")


def test_pathways(base):
    table = planted.pathway(np.random.default_rng(6), base)
    all_three = (findings.pathway_keeps_accuracy, findings.pathway_beats_random, findings.most_edges_closed)
    assert [claim(table, base).verdict for claim in all_three] == ["reproduced"] * 3
    bad = planted.pathway(np.random.default_rng(6), base, kept=0.9, accuracy={"effective": 0.5, "random": 0.5})
    assert "reproduced" not in [claim(bad, base).verdict for claim in all_three]


def test_a_pathway_that_changes_nothing_is_bounded_by_the_number_of_videos(base):
    table = planted.pathway(np.random.default_rng(6), base.iloc[:20], accuracy={"effective": 0.0})
    assert findings.pathway_keeps_accuracy(table, base.iloc[:20]).verdict == "undecided"


def test_at_chance_there_is_no_accuracy_to_keep():
    guess = planted.baseline(np.random.default_rng(0), n=16, accuracy=0.35)
    table = planted.pathway(np.random.default_rng(6), guess, accuracy={"effective": 0.0})
    found = findings.pathway_keeps_accuracy(table, guess)
    assert found.verdict == "undecided" and "not above chance" in found.reason


def test_above_chance_and_time(base):
    rng = np.random.default_rng(7)
    assert findings.above_chance(base).verdict == "reproduced"
    assert findings.temporal_evidence(planted.controls(rng, base), base).verdict == "reproduced"
    cheat = planted.controls(rng, base).merge(base[["sample_id", "correct"]], on="sample_id", suffixes=("_x", ""))
    assert findings.temporal_evidence(cheat.drop(columns="correct_x"), base).verdict == "not reproduced"


def test_missing_measurements_are_named(base, knock):
    with pytest.raises(StudyError, match="no knockout of video->question"):
        findings.integration_in_the_middle(knock[knock.edge_set == "cross-frame"], base)
