"""Findings of stored folders: what is there is tested, what is not is left out."""

import numpy as np
import planted
import pytest

from analysis_lib import findings
from analysis_lib.errors import StudyError
from analysis_lib.study.request import check_request


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Results of two models: a complete one, and one with a baseline and cross-frame knockouts only."""
    root, rng = tmp_path_factory.mktemp("out"), np.random.default_rng(0)
    base = planted.baseline(rng, n=24)
    knock = planted.knockout(rng, base)
    full, image = (root / "results" / name / "embedded-k3-center" for name in ("video", "image"))
    planted.store(full, baseline=base, knockout=knock, emergence=planted.emergence(rng, base))
    planted.store(full, lens=planted.lens(rng, base))
    ranges = findings.effective_ranges(knock, findings.split_videos(base, "selection"))
    name = check_request(model="video", ranges=ranges).ranges_name
    planted.store(full, controls=planted.controls(rng, base), pathway=planted.pathway(rng, base).assign(ranges=name))
    planted.store(image, baseline=base, knockout=planted.knockout(rng, base, ["cross-frame"], scale=0.05))
    return root


def test_every_stored_finding_is_tested(out):
    table = findings.across_models("embedded", model="video", image_model="image", out=str(out))
    counts = table.groupby("model").size()
    assert counts["video"] == 13 and counts["image"] == 2
    assert (table[table.model == "video"].verdict == "reproduced").sum() >= 12  # few videos leave one undecided
    assert "video training" not in set(table[table.model == "image"].name)


def test_nothing_stored_names_the_command(tmp_path):
    with pytest.raises(StudyError, match="run python -m analysis_lib reproduce"):
        findings.across_models("embedded", model="m", image_model="", out=str(tmp_path))
