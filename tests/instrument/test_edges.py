"""Edge sets and windows."""

import numpy as np
import pytest

from analysis_lib.errors import StudyError
from analysis_lib.instrument.edges import (
    EDGE_SETS,
    blocked_edges,
    default_window,
    frame_edge_sets,
    window_sizes,
    windows,
)


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


def test_single_frames_and_distances_are_edge_sets(tiny_inputs):
    roles = tiny_inputs.roles
    frames = {i: roles.positions(f"frame {i}") for i in range(1, 9)}
    assert np.array_equal(blocked_edges("frame 2->frame 5", roles), brute(roles, frames[5], frames[2]))
    assert np.array_equal(blocked_edges("frame 8->last", roles), brute(roles, roles.positions("last"), frames[8]))
    three = sum((brute(roles, frames[i + 3], frames[i]) for i in range(1, 6)), np.zeros((len(roles.names),) * 2, bool))
    assert np.array_equal(blocked_edges("cross-frame@3", roles), three)


def test_pairs_and_distances_each_make_up_the_cross_frame_edges(tiny_inputs):
    sets = frame_edge_sets(8)
    blocked = {name: blocked_edges(name, tiny_inputs.roles) for name in sets}
    whole = blocked_edges("cross-frame", tiny_inputs.roles)
    starts = {"frame ": "->frame", "earlier": "->", "frame": "->later", "cross-frame@": "@"}
    groups = {
        (start, part): [b.astype(int) for name, b in blocked.items() if name.startswith(start) and part in name]
        for start, part in starts.items()
    }
    assert [len(group) for group in groups.values()] == [28, 7, 7, 7] and len(sets) == 28 + 7 + 7 + 7 + 1
    assert all(np.array_equal(sum(group), whole) for group in groups.values())
    assert sets["frame 2->frame 5"] == (5, 2, 3) and sets["cross-frame@7"] == (0, 0, 7)
    assert sets["earlier frames->frame 3"] == (3, 0, 0) and sets["frame 3->later frames"] == (0, 3, 0)


def test_a_frame_with_all_others_is_the_union_of_its_pairs(tiny_inputs):
    pair = {name: blocked_edges(name, tiny_inputs.roles) for name in frame_edge_sets(8)}
    assert np.array_equal(
        pair["earlier frames->frame 4"], np.any([pair[f"frame {i}->frame 4"] for i in (1, 2, 3)], axis=0)
    )
    assert np.array_equal(pair["frame 6->later frames"], np.any([pair[f"frame 6->frame {i}"] for i in (7, 8)], axis=0))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("frame 2->frame 9", "needs 9 frames; the clip has 8"),
        ("cross-frame@8", "needs 9 frames; the clip has 8"),
        ("frame 5->frame 2", "holds no edge: frame 2 cannot read a later frame"),
        ("earlier frames->frame 1", "holds no edge in a clip of 8 frames"),
        ("frame 8->later frames", "holds no edge in a clip of 8 frames"),
        ("later frames->frame 3", "unknown edge set"),
        ("frame 0->last", "unknown edge set 'frame 0->last'"),
        ("cross-frame@0", "unknown edge set 'cross-frame@0'"),
        ("frame 2", "frame 2->frame 5"),
        ("frame 2->frame 5->last", "cross-frame@3"),
    ],
)
def test_frames_that_do_not_fit_are_refused(tiny_inputs, name, said):
    with pytest.raises(StudyError, match=said):
        blocked_edges(name, tiny_inputs.roles)


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


def test_window_sizes_keep_the_shares_of_depth_of_the_paper():
    assert [window_sizes(n) for n in (1, 12, 28, 32, 40)] == [
        (1,), (1, 3, 5), (1, 5, 7, 11), (1, 5, 9, 13), (1, 7, 11, 17),
    ]  # fmt: skip
    assert all(default_window(n) in window_sizes(n) and max(window_sizes(n)) <= n for n in range(1, 100))
