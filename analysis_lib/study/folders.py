"""A request against what is there: the results folder that it names, and what that folder lacks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.inputs.benchmarks import benchmark_name
from analysis_lib.inputs.records import Sample
from analysis_lib.instrument.edges import default_window, windows
from analysis_lib.models import checkpoints
from analysis_lib.models.weights import stored_files
from analysis_lib.study.request import CUTS, FOR_ALL, Request, check_request
from analysis_lib.study.store import Store

HASH_AT_ONCE = 2 << 30  # bytes of weights that are hashed even if no row is missing; more would take minutes


def look_at_model(model: str, window: int, style: str) -> tuple[int, dict[str, str]]:
    """The window's size (0: automatic) for this model, and the hash of its weights if that is quickly had. Raises
    StudyError for an unknown or incomplete model, and for a window that does not fit it."""
    source = checkpoints.find(model)
    depth = checkpoints.depth_of(source)
    k = window or default_window(depth)
    windows(depth, k, style)
    if not isinstance(source, Path) or sum(f.stat().st_size for f in stored_files(source)) > HASH_AT_ONCE:
        return k, {}
    return k, {"weights_sha256": checkpoints.weights_sha256(source)}


def results_dir(
    model: str, benchmark: str = "embedded", window: int | str = "auto", style: str = "center", *, root: str | Path = ""
) -> Path:
    """Where results go by default: <model>/<benchmark>-k<window>-<style> in data/results, or in `results` of the folder
    `root` below which everything is written. If `window` is "auto" and the model itself is not here (a redraw on
    another machine), the one folder that is stored is taken."""
    k = check_request(model=model, benchmark=benchmark, window=window, style=style).window
    parent = (Path(root) / "results" if root else paths.RESULTS) / Path(model).name
    name = benchmark_name(benchmark)
    try:
        return parent / f"{name}-k{k or look_at_model(model, 0, style)[0]}-{style}"
    except StudyError:
        stored = sorted(parent.glob(f"{name}-k*-{style}"))
        if len(stored) != 1:
            raise
        return stored[0]


@dataclass(frozen=True)
class Todo:
    """What a sample still lacks."""

    edges: Mapping[str, tuple[str, ...]]  # edge sets to cut, for each measure of CUTS
    measures: frozenset[str]  # the others ("emergence", …)
    frames_sha256: str = ""  # the stored hash of its frames, empty for a sample without a baseline row


def missing(store: Store, samples: Iterable[Sample], request: Request) -> dict[str, Todo]:
    """What each sample lacks, by sample_id, complete ones left out. StudyError if a question or clip has changed."""
    known = ["sample_id", "sample_sha256"]
    skipped, hashes = (dict(store.read(t, known).itertuples(index=False)) for t in ("skipped", "baseline"))
    begun, new = lacking(store, request), Todo(request.cuts(), frozenset(request.measure) - {*CUTS})
    found = {}
    for sample in samples:
        name = sample.sample_id
        if name not in hashes:
            if skipped.get(name) != sample.sha256:  # a bad sample is tried again once its file changes
                found[name] = new
        elif hashes[name] != sample.sha256:
            raise StudyError(f"{store.folder} holds results of another question or clip {name}; use another --out")
        elif name in begun:
            found[name] = begun[name]
    return found


def lacking(store: Store, request: Request) -> dict[str, Todo]:
    """What the samples that have a baseline row lack, by sample_id."""
    cuts, others = request.cuts(), sorted({*request.measure} - {*CUTS})
    baseline = store.read("baseline", ["task", "sample_id", "correct", "frames_sha256"])
    names = baseline["sample_id"].tolist()
    cut = {measure: store.has(measure, names, "edge_set", sets) for measure, sets in cuts.items()}
    done = {m: store.has(m, names, "task", baseline["task"].unique()).any(1) for m in others if m != "pathway"}
    if "pathway" in others:
        done["pathway"] = store.has("pathway", names, "ranges", [request.ranges_name])[:, 0]
    found = {}
    for i, row in enumerate(baseline.itertuples()):
        kept = request.keeps(row.correct)
        lacks = {m: tuple(compress(sets, ~cut[m][i])) for m, sets in cuts.items() if kept and not cut[m][i].all()}
        measures = frozenset(m for m in others if (kept or m in FOR_ALL) and not done[m][i])
        if lacks or measures:
            found[row.sample_id] = Todo(lacks, measures, row.frames_sha256)
    return found
