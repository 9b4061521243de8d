"""One sample merged with its clip: what is refused, answers of open-ended questions, and tokens on their grid."""

from types import SimpleNamespace

import numpy as np
import pytest

from analysis_lib.errors import SampleError
from analysis_lib.inputs.records import Question
from analysis_lib.models.merging import make_inputs, on_grid


def test_bad_frames_are_refused(tiny_vlm, tiny_frames, make_sample):
    for frames in (tiny_frames[:0], tiny_frames[0], tiny_frames / 255, np.concatenate([tiny_frames, tiny_frames])):
        with pytest.raises(SampleError, match="frames"):
            make_inputs(tiny_vlm, make_sample(), frames)


def test_more_options_than_letters_is_a_bad_sample(tiny_vlm, tiny_frames, make_sample):
    with pytest.raises(SampleError, match="letters"):
        make_inputs(tiny_vlm, make_sample(options=[str(i) for i in range(8)]), tiny_frames)


def test_an_open_ended_answer_is_read_by_its_first_token(tiny_vlm, tiny_frames):
    said = make_inputs(tiny_vlm, Question("What moves?", reference="a dog", wording="chat"), tiny_frames).letter_ids
    assert tiny_vlm.tokenizer.decode(said).strip() == "a"
    with pytest.raises(SampleError, match="the answer '' has no token of its own"):
        make_inputs(tiny_vlm, Question("What moves?", wording="chat"), tiny_frames)


def test_grid_goes_along_rows_elsewhere():
    inputs = SimpleNamespace(grid=(1, 2, 3), by_columns=False)
    assert on_grid(inputs, np.arange(12).reshape(2, 6)).tolist() == [
        [[[0, 1, 2], [3, 4, 5]]],
        [[[6, 7, 8], [9, 10, 11]]],
    ]
