"""All measurements of one sample, as rows of the stored tables.

The clip is decoded and encoded once, the untouched pass is made once, and every measurement reads from these.
Probabilities are softmaxes over the whole vocabulary of float32 logits at the last position. `p_base` and `p_knock`
follow one token, the one that the untouched model predicts (paper, section 3); margins compare the right letter with
the strongest other letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Clip, Sample
from analysis_lib.instrument import lens, pathways
from analysis_lib.instrument.edges import windows
from analysis_lib.instrument.passes import masked_logits
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.merging import make_inputs
from analysis_lib.models.records import VideoLLM
from analysis_lib.study.answers import Answer, Rows, Settings, ask
from analysis_lib.study.cuts import CUT, frame_pairs
from analysis_lib.study.request import Request
from analysis_lib.study.response import response_knockouts
from analysis_lib.study.todo import Todo, is_kept


def settings_for(vlm: VideoLLM, request: Request, window: int, keywords: Mapping[str, Sequence[str]]) -> Settings:
    """The settings of a request for a loaded model. StudyError for windows or ranges that do not fit it."""
    depth = len(decoder_layers(vlm))
    ranges = pathways.pathway_ranges(depth, vlm.hf.config.model_type, given=request.ranges or None)
    cuts = tuple(windows(depth, window, request.style))
    return Settings(cuts, request.keep, request.mode, request.seed, keywords, ranges, request.ranges_name)


def measure_sample(vlm: VideoLLM, sample: Sample, todo: Todo, settings: Settings) -> Rows:
    """Everything that `todo` asks for, by table. A new sample yields its baseline; `keep` decides about the rest.

    Pathways, controls and responses run on every sample (`todo.FOR_ALL`), the other measures on kept samples only.

    Raises:
        SampleError: this sample cannot be measured.
        StudyError: an intervention did not happen, or the clip is not the one that was stored.
    """
    answer = ask(vlm, sample)
    if todo.frames_sha256 not in ("", answer.clip.sha256):
        raise StudyError(
            f"{sample.video}: these are not the frames measured before; restore the clip, or use another --out"
        )
    parts: list[Rows] = [] if todo.frames_sha256 else [{"baseline": [_baseline(answer)]}]
    if is_kept(settings.keep, answer.base.correct):
        parts += [CUT[measure](answer, names, settings) for measure, names in todo.edges.items()]
        parts += [frame_pairs(answer, settings)] if "pairs" in todo.measures else []
        parts += [_emergence(answer)] if "emergence" in todo.measures else []
        parts += [_lens(answer, settings)] if "lens" in todo.measures else []
    parts += [response_knockouts(answer, settings)] if "response" in todo.measures else []
    parts += [_pathway(answer, settings)] if "pathway" in todo.measures else []
    parts += [_controls(answer, settings)] if "controls" in todo.measures else []
    return {table: [row for part in parts for row in part.get(table, [])] for table in {t for p in parts for t in p}}


def _baseline(answer: Answer) -> dict[str, Any]:
    sample, inputs, base = answer.sample, answer.inputs, answer.base
    return answer.key | {
        "question": sample.question,
        "options": list(sample.options),
        "answer": sample.letter,
        "answer_text": sample.answer_text,
        "n_tokens": inputs.n,
        "n_frames": len(answer.clip.indices),
        "frame_indices": list(answer.clip.indices),
        "prediction": base.prediction,
        "correct": base.correct,
        "p_base": base.p_token,
        "p_answer": base.p_answer,
        "margin_base": base.margin,
        "p_options": answer.clean.logits.double().softmax(-1)[inputs.letter_ids].tolist(),
        "frames_sha256": answer.clip.sha256,
        "sample_sha256": sample.sha256,
    }


def _emergence(answer: Answer) -> Rows:
    frame = lens.answer_emergence(answer.vlm, answer.inputs, answer.clean)
    return {"emergence": [answer.key | row for row in frame.to_dict("records")]}


def _lens(answer: Answer, settings: Settings) -> Rows:
    frame, _ = lens.logit_lens(answer.vlm, answer.inputs, answer.clean, settings.keywords)
    return {"lens": [answer.key | row for row in frame.to_dict("records")]}


def _pathway(answer: Answer, settings: Settings) -> Rows:
    """One row per pathway and control, all in one batch."""
    depth = len(decoder_layers(answer.vlm))
    seed = [settings.seed, _number(answer.sample.sample_id)]
    masks = pathways.all_pathways(answer.inputs.roles, depth, settings.ranges, seed=seed)
    found, receipt = pathways.run_pathways(answer.vlm, answer.inputs, masks)
    rows = []
    for name, logits in found.items():
        kept, total = pathways.edges_kept(masks[name])
        pruned = answer.read(logits[None])[0]
        measured = {
            "pathway": name,
            "ranges": settings.ranges_name,
            "edges_kept": kept,
            "edges_total": total,
            "flops_kept": pathways.flops_kept(answer.vlm, masks[name]),
            "p_base": answer.base.p_token,
            "p_pruned": pruned.p_token,
            "margin_base": answer.base.margin,
            "margin_pruned": pruned.margin,
            "prediction_base": answer.base.prediction,
            "prediction": pruned.prediction,
            "correct": pruned.correct,
        }
        rows.append(answer.key | measured)
    return {"pathway": rows, "receipts": [answer.receipt_row(f"pathway {settings.ranges_name}", receipt)]}


def _controls(answer: Answer, settings: Settings) -> Rows:
    """The answer without evidence in time: no video tokens at all, one frame of the clip, frames in another order."""
    rng = np.random.default_rng([settings.seed, _number(answer.sample.sample_id)])
    frames, vlm, inputs = answer.clip.frames, answer.vlm, answer.inputs
    order = rng.permutation(len(frames))
    while len(frames) > 1 and (np.diff(order) > 0).all():
        order = rng.permutation(len(frames))
    text = torch.from_numpy(inputs.roles.positions("text")).to(vlm.device)
    variants = {
        "text only": replace(inputs, embeds=inputs.embeds[:, text], n=len(text), decoder_kwargs={}),
        "single frame": make_inputs(vlm, answer.sample, _reframed(answer.clip, [rng.integers(len(frames))])),
        "shuffled frames": make_inputs(vlm, answer.sample, _reframed(answer.clip, order)),
    }
    rows = []
    for name, variant in variants.items():
        got = answer.read(masked_logits(vlm, variant, {})[0])[0]
        measured = {"control": name, "p_answer": got.p_answer, "margin": got.margin}
        rows.append(answer.key | measured | {"prediction": got.prediction, "correct": got.correct})
    return {"controls": rows}


def _reframed(clip: Clip, order: Sequence[int]) -> Clip:
    """The clip with frames in another order, or some of them, at the times of its first ones."""
    count = len(order)
    return replace(clip, frames=clip.frames[order], indices=clip.indices[:count], seconds=clip.seconds[:count])


def _number(sample_id: str) -> int:
    """A number of a sample for seeding, the same in every process."""
    return int.from_bytes(sha256(sample_id.encode()).digest()[:4], "big")
