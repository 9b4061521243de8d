"""The explorer's data are the stored tables: curves as `findings` has them, questions as their rows."""

import base64
import json

import numpy as np
import planted
import pytest

from analysis_lib.findings import stats
from analysis_lib.reports.site import explorer, tried


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of 30 layers, measured with two edge sets."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("results") / "mine" / "tvbench-k9-center"
    base = planted.baseline(rng, n=12)
    rows = planted.knockout(rng, base, ("cross-frame", "video->last"), n_layers=30)
    planted.store(folder, baseline=base, knockout=rows)
    return folder


@pytest.fixture(scope="module")
def window(folder):
    (window,) = explorer.tables([folder])
    return window


def test_a_set_is_a_model_on_a_benchmark(folder):
    root = folder.parents[1]
    assert explorer.stored_sets(root) == {"mine/tvbench": [folder]}
    other = folder.with_name("mvbench-k9-center")
    other.symlink_to(folder)
    assert list(explorer.stored_sets(root)) == ["mine/mvbench", "mine/tvbench"]
    other.unlink()


def test_curves_are_those_of_findings(window):
    name, words, rows, baseline = window
    found = explorer.curves(rows, baseline)
    assert (name, words) == ("k9-center", "9 layers around the layer") and set(found) == {"cross-frame", "video->last"}
    alone = rows[rows["edge_set"] == "cross-frame"]
    for metric in explorer.METRICS:
        table = stats.overall(stats.change_table(alone, baseline, ["layer"], metric)).sort_values("layer")
        curve = found["cross-frame"][stats.MEAN_OF_TASKS]
        assert curve["n"] == baseline["correct"].sum() and len(curve[metric]["p"]) == 30
        for column in ("mean", "low", "high", "p"):
            assert curve[metric][column] == pytest.approx(table[column].tolist(), abs=6e-5)


def test_answers_keep_each_questions_row(window):
    _, _, rows, baseline = window
    found = explorer.answers(rows, baseline["sample_id"].tolist())["video->last"]
    p = np.frombuffer(base64.b64decode(found["p"]), "<u2").reshape(30, -1) / 1e4
    row = rows[(rows["edge_set"] == "video->last") & (rows["layer"] == 7)].iloc[5]
    place = found["asked"].index(baseline["sample_id"].tolist().index(row["sample_id"]))
    assert p[6, place] == pytest.approx(row["p_knock"], abs=1e-4)
    assert found["said"][6 * p.shape[1] + place] == row["prediction"]


def test_a_script_hands_over_json_that_a_browser_can_read():
    text = explorer.script("a/b", {"x": [1, None]}).decode()
    assert json.loads(text.removeprefix('explorer.put("a/b",').removesuffix(");\n")) == {"x": [1, None]}
    with pytest.raises(ValueError):
        explorer.script("a", float("nan"))


def page_of(window, layer):
    """What the page would show of the planted cross-frame cuts."""
    _, _, rows, baseline = window
    curve = explorer.curves(rows, baseline)["cross-frame"][stats.MEAN_OF_TASKS]
    numbers = [curve["relative_change"][name] for name in ("mean", "low", "high", "p")]
    table = [[str(i), "", *(f"{x:.4f}" for x in line)] for i, line in enumerate(zip(*numbers, strict=True), start=1)]
    here = rows[(rows["edge_set"] == "cross-frame") & (rows["layer"] == layer)]
    most = here.loc[here["relative_change"].abs().nlargest(5).index].itertuples()
    cards = [
        f"C x: {100 * r.p_base:.2f} % before, {100 * r.p_knock:.2f} % after. t, {r.sample_id}. Change: 1" for r in most
    ]
    chosen = {"edge": "cross-frame", "task": stats.MEAN_OF_TASKS, "metric": "relative_change", "layer": str(layer)}
    count = f"n = {curve['n']} questions from {curve['videos']} videos"
    return {"chosen": chosen, "table": table, "mean": numbers[0], "count": count, "moved": cards}


def test_a_curve_or_an_answer_that_is_not_the_stored_one_is_found(window):
    _, _, rows, baseline = window
    page = page_of(window, 8)
    assert not [*tried.wrong_curve(page, rows, baseline), *tried.wrong_questions(page, rows)]
    shifted = page | {"mean": [page["mean"][0] + 0.01, *page["mean"][1:]], "count": "n = 1 questions from 1 videos"}
    assert len(list(tried.wrong_curve(shifted, rows, baseline))) == 2
    first, *others = page["table"]
    assert list(tried.wrong_curve(page | {"table": [[*first[:-1], "0.5"], *others]}, rows, baseline))
    least = (
        rows[(rows["edge_set"] == "cross-frame") & (rows["layer"] == 8)]
        .set_index("sample_id")["relative_change"]
        .abs()
        .idxmin()
    )
    old = page["moved"][0].split("t, ")[1].split(". ")[0]
    assert (
        len(
            list(
                tried.wrong_questions(
                    page | {"moved": [page["moved"][0].replace(old, least), *page["moved"][1:]]}, rows
                )
            )
        )
        == 2
    )
