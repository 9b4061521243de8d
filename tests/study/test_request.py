"""A request is checked by name before anything is loaded."""

import pytest
from sweeps import sweep

from analysis_lib.errors import StudyError
from analysis_lib.instrument.edges import EDGE_SETS
from analysis_lib.study.request import MEASURES, check_request


def test_what_is_not_said_is_taken_as_the_paper_has_it():
    asked = check_request(model="m")
    assert asked.edges == EDGE_SETS and asked.measure == MEASURES and asked.ranges_name == "published"
    assert asked.cuts() == {"knockout": EDGE_SETS}
    assert asked == check_request(model="m", tasks=None, samples=None, window="auto", edges="all", measure="all")


def test_texts_with_commas_become_names_without_doubles():
    asked = check_request(
        model="m", tasks="a, b,,a", samples="2", window="3", measure=["heads"], edges="cross-frame,video->last"
    )
    assert asked.tasks == ("a", "b") and asked.samples == 2 and asked.fixed()["window"] == 3
    assert asked.cuts() == {"heads": ("video->last",)}
    assert check_request(model="m", edges="cross-frame", measure="lens").edges == ()
    assert asked.command("x") == (
        "python -m analysis_lib sweep --model m --benchmark embedded --tasks a,b --samples 2 --window 3 --out x"
    )


def test_an_unknown_argument_is_no_request():
    with pytest.raises(TypeError, match="widow"):
        check_request(model="m", widow=3)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"measure": "heads", "edges": "cross-frame"}, "heads are measured on edges into the last token; none of"),
        ({"measure": "widths", "edges": ""}, "no edge set is named"),
        ({"measure": "pair"}, "unknown measure 'pair'; known: .*pairs, heads"),
    ],
)
def test_cuts_that_cannot_be_made_are_refused_before_a_model_loads(root, tmp_path, no_model, asked, said):
    with pytest.raises(StudyError, match=said):
        sweep(root, tmp_path, **asked)
