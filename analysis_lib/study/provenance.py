"""What the manifest says about the rows: software, commit, proof of interventions, and how much there is.

Nothing in it depends on the order in which samples were measured, or on the time but for the day, so equal rows of one
day give equal manifests."""

import io
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from pyarrow.json import ParseOptions, read_json

from analysis_lib import paths
from analysis_lib.inputs.benchmarks import benchmark_hash
from analysis_lib.instrument.receipts import Receipt, merged
from analysis_lib.models.records import VideoLLM
from analysis_lib.study.tables import BOTH_WAYS

PACKAGES = ("torch", "transformers", "tokenizers", "decord2", "numpy", "pillow", "pandas", "pyarrow")


def of_model(vlm: VideoLLM) -> dict[str, Any]:
    """The facts of a loaded model on which stored values depend."""
    about = {"weights_sha256": vlm.weights_sha256, "dtype": str(vlm.dtype).removeprefix("torch.")}
    about |= {"num_frames": vlm.num_frames, "protocol": vlm.protocol}
    about |= {} if vlm.shown == "video" else {"shown": vlm.shown}
    about |= {"frames_read": BOTH_WAYS} if vlm.both_ways else {}
    return about if vlm.positions == "own" else about | {"positions": vlm.positions}


def of_run(vlm: VideoLLM, benchmark: str) -> dict[str, Any]:
    """Where and with what rows are made."""
    packages = {name: next((found.version for found in distributions(name=name)), None) for name in PACKAGES}
    facts = {name: of_model(vlm)[name] for name in ("weights_sha256", "dtype")}
    facts |= {"model": vlm.name, "revision": vlm.revision, "device": vlm.device.type, "benchmark": benchmark}
    facts |= {"processor": processor(vlm.device), "threads": torch.get_num_threads()}
    return facts | {"packages": {"python": sys.version.split()[0]} | packages, "commit": commit(), "date": today()}


def today() -> str:
    """The day, in universal time."""
    return datetime.now(UTC).date().isoformat()


def processor(device: torch.device) -> str:
    """The name of what computes: of the GPU, or of the processor as its maker writes it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def commit() -> str | None:
    """The repository's commit, with `+changes` if the package differs from it; None outside of a repository."""
    ask = partial(subprocess.run, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    try:
        head = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = ask(["git", "status", "--porcelain", "--", "analysis_lib"]).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed else "")


def summary(read: Callable[..., pd.DataFrame]) -> dict[str, Any]:
    """Of all stored rows: hash of the benchmark, number of samples a task, and receipts merged for each measure. `read`
    gives columns of a table (`store.Store.read`)."""
    baseline = read("baseline", ["task", "sample_id", "sample_sha256", "correct"])
    skipped = read("skipped", ["task", "sample_id", "sample_sha256"])
    kinds = {"measured": baseline, "correct": baseline[baseline["correct"]], "skipped": skipped}
    counts = {kind: Counter(rows["task"].value_counts().to_dict()) for kind, rows in kinds.items()}
    every = pd.concat([baseline, skipped], ignore_index=True)
    asked = (every[name].to_numpy(object) for name in ("sample_id", "sample_sha256"))  # lists of strings take long
    receipts = read("receipts", ["measure", "receipt"])
    measures = receipts["measure"].unique()
    of_kind = {kind: [m for m in measures if m.split()[0] == kind] for kind in sorted({m.split()[0] for m in measures})}
    found = {kind: _as_one(receipts.loc[receipts["measure"].isin(of), "receipt"]) for kind, of in of_kind.items()}
    return {
        "benchmark_sha256": benchmark_hash(*asked),
        "samples": {task: {kind: counts[kind][task] for kind in kinds} for task in sorted(every["task"].unique())},
        "receipts": {name: dict(sorted(receipt.items())) for name, receipt in found.items()},
    }


def _as_one(receipts: pd.Series) -> dict[str, float]:
    """Stored receipts, as JSON, merged."""
    types = {field.name: pa.float64() if isinstance(field.default, float) else pa.int64() for field in fields(Receipt)}
    known = ParseOptions(explicit_schema=pa.schema(types), unexpected_field_behavior="ignore")
    rows = read_json(io.BytesIO("\n".join(receipts.to_numpy(object)).encode()), parse_options=known)
    return asdict(merged({name: rows[name].drop_null().to_pylist() for name in rows.column_names}))
