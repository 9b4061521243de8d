"""Where things are. Every path is found from this file, so nothing depends on the working directory."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
MODELS = DATA / "models"  # committed checkpoints, one folder each
BENCHMARK = DATA / "benchmark"  # the embedded benchmark, rendered on demand, git-ignored
RESULTS = DATA / "results"
FIGURES = ROOT / "figures"
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = NOTEBOOKS / "executed"
