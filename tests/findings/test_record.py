"""A run beside the record: deliberate faults are found and named; what cannot be compared is refused in one line."""

import pandas as pd
import pytest
import records

from analysis_lib.errors import StudyError
from analysis_lib.findings.record import compare, facts_of, kind_of


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return records.study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def record(original, tmp_path):
    """A copy of the study, free to be changed."""
    return records.copy(original, tmp_path)


def wrong(found) -> dict[str, str]:
    return {row["name"]: row["differs"] for _, row in found.findings.iterrows() if row["differs"]}


def test_a_copy_agrees_and_nothing_differs(record, original):
    found = compare(record, original)
    assert (found.kind, found.reseeded, found.samples) == ("nothing", False, 60)
    assert len(found.findings) == 12 and wrong(found) == {} and not found.tables["differs"].any()
    assert set(found.tables["table"]) == {"baseline", "knockout", "emergence", "lens", "pathway", "controls"}


def test_a_curve_shifted_by_3_points_is_found_in_every_finding_that_reads_it(record, original):
    def shift(rows):
        return rows.assign(relative_change=rows["relative_change"] + 3.0 * (rows["edge_set"] == "video->question"))

    records.change(record, "knockout", shift)
    found = compare(record, original)
    reads = {"integration in the middle", "integration before answer", "answer after integration"}
    assert set(wrong(found)) == reads and all("change moved by 3 %" in why for why in wrong(found).values())
    assert found.tables.loc[found.tables["differs"] != "", "table"].tolist() == ["knockout"]


def test_one_flipped_answer_is_found_and_named(record, original):
    def flip(rows):
        first = rows.index == rows[rows["correct"]].index[0]
        return rows.assign(prediction=rows["prediction"].mask(first, "Z"), correct=rows["correct"] & ~first)

    records.change(record, "baseline", flip)
    found = compare(record, original)
    assert "1 answers changed that were not on the fence (action_antonym/" in wrong(found)["above chance"]
    assert found.tables.set_index("table").loc["baseline", "firm"] == 1


def test_another_seed_is_named_and_its_draws_are_not_compared(record, original):
    records.describe(record, settings={"seed": 1})
    records.change(record, "pathway", lambda rows: rows.assign(p_pruned=rows["p_pruned"] / 2))
    found = compare(record, original)
    assert found.reseeded and found.kind == "nothing" and not found.tables["differs"].any()
    assert found.facts.set_index("fact").loc["seed"].tolist() == ["1", "0"]
    kept = set(found.findings["name"]) - set(wrong(found))
    assert {"above chance", "cross-frame early", "time decides"} <= kept


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"threads": 8}, "rounding"), ({"processor": "two"}, "rounding"), ({"packages": {"torch": "2"}}, "rounding"),
        ({"threads": None}, "rounding"), ({"dtype": "bfloat16"}, "precision"),
        ({"device": "cuda", "threads": 1}, "rounding"),
        ({"device": "cuda", "dtype": "bfloat16"}, "precision"),
    ],
)  # fmt: skip
def test_what_differs_decides_what_is_expected(record, original, changes, kind):
    records.describe(record, **changes)
    assert kind_of(facts_of(record, original, {"action_antonym/0000"})) == (kind, False)


def test_a_small_run_is_compared_with_the_record_of_its_questions(original, record):
    few = [f"{task}/{i:04d}" for task in ("action_antonym", "object_count") for i in range(8)]
    for table in ("baseline", "knockout", "emergence", "lens", "controls", "pathway"):
        records.change(record, table, lambda rows: rows[rows["sample_id"].isin(few)])
    found = compare(original, record)
    assert found.samples == 16 and not found.tables["differs"].any() and (found.tables["alone"] == 0).all()
    assert set(wrong(found)) <= {"pathway keeps accuracy", "pathway beats random", "most edges closed"}


def older(folder):
    file = folder / "knockout.parquet"
    pd.read_parquet(file).drop(columns=["margin_knock", "first_layer"]).to_parquet(file)


CANNOT = {
    "video/embedded-k3-center cannot be compared: it has no manifest.json": lambda at: (at / "manifest.json").unlink(),
    "cannot be compared: it has no baseline.parquet": lambda at: (at / "baseline.parquet").unlink(),
    "is older than the code: its knockout.parquet lacks first_layer, margin_knock": older,
    "other settings: window is 5 in the record, 3 here": lambda at: records.describe(at, settings={"window": 5}),
    "other settings: weights_sha256 is x in the record": lambda at: records.describe(
        at, settings={"weights_sha256": "x"}
    ),
    "60 questions or clips are not the same, action_antonym/0000 for one": lambda at: records.change(
        at, "baseline", lambda rows: rows.assign(sample_sha256="other")
    ),
    "no question is in both": lambda at: records.change(
        at, "baseline", lambda rows: rows.assign(sample_id="x" + rows["sample_id"])
    ),
    "knockout.parquet cannot be read": lambda at: (at / "knockout.parquet").write_bytes(b"PAR1"),
}


@pytest.mark.parametrize("line", CANNOT)
def test_what_cannot_be_compared_is_said_in_one_line(record, original, line):
    CANNOT[line](record)
    with pytest.raises(StudyError) as error:
        compare(record, original)
    assert line in str(error.value) and "\n" not in str(error.value)
