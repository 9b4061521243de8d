"""The room `findings`: stored tables come in, verdicts and intervals over videos go out."""

import numpy as np
import planted
import pytest

from analysis_lib import findings


@pytest.fixture(scope="module")
def baseline():
    return planted.baseline(np.random.default_rng(0), n=12)


@pytest.fixture(scope="module")
def knockout(baseline):
    return planted.knockout(np.random.default_rng(1), baseline, ["cross-frame", "video->question", "question->last"])


def test_tables_become_a_claim(baseline, knockout):
    claim = findings.cross_frame_early(knockout, baseline)
    assert claim.verdict == "reproduced" and claim.threshold < claim.low < claim.effect < claim.high
    assert claim.title == "Frames exchange information in the first half of the layers"
    assert claim.n == baseline["correct"].sum()  # right answers alone, as in the paper


def test_claims_become_a_table_in_which_p_is_corrected(baseline, knockout):
    tests = (findings.cross_frame_early, findings.integration_in_the_middle, findings.integration_before_answer)
    table = findings.table(test(knockout, baseline) for test in tests)
    assert list(table["verdict"]) == ["reproduced"] * 3 and (table["p_holm"] >= table["p"]).all()
    assert set(findings.by_task(tests[0], knockout, baseline).index) == set(planted.TASKS)


def test_open_layers_come_from_one_half_of_the_videos(baseline, knockout):
    halves = [findings.split_videos(baseline, part) for part in ("selection", "evaluation")]
    assert not set(halves[0]["video"]) & set(halves[1]["video"])
    ranges = findings.effective_ranges(knockout, halves[0])
    assert ranges["cross_frame"][0] < ranges["question_last"][0]


def test_a_folder_gives_every_claim_that_its_tables_allow(tmp_path, baseline, knockout):
    folder = tmp_path / "results" / "tiny" / "embedded-k3-center"
    planted.store(folder, baseline=baseline, knockout=knockout)
    assert findings.stored_folders("embedded", out=str(tmp_path)) == {"tiny": folder}
    names = [claim.name for claim in findings.stored_claims(folder)]
    assert names == ["above chance", "cross-frame early", "integration in the middle", "integration before answer"]
