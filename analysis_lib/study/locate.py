"""Where results of a model on a benchmark lie, and what a model's folder tells before the model is loaded."""

from pathlib import Path

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.inputs.benchmarks import benchmark_name
from analysis_lib.instrument import edges
from analysis_lib.models import checkpoints
from analysis_lib.study.request import check_request

SECONDS = "seconds.csv"  # in a results folder, one line a sweep: measures, samples measured, seconds (not a result)
HASH_AT_ONCE = 2 << 30  # bytes of weights that are hashed even if no row is missing; more would take minutes


def look_at_model(model: str, window: int, style: str) -> tuple[int, dict[str, str]]:
    """The window's size (0: automatic) for this model, and the hash of its weights if that is quickly had.

    Raises StudyError for an unknown or incomplete model, and for a window that does not fit it.
    """
    source = checkpoints.find(model)
    depth = checkpoints.depth_of(source)
    k = window or edges.default_window(depth)
    edges.windows(depth, k, style)
    if not isinstance(source, Path) or sum(f.stat().st_size for f in source.glob("*.safetensors")) > HASH_AT_ONCE:
        return k, {}
    return k, {"weights_sha256": checkpoints.weights_sha256(source)}


def results_dir(
    model: str, benchmark: str = "embedded", window: int | str = "auto", style: str = "center", *, root: str | Path = ""
) -> Path:
    """Where results go by default: ROOT/<model>/<benchmark>-k<window>-<style>.

    `root` is a folder below which everything is written, in its `results`; empty means data/results. If `window` is
    "auto" and the model itself is not here (a redraw on another machine), the one folder that is stored is taken.
    """
    request = check_request(model=model, benchmark=benchmark, window=window, style=style)
    parent = (Path(root) / "results" if root else paths.RESULTS) / Path(model).name
    name = benchmark_name(benchmark)
    if request.window:
        return parent / f"{name}-k{request.window}-{style}"
    try:
        return parent / f"{name}-k{look_at_model(model, 0, style)[0]}-{style}"
    except StudyError:
        stored = sorted(parent.glob(f"{name}-k*-{style}"))
        if len(stored) != 1:
            raise
        return stored[0]
