"""All measurements of one sample, as rows of the stored tables.

The clip is decoded and encoded once, the untouched pass is made once (`knockouts.ask`), and all measures read them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
import torch

from analysis_lib.embedded import door
from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs.records import Clip, Sample, Skip
from analysis_lib.instrument import lens, pathways
from analysis_lib.instrument.passes import masked_logits
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.merging import make_inputs
from analysis_lib.models.records import VideoLLM
from analysis_lib.study.folders import Todo
from analysis_lib.study.knockouts import Answer, Rows, ask, edge_set_knockouts, frame_pair_knockouts, joined
from analysis_lib.study.parts import to_part
from analysis_lib.study.request import FOR_ALL, Request
from analysis_lib.study.response import response_knockouts

PAPER_KEYWORDS = {  # table D
    "spatial": "bag bed blank book box cabinet camera clothes cup door floor food glass laptop paper person phone "
    "sandwich table".split(),
    "temporal": "close down drink eat hold on open put sit take throw tidy up".split(),
}


def keywords(benchmark: str, vlm: VideoLLM) -> Mapping[str, Sequence[str]]:
    """The lens's keywords by kind: the embedded world's own words, with others for the same if the model's vocabulary
    knows all of them whole; for another benchmark those of the paper's table D."""
    own, more = door.keywords(benchmark) or PAPER_KEYWORDS, door.natural_keywords(benchmark)
    if not all(lens.is_one_token(vlm, word) for words in more.values() for word in words):
        return own
    return {kind: [*words, *more.get(kind, ())] for kind, words in own.items()}


def measure_sample(vlm: VideoLLM, sample: Sample, todo: Todo, request: Request) -> Rows:
    """Everything that `todo` asks for, by table. A new sample yields its baseline; measures that are not FOR_ALL run on
    samples that `keep` keeps. Raises SampleError for a sample that cannot be measured, StudyError where an intervention
    did not happen or the clip is not the one that was stored."""
    answer = ask(vlm, sample)
    if todo.frames_sha256 not in ("", answer.clip.sha256):
        hint = "restore the clip, or use another --out"
        raise StudyError(f"{sample.video}: these are not the frames measured before; {hint}")
    parts = [] if todo.frames_sha256 else [_baseline(answer)]
    if kept := request.keeps(answer.base["correct"]):
        parts += [edge_set_knockouts(answer, measure, edge_sets, request) for measure, edge_sets in todo.edges.items()]
    wanted = {measure for measure in todo.measures if kept or measure in FOR_ALL}
    parts += [measured(answer, request) for measure, measured in MEASURED.items() if measure in wanted]
    return joined(parts)


def sample_part(vlm: VideoLLM, sample: Sample, todo: Todo, request: Request) -> bytes:
    """`measure_sample` as the file of a finished sample; one that cannot be measured yields a row of `skipped`."""
    try:
        rows = measure_sample(vlm, sample, todo, request)
    except SampleError as error:
        reason = str(error).replace(str(sample.video), sample.clip)  # the same wherever the benchmark lies
        rows = {"skipped": [skip_row(Skip(sample.task, sample.sample_id, reason, sample.clip, sample.sha256))]}
    return to_part(rows)


def skip_row(skip: Skip) -> dict[str, str]:
    """A row of the skipped table."""
    key = {"task": skip.task, "sample_id": skip.sample_id, "video": skip.clip}
    return key | {"reason": skip.reason, "sample_sha256": skip.sha256}


def _baseline(answer: Answer) -> Rows:
    sample, inputs, clip = answer.sample, answer.inputs, answer.clip
    asked = {"question": sample.question, "options": list(sample.options), "answer": sample.letter}
    asked |= {"answer_text": sample.answer_text, "sample_sha256": sample.sha256, "frames_sha256": clip.sha256}
    shown = {"n_tokens": inputs.n, "n_frames": len(clip.indices), "frame_indices": list(clip.indices)}
    probabilities = {"p_options": answer.clean.logits.double().softmax(-1)[inputs.letter_ids].tolist()}
    return {"baseline": [answer.key | asked | shown | answer.base | probabilities]}


def _emergence(answer: Answer, _: Request) -> Rows:
    frame = lens.answer_emergence(answer.vlm, answer.inputs, answer.clean)
    return {"emergence": [answer.key | row for row in frame.to_dict("records")]}


def _lens(answer: Answer, request: Request) -> Rows:
    frame, _ = lens.logit_lens(answer.vlm, answer.clean, keywords(request.benchmark, answer.vlm))
    return {"lens": [answer.key | row for row in frame.to_dict("records")]}


def _pathway(answer: Answer, request: Request) -> Rows:
    """One row per pathway and control, all in one batch."""
    vlm, base, depth = answer.vlm, answer.base, len(decoder_layers(answer.vlm))
    roles = answer.inputs.roles
    layers = pathways.pathway_ranges(depth, vlm.hf.config.model_type, given=request.ranges)
    masks = pathways.all_pathways(roles, depth, layers, seed=_seed(answer, request))
    found, receipt = pathways.run_pathways(vlm, answer.inputs, masks)
    rows, readable = [], roles.readable  # (n, n)
    for name, logits in found.items():
        kept, total = pathways.edges_kept(masks[name], readable)
        flops = pathways.flops_kept(vlm, masks[name], readable)
        own = {"pathway": name, "ranges": request.ranges_name, "edges_kept": kept, "edges_total": total}
        own |= {"flops_kept": flops, "prediction_base": base["prediction"]}
        rows.append(answer.key | own | base | answer.read(logits[None], "pruned")[0])
    return {"pathway": rows, "receipts": [answer.receipt_row(f"pathway {request.ranges_name}", receipt)]}


def _controls(answer: Answer, request: Request) -> Rows:
    """The answer without evidence in time: no video tokens at all, one frame of the clip, frames in another order."""
    vlm, inputs, rng = answer.vlm, answer.inputs, np.random.default_rng(_seed(answer, request))
    count = len(answer.clip.frames)
    order = rng.permutation(count)
    while count > 1 and (np.diff(order) > 0).all():
        order = rng.permutation(count)
    text = torch.from_numpy(inputs.roles.positions("text")).to(vlm.device)
    variants = {
        "text only": replace(inputs, embeds=inputs.embeds[:, text], n=len(text), decoder_kwargs={}),
        "single frame": make_inputs(vlm, answer.sample, _reframed(answer.clip, [rng.integers(count)])),
        "shuffled frames": make_inputs(vlm, answer.sample, _reframed(answer.clip, order)),
    }
    rows = []
    for name, variant in variants.items():
        got = answer.read(masked_logits(vlm, variant, {})[0], "control")[0]
        rows.append(answer.key | {"control": name, "margin": got["margin_control"]} | got)
    return {"controls": rows}


def _reframed(clip: Clip, order: Sequence[int]) -> Clip:
    """The clip with frames in another order, or some of them, at the times of its first ones."""
    count = len(order)
    return replace(clip, frames=clip.frames[order], indices=clip.indices[:count], seconds=clip.seconds[:count])


def _seed(answer: Answer, request: Request) -> list[int]:
    """Of a sample's random draws, the same in every process."""
    return [request.seed, int.from_bytes(sha256(answer.sample.sample_id.encode()).digest()[:4], "big")]


MEASURED = {  # in this order
    "pairs": frame_pair_knockouts, "emergence": _emergence, "lens": _lens, "response": response_knockouts,
    "pathway": _pathway, "controls": _controls,
}  # fmt: skip
