"""One sample in the model's hands: asked once, and what rows of logits say about it.

Probabilities are softmaxes over the whole vocabulary of float32 logits at the last position. `p_token` follows the
token that the untouched model predicts (paper, section 3); margins compare the right letter with the strongest other.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from analysis_lib.inputs.records import Clip, Sample
from analysis_lib.inputs.videos import load_clip
from analysis_lib.instrument.exact import recorded_states
from analysis_lib.instrument.receipts import Receipt
from analysis_lib.models.merging import make_inputs
from analysis_lib.models.records import Inputs, VideoLLM

Rows = dict[str, list[dict[str, Any]]]


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several measurements, by table."""
    return {table: [row for part in parts for row in part.get(table, [])] for table in chain(*parts)}


@dataclass(frozen=True)
class Reading:
    """What one row of logits says: probability of the baseline's token and of the right letter, margin, prediction."""

    p_token: float
    p_answer: float
    margin: float
    prediction: str
    correct: bool

    def columns(self, state: str) -> dict[str, Any]:
        """As columns, named after the state of the model ("base", "knock", …); a table takes those that it has."""
        named = {f"p_{state}": self.p_token, f"margin_{state}": self.margin}
        return named | {"p_answer": self.p_answer, "prediction": self.prediction, "correct": self.correct}


class Answer:
    """One sample in the model's hands: its clip, its prompt, the untouched pass (`clean`) and what it says (`base`)."""

    def __init__(self, vlm: VideoLLM, sample: Sample, clip: Clip, inputs: Inputs) -> None:
        self.vlm, self.sample, self.clip, self.inputs = vlm, sample, clip, inputs
        self.clean = recorded_states(vlm, inputs)
        self.key = {"task": sample.task, "sample_id": sample.sample_id, "video": sample.clip}
        self.token = int(self.clean.logits.argmax())
        self.base = self.read(self.clean.logits[None])[0]

    def read(self, logits: torch.Tensor) -> list[Reading]:
        """Read rows of last-position logits (C, V)."""
        logits = logits.double().cpu()
        total = logits.logsumexp(-1)  # (C,)
        right, ids = self.sample.answer, self.inputs.letter_ids
        letters = logits[:, ids]  # (C, options), or (C, 1) for an open-ended answer, whose rivals are all other words
        others = letters if self.sample.options else logits
        others = others.index_fill(1, torch.tensor([right if self.sample.options else ids[0]]), -torch.inf)
        p_token = (logits[:, self.token] - total).exp().tolist()
        p_answer = (letters[:, right] - total).exp().tolist()
        margins = (letters[:, right] - others.amax(1)).tolist()
        texts = [self.vlm.tokenizer.decode([token]) for token in logits.argmax(-1).tolist()]
        wanted = self.sample.letter or self.vlm.tokenizer.decode(ids)
        correct = [text.strip().lower() == wanted.strip().lower() for text in texts]
        return [Reading(*row) for row in zip(p_token, p_answer, margins, texts, correct, strict=True)]

    def receipt_row(self, measure: str, receipt: Receipt) -> dict[str, Any]:
        """A row of the receipts table; the first word of `measure` names what was done."""
        return self.key | {"measure": measure, "receipt": json.dumps(receipt.to_dict(), sort_keys=True)}


def ask(vlm: VideoLLM, sample: Sample) -> Answer:
    """Put one sample to the untouched model. Raises SampleError for a sample that cannot be asked."""
    clip = load_clip(sample.video, vlm.num_frames, start=sample.start, end=sample.end, rule=sample.rule)
    return Answer(vlm, sample, clip, make_inputs(vlm, sample, clip))
