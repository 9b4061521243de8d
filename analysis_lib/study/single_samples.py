"""What is found on the first question alone, stored beside the results so that a redraw can show it without a model.

The self-test asks whether the instrument works on this model. The open routes say by which ways, through which roles,
video can still reach the last position when a pathway is all that is left open.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from analysis_lib.embedded.door import load_benchmark
from analysis_lib.errors import StudyError
from analysis_lib.instrument import pathways
from analysis_lib.instrument.checks import load_model, self_test
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.paths import write_atomic
from analysis_lib.study.answers import Answer, ask
from analysis_lib.study.request import check_request


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
    vlm = load_model(model, device=device)
    for sample in load_benchmark(benchmark, samples=3, seed=seed)[0]:
        return ask(vlm, sample)
    raise StudyError(f"{benchmark} has no usable question to test the instrument on")
