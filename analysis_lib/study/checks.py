"""What is found on the first question alone, stored beside the results so that a redraw can show it without a model.

The self-test asks whether the instrument works on this model. The open routes say by which ways, through which roles,
video can still reach the last position when a pathway is all that is left open.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument import pathways
from analysis_lib.instrument.edges import Window, blocked_edges
from analysis_lib.instrument.engine import Condition, knockout_logits
from analysis_lib.instrument.hooks import attention_mask_hooks
from analysis_lib.instrument.passes import clean_pass
from analysis_lib.models.loading import Inputs, VideoLLM, decoder_layers, load_model, model_logits, unembed
from analysis_lib.models.prompts import LETTERS
from analysis_lib.study.request import check_request
from analysis_lib.study.tables import write_atomic

if TYPE_CHECKING:
    from analysis_lib.study.measure import Answer


def instrument_checks(folder: Path, *, compute: bool = True, **question: str) -> pd.DataFrame:
    """One row per check (`self_test`), from FOLDER/self_test.csv.

    `question` names model, benchmark, seed and device. It is measured if it is not stored and `compute` allows it.
    Raises StudyError otherwise, or if a check fails.
    """

    file = Path(folder) / "self_test.csv"
    found = _stored(file, lambda answer: self_test(answer.vlm, answer.inputs), compute, question)
    failed = found.loc[~found["passed"], "check"]
    if len(failed):
        raise StudyError(
            f"the instrument fails on {question['model']}: {'; '.join(failed)}; no result of this model can be trusted"
        )
    return found


def open_routes(
    folder: Path, ranges: Mapping[str, tuple[int, int]], *, compute: bool = True, **question: str
) -> pd.DataFrame:
    """Every route from video to the last position (`routes.leak_report`) in the pathway of these `ranges` and in its
    strict variant, from FOLDER/routes.csv; measured as above, and anew for other ranges. Columns `route`, `pathway`,
    `named`, `open` and `arrives`.
    """
    name = check_request(model=question["model"], ranges=ranges).ranges_name

    def measure(answer: Answer) -> pd.DataFrame:
        roles, depth = answer.inputs.roles, len(decoder_layers(answer.vlm))
        layers = pathways.pathway_ranges(depth, given=ranges)
        reports = {
            "effective": pathways.leak_report(roles, pathways.effective_pathway(roles, depth, layers)),
            "strict": pathways.leak_report(
                roles, pathways.effective_pathway(roles, depth, layers, strict=True), named=pathways.STOPS
            ),
        }
        return pd.concat([report.assign(pathway=pathway, ranges=name) for pathway, report in reports.items()])

    file = Path(folder) / "routes.csv"
    found = _stored(file, measure, compute, question)
    if compute and not (found["ranges"] == name).all():
        file.unlink()
        found = _stored(file, measure, compute, question)
    return found.drop(columns="ranges")


def _stored(
    file: Path, measure: Callable[[Answer], pd.DataFrame], compute: bool, question: Mapping[str, str]
) -> pd.DataFrame:
    """The table in `file`, measured on the first usable question if it is not there."""
    if not file.exists():
        if not compute:
            raise StudyError(f"{file} is not stored; run its notebook with compute = True")
        found = measure(_first_answer(**question))
        write_atomic(file, found.to_csv(index=False, float_format="%.3g", lineterminator="\n").encode())
    return pd.read_csv(io.BytesIO(file.read_bytes()), dtype={"wanted": str})


def _first_answer(model: str, benchmark: str, seed: int = 0, device: str = "auto") -> Answer:
    from analysis_lib.inputs.benchmarks import load_benchmark
    from analysis_lib.study.measure import ask

    vlm = load_model(model, device=device)
    for sample in load_benchmark(benchmark, samples=3, seed=seed)[0]:
        return ask(vlm, sample)
    raise StudyError(f"{benchmark} has no usable question to test the instrument on")


@torch.no_grad()
def self_test(vlm: VideoLLM, inputs: Inputs) -> pd.DataFrame:
    """Checks of the instrument on one prompt, to be shown: columns `check`, `value`, `wanted`, `passed`. Nothing is
    raised.

    Values are largest differences of float32 logits or states, attention weights, or counts. Where two float32
    computations of the same thing are compared, rounding is allowed for: 0.001, or 0.5 for a model in half precision.
    """
    clean, roles = clean_pass(vlm, inputs), inputs.roles
    rounding = 1e-3 if vlm.dtype == torch.float32 else 0.5
    untouched = model_logits(vlm, inputs)
    cut, receipt = knockout_logits(vlm, inputs, [_all_into_last(vlm, inputs)] * 2)
    answers = zip(LETTERS, inputs.letter_ids, strict=False)
    unreadable = sum(vlm.tokenizer(roles.text + letter)["input_ids"][-1] != token for letter, token in answers)
    noop = ("change of a logit by all-open masks", receipt.noop_difference)
    exact = [
        ("change of a logit left behind by knockouts", _gap(model_logits(vlm, inputs), untouched)),
        ("largest attention weight on a cut edge", receipt.max_blocked_weight),
        ("masks planned but not applied", receipt.expected - receipt.fired),
        ("rows left without an open key", receipt.fully_blocked_rows),
        ("positions without a role", inputs.n - len(roles.names)),
        ("video tokens missing or in excess", _frame_gap(inputs)),
        ("frames missing or in excess", int(roles.frame_of.max()) - len(inputs.frame_tokens)),
        ("letters that do not follow the prompt as one token", unreadable),
    ]
    close = [
        ("clean logits against the model's own", _gap(clean.logits, untouched)),
        ("lens at the last layer against the logits", _gap(unembed(vlm, clean.last[-1]), untouched)),
        ("attention kernel against measured weights", receipt.kernel_difference),
        ("condition in a batch against alone", receipt.spot_check_difference),
    ]
    ahead = ("change of earlier states by the last token", _look_ahead(vlm, inputs))
    # Experts take their tokens in groups: another last token changes how the others are rounded.
    grouped = any(name.endswith(".experts") for name, _ in vlm.hf.named_modules())
    (close if grouped else exact).insert(4, ahead)
    # On a GPU a mask, even an open one, selects another attention kernel, which rounds differently.
    (exact if vlm.device.type == "cpu" else close).insert(0, noop)
    effect = ("change of a logit by cutting all edges into last", _gap(cut[0], clean.logits))
    return _verdicts(exact, close, [effect], rounding)


def _verdicts(exact: list[tuple], close: list[tuple], felt: list[tuple], rounding: float) -> pd.DataFrame:
    """Values that must be 0, those that must stay below rounding, and those that must exceed it."""
    rows = [(name, float(value), "0", value == 0) for name, value in exact]
    rows += [(name, float(value), f"< {rounding:g}", value < rounding) for name, value in close]
    rows += [(name, float(value), f"> {rounding:g}", value > rounding) for name, value in felt]
    return pd.DataFrame(rows, columns=["check", "value", "wanted", "passed"])


def _frame_gap(inputs: Inputs) -> int:
    """Video tokens that the processor's account and the roles count differently, summed over frames."""
    differ = Counter(inputs.roles.frame_of[inputs.roles.frame_of > 0].tolist())
    differ.subtract(dict(enumerate(inputs.frame_tokens, start=1)))
    return sum(map(abs, differ.values()))


def _gap(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).abs().max())


def _all_into_last(vlm: VideoLLM, inputs: Inputs) -> Condition:
    """All that the last position reads from others, cut in every layer."""
    depth = len(decoder_layers(vlm))
    blocked = np.zeros((inputs.n, inputs.n), bool)
    blocked[-1, :-1] = True
    return Condition("all->last", Window(1, 1, depth, tuple(range(1, depth + 1))), blocked)


def _look_ahead(vlm: VideoLLM, inputs: Inputs) -> float:
    """How much the states of video tokens change with the last token, edges cut or not: not at all if causal."""
    other = replace(inputs, embeds=torch.cat([inputs.embeds[:, :-1], -inputs.embeds[:, -1:]], 1))
    blocked = torch.from_numpy(blocked_edges("cross-frame", inputs.roles)).to(vlm.device)[None, None]
    masks = {layer: blocked for layer in range(1, len(decoder_layers(vlm)) + 1)}
    plain = _gap(clean_pass(vlm, other).video, clean_pass(vlm, inputs).video)
    with attention_mask_hooks(vlm, masks):
        return max(plain, _gap(clean_pass(vlm, other).video, clean_pass(vlm, inputs).video))
