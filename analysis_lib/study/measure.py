"""All measurements of one sample, as rows of the stored tables.

The clip is decoded and encoded once, the untouched pass is made once (`knockouts.ask`), and all measures read them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
import torch

from analysis_lib.embedded import door
from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Clip, Sample
from analysis_lib.instrument import lens, pathways
from analysis_lib.instrument.passes import masked_logits
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.merging import make_inputs
from analysis_lib.models.records import VideoLLM
from analysis_lib.study.folders import Todo
from analysis_lib.study.knockouts import Answer, Rows, ask, edge_set_knockouts, frame_pair_knockouts, joined
from analysis_lib.study.request import FOR_ALL, Request
from analysis_lib.study.response import response_knockouts

PAPER_KEYWORDS = {  # table D
    "spatial": "bag bed blank book box cabinet camera clothes cup door floor food glass laptop paper person phone "
    "sandwich table".split(),
    "temporal": "close down drink eat hold on open put sit take throw tidy up".split(),
}


def keywords(benchmark: str) -> Mapping[str, Sequence[str]]:
    """The lens's keywords by kind: the embedded world's own words, or those of the paper's table D."""
    return door.keywords(benchmark) or PAPER_KEYWORDS


def measure_sample(vlm: VideoLLM, sample: Sample, todo: Todo, request: Request) -> Rows:
    """Everything that `todo` asks for, by table. A new sample yields its baseline; `keep` decides about the rest.

    Measures that are FOR_ALL run on every sample, the others on kept samples only. Raises SampleError for a sample that
    cannot be measured, StudyError where an intervention did not happen or the clip is not the one that was stored.
    """
    answer = ask(vlm, sample)
    if todo.frames_sha256 not in ("", answer.clip.sha256):
        hint = "restore the clip, or use another --out"
        raise StudyError(f"{sample.video}: these are not the frames measured before; {hint}")
    parts = [] if todo.frames_sha256 else [_baseline(answer)]
    if kept := request.keeps(answer.base.correct):
        parts += [edge_set_knockouts(answer, measure, edge_sets, request) for measure, edge_sets in todo.edges.items()]
    for measure, measured in MEASURED.items():
        if measure in todo.measures and (kept or measure in FOR_ALL):
            parts.append(measured(answer, request))
    return joined(parts)


def _baseline(answer: Answer) -> Rows:
    sample, inputs, clip = answer.sample, answer.inputs, answer.clip
    asked = {"question": sample.question, "options": list(sample.options), "answer": sample.letter}
    shown = {"n_tokens": inputs.n, "n_frames": len(clip.indices), "frame_indices": list(clip.indices)}
    probabilities = answer.clean.logits.double().softmax(-1)[inputs.letter_ids].tolist()
    said = answer.base.columns("base") | {"answer_text": sample.answer_text, "p_options": probabilities}
    hashes = {"frames_sha256": clip.sha256, "sample_sha256": sample.sha256}
    return {"baseline": [answer.key | asked | shown | said | hashes]}


def _emergence(answer: Answer, _: Request) -> Rows:
    frame = lens.answer_emergence(answer.vlm, answer.inputs, answer.clean)
    return {"emergence": [answer.key | row for row in frame.to_dict("records")]}


def _lens(answer: Answer, request: Request) -> Rows:
    frame, _ = lens.logit_lens(answer.vlm, answer.inputs, answer.clean, keywords(request.benchmark))
    return {"lens": [answer.key | row for row in frame.to_dict("records")]}


def _pathway(answer: Answer, request: Request) -> Rows:
    """One row per pathway and control, all in one batch."""
    base, ranges = answer.base, request.ranges_name
    seed = [request.seed, _number(answer.sample.sample_id)]
    depth = len(decoder_layers(answer.vlm))
    layers = pathways.pathway_ranges(depth, answer.vlm.hf.config.model_type, given=request.ranges)
    masks = pathways.all_pathways(answer.inputs.roles, depth, layers, seed=seed)
    found, receipt = pathways.run_pathways(answer.vlm, answer.inputs, masks)
    rows = []
    for name, logits in found.items():
        kept, total = pathways.edges_kept(masks[name])
        own = {"pathway": name, "ranges": ranges, "edges_kept": kept, "edges_total": total}
        own |= {"flops_kept": pathways.flops_kept(answer.vlm, masks[name]), "prediction_base": base.prediction}
        rows.append(answer.key | own | base.columns("base") | answer.read(logits[None])[0].columns("pruned"))
    return {"pathway": rows, "receipts": [answer.receipt_row(f"pathway {ranges}", receipt)]}


def _controls(answer: Answer, request: Request) -> Rows:
    """The answer without evidence in time: no video tokens at all, one frame of the clip, frames in another order."""
    rng = np.random.default_rng([request.seed, _number(answer.sample.sample_id)])
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
        rows.append(answer.key | {"control": name, "margin": got.margin} | got.columns("control"))
    return {"controls": rows}


def _reframed(clip: Clip, order: Sequence[int]) -> Clip:
    """The clip with frames in another order, or some of them, at the times of its first ones."""
    count = len(order)
    return replace(clip, frames=clip.frames[order], indices=clip.indices[:count], seconds=clip.seconds[:count])


def _number(sample_id: str) -> int:
    """A number of a sample for seeding, the same in every process."""
    return int.from_bytes(sha256(sample_id.encode()).digest()[:4], "big")


MEASURED = {  # in this order
    "pairs": frame_pair_knockouts,
    "emergence": _emergence,
    "lens": _lens,
    "response": response_knockouts,
    "pathway": _pathway,
    "controls": _controls,
}
