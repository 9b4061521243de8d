"""The census's working architectures on a GPU, beside the same computation on the CPU, into a table.

    python tests/support/census_gpu.py [FILE] [DEVICE]      # data/bench/families_gpu.csv, cuda

Both in float32 without TF32, the same tiny checkpoint, the same prompt and the same cuts as `make families`. The
columns are the largest differences of probabilities: between the exact and the full mode on the GPU, between GPU and
CPU in the full mode, and what the last digit of the prompt's numbers changes on the CPU, against which both are held.
"""

import csv
import os
import sys
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import census
import census_table
import tiny_families
import torch

from analysis_lib import paths
from analysis_lib.instrument.checks import door_test, load_model
from analysis_lib.instrument.edges import EDGE_SETS, blocked_edges, windows
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.receipts import last_digit_moved
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.merging import make_inputs

COLUMNS = ("architecture", "device", "checks", "exact - full", "GPU - CPU", "last digit", "note")


def swept(folder: Path, kind: str, device: str) -> dict[str, object]:
    """Failed checks ("" if none) and probabilities (C, V) of every mode, of one checkpoint on one device."""
    vlm = load_model(str(folder), dtype="float32", device=device)
    vlm.num_frames = census.special(kind, "frames") or tiny_families.FRAMES
    inputs = make_inputs(vlm, tiny_families.SAMPLE, census_table.frames(vlm.num_frames))
    checks = door_test(vlm)
    blocked = {name: blocked_edges(name, inputs.roles) for name in EDGE_SETS}
    cuts = [cut for size in (1, 3) for cut in windows(len(decoder_layers(vlm)), size)]
    conditions = [Condition(name, cut, edges) for name, edges in blocked.items() for cut in cuts]
    runs = {"exact": ("exact", inputs), "full": ("full", inputs), "moved": ("full", last_digit_moved(inputs, seed=0))}
    found = {
        name: knockout_logits(vlm, of, conditions, mode=mode)[0].float().softmax(-1).cpu()
        for name, (mode, of) in runs.items()
    }
    return {"failed": "; ".join(checks.loc[~checks["passed"], "check"]), **found}


def compared(kind: str, device: str) -> tuple[str, ...]:
    """The row of one architecture; what stopped it is its note."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    name = torch.cuda.get_device_name() if device == "cuda" else device
    with tempfile.TemporaryDirectory() as place:
        try:
            census.build(kind, Path(place) / kind)
            there, here = (swept(Path(place) / kind, kind, where) for where in (device, "cpu"))
        except Exception as error:
            return kind, name, "", "", "", "", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    pairs = ((there["exact"], there["full"]), (there["full"], here["full"]), (here["moved"], here["full"]))
    gaps = [f"{float((one - other).abs().max()):.1g}" for one, other in pairs]
    print(kind, gaps, flush=True)
    return kind, name, there["failed"] or "pass", *gaps, ""


def main(file: str = str(paths.ROOT / "data" / "bench" / "families_gpu.csv"), device: str = "cuda") -> None:
    """Write the table, a row as soon as it is there: the run may be ended."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    kinds = [kind for kind, (result, *_) in census_table.stored().items() if result.startswith("works")]
    processes = int(os.environ.get("PROCESSES", min(6, os.cpu_count())))
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool, open(file, "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in pool.map(compared, kinds, [device] * len(kinds)):
            writer.writerow(row)
            out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
