"""Prompt text: byte-exact against published lengths and hashes, spans that quote their source."""

import hashlib
from types import SimpleNamespace

import pytest

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.prompts import LETTERS, PROTOCOLS, build_prompt


def ask(question="Q?", options=("x", "y"), answer=0):
    """A stand-in for a benchmark sample."""
    return SimpleNamespace(question=question, options=tuple(options), answer=answer)


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("protocol", "length", "sha"),
    [("mvbench", 351, "bd80725a3fde0095"), ("mvbench-phi3", 378, "8cda72086e37a307")],
)
def test_rendered_prompt_has_the_published_hash(protocol, length, sha):
    text = build_prompt(ask(), protocol).text
    assert (len(text), digest(text)) == (length, sha)


def test_fixed_strings_have_the_published_hashes():
    for parts in PROTOCOLS.values():
        assert (len(parts.system), digest(parts.system)) == (244, "60c3a2cdc233f080")
        assert (len(parts.instruction), digest(parts.instruction)) == (27, "7994c0c840574f3a")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_spans_quote_their_source(protocol):
    sample = ask("Is (A) red?\nReally? 😀", ["red", "is (A) red", "(A) red", "ré"])
    prompt = build_prompt(sample, protocol)
    quoted = {name: prompt.text[a:b] for name, (a, b) in prompt.spans.items()}
    assert quoted["question"] == sample.question
    assert quoted["image"] == PROTOCOLS[protocol].placeholder
    for letter, option in zip(LETTERS, sample.options, strict=False):
        assert quoted[f"option {letter}"] == f"({letter}) {option}"
    assert quoted["question_block"].startswith("Question: ") and quoted["question_block"].endswith("(D) ré")


@pytest.mark.parametrize(
    "sample",
    [
        ask(" "),
        ask(options=["x"]),
        ask(options=[str(i) for i in range(9)]),
        ask("a <image> b"),
        ask(options=["<image>", "y"]),
    ],
)
def test_bad_samples_are_refused(sample):
    with pytest.raises(SampleError):
        build_prompt(sample, "mvbench")


def test_unknown_protocol_is_named_with_the_known_ones():
    with pytest.raises(StudyError, match="nope.*mvbench"):
        build_prompt(ask(), "nope")
