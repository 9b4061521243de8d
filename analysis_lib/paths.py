"""Where things are, and how a file is written. Every path is found from this file, not from the working directory."""

import os
from contextlib import suppress
from pathlib import Path

from analysis_lib.errors import StudyError

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
MODELS = DATA / "models"  # committed checkpoints, one folder each
BENCHMARK = DATA / "benchmark"  # the embedded benchmark, rendered on demand, git-ignored
RESULTS = DATA / "results"  # with FIGURES and EXECUTED: the record
FIGURES = ROOT / "figures"
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = NOTEBOOKS / "executed"
BUILD = ROOT / "build"  # what can be made again, git-ignored: reproductions, redrawn figures, smoke runs


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is either the old one or complete. Raises StudyError, with the reason, if it cannot."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        reason = error.strerror or error
        hint = "free space there, or name another folder with --out"
        raise StudyError(f"cannot write {path}: {reason}; {hint}") from error
