"""Roles: a partition of every prompt, whose text is the text it was made from."""

import numpy as np
import pytest

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs.records import LETTERS
from analysis_lib.models.merging import make_inputs
from analysis_lib.models.prompts import Prompt, build_prompt
from analysis_lib.models.roles import build_roles

HARD = [
    ("What moves?", ["a cat", "a dog"]),
    ("Is (A) red or red?", ["red", "(A) red", "red or red", "Question: red"]),  # text repeats in other text
    ("Options:\n(B) x", ["x", "Options:", "(B) x", "Only give the best option."]),
    ("Où va-t-il, 左 ou 右 ? 🙂🙃", ["左", "右 🙂", "🙂", "naïve  two  spaces"]),  # bytes, several a character
    (" leading and trailing ", [" 1", "1 ", "11", "1"]),
    ("Q?", ["", "x"]),
]


@pytest.fixture(params=HARD, ids=[f"case{i}" for i in range(len(HARD))])
def case(request, tiny_vlm, tiny_frames, make_sample):
    sample = make_sample(*request.param, answer=1)
    return sample, make_inputs(tiny_vlm, sample, tiny_frames)


def decoded(vlm, inputs, first, stop):
    """Decoded text of positions of the merged sequence that follow the video."""
    shift = inputs.n - len(inputs.input_ids)
    return vlm.tokenizer.decode(inputs.input_ids[first - shift : stop - shift])


def test_every_position_has_exactly_one_role(case):
    sample, inputs = case
    roles = inputs.roles
    names = ["system", *(f"frame {i}" for i in range(1, 9)), "question", "tail", "last"]
    names += [f"option {letter}" for letter in LETTERS[: len(sample.options)]]
    together = np.concatenate([roles.positions(name) for name in names])
    assert sorted(together) == list(range(inputs.n)) and len(roles.names) == inputs.n


def test_decoded_text_of_each_role_equals_its_source(case, tiny_vlm):
    sample, inputs = case
    roles = inputs.roles
    source = {f"option {x}": f"({x}) {text}" for x, text in zip(LETTERS, sample.options, strict=False)}
    for name, text in source.items():
        ((first, stop),) = roles.runs(name)
        assert decoded(tiny_vlm, inputs, first, stop).strip() == text.strip()
        assert text.strip() in roles.quote(first, stop)
    ((first, stop),) = roles.runs("question_only")
    assert decoded(tiny_vlm, inputs, first, stop).strip() == sample.question.strip()
    ((first, stop),) = roles.runs("question_block")
    block = build_prompt(sample, "mvbench")
    assert decoded(tiny_vlm, inputs, first, stop).strip() == block.text[slice(*block.spans["question_block"])].strip()
    assert roles.quote(*roles.runs("tail")[0]).endswith("Only give the best option. ASSISTANT:Best option:")
    assert roles.quote(*roles.runs("last")[0]) == "("


def test_frames_are_slices_of_the_video(tiny_inputs):
    roles = tiny_inputs.roles
    assert roles.runs("video") == [(50, 82)] and roles.runs("frame 3") == [(58, 62)]
    assert list(roles.frame_of[48:56]) == [0, 0, 1, 1, 1, 1, 2, 2]


def test_unions(tiny_inputs):
    roles = tiny_inputs.roles
    options = roles.positions("options")
    assert sorted([*roles.positions("true_option"), *roles.positions("false_options")]) == list(options)
    assert set(roles.positions("question_block")) == set(options) | set(roles.positions("question"))
    assert set(roles.positions("question_only")) < set(roles.positions("question"))
    assert roles.quote(*roles.runs("after_video")[0]) == "\n USER:" and not len(roles.positions("frame_text"))
    assert len(roles.positions("text")) + len(roles.positions("video")) == tiny_inputs.n


def test_unknown_role_is_named_with_the_known_ones(tiny_inputs):
    with pytest.raises(StudyError, match="'anwser'.*question_only"):
        tiny_inputs.roles.positions("anwser")


PROMPT = Prompt("ab<v>Qx\n(A) y.\n(B) zT(", {
    "image": (2, 5), "question": (5, 7), "option A": (8, 14), "option B": (15, 20), "question_block": (5, 20),
})  # fmt: skip


def test_a_token_over_a_border_belongs_to_the_option_it_touches_first():
    offsets = [(0, 0), (0, 2), (2, 5), (5, 7), (7, 9), (9, 13), (13, 17), (17, 20), (20, 21), (21, 22)]
    roles = build_roles(PROMPT, offsets, grid=(2, 1, 1), answer=0)
    assert roles.names == (
        "system", "system", "frame 1", "frame 2", "question",
        "option A", "option A", "option A", "option B", "tail", "last",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([(0, 1), (1, 3), (3, 5), (5, 22)], "0 tokens"),
        ([(0, 2), (2, 5), (5, 20)], "does not end"),
        ([(0, 2), (2, 5), (5, 21), (21, 22)], "option B has no token"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(offsets, message):
    with pytest.raises(SampleError, match=message):
        build_roles(PROMPT, offsets, grid=(2, 1, 1), answer=0)
