"""Knockouts in windows of several sizes, in single heads, and of pairs of frames."""

import numpy as np
import pytest
from sweeps import EDGES, files, sweep

from analysis_lib.errors import StudyError


def test_maps_hold_every_pair_head_and_width(root, copy):
    found = sweep(root, copy, samples=1, measure=("pairs", "heads", "widths"))
    assert len(found.baseline) == 2 and not len(found.knockout)
    assert set(found.pairs.groupby("sample_id")["edge_set"].nunique()) == {28 + 7 + 7 + 7 + 1}
    assert (found.pairs["first_layer"] == 1).all() and (found.pairs["last_layer"] == 12).all()
    alone = found.pairs.query("query_frame > 0 and key_frame > 0")
    assert (alone["distance"] == alone["query_frame"] - alone["key_frame"]).all()
    assert set(found.heads["edge_set"]) == {"video->last"}  # of the two sets, the one into the last token
    assert len(found.heads.drop_duplicates(["layer", "head"])) == 12 * 4 and len(found.heads) == 2 * 12 * 4
    assert found.widths.groupby(["sample_id", "edge_set", "window"]).size().to_dict() == {
        (name, edges, size): 12 for name in found.baseline["sample_id"] for edges in EDGES for size in (1, 3, 5)
    }
    for table in ("pairs", "heads", "widths"):
        rows = getattr(found, table)
        assert (rows["relative_change"].abs() > 1e-6).mean() > 0.9  # a cut that does nothing would be 0
        assert found.manifest["receipts"][table]["max_blocked_weight"] == 0
    assert found.manifest["receipts"]["heads"]["other_heads_difference"] == 0


def test_widths_agree_with_the_knockouts_of_that_window(full, root, copy):
    found = sweep(root, copy, measure="widths")
    same = found.widths[found.widths["window"] == 3].merge(full.knockout.frame(), on=["sample_id", "edge_set", "layer"])
    assert len(same) == len(full.knockout) and np.allclose(same["p_knock_x"], same["p_knock_y"], atol=1e-6)
    assert (same["first_layer_x"] == same["first_layer_y"]).all()


@pytest.mark.slow
def test_maps_are_the_same_bytes_twice(root, tmp_path):
    for name in ("a", "b"):
        sweep(root, tmp_path / name, samples=1, measure=("pairs", "heads", "widths"))
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        ("question->video", "question->video holds no edge in this prompt"),
        ("frame 5->frame 2", "holds no edge: frame 2 cannot read a later frame"),  # some models let it
    ],
)
def test_an_edge_set_without_edges_is_refused(root, tmp_path, edges, said):
    with pytest.raises(StudyError, match=said):
        sweep(root, tmp_path, edges=edges, measure="knockout")
