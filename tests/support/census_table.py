"""`make families`: the census in docs/families.md, one row for every architecture of the installed transformers whose
processor takes videos, and for every one that takes images only and is shown a clip's frames as images. Each tiny
checkpoint is saved, loaded as a user would load it, checked, swept in both modes, and sent through every notebook.

With names of architectures as arguments, only these are tried, and their rows replaced.
"""

import io
import os
import resource
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path

import census
import notebook_runs
import numpy as np
import tiny_families

from analysis_lib import paths
from analysis_lib.errors import StudyError, reason_of
from analysis_lib.instrument.checks import door_test, load_model
from analysis_lib.instrument.edges import EDGE_SETS, blocked_edges, windows
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.receipts import last_digit_moved
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.merging import make_inputs
from analysis_lib.paths import write_atomic
from analysis_lib.reports import reproduce

FILE = paths.ROOT / "docs" / "families.md"
START = "## Every architecture of the installed transformers"
IMAGES = "## Architectures that take images only"
HEAD = """
Written by `make families`: every architecture whose processor takes videos, as a tiny random checkpoint made from
transformers' own defaults with their sizes shrunk (`tests/support/census.py`). *works*: all checks pass, and exact is
full over all edge sets, in windows of 1 and 3 layers, and every notebook runs to its end. The differences are those of
probabilities, as above. *notebooks*: those whose cells all run, on three questions, in the process that tries the
architecture (`tests/support/notebook_runs.py`); those of the first table go through them in kernels of their own.
What is refused says why in the words that a user sees. The tests try some of them, and all whose *source* in the
installed transformers is not the one stated here. On a GPU they were tried once, without the notebooks: [beside a
CPU](../data/bench/families_gpu.csv) (`tests/support/census_gpu.py`). {count} of {total} work.
"""
IMAGES_HEAD = """
A clip is given to these as its sampled frames, as so many images, where the chat template takes several; *frames as
images* is said by the check's table and by a run's manifest. Timestamps and other marks of a video are missing, and no
layer of the vision tower sees two frames. *not tried*: no tiny checkpoint of it is made yet. {count} of {total} work.
"""
COLUMNS = """
| architecture | result | positions | video tokens | frame text | exact - full | last digit | notebooks | source |
|---|---|---|---|---|---|---|---|---|
"""


def frames(count: int = tiny_families.FRAMES) -> np.ndarray:
    """(count, 56, 84, 3) uint8 of noise: large enough for patches as they are by default."""
    return np.random.default_rng(0).integers(1, 255, (count, 56, 84, 3), dtype=np.uint8)


def row(kind: str, folder: Path) -> str:
    """The architecture's row of the table."""
    written = (census.architectures() | census.image_architectures())[kind]
    why = census.UNBUILT.get(kind, "" if written else "no class of transformers writes text with it")
    if kind in census.UNTRIED:
        return _line(kind, "not tried")
    if why:
        return _line(kind, f"refused: {why}")
    try:
        census.build(kind, folder)
        vlm = load_model(str(folder), device="cpu")
        vlm.num_frames = census.special(kind, "frames") or tiny_families.FRAMES
        inputs = make_inputs(vlm, tiny_families.SAMPLE, frames(vlm.num_frames))
    except StudyError as error:
        return _line(kind, "refused: " + str(error).replace(f"{folder}: ", "").replace("|", "\\|"))
    checks = door_test(vlm)
    failed = "; ".join(checks.loc[~checks["passed"], "check"])
    blocked = {name: blocked_edges(name, inputs.roles) for name in EDGE_SETS}
    cuts = [cut for size in (1, 3) for cut in windows(len(decoder_layers(vlm)), size)]
    conditions = [Condition(name, cut, edges) for name, edges in blocked.items() for cut in cuts]
    runs = (("exact", inputs), ("full", inputs), ("full", last_digit_moved(inputs, seed=0)))
    exact, full, moved = (knockout_logits(vlm, of, conditions, mode=mode)[0].softmax(-1) for mode, of in runs)
    gap, digit = float((exact - full).abs().max()), float((moved - full).abs().max())
    failed = failed or ("" if gap <= max(2e-6, 2 * digit) else "exact differs from full")
    ran, stopped = notebooks(folder)
    failed = failed or stopped
    video, text = (len(inputs.roles.positions(name)) for name in ("video", "frame_text"))
    works = "works" if vlm.shown == "video" else f"works, {vlm.shown}"
    result = f"fails: {failed}" if failed else works
    return _line(kind, result, inputs.n, video, text, f"{gap:.1g}", f"{digit:.1g}", ran)


def notebooks(model: Path) -> tuple[str, str]:
    """How many notebooks run to their end on the checkpoint, and what stops the next one."""
    known, done, stopped = [path.stem for path in reproduce.select()], 0, ""
    try:
        for _ in notebook_runs.execute_each(str(model), model.with_name(f"{model.name}-notebooks")):
            done += 1
    except Exception as error:  # a cell may fail in any way; which one, and how, is for the page
        stopped = f"{known[done]} stops: {reason_of(error)}".replace("|", "\\|")
    return f"{done} of {len(known)}", stopped


def _line(kind: str, *cells: object) -> str:
    return "| " + " | ".join(map(str, (kind, *cells, *[""] * (7 - len(cells)), census.fingerprint(kind)))) + " |\n"


def stored() -> dict[str, list[str]]:
    """The page's rows: the cells after an architecture's name."""
    cells = {kind: line.strip().strip("|").split(" | ")[1:] for kind, line in _lines().items()}
    return {kind: [cell.strip() for cell in own] for kind, own in cells.items()}


def _lines() -> dict[str, str]:
    """The page's rows as they are, by architecture."""
    lines = FILE.read_text(encoding="utf-8").partition(START)[2].splitlines(keepends=True)
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| architecture")]
    return {line.split(" | ")[0].strip("| "): line for line in rows}


def timed_row(kind: str) -> str:
    """The architecture's row, with its seconds printed; what no check foresaw is a row too."""
    began, warned = time.monotonic(), io.StringIO()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(warned), redirect_stderr(warned):
        try:
            found = row(kind, Path(folder) / kind)
        except Exception as error:  # the page must say so, and the test that reads it fails
            reason = (str(error).strip().splitlines() or [""])[0].replace("|", "\\|")
            found = _line(kind, f"fails: {type(error).__name__}: {reason}")
    print(f"{found.strip()} {time.monotonic() - began:.0f} s", flush=True)
    return found


def _share_memory() -> None:
    """A process may take its part of the machine's memory: some architectures are huge until somebody shrinks them."""
    part = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // os.cpu_count()
    resource.setrlimit(resource.RLIMIT_AS, (part, part))


def main(chosen: list[str]) -> None:
    """Write the tables, one process a core: the models are too small for more threads."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    sections = [(START, HEAD, census.architectures()), (IMAGES, IMAGES_HEAD, census.image_architectures())]
    kinds = chosen or [kind for *_, of in sections for kind in of]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _share_memory) as pool:
        rows = dict(zip(kinds, pool.map(timed_row, kinds), strict=True))
    rows = _lines() | rows if chosen else rows
    page = FILE.read_text(encoding="utf-8").partition(START)[0].rstrip() + "\n"
    for title, head, of in sections:
        own = [rows[kind] for kind in of if kind in rows]
        count = sum("| works" in line for line in own)
        page += f"\n{title}\n{head.format(count=count, total=len(own))}{COLUMNS}{''.join(own)}"
    write_atomic(FILE, page.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
