"""The positive control on tables in which the designed flow is planted, and on tables that contradict it."""

import numpy as np
import planted
import pytest

from analysis_lib import findings
from analysis_lib.embedded import recipe
from analysis_lib.study.tables import read_table

BUMPS = {"video->last": 0.35, "video->question": 0.3, "true_option->last": 0.85}  # edge set: depth of its drop


@pytest.fixture(scope="module")
def base():
    return planted.baseline(np.random.default_rng(0), n=24)


def knocked(base, monkeypatch, **places):
    bumps = {name.replace("_to_", "->"): place for name, place in places.items()}
    planted_bumps = {name: (place, 0.06, 50) for name, place in (BUMPS | bumps).items()}
    monkeypatch.setattr(planted, "BUMPS", planted_bumps | {"video->true_option": (0.4, 0.1, 0)})
    return planted.knockout(np.random.default_rng(1), base, tuple(planted.BUMPS))


def test_a_flow_as_designed_agrees(base, monkeypatch):
    late = planted.emergence(np.random.default_rng(2), base, place=0.9)
    table = findings.positive_control(knocked(base, monkeypatch), late, base)
    assert len(table) == 7 and set(table["agree"]) == {"yes"}
    assert table.loc[table["predicts"].str.startswith("true_option->last in layers above"), "measured"].item()


@pytest.mark.parametrize(("moved", "row"), [("video->last", 2), ("true_option->last", 4)])
def test_a_flow_in_other_layers_does_not(base, monkeypatch, moved, row):
    late = planted.emergence(np.random.default_rng(2), base, place=0.9)
    other = {moved.replace("->", "_to_"): 1.2 - BUMPS[moved]}
    table = findings.positive_control(knocked(base, monkeypatch, **other), late, base)
    assert table["agree"][row] == "no" and moved in table["predicts"][row]


def test_an_early_letter_contradicts(base, monkeypatch):
    early = planted.emergence(np.random.default_rng(2), base, place=0.3)
    assert findings.positive_control(knocked(base, monkeypatch), early, base)["agree"][0] == "no"


def test_the_embedded_model_passes_its_control():
    folder = findings.stored_folders("embedded")[findings.DESIGNED]
    table = findings.positive_control(*(read_table(folder, name) for name in ("knockout", "emergence", "baseline")))
    assert set(table["agree"]) == {"yes"} and f"layer {recipe.EXIT} of {recipe.LAYERS}" in table["taught"][1]
