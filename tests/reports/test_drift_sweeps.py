"""Drift is measured by sweeps that differ in one thing; what is committed lies within what a report expects."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import records

from analysis_lib.errors import StudyError
from analysis_lib.findings.drift import BOUNDS, FAR
from analysis_lib.reports import drift_sweeps as drift


@pytest.mark.parametrize("changed", ["2 threads", "the record"])
def test_measured_drift_lies_within_the_bounds(changed):
    table = pd.read_csv(drift.FILE)
    rows, bound = table[(table["changed"] == changed) & (table["what"] != "findings")], BOUNDS["rounding"]
    assert {"baseline", *drift.MEASURES} - {"pathway"} <= set(rows["what"]) and (rows["rows"] >= 30).all()
    for kind in ("probability", "margin", "change"):
        assert rows[f"{kind}_99"].max() <= bound[kind] and rows[kind].max() <= FAR * bound[kind]
    findings = table[(table["changed"] == changed) & (table["what"] == "findings")].iloc[0]
    assert findings["verdicts"] == 0 and findings["effect"] <= bound["effect"] and findings["rows"] >= 8


def test_another_number_format_moves_rows_further_than_rounding_may():
    """Or the report would not need to tell the two apart."""
    table = pd.read_csv(drift.FILE).query("changed == 'bfloat16'")
    assert table["probability_99"].max() > BOUNDS["rounding"]["probability"]
    assert table["effect"].max() <= BOUNDS["precision"]["effect"]


def test_a_row_a_measure_and_one_for_the_findings(tmp_path):
    first = records.study(tmp_path)
    other = records.copy(first, tmp_path / "other")
    records.change(other, "knockout", lambda rows: rows.assign(p_knock=rows["p_knock"] + 0.25))
    records.change(other, "baseline", lambda rows: rows.assign(correct=rows["correct"] & (rows.index % 2 == 0)))
    table = drift.drift_of("x", first, other).set_index("what")
    assert table.loc["knockout", "probability"] == pytest.approx(0.25) and table.loc["lens", "rows"] > 0
    assert table.loc["baseline", "answers"] > 20 and table.loc["findings", "verdicts"] >= 1
    assert np.isfinite(table.loc["findings", "effect"]) and set(table["changed"]) == {"x"}


def test_a_sweep_that_fails_is_named(monkeypatch):
    seen = {}

    def run(command, *, env, **_):
        seen.update(command=command, threads=env["OMP_NUM_THREADS"])
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(drift.subprocess, "run", run)
    with pytest.raises(StudyError, match="the sweep with 2 threads ended with exit code 1"):
        drift.sweep("2 threads")
    assert seen["threads"] == "2" and "sweep" in seen["command"]
