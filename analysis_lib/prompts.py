"""Prompt text of a multiple-choice question about a video, byte for byte as the models were tuned on it.

A prompt is: system text, the video's placeholder, the question block, an instruction, and the start of the answer,
which ends in an open parenthesis, so that the very next token is a letter. Text is assembled from pieces, and the
character span of each piece is noted as it is laid down. Token roles follow from these spans, so nothing is ever
searched for in decoded text. Source of the layout: MVBench's public protocol, as PLLaVA and the paper use it (paper,
appendix H).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis_lib.errors import SampleError, StudyError

if TYPE_CHECKING:
    from analysis_lib.benchmarks import Sample

LETTERS = "ABCDEFGH"
CONTENT = "@@QUESTION@@"  # stands for the question block in a rendered chat template

_WATCH = (
    "Carefully watch the video and pay attention to the cause and sequence of events, "
    "the detail and movement of objects, and the action and pose of persons. "
    "Based on your observations, select the best option that accurately addresses the question.\n"
)


@dataclass(frozen=True)
class Protocol:
    """The fixed strings of a prompt. `placeholder` is the one token that stands for all video tokens."""

    system: str
    user: str
    assistant: str
    before_video: str
    placeholder: str
    after_video: str
    instruction: str = "\nOnly give the best option."
    answer_start: str = "Best option:("


PROTOCOLS: dict[str, Protocol] = {
    "mvbench": Protocol(_WATCH, "USER: ", "ASSISTANT:", "", "<image>", "\n"),  # Vicuna backbones
    "mvbench-phi3": Protocol(_WATCH, "<|user|>\n", "<|assistant|>\n", "<img>", "<IMG_CONTEXT>", "</img>\n"),
}


@dataclass(frozen=True)
class Prompt:
    """A prompt and the half-open character spans of its parts.

    `spans` has "image" (the placeholder), "question" (the bare sentence), "option A", … (letter and text, no line
    break), and "question_block" (from the label `Question:` to the end of the last option).
    """

    text: str
    spans: dict[str, tuple[int, int]]


class _Pen:
    """Lays text down and notes where named pieces came to lie."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: dict[str, tuple[int, int]] = {}

    def write(self, piece: str, name: str | None = None) -> None:
        if name is not None:
            self.spans[name] = (len(self.text), len(self.text) + len(piece))
        self.text += piece


def build_prompt(sample: Sample, protocol: str) -> Prompt:
    """The prompt of one sample. Turns are joined by one space, as published.

    Raises SampleError for a sample that cannot be asked (no question, one option, too many, a placeholder in its
    text), StudyError for an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise StudyError(f"unknown prompt protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    parts = PROTOCOLS[protocol]
    _check_sample(sample, parts.placeholder)
    pen = _Pen()
    pen.write(f"{parts.system} {parts.user}{parts.before_video}")
    pen.write(parts.placeholder, "image")
    pen.write(f"{parts.after_video} {parts.user}")
    _write_block(pen, sample)
    pen.write(f" {parts.instruction} {parts.assistant}{parts.answer_start}")
    return Prompt(pen.text, pen.spans)


def build_chat_prompt(sample: Sample, template: str, placeholder: str) -> Prompt:
    """The prompt of one sample in a model's own chat template, `template`, rendered with CONTENT for the question.

    The instruction and the start of the answer are those of the other protocols. Raises SampleError as `build_prompt`
    does, StudyError if the template loses the video or the question, or shows the question first.
    """
    _check_sample(sample, placeholder)
    before, _, after = template.partition(CONTENT)
    if template.count(CONTENT) != 1 or before.count(placeholder) != 1 or placeholder in after:
        raise StudyError(
            f"the chat template must show one video ({placeholder}) and then the question, but renders as {template!r}"
        )
    pen = _Pen()
    pen.write(before[: before.index(placeholder)])
    pen.write(placeholder, "image")
    pen.write(before[before.index(placeholder) + len(placeholder) :])
    _write_block(pen, sample)
    pen.write(f"{Protocol.instruction}{after}{Protocol.answer_start}")
    return Prompt(pen.text, pen.spans)


def expanded(prompt: Prompt, replacement: str) -> Prompt:
    """The prompt with its placeholder replaced by the text that a processor puts there."""
    start, stop = prompt.spans["image"]
    by = len(replacement) - (stop - start)
    spans = {name: tuple(at + by * (at >= stop) for at in span) for name, span in prompt.spans.items()}
    return Prompt(prompt.text[:start] + replacement + prompt.text[stop:], spans)


def _write_block(pen: _Pen, sample: Sample) -> None:
    start = len(pen.text)
    pen.write("Question: ")
    pen.write(sample.question, "question")
    pen.write("\nOptions:")
    for letter, option in zip(LETTERS, sample.options, strict=False):
        pen.write("\n")
        pen.write(f"({letter}) {option}", f"option {letter}")
    pen.spans["question_block"] = (start, len(pen.text))


def _check_sample(sample: Sample, placeholder: str) -> None:
    if not sample.question.strip():
        raise SampleError("the question is empty")
    if not 2 <= len(sample.options) <= len(LETTERS):
        raise SampleError(f"{len(sample.options)} options; a question needs 2 to {len(LETTERS)}")
    if any(placeholder in text for text in (sample.question, *sample.options)):
        raise SampleError(f"the question or an option contains {placeholder!r}, which stands for the video")
