"""`make notebooks-on-families`: the first table in docs/families.md, from tiny random checkpoints of every family in
`families.FAMILIES` and of every format that the paper's models are published in.

Each checkpoint is saved to disk with its processor, loaded as a user would load it, checked, swept in both modes over
all edge sets and windows, and sent through every notebook.
"""

import io
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path

import tiny_families
import tiny_originals

from analysis_lib import paths
from analysis_lib.embedded import quiz
from analysis_lib.errors import StudyError
from analysis_lib.instrument.checks import load_model, self_test
from analysis_lib.instrument.edges import EDGE_SETS, blocked_edges, windows
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.receipts import last_digit_moved
from analysis_lib.models import families
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.merging import make_inputs
from analysis_lib.paths import write_atomic
from analysis_lib.reports import reproduce

FILE = paths.ROOT / "docs" / "families.md"
HEAD = """# Families and checks

Written by `make notebooks-on-families`. One row for each family that is tested through every notebook, and for each
format of the paper's own models: a tiny
random checkpoint in that format, saved with its processor, loaded from its folder, and shown {frames} frames.
*checks*: those of notebook 00 that pass. *exact - full*: largest difference of a probability between the two modes,
over all edge sets and windows of 1 and 3 layers, in float32. *last digit*: how far the full mode itself moves when the
numbers of the prompt move by their last digit; random models differ in how they amplify rounding. *notebooks*: those
that run to their end on {samples} questions a task.

| family | class | video tokens | frame text | positions | checks | no-op | exact - full | last digit | notebooks |
|---|---|---|---|---|---|---|---|---|---|
"""
SAMPLES, TASKS = 6, "action_antonym,scene_transition"  # of the embedded benchmark
PUBLISHED = {"llava", "llava_next", "internvl_chat"}  # families of tiny_originals.PUBLISHED


def row(family: str, folder: Path) -> str:
    """The family's row of the table; `folder` is for its checkpoint and what the notebooks write."""
    # A random model says anything; one that says letters is right now and then, so there is something to cut.
    if family in tiny_originals.PUBLISHED:
        model = str(tiny_originals.build(family, folder / family))
    else:
        model = str(tiny_families.build(family, folder / family, says_letters=True))
    vlm = load_model(model, device="cpu")
    vlm.num_frames = tiny_families.FRAMES
    inputs = make_inputs(vlm, tiny_families.SAMPLE, tiny_families.some_frames())
    checks = self_test(vlm, inputs)
    blocked = {name: blocked_edges(name, inputs.roles) for name in EDGE_SETS}
    cuts = [cut for size in (1, 3) for cut in windows(len(decoder_layers(vlm)), size)]
    conditions = [Condition(name, cut, edges) for name, edges in blocked.items() for cut in cuts]
    runs = (("exact", inputs), ("full", inputs), ("full", last_digit_moved(inputs, seed=0)))
    exact, full, moved = (knockout_logits(vlm, of, conditions, mode=mode)[0].softmax(-1) for mode, of in runs)
    cells = [
        family,
        type(vlm.hf).__name__,
        len(inputs.roles.positions("video")),
        len(inputs.roles.positions("frame_text")),
        inputs.positions,
        f"{checks['passed'].sum()} of {len(checks)}",
        f"{checks['value'][0]:.1g}",
        f"{(exact - full).abs().max():.1g}",
        f"{(moved - full).abs().max():.1g}",
        notebooks(model, folder),
    ]
    return "| " + " | ".join(map(str, cells)) + " |\n"


def notebooks(model: str, folder: Path) -> str:
    """How many notebooks run to their end; what stops the next one is printed."""
    # as many for the maps: a few might all be wrong
    given = {"model": model, "image_model": "", "tasks": TASKS, "samples": SAMPLES, "map_samples": 0}
    try:
        reproduce.reproduce(given | {"out": str(folder / "out")})
    except StudyError as error:
        print(error, file=sys.stderr)
    copies = [file for file in (folder / "out" / "executed").rglob("*.ipynb") if ".failed" not in file.name]
    return f"{len(copies)} of {len(reproduce.select())}"


def timed_row(family: str) -> str:
    """The family's row, with its seconds printed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        found = row(family, Path(folder))
    print(f"{found.strip()} {time.monotonic() - began:.0f} s", flush=True)
    return found


def main() -> None:
    """Write the table, one process a core: the models are too small for more threads."""
    os.environ["OMP_NUM_THREADS"] = "1"
    quiz.write_benchmark(paths.BENCHMARK)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(timed_row, [*tiny_originals.PUBLISHED, *tiny_families.FAMILIES]))
    untested = families.FAMILIES.keys() - tiny_families.FAMILIES.keys() - PUBLISHED
    if untested:
        raise SystemExit(f"no tiny checkpoint of {', '.join(untested)}; add it to tests/tiny_families.py")
    head = HEAD.format(frames=tiny_families.FRAMES, samples=SAMPLES)
    _, mark, census = FILE.read_text(encoding="utf-8").partition("\n## Every architecture")  # census_table.py writes it
    write_atomic(FILE, (head + "".join(rows) + mark + census).encode())


if __name__ == "__main__":
    main()
