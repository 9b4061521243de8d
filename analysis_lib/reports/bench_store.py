"""How the results store grows: time, memory and bytes for up to 100,000 samples of made-up rows.

`make bench-store` fills one folder step by step with samples of 352 knockouts, through the very calls of a sweep's
driver. At each size, in a process of its own whose peak memory is noted, it adds one more sample, reads one task and
one edge set, checks a complete run for what it lacks, and redraws: it reads everything of one edge set, draws the
curves of all eleven, intervals and tests included, and judges the findings, as reported and on other choices."""

import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa

from analysis_lib import figures, findings, paths
from analysis_lib.inputs.records import Sample
from analysis_lib.instrument.edges import EDGE_SETS, windows
from analysis_lib.study import provenance, runs
from analysis_lib.study.folders import missing
from analysis_lib.study.parts import SAMPLE, to_file
from analysis_lib.study.request import Request, check_request
from analysis_lib.study.store import Store
from analysis_lib.study.tables import SCHEMAS, read_table, schema, stored

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)  # samples
TASKS, LAYERS = 20, 32
RECEIPT = '{"conditions": 352, "expected": 120, "fired": 120, "kernel_difference": %.17g, "measured": 11}'
CUTS = [(name, window) for name in EDGE_SETS for window in windows(LAYERS, 9)]
PLACES = {
    "edge_set": pa.array([name for name, _ in CUTS]), "layer": pa.array([window.layer for _, window in CUTS]),
    "first_layer": pa.array([w.first for _, w in CUTS]), "last_layer": pa.array([w.last for _, w in CUTS]),
}  # fmt: skip
ASKED = ("model", "window", "measure", "keep", "edges")
ALT = "Seconds and peak memory of each use of the results store by number of samples, on logarithmic scales."


def request(**more: object) -> Request:
    """What the made-up rows answer."""
    return check_request(**{"model": "made/up", "window": 9, "measure": "knockout", "keep": "all"} | more)


def sample_ids(count: int) -> list[str]:
    """The made-up samples, the tasks in turn."""
    return [f"task_{i % TASKS:02d}/{i // TASKS:04d}" for i in range(count)]


def made_up(sample_id: str) -> bytes:
    """The file of one sample, with random numbers where a model gives some."""
    task, _, index = sample_id.rpartition("/")
    rng = np.random.default_rng([*sample_id.encode()])
    p_base, margin = rng.random(2).tolist()
    key = {"task": task, "sample_id": sample_id, "video": f"{task}/video_{int(index) // 2:05d}.mp4"}
    base = key | {"p_base": p_base, "margin_base": margin, "correct": True, "prediction": "A"}
    asked = {"question": f"What happens in the video number {index}?", "options": ["it grows", "it jumps"]}
    asked |= {"answer": "A", "answer_text": "it grows", "n_tokens": 1300, "n_frames": 8, "frame_indices": [*range(8)]}
    asked |= {"p_answer": p_base, "p_options": [p_base, 1 - p_base], "frames_sha256": "f" * 16, "sample_sha256": "s"}
    receipt = key | {"measure": f"knockout {','.join(EDGE_SETS)}", "receipt": RECEIPT % (p_base * 1e-6)}
    p_knock, margin_knock, p_answer = rng.random((3, len(CUTS)))
    drawn = {"p_knock": p_knock, "margin_knock": margin_knock, "p_answer": p_answer}
    drawn |= {"relative_change": 100 * (p_knock - p_base) / p_base}
    columns = [
        pa.array(drawn[name]) if name in drawn else PLACES[name] if name in PLACES else pa.repeat(base[name], len(CUTS))
        for name in SCHEMAS["knockout"]
    ]
    rows = pa.Table.from_pylist([{"baseline": [base | asked], "receipts": [receipt]}], SAMPLE)
    knockout = pa.table(columns, schema("knockout")).to_struct_array().combine_chunks()
    lists = pa.ListArray.from_arrays([0, len(CUTS)], knockout).cast(SAMPLE.field("knockout").type)
    return to_file(rows.set_column(SAMPLE.get_field_index("knockout"), SAMPLE.field("knockout"), lists))


def fill(folder: Path, first: int, last: int) -> dict[str, float]:
    """Add the samples from number `first` to `last`; the seconds of the store alone, and of making the files."""
    spent = {"making": 0.0, "storing": 0.0}
    with Store(folder) as store:
        store.begin(request().fixed(), {"commit": "made up"})
        for name in sorted(sample_ids(last)[first:]):  # task by task, as a sweep goes
            begin = time.perf_counter()
            part = made_up(name)
            spent["making"] += time.perf_counter() - begin
            begin = time.perf_counter()
            store.add(name, part)
            spent["storing"] += time.perf_counter() - begin
        begin = time.perf_counter()
        store.finish(provenance.summary, tables=["knockout"])
        spent["storing"] += time.perf_counter() - begin
    return spent


def one_more(folder: Path, count: int) -> None:
    """Open the store, add one sample, finish."""
    with Store(folder) as store:
        store.add(name := "task_00/9999", made_up(name))
        store.finish(provenance.summary)


def one_route(folder: Path, count: int) -> None:
    """Read the knockouts of one task and one edge set."""
    found = read_table(folder, "knockout", where={"task": ["task_07"], "edge_set": ["video->last"]})
    assert len(found) == count // TASKS * LAYERS


def resume_check(folder: Path, count: int) -> None:
    """What a complete run of all samples lacks: nothing."""
    asked = [Sample("?", task=n[:7], sample_id=n, video=Path("v"), sha256="s") for n in sample_ids(count)]
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
    assert table.groupby(["task", "edge_set"]).size().tolist() == (1 + TASKS) * len(EDGE_SETS) * [LAYERS]
    plt.close(fig)


def redraw_verdicts(folder: Path, count: int) -> None:
    """Every finding that the rows allow, as reported and with one choice of the study made otherwise."""
    table = findings.fragility(folder)
    assert (
        table["variant"].nunique() == 4 and table["n"].max() >= count and (table["name"] == "above chance").sum() == 3
    )


USES = (one_more, one_route, resume_check, redraw, redraw_curves, redraw_verdicts)


def alone(run: Callable, *arguments: object) -> dict:
    """Run a function in a process of its own: its seconds (by the clock and of the processor), its peak memory, and
    what it returned."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measured, run, *arguments).result()


def _measured(run: Callable, *arguments: object) -> dict:
    begin, worked = time.perf_counter(), time.process_time()
    found = run(*arguments) or {}
    spent = {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - worked}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"use": run.__name__, **spent, "peak_mb": peak >> 10, **found}


def growth(folder: Path, sizes: tuple[int, ...] = SIZES) -> Iterator[dict]:
    """Rows of the bench: for each size, one for filling and one for each use."""
    for first, last in zip((0, *sizes), sizes, strict=False):
        filled = alone(fill, folder, first, last)
        disk = {table: sum(file.stat().st_size for file in stored(folder, table)) for table in SCHEMAS}
        each = disk["knockout"] / (last * LAYERS * len(EDGE_SETS))
        yield filled | {"samples": last, "added": last - first, "bytes_a_row": each, "mb": sum(disk.values()) >> 20}
        yield from (alone(run, folder, last) | {"samples": last} for run in USES)


def main() -> None:
    """Fill and measure; write data/bench/store.csv and the figure."""
    root, rows = Path(tempfile.mkdtemp(prefix="bench_store")), []
    try:
        for row in growth(root / "made-up" / "embedded-k9-center"):
            rows.append(row)
            print(", ".join(f"{n} {v if isinstance(v, str) else round(v, 2)}" for n, v in row.items()), flush=True)
    finally:
        shutil.rmtree(root)
    table = pd.DataFrame(rows)
    paths.write_atomic(paths.DATA / "bench" / "store.csv", table.round(3).to_csv(index=False).encode())
    figures.save(figures.store_growth(table)[0], "store", table, ALT, model="bench")


if __name__ == "__main__":
    main()
