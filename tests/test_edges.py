"""Edge sets and windows."""

import numpy as np
import pytest

from analysis_lib.edges import EDGE_SETS, blocked_edges, default_window, windows
from analysis_lib.errors import StudyError


def brute(roles, queries, keys):
    """The same block, pair by pair."""
    wanted = np.zeros((len(roles.names), len(roles.names)), bool)
    for q in queries:
        for k in keys:
            wanted[q, k] = k <= q
    return wanted


@pytest.mark.parametrize("name", EDGE_SETS)
def test_sets_hold_the_edges_they_name(tiny_inputs, name):
    roles = tiny_inputs.roles
    blocked = blocked_edges(name, roles)
    assert blocked.dtype == bool and blocked.any() and not np.triu(blocked, 1).any()
    if name == "cross-frame":
        frames = [roles.positions(f"frame {i}") for i in range(1, 9)]
        wanted = sum((brute(roles, frames[i], np.concatenate(frames[:i])) for i in range(1, 8)), np.zeros_like(blocked))
        assert blocked.sum() == 28 * 4 * 4
    else:
        union = {"question": "question_block"}
        source, destination = (union.get(end, end) for end in name.split("->"))
        wanted = brute(roles, roles.positions(destination), roles.positions(source))
    assert np.array_equal(blocked, wanted)


def test_a_set_onto_itself_cuts_the_diagonal(tiny_inputs):
    last = blocked_edges("last->last", tiny_inputs.roles)
    assert last.sum() == 1 and last[-1, -1]


@pytest.mark.parametrize("name", ["video->answer", "crossframe", "video", "last->", ""])
def test_unknown_sets_are_refused_with_the_known_ones(tiny_inputs, name):
    with pytest.raises(StudyError, match="question_only->last"):
        blocked_edges(name, tiny_inputs.roles)


def test_centred_windows_are_narrower_at_the_ends():
    widths = [len(w.layers) for w in windows(12, 9)]
    assert widths == [5, 6, 7, 8, 9, 9, 9, 9, 8, 7, 6, 5]
    first = windows(12, 9)[0]
    assert (first.layer, first.first, first.last, first.layers) == (1, 1, 5, (1, 2, 3, 4, 5))


def test_even_windows_reach_one_more_layer_below():
    assert windows(12, 4)[5].layers == (4, 5, 6, 7)


def test_other_styles():
    assert windows(6, 3, "inverse")[2].layers == (1, 5, 6)
    assert windows(6, 3, "top_down")[3].layers == (4, 5, 6)
    assert windows(6, 3, "bottom_up")[3].layers == (1, 2, 3, 4)
    nothing = windows(3, 3, "inverse")[1]
    assert (nothing.first, nothing.last, nothing.layers) == (0, 0, ())


@pytest.mark.parametrize("k", [0, -1, 13])
def test_windows_that_do_not_fit_are_refused(k):
    with pytest.raises(StudyError, match="1 to 12"):
        windows(12, k)


def test_unknown_style_is_refused():
    with pytest.raises(StudyError, match="bottom_up"):
        windows(12, 3, "sideways")


def test_default_window_keeps_the_share_of_depth():
    assert [default_window(n) for n in (1, 4, 12, 28, 32, 40)] == [1, 1, 3, 7, 9, 11]
