"""A model tried on a made-up clip: its checks, what a question costs, and what to type next.

It answers before a benchmark is downloaded whether the instrument fits the model and how long a study of it would take.
The clip is noise, so only its numbers of tokens and the time are the model's own; the answers mean nothing."""

import resource
import time
from collections.abc import Mapping
from typing import Any

import torch

from analysis_lib.errors import StudyError, reason_of
from analysis_lib.inputs.formats import FORMATS
from analysis_lib.instrument.checks import door_test, load_model
from analysis_lib.instrument.edges import EDGE_SETS, blocked_edges, default_window, windows
from analysis_lib.instrument.knockout import Condition, attention_layers, knockout_logits
from analysis_lib.instrument.receipts import TIMES, TOLERANCE, last_digit_moved
from analysis_lib.models.decoder import decoder_layers, moving_layers
from analysis_lib.models.merging import make_inputs
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.models.skeleton import made_up_clip, unfit

FORECAST = "tvbench"  # the paper's benchmark


def trial(model: str, *, dtype: str = "auto", device: str = "auto") -> dict[str, Any]:
    """Facts of a model and of one question's sweep (eleven edge sets, one window a layer), by name. Raises StudyError
    as `checks.load_model` does, if the instrument refuses to cut, and for whatever else goes wrong on the clip."""
    began = time.monotonic()
    vlm = load_model(model, dtype=dtype, device=device)
    took = time.monotonic() - began
    try:
        return _tried(vlm, model, took)
    except StudyError:
        raise
    except Exception as error:  # whatever a checkpoint does not share with its family
        raise unfit(vlm, reason_of(error)) from error


def _tried(vlm: VideoLLM, model: str, took: float) -> dict[str, Any]:
    """What `trial` says of a model that `took` so many seconds to load."""
    checks = door_test(vlm)
    question, frames = made_up_clip(vlm)
    started = time.monotonic()
    inputs = make_inputs(vlm, question, frames)
    depth = len(decoder_layers(vlm))
    cuts = windows(depth, default_window(depth))
    blocked = {name: blocked_edges(name, inputs.roles) for name in EDGE_SETS}
    conditions = [Condition(name, cut, edges) for name, edges in blocked.items() for cut in cuts]
    exact, _ = knockout_logits(vlm, inputs, conditions)
    seconds, total = time.monotonic() - started, _questions()
    checks.loc[len(checks)] = _exact_against_full(
        vlm, inputs, conditions[depth // 2 :: depth], exact[depth // 2 :: depth]
    )
    return {
        "model": model, "class": type(vlm.hf).__name__, "device": str(vlm.device), "dtype": str(vlm.dtype)[6:],
        "layers": depth, "layers_with_softmax_attention": len(attention_layers(vlm)),
        "layers_that_move_information": len(moving_layers(vlm)), "frames": vlm.num_frames, "tokens": inputs.n,
        "video_tokens": len(inputs.roles.positions("video")), "shown": vlm.shown, "positions": vlm.positions,
        "checks": checks.to_dict("records"), "passed": bool(checks["passed"].all()),
        "seconds_to_load": took, "seconds_a_sample": seconds, "peak_gib": _peak(vlm),
        "forecast": {"benchmark": FORECAST, "questions": total, "hours": total * seconds / 3600},
        "next": f"python -m analysis_lib reproduce --model {model} --benchmark {FORECAST}:ROOT --samples 2 --out OUT",
    }  # fmt: skip


def _exact_against_full(
    vlm: VideoLLM, inputs: Inputs, conditions: list[Condition], exact: torch.Tensor
) -> tuple[str, float, str, bool]:
    """The row of a check: how far the exact mode's logits (C, V) are from complete passes. Where that is much,
    it is held against what the last digit of the prompt's numbers changes in complete passes."""
    full, _ = knockout_logits(vlm, inputs, conditions, mode="full")
    gap, allowed = float((exact - full).abs().max()), TOLERANCE[vlm.dtype]
    if not gap < allowed:
        moved, _ = knockout_logits(vlm, last_digit_moved(inputs, seed=0), conditions, mode="full")
        allowed = max(allowed, TIMES * float((moved - full).abs().max()))
    return "exact against full, over all edge sets", gap, f"< {allowed:.2g}", gap < allowed


def _questions() -> int:
    """How many questions the forecast's benchmark was published with."""
    form = FORMATS[FORECAST]
    return form.total or sum(form.counts.values())


def _peak(vlm: VideoLLM) -> float:
    """The most memory so far, in GiB: the GPU's where the model is on one, else the process's."""
    if vlm.device.type == "cuda":
        return torch.cuda.max_memory_allocated(vlm.device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def report(found: Mapping[str, Any]) -> str:
    """What `trial` found, as a page for a reader."""
    ahead, width = found["forecast"], max(len(row["check"]) for row in found["checks"])
    recurrent = found["layers_that_move_information"] - found["layers_with_softmax_attention"]
    lines = [
        f"{found['model']}: {found['class']}, {found['layers']} layers ({recurrent} of them recurrent),"
        f" {found['dtype']} on {found['device']}",
        f"{found['frames']} {'frames as a video' if found['shown'] == 'video' else found['shown']} make"
        f" {found['video_tokens']} of {found['tokens']} tokens", "",
        *(f"{'ok  ' if row['passed'] else 'FAIL'} {row['check']:<{width}} {row['value']:.2g} (wanted {row['wanted']})"
          for row in found["checks"]), "",
        f"{found['seconds_to_load']:.1f} s to load, {found['seconds_a_sample']:.1f} s a question, at most"
        f" {found['peak_gib']:.1f} GiB of memory",
        f"knockouts of {ahead['benchmark']}'s {ahead['questions']} questions would take about {ahead['hours']:.1f}"
        " hours here (those answered wrong need none)", "",
        f"next: {found['next']}" if found["passed"] else "next: state what differs in analysis_lib/models/families.py",
    ]  # fmt: skip
    return "\n".join(lines)
