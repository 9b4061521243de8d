"""Prompt text of a question about a video, byte for byte as the models were tuned on it.

A prompt is: system text, the video's placeholder, the question block, an instruction, and the start of the answer. With
options it ends in an open parenthesis, so that the very next token is a letter; an open-ended question has a sentence
to complete there, or nothing. The character span of each piece is noted as it is laid down. Token roles follow from
these spans, so nothing is ever searched for in decoded text. Source of the layouts: MVBench's and Video-ChatGPT's
public protocols, as PLLaVA and the paper use them (paper, appendices B and H)."""

from dataclasses import dataclass

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs.records import LETTERS, Question

Span = tuple[int, int]  # of characters, half-open
CONTENT = "@@QUESTION@@"  # stands for the question block in a rendered chat template

_WATCH = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, "
)
_SELECT = f"{_WATCH}select the best option that accurately addresses the question.\n"
_CHAT = (  # one space is missing in the published text
    "You are Video-ChatGPT, a large vision-language assistant. You are able to understand the video content that the "
    "user provides, and assist the user with a variety of tasks using natural language."
    "Follow the instructions carefully and explain your answers in detail based on the provided video."
)


@dataclass(frozen=True)
class Protocol:
    """The turns of a family of models."""

    user: str
    assistant: str
    before_video: str
    placeholder: str  # the one token that stands for all video tokens
    after_video: str


PROTOCOLS: dict[str, Protocol] = {
    "mvbench": Protocol("USER: ", "ASSISTANT:", "", "<image>", "\n"),  # Vicuna backbones
    "mvbench-phi3": Protocol("<|user|>\n", "<|assistant|>\n", "<img>", "<IMG_CONTEXT>", "</img>\n"),
}


@dataclass(frozen=True)
class Wording:
    """What is said in the turns."""

    system: str
    label: str = "Question: "
    block_end: str = ""  # of the question block
    instruction: str = ""
    answer_start: str = ""  # the question's own `stem` follows


WORDINGS: dict[str, Wording] = {
    "options": Wording(_SELECT, instruction="\nOnly give the best option.", answer_start="Best option:("),
    "completion": Wording(f"{_WATCH}answer the question concisely.\n", block_end="\n"),  # paper, B.1
    "chat": Wording(_CHAT, label=""),  # paper, B.2
}


@dataclass(frozen=True)
class Prompt:
    """A prompt and where its parts are: "image" (the placeholder), "question" (the bare sentence), "option A", …
    (letter and text, no line break), "question_block" (from the label `Question:` to the end of the last option)."""

    text: str
    spans: dict[str, Span]


def build_prompt(question: Question, protocol: str) -> Prompt:
    """The prompt of one sample. Turns are joined by one space, as published. Raises SampleError for a sample that
    cannot be asked, StudyError for an unknown protocol or wording."""
    if protocol not in PROTOCOLS:
        raise StudyError(f"unknown prompt protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    parts = PROTOCOLS[protocol]
    words = _checked(question, parts.placeholder)
    shown = f"{words.system} {parts.user}{parts.before_video}{parts.placeholder}{parts.after_video} {parts.user}"
    instruction = words.instruction and f"{words.instruction} "
    return _laid_down(question, shown, parts.placeholder, f"{words.block_end} {instruction}{parts.assistant}")


def build_chat_prompt(question: Question, template: str, placeholder: str) -> Prompt:
    """The prompt of one sample in a model's own chat template, `template`, rendered with CONTENT for the question, and
    with the other protocols' instruction and start of the answer. Raises SampleError as `build_prompt` does, StudyError
    if the template loses the video or the question, or shows the question first."""
    words = _checked(question, placeholder)
    shown, _, after = template.partition(CONTENT)
    if template.count(CONTENT) != 1 or shown.count(placeholder) != 1 or placeholder in after:
        wanted = f"one video ({placeholder}) and then the question"
        raise StudyError(f"the chat template must show {wanted}, but renders as {template!r}")
    return _laid_down(question, shown, placeholder, f"{words.block_end}{words.instruction}{after}")


def prompt_end(protocol: str, template: str) -> str:
    """The text after the options up to where a letter follows: of a chat template, or of a protocol where there is
    none."""
    words, parts = WORDINGS["options"], PROTOCOLS.get(protocol)
    if parts is None:
        return f"{words.block_end}{words.instruction}{template.partition(CONTENT)[2]}{words.answer_start}"
    return f"{words.block_end} {words.instruction} {parts.assistant}{words.answer_start}"


def _laid_down(question: Question, shown: str, placeholder: str, after: str) -> Prompt:
    """What is shown before the question block, with the placeholder once in it, the block, and what comes after it,
    followed by the start of the answer."""
    words, text, start = WORDINGS[question.wording], shown, shown.index(placeholder)
    spans = {"image": (start, start + len(placeholder))}
    block = [(words.label, "question", question.question)]  # what leads to a named piece, its name, its text
    for letter, option in zip(LETTERS, question.options, strict=False):
        lead = "\n" if letter != LETTERS[0] else "\nOptions:\n"
        block.append((lead, f"option {letter}", f"({letter}) {option}"))
    for lead, name, piece in block:
        text += lead
        spans[name] = (len(text), len(text) + len(piece))
        text += piece
    spans["question_block"] = (len(shown), len(text))
    return Prompt(text + after + words.answer_start + question.stem, spans)


def _checked(question: Question, placeholder: str) -> Wording:
    """How the sample is worded, if it can be asked."""
    if question.wording not in WORDINGS:
        raise StudyError(f"unknown wording {question.wording!r}; known: {', '.join(WORDINGS)}")
    if not question.question.strip():
        raise SampleError("the question is empty")
    if question.wording == "options" and not 2 <= len(question.options) <= len(LETTERS):
        raise SampleError(f"{len(question.options)} options; a question needs 2 to {len(LETTERS)}")
    if any(placeholder in text for text in (question.question, *question.options, question.stem)):
        raise SampleError(f"the question or an answer contains {placeholder!r}, which stands for the video")
    return WORDINGS[question.wording]
