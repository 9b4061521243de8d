"""The instrument's self-test on one sample, stored beside the results so that a redraw can show it without a model."""

import io
from pathlib import Path

import pandas as pd

from analysis_lib.errors import StudyError
from analysis_lib.tables import write_atomic


def instrument_checks(
    folder: Path, *, model: str, benchmark: str, seed: int = 0, device: str = "auto", compute: bool = True
) -> pd.DataFrame:
    """One row per check (`engine.self_test`) on the first question of the benchmark, from FOLDER/self_test.csv.

    It is measured if it is not stored and `compute` allows it. Raises StudyError otherwise, or if a check fails.
    """
    file = Path(folder) / "self_test.csv"
    if not file.exists():
        if not compute:
            raise StudyError(f"{file} is not stored; run notebook 00 with compute = True")
        found = _measure(model, benchmark, seed, device)
        write_atomic(file, found.to_csv(index=False, float_format="%.3g", lineterminator="\n").encode())
    found = pd.read_csv(io.BytesIO(file.read_bytes()), dtype={"wanted": str})
    failed = found.loc[~found["passed"], "check"]
    if len(failed):
        raise StudyError(
            f"the instrument fails on {model}: {'; '.join(failed)}; no result of this model can be trusted"
        )
    return found


def _measure(model: str, benchmark: str, seed: int, device: str) -> pd.DataFrame:
    from analysis_lib.benchmarks import load_benchmark
    from analysis_lib.engine import self_test
    from analysis_lib.measure import ask
    from analysis_lib.models import load_model

    vlm = load_model(model, device=device)
    for sample in load_benchmark(benchmark, samples=3, seed=seed)[0]:
        return self_test(vlm, ask(vlm, sample).inputs)
    raise StudyError(f"{benchmark} has no usable question to test the instrument on")
