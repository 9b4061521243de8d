"""Pictures for the explorer."""

import base64
import io
import json

import numpy as np
import pandas as pd
import planted
import pytest
from PIL import Image

from analysis_lib.reports.site import stills
from analysis_lib.study.examples import Example


def example():
    """Two layers, three tokens, two frames of 1 × 2 video tokens."""
    rng = np.random.default_rng(0)
    attention = rng.random((2, 3, 2, 1, 2)).astype(np.float16)
    frames = rng.integers(0, 255, (2, 8, 16, 3), dtype=np.uint8)
    words = np.array(["red", "up"])[rng.integers(0, 2, (2, 2, 1, 2))]
    about = {"task": "t", "sample_id": "t/0", "question": "What moves?", "options": ("no-one", "a cat"), "answer": "B"}
    more = {"prediction": "B", "kinds": {"red": "spatial"}, "tokens": ("What", " moves", "?"), "frames": frames}
    return Example(**about, **more, words=words, attention=attention, attention_cut=attention / 2)


def test_attention_is_kept_in_steps_of_its_largest_value():
    found = stills.looked(example())
    assert list(found) == ["what", "moves"]  # the others are not among the tokens
    maps = example().maps("moves")
    kept = np.frombuffer(base64.b64decode(found["moves"]["maps"]["all edges"]), np.uint8).reshape(
        maps["all edges"].shape
    )
    assert kept.max() == 255 and found["moves"]["top"] == pytest.approx(maps["all edges"].max(), abs=1e-4)
    assert np.allclose(kept * found["moves"]["top"] / 255, maps["all edges"], atol=0.003)


def test_a_strip_has_the_frames_side_by_side_and_is_never_larger_than_needed():
    assert Image.open(io.BytesIO(stills.strip(np.zeros((3, 8, 16, 3), np.uint8)))).size == (48, 8)
    assert (
        Image.open(io.BytesIO(stills.strip(np.zeros((3, 2 * stills.HEIGHT, 10, 3), np.uint8)))).height == stills.HEIGHT
    )


def test_clips_that_are_not_at_hand_are_counted(tmp_path, capsys):
    rows = [{"task": "t", "sample_id": f"t/{i}", "frames_sha256": f"{i}"} for i in range(2)]
    planted.store(tmp_path, baseline=pd.DataFrame(rows))
    (tmp_path / "manifest.json").write_text(json.dumps({"settings": {"benchmark": "tvbench"}}))
    assert list(stills.strips({"mine": [tmp_path]})) == []
    assert "2 questions of mine go without frames" in capsys.readouterr().out
