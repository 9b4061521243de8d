"""The paper's numbers beside a run's: the direction and the place decide, on the paper's own rows first."""

import numpy as np
import pandas as pd
import planted
import pytest
import records

from analysis_lib import findings
from analysis_lib.findings.published import TABLE_3, TABLE_E, beside_paper

ROUTES = ("cross-frame", "video->question", "question->last")


@pytest.mark.parametrize("model", TABLE_E)
def test_the_papers_own_rows_lie_where_the_paper_says(tmp_path, model):
    base = planted.baseline(np.random.default_rng(0), n=4, accuracy=1.0)
    layers, *bins = TABLE_E[model]
    folder = tmp_path / model / "tvbench-k9-center"
    curves = dict(zip(ROUTES, bins, strict=True))
    planted.store(folder, baseline=base, knockout=planted.from_bins(base, layers, curves))
    table = beside_paper(folder, {})
    assert list(table["what"]) == list(ROUTES) and set(table["table"]) == {"E(b), Action Antonym"}
    assert set(table["says"]) == {"same direction, same place"}
    assert " to " not in "".join(table["paper"])  # one row of the paper, not a range


def test_another_model_is_held_against_all_four(tmp_path):
    folder = records.study(tmp_path)
    found = {claim.name: claim for claim in findings.stored_claims(folder)}
    table = beside_paper(folder, found).set_index("what")
    assert table.loc["cross-frame", "paper"] == "drop 11.1 to 65.1 %, at 22 to 32 % of the depth"
    assert table.loc["pathway beats random", "paper"] == "11.1 to 35.0 points"
    assert table.loc["most edges closed", "paper"] == "42.0 to 63.0 % of the edges"
    assert table.loc["most edges closed", "says"] == "same direction"


def test_a_route_elsewhere_and_a_route_without_effect_are_said(tmp_path):
    folder = records.study(tmp_path)

    def turned(rows):
        late = rows["edge_set"] == "cross-frame"
        rows = rows.assign(layer=rows["layer"].where(~late, 13 - rows["layer"]))
        return rows.assign(relative_change=rows["relative_change"].mask(rows["edge_set"] == "video->question", 0.0))

    records.change(folder, "knockout", turned)
    says = beside_paper(folder, {}).set_index("what")["says"]
    assert says["cross-frame"] == "same direction, deeper" and says["video->question"] == "no effect"


def test_a_run_without_these_numbers_has_no_rows(tmp_path):
    folder = tmp_path / "m" / "embedded-k3-center"
    planted.store(folder, baseline=planted.baseline(np.random.default_rng(0), n=2))
    assert beside_paper(folder, {}).empty


def test_tables_are_about_the_same_models():
    assert list(TABLE_3) == list(TABLE_E) and pd.DataFrame(TABLE_3).shape == (4, 4)
