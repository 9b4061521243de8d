"""Prompt text: byte-exact against published lengths and hashes, spans that quote their source."""

import hashlib

import pytest

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs.records import LETTERS, Question
from analysis_lib.models.prompts import PROTOCOLS, WORDINGS, build_chat_prompt, build_prompt


def ask(question="Q?", options=("x", "y"), answer=0):
    """A stand-in for a benchmark sample."""
    return Question(question=question, options=tuple(options), answer=answer)


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
    parts = WORDINGS["options"]
    assert (len(parts.system), digest(parts.system)) == (244, "60c3a2cdc233f080")
    assert (len(parts.instruction), digest(parts.instruction)) == (27, "7994c0c840574f3a")
    systems = {name: WORDINGS[name].system for name in ("completion", "chat")}
    assert (len(systems["completion"]), digest(systems["completion"])) == (212, "5b03873ba8d30f29")
    assert (len(systems["chat"]), digest(systems["chat"])) == (291, "59e4be43ccdca6ab")


@pytest.mark.parametrize(
    ("wording", "stem", "length", "sha"),
    [
        ("completion", "\nThe action the person is doing first is to", 301, "bb67dd42689d51b4"),
        ("chat", "", 326, "a2fec7fbb619af97"),
    ],
)
def test_open_ended_prompt_has_the_published_hash(wording, stem, length, sha):
    prompt = build_prompt(Question("Q?", wording=wording, stem=stem), "mvbench")
    assert (len(prompt.text), digest(prompt.text)) == (length, sha)


def test_an_open_ended_question_shows_no_options():
    chat = build_chat_prompt(Question("Q?", wording="completion", stem="\nIt is"), "<v>@@QUESTION@@ end:", "<v>").text
    assert chat == "<v>Question: Q?\n end:\nIt is"


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


def test_unknown_wording_is_named_with_the_known_ones():
    with pytest.raises(StudyError, match="unknown wording 'sung'; known: options, completion"):
        build_prompt(Question("Q?", wording="sung"), "mvbench")


def test_unknown_protocol_is_named_with_the_known_ones():
    with pytest.raises(StudyError, match="nope.*mvbench"):
        build_prompt(ask(), "nope")
