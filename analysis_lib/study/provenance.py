"""What a manifest says about stored rows: software, commit, proof of interventions, and how much there is.

Nothing here depends on the time or on the order in which samples were measured, so equal rows give equal manifests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pandas as pd

from analysis_lib import paths
from analysis_lib.inputs.benchmarks import benchmark_hash
from analysis_lib.inputs.records import Skip
from analysis_lib.instrument.receipts import Receipt
from analysis_lib.models.records import VideoLLM

PACKAGES = ("torch", "transformers", "tokenizers", "decord2", "numpy", "pillow", "pandas", "pyarrow")


def of_model(vlm: VideoLLM) -> dict[str, Any]:
    """The facts of a loaded model on which stored values depend."""
    about = {} if vlm.positions == "own" else {"positions": vlm.positions}
    return about | {
        "weights_sha256": vlm.weights_sha256,
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "num_frames": vlm.num_frames,
        "protocol": vlm.protocol,
    }


def of_run(vlm: VideoLLM, benchmark: str) -> dict[str, Any]:
    """Where and with what rows are made."""
    about = of_model(vlm)
    return {
        "model": vlm.name,
        "revision": vlm.revision,
        "weights_sha256": about["weights_sha256"],
        "dtype": about["dtype"],
        "benchmark": benchmark,
        "device": vlm.device.type,
        "packages": {"python": sys.version.split()[0]} | {name: _version(name) for name in PACKAGES},
        "commit": commit(),
    }


def commit() -> str | None:
    """The repository's commit, with `+changes` if the package differs from it; None outside of a repository."""
    try:
        head = _git("rev-parse", "HEAD").stdout.strip()
        changed = _git("status", "--porcelain", "--", "analysis_lib").stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed else "")


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(paths.ROOT), *words], capture_output=True, text=True, check=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def summary(tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Of all stored rows: hash of the benchmark, number of samples a task, and receipts merged for each measure."""
    rows = pd.concat([tables["baseline"], tables["skipped"]], ignore_index=True)
    identities = [Skip("", row.sample_id, "", sha256=row.sample_sha256) for row in rows.itertuples()]
    counts = {
        task: {
            "measured": len(part),
            "correct": int(part["correct"].sum()),
            "skipped": int((tables["skipped"]["task"] == task).sum()),
        }
        for task, part in ((t, tables["baseline"].query("task == @t")) for t in sorted(set(rows["task"])))
    }
    receipts = _receipts(tables["receipts"])
    return {"benchmark_sha256": benchmark_hash(identities), "samples": counts, "receipts": receipts}


def _receipts(rows: pd.DataFrame) -> dict[str, Any]:
    """One receipt per measure (the first word of a row's `measure`), merged over samples."""
    if rows.empty:
        return {}
    merged: dict[str, Receipt] = {}
    for row in rows.itertuples():
        kind = row.measure.split()[0]
        merged[kind] = merged.get(kind, Receipt()).merge(Receipt(**json.loads(row.receipt)))
    return {kind: receipt.to_dict() for kind, receipt in sorted(merged.items())}
