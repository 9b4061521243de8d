"""A small study with planted findings as a results folder, and copies of it with one thing changed: record and run."""

import json
import shutil
from pathlib import Path

import numpy as np
import planted

from analysis_lib import findings
from analysis_lib.paths import write_atomic
from analysis_lib.study.request import check_request
from analysis_lib.study.tables import read_manifest, read_table

FOLDER = "video/embedded-k3-center"
MANIFEST = {
    "model": "video", "device": "cpu", "processor": "one", "threads": 2, "dtype": "float32", "packages": {"torch": "1"},
    "settings": {"seed": 0, "window": 3, "style": "center", "benchmark": "embedded", "num_frames": 8,
                 "protocol": "mvbench", "weights_sha256": "abc"},
}  # fmt: skip


def study(root: Path, n: int = 12) -> Path:
    """The results of a model in which nearly every finding of the paper is planted; `n` questions a task."""
    rng, folder = np.random.default_rng(0), root / FOLDER
    base = planted.baseline(rng, n=n).assign(sample_sha256="s", frames_sha256="f")
    knock = planted.knockout(rng, base)
    ranges = findings.effective_ranges(knock, findings.split_videos(base, "selection"))
    name = check_request(model="video", ranges=ranges).ranges_name
    planted.store(folder, baseline=base, knockout=knock, emergence=planted.emergence(rng, base))
    planted.store(folder, lens=planted.lens(rng, base), controls=planted.controls(rng, base))
    planted.store(folder, pathway=planted.pathway(rng, base).assign(ranges=name))
    describe(folder)
    return folder


def describe(folder: Path, **changes) -> None:
    """Write the manifest with some facts changed; `settings` and `packages` are merged."""
    manifest = read_manifest(folder) or MANIFEST
    for name, value in changes.items():
        manifest = manifest | {name: manifest[name] | value if isinstance(value, dict) else value}
    write_atomic(folder / "manifest.json", json.dumps(manifest).encode())


def copy(folder: Path, root: Path) -> Path:
    """A copy below another root, free to be changed."""
    return shutil.copytree(folder, root / FOLDER)


def change(folder: Path, table: str, how) -> None:
    """Replace a stored table with what `how` makes of it."""
    planted.store(folder, **{table: how(read_table(folder, table))})
