"""A small sweep over the tiny checkpoint, as most tests of the study run it."""

from pathlib import Path

from analysis_lib.study import runs
from analysis_lib.study.tables import SECONDS

GOLDEN = Path(__file__).parents[1] / "goldens" / "pllava_tiny"
EDGES = ("cross-frame", "video->last")


def sweep(root, out, **more) -> runs.Results:
    """Everything measured by default, on two edge sets; the random model is never right, so all samples are kept."""
    request = {"model": str(GOLDEN), "edges": EDGES, "keep": "all", "out": out}
    return runs.sweep(benchmark=f"tvbench:{root}", **(request | more))


def files(folder) -> dict[str, bytes]:
    """Every result's bytes; of the manifest all but the commit, which may change while the tests run."""
    results = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != SECONDS]
    found = {str(p.relative_to(folder)): p.read_bytes() for p in results}
    lines = found["manifest.json"].splitlines()
    return found | {"manifest.json": b"".join(line for line in lines if not line.startswith(b' "commit"'))}
