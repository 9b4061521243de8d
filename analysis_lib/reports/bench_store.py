"""How the results store grows: time, memory and bytes for up to 100,000 samples of made-up rows.

`make bench-store` fills one folder step by step (`made_up`). At each size, in a process of its own whose peak memory is
noted, it adds one more sample, reads one task and one edge set, checks a complete run for what it lacks, and redraws:
everything of one edge set, the curves of all eleven, intervals and tests included, and whole notebooks. Those are
executed as `make figures` does, without a model; the peak is then that of the notebook's kernel."""

import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from analysis_lib import figures, paths
from analysis_lib.inputs.records import Sample
from analysis_lib.instrument.edges import EDGE_SETS
from analysis_lib.reports import made_up
from analysis_lib.reports.made_up import DIR, LAYERS, MODEL, fill, request, sample_file, sample_ids
from analysis_lib.reports.runner import check_parameters, parameters_of, run_notebook
from analysis_lib.study import provenance, runs
from analysis_lib.study.folders import missing
from analysis_lib.study.store import Store
from analysis_lib.study.tables import SCHEMAS, read_table, stored

SIZES = (1_000, 10_000, 100_000)  # samples
NOTEBOOKS = ("02", "03")  # with the most curves; 01 needs windows of other styles, 04 pathways: none are made up
OWN_AND_CHILDREN = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
ASKED = ("model", "window", "measure", "keep", "edges")
ALT = "Seconds and peak memory of each use of the results store by number of samples, on logarithmic scales."


def one_more(folder: Path, count: int) -> None:
    """Open the store, add one sample, finish."""
    with Store(folder) as store:
        store.add(name := "task_00/9999", sample_file(name, heads=True))
        store.finish(provenance.summary)


def one_route(folder: Path, count: int) -> None:
    """Read the knockouts of one task and one edge set."""
    found = read_table(folder, "knockout", where={"task": ["task_01"], "edge_set": ["video->last"]})
    assert len(found) == count // made_up.TASKS * LAYERS


def resume_check(folder: Path, count: int) -> None:
    """What a complete run of all samples lacks: nothing."""
    video = Path("v")
    asked = [Sample("?", task=n[:7], sample_id=n, video=video, sha256="s") for n in sample_ids(count)]
    with Store(folder) as store:
        assert not missing(store, asked, request())


def redraw(folder: Path, count: int) -> None:
    """A sweep that may not compute, and all columns of one edge set."""
    found = runs.sweep(**{n: getattr(request(edges="cross-frame"), n) for n in ASKED}, out=folder, compute=False)
    assert len(found.baseline) == len(found.knockout.frame()) // LAYERS >= count


def redraw_curves(folder: Path, count: int) -> None:
    """The curves of all edge sets."""
    found = runs.sweep(**{n: getattr(request(), n) for n in ASKED}, out=folder, compute=False)
    fig, table = figures.knockout_curves(found.knockout, found.baseline, "Made up")
    assert table.groupby(["task", "edge_set"]).size().tolist() == (1 + made_up.TASKS) * len(EDGE_SETS) * [LAYERS]
    plt.close(fig)


def redraw_notebook(folder: Path, count: int, number: str) -> None:
    """One notebook from its first cell to its last."""
    [file], root = paths.NOTEBOOKS.glob(f"{number}_*.ipynb"), folder.parents[2]
    given = {"model": MODEL, "image_model": "", "window": request().window, "out": root, "compute": False}
    given |= {"map_samples": 1} if "map_samples" in parameters_of(file) else {}
    run_notebook(file, check_parameters(file, {name: str(value) for name, value in given.items()}), root / file.name)


USES = (one_more, one_route, resume_check, redraw, redraw_curves)


def alone(run: Callable, *arguments: object) -> dict:
    """Run a function in a process of its own: its seconds (by the clock and of the processor), its peak memory, and
    what it returned."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measured, run, *arguments).result()


def _measured(run: Callable, *arguments: object) -> dict:
    begin, worked = time.perf_counter(), _worked()
    found = run(*arguments) or {}
    spent = {"seconds": time.perf_counter() - begin, "cpu_seconds": _worked() - worked}
    peak = max(resource.getrusage(who).ru_maxrss for who in OWN_AND_CHILDREN)
    return {"use": run.__name__, **spent, "peak_mb": peak >> 10, **found}


def _worked() -> float:
    """Seconds of the processor, this process's and those of its children that have ended."""
    used = map(resource.getrusage, OWN_AND_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in used)


def growth(folder: Path, sizes: tuple[int, ...] = SIZES) -> Iterator[dict]:
    """Rows of the bench: for each size, one for filling and one for each use."""
    for first, last in zip((0, *sizes), sizes, strict=False):
        filled = alone(fill, folder, first, last)
        disk = {table: sum(file.stat().st_size for file in stored(folder, table)) for table in SCHEMAS}
        each = disk["knockout"] / (last * LAYERS * len(EDGE_SETS))
        yield filled | {"samples": last, "added": last - first, "bytes_a_row": each, "mb": sum(disk.values()) >> 20}
        yield from (alone(run, folder, last) | {"samples": last} for run in USES)
        for number in NOTEBOOKS:
            yield alone(redraw_notebook, folder, last, number) | {"use": f"notebook {number}", "samples": last}


def main() -> None:
    """Fill and measure; write data/bench/store.csv and the figure."""
    root, rows = Path(tempfile.mkdtemp(prefix="bench_store")), []
    try:
        for row in growth(root / DIR):
            rows.append(row)
            print(", ".join(f"{n} {v if isinstance(v, str) else round(v, 2)}" for n, v in row.items()), flush=True)
    finally:
        shutil.rmtree(root)
    table = pd.DataFrame(rows)
    paths.write_atomic(paths.DATA / "bench" / "store.csv", table.round(3).to_csv(index=False).encode())
    figures.save(figures.store_growth(table)[0], "store", table, ALT, model="bench")


if __name__ == "__main__":
    main()
