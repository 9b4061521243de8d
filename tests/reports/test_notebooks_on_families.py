"""Every notebook, cell by cell, on a tiny checkpoint of some native families and of every published format."""

import notebook_runs
import numpy as np
import pytest
import tiny_families
import tiny_originals

from analysis_lib.figures.bars import PATHWAYS
from analysis_lib.figures.style import VERDICTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # GLM-4V's processor
]


# A hybrid with m-RoPE, one with text between the frames, one with an encoder of its own; the tables of
# docs/families.md have them all (`make families`, `make notebooks-on-families`).
SOME = ("qwen3_5", "smolvlm", "video_llama_3")


@pytest.mark.parametrize("family", [*SOME, *tiny_originals.PUBLISHED])
def test_all_notebooks(family, tmp_path):
    if family in tiny_originals.PUBLISHED:
        model = tiny_originals.build(family, tmp_path / family)
    else:
        model = tiny_families.build(family, tmp_path / family, says_letters=True)
    left = dict(notebook_runs.execute_each(str(model), tmp_path))
    baseline, tests = left["00"]["measured"].baseline, left["00"]["tests"]
    assert len(baseline) == 3 and baseline["correct"].all() and left["00"]["measured"].skipped.empty
    assert tests["passed"].all() and len(tests) >= 15
    cut = left["02"]["measured"].knockout
    assert np.isfinite(cut["p_knock"]).all() and cut["p_knock"].nunique() > 6  # cuts change something
    assert len(left["01"]["fine"].pairs) and len(left["02"]["heads"]) and len(left["03"]["emergence"])
    assert set(left["04"]["pruned"]["pathway"]) == PATHWAYS.keys() - {"full"}
    table = left["05"]["table"]
    assert set(table["model"]) == {family} and set(table["verdict"]) <= VERDICTS.keys() and len(table) >= 12
