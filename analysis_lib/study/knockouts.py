"""One sample in the model's hands: what it answers, untouched and with attention edges knocked out, as rows.

Probabilities are softmaxes over the whole vocabulary of float32 logits at the last position. `p_base`, `p_knock` and
`p_pruned` follow the token that the untouched model predicts (paper, section 3), `p_answer` the right letter; margins
compare the right letter with the strongest other.

A cut is the columns that name a condition, and the window in which its edge set is cut; one call of the engine runs all
cuts of a measure. `knockout` follows the request's windows (paper, section 3), `widths` takes the paper's sizes (G.6).
`heads` asks which query heads carry a route into the last token, layer by layer. `pairs` cuts edges in all layers at
once, since a narrow window can be repaired by the layers outside: which earlier frame does a frame need?"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import torch

from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Clip, Sample
from analysis_lib.inputs.videos import load_clip
from analysis_lib.instrument.edges import Window, blocked_edges, frame_edge_sets, window_sizes, windows
from analysis_lib.instrument.exact import recorded_states
from analysis_lib.instrument.knockout import Condition, attention_layers, knockout_logits, query_heads
from analysis_lib.instrument.receipts import Receipt
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.merging import make_inputs
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.study.request import Request

Rows = dict[str, list[dict[str, Any]]]
Cut = tuple[dict[str, Any], Window]


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several measurements, by table."""
    return {table: [row for part in parts for row in part.get(table, [])] for table in chain(*parts)}


class Answer:
    """One sample in the model's hands: its clip, its prompt, the untouched pass (`clean`) and what it says (`base`)."""

    def __init__(self, vlm: VideoLLM, sample: Sample, clip: Clip, inputs: Inputs) -> None:
        self.vlm, self.sample, self.clip, self.inputs = vlm, sample, clip, inputs
        self.clean = recorded_states(vlm, inputs)
        self.key = {"task": sample.task, "sample_id": sample.sample_id, "video": sample.clip}
        self.token = int(self.clean.logits.argmax())
        self.base = self.read(self.clean.logits[None], "base")[0]

    def read(self, logits: torch.Tensor, state: str) -> list[dict[str, Any]]:
        """What rows of last-position logits (C, V) say, as columns named after the state of the model ("base", "knock",
        …): p_STATE, margin_STATE, p_answer, prediction and correct. A table takes those that it has."""
        logits = logits.double()  # on their device: a GPU reads so many vocabularies faster than it hands them over
        total = logits.logsumexp(-1)  # (C,)
        right, ids = self.sample.answer, self.inputs.letter_ids
        letters = logits[:, ids]  # (C, options), or (C, 1) for an open-ended answer, whose rivals are all other words
        others = letters if self.sample.options else logits
        left_out = torch.tensor([right if self.sample.options else ids[0]], device=logits.device)
        others = others.index_fill(1, left_out, -torch.inf)
        p_token = (logits[:, self.token] - total).exp().tolist()
        p_answer = (letters[:, right] - total).exp().tolist()
        margins = (letters[:, right] - others.amax(1)).tolist()
        texts = [self.vlm.tokenizer.decode([token]) for token in logits.argmax(-1).tolist()]
        wanted = self.sample.letter or self.vlm.tokenizer.decode(ids)
        correct = [text.strip().lower() == wanted.strip().lower() for text in texts]
        named = (f"p_{state}", f"margin_{state}", "p_answer", "prediction", "correct")
        rows = zip(p_token, margins, p_answer, texts, correct, strict=True)
        return [dict(zip(named, row, strict=True)) for row in rows]

    def receipt_row(self, measure: str, receipt: Receipt) -> dict[str, Any]:
        """A row of the receipts table; the first word of `measure` names what was done."""
        return self.key | {"measure": measure, "receipt": json.dumps(asdict(receipt), sort_keys=True)}


def ask(vlm: VideoLLM, sample: Sample) -> Answer:
    """Put one sample to the untouched model. Raises SampleError for a sample that cannot be asked."""
    clip = load_clip(sample.video, vlm.num_frames, start=sample.start, end=sample.end, rule=sample.rule)
    return Answer(vlm, sample, clip, make_inputs(vlm, sample, clip))


def edge_set_knockouts(answer: Answer, measure: str, edge_sets: Sequence[str], request: Request) -> Rows:
    """One row per edge set and place: a window, a window of some size, or one query head of one layer."""
    depth, heads = len(decoder_layers(answer.vlm)), range(1, query_heads(answer.vlm) + 1)
    places = {
        "knockout": [(layers_of(w), w) for w in windows(depth, request.window, request.style)],
        "widths": [({"window": k, **layers_of(w)}, w) for k in window_sizes(depth) for w in windows(depth, k)],
        "heads": [
            ({"layer": w.layer, "head": head}, w)
            for w in windows(depth, 1)
            for head in heads
            if w.layer in attention_layers(answer.vlm)
        ],
    }[measure]
    cuts = [({"edge_set": name} | columns, window) for name in edge_sets for columns, window in places]
    return cut_rows(answer, f"{measure} {','.join(edge_sets)}", cuts, request)


def frame_pair_knockouts(answer: Answer, request: Request) -> Rows:
    """One row per pair of frames, and per group of pairs (`edges.frame_edge_sets`), cut in all layers."""
    depth, roles = len(decoder_layers(answer.vlm)), answer.inputs.roles
    named = frame_edge_sets(int(roles.frame_of.max()), both_ways=roles.both_ways)
    everywhere = Window(1, 1, depth, tuple(range(1, depth + 1)))
    span = {"first_layer": 1, "last_layer": depth}
    cuts = [
        ({"edge_set": name, "query_frame": query, "key_frame": key, "distance": distance} | span, everywhere)
        for name, (query, key, distance) in named.items()
    ]
    return cut_rows(answer, "pairs", cuts, request)


def layers_of(window: Window) -> dict[str, int]:
    """The columns that say where a window lies."""
    return {"layer": window.layer, "first_layer": window.first, "last_layer": window.last}


def cut_rows(answer: Answer, what: str, cuts: Sequence[Cut], request: Request) -> Rows:
    """One row per cut, its own columns (with `edge_set`, and `head` if one is cut alone) and its effect; all conditions
    share batches. The first word of `what` is the table."""
    blocked = {own["edge_set"]: blocked_edges(own["edge_set"], answer.inputs.roles) for own, _ in cuts}
    empty = [name for name, edges in blocked.items() if not edges.any()]
    if empty:
        raise StudyError(f"{', '.join(empty)} holds no edge in this prompt (no query reads these keys); leave it out")
    conditions = [
        Condition(own["edge_set"], window, blocked[own["edge_set"]], (own["head"],) if "head" in own else ())
        for own, window in cuts
    ]
    logits, receipt = knockout_logits(answer.vlm, answer.inputs, conditions, mode=request.mode)  # (C, V)
    base, rows = answer.base, []
    for (own, _), knocked in zip(cuts, answer.read(logits, "knock"), strict=True):
        change = {"relative_change": 100 * (knocked["p_knock"] - base["p_base"]) / base["p_base"]}
        rows.append(answer.key | own | base | knocked | change)
    return {what.split()[0]: rows, "receipts": [answer.receipt_row(what, receipt)]}
