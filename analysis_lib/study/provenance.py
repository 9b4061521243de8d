"""Which results these are: where they lie, and what their manifest says about the rows.

A manifest names software, commit, proof of interventions, and how much there is. Nothing in it depends on the time or
on the order in which samples were measured, so equal rows give equal manifests.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pandas as pd

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.inputs.benchmarks import benchmark_hash, benchmark_name
from analysis_lib.inputs.records import Skip
from analysis_lib.instrument import edges
from analysis_lib.instrument.pathways import pathway_ranges
from analysis_lib.instrument.receipts import Receipt
from analysis_lib.models import checkpoints
from analysis_lib.models.records import VideoLLM
from analysis_lib.study.request import check_request

PACKAGES = ("torch", "transformers", "tokenizers", "decord2", "numpy", "pillow", "pandas", "pyarrow")
HASH_AT_ONCE = 2 << 30  # bytes of weights that are hashed even if no row is missing; more would take minutes


def look_at_model(
    model: str, window: int, style: str, ranges: Mapping[str, tuple[int, int]] | None = None
) -> tuple[int, dict[str, str]]:
    """The window's size (0: automatic) for this model, and the hash of its weights if that is quickly had.

    Raises StudyError for an unknown or incomplete model, and for a window or `ranges` of a pathway that do not fit it.
    """
    source = checkpoints.find(model)
    depth = checkpoints.depth_of(source)
    k = window or edges.default_window(depth)
    edges.windows(depth, k, style)
    if ranges:
        pathway_ranges(depth, given=ranges)
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


def of_model(vlm: VideoLLM) -> dict[str, Any]:
    """The facts of a loaded model on which stored values depend."""
    about = {"weights_sha256": vlm.weights_sha256, "dtype": str(vlm.dtype).removeprefix("torch.")}
    about |= {"num_frames": vlm.num_frames, "protocol": vlm.protocol}
    return about if vlm.positions == "own" else about | {"positions": vlm.positions}


def of_run(vlm: VideoLLM, benchmark: str) -> dict[str, Any]:
    """Where and with what rows are made."""
    packages = {name: next((found.version for found in distributions(name=name)), None) for name in PACKAGES}
    facts = {name: of_model(vlm)[name] for name in ("weights_sha256", "dtype")}
    facts |= {"model": vlm.name, "revision": vlm.revision, "device": vlm.device.type, "benchmark": benchmark}
    return facts | {"packages": {"python": sys.version.split()[0]} | packages, "commit": commit()}


def commit() -> str | None:
    """The repository's commit, with `+changes` if the package differs from it; None outside of a repository."""
    ask = partial(subprocess.run, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    try:
        head = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = ask(["git", "status", "--porcelain", "--", "analysis_lib"]).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed else "")


def summary(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Of all stored rows: hash of the benchmark, number of samples a task, and receipts merged for each measure."""
    baseline, skipped = tables["baseline"], tables["skipped"]
    rows = pd.concat([baseline, skipped], ignore_index=True)
    counts = {}
    for task in sorted(set(rows["task"])):
        correct = baseline.loc[baseline["task"] == task, "correct"]
        n_skipped = int((skipped["task"] == task).sum())
        counts[task] = {"measured": len(correct), "correct": int(correct.sum()), "skipped": n_skipped}
    merged: dict[str, Receipt] = {}
    for row in tables["receipts"].itertuples():
        measure = row.measure.split()[0]
        merged[measure] = merged.get(measure, Receipt()).merge(Receipt(**json.loads(row.receipt)))
    identities = [Skip("", row.sample_id, "", sha256=row.sample_sha256) for row in rows.itertuples()]
    return {
        "benchmark_sha256": benchmark_hash(identities),
        "samples": counts,
        "receipts": {measure: receipt.to_dict() for measure, receipt in sorted(merged.items())},
    }
