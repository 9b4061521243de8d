"""What workers gain: samples a second of two workers with one thread each against one process with one thread.

`python -m analysis_lib.reports.bench_workers [SAMPLES]` measures the embedded model's knockouts on 120 samples (or so
many) with each, start-up aside, and prints what the start costs, what the driver itself works, and how much memory a
worker holds after 50 samples and at the end. `… bench_workers memory [SAMPLES]` prints the memory of one worker alone,
over 500 samples and two edge sets."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from analysis_lib.embedded.door import load_benchmark
from analysis_lib.inputs.records import Sample
from analysis_lib.instrument.checks import load_model
from analysis_lib.reports.bench_store import alone
from analysis_lib.study import measure, provenance
from analysis_lib.study.cluster import crew
from analysis_lib.study.folders import missing
from analysis_lib.study.request import check_request
from analysis_lib.study.store import Store

EARLY = 50  # samples after which memory is looked at first


def timed(count: int, workers: int, edges: str = "all") -> dict[str, float]:
    """Measure `count` samples with so many workers, 0 for this process alone."""
    asked = check_request(model="embedded", measure="knockout", edges=edges, keep="all", window=3, device="cpu")
    samples = load_benchmark("embedded")[0][:count]
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench_workers") as folder, Store(folder) as store:
        if workers:
            with crew(asked, str(workers), 1, Path(folder)) as team:
                while team.facts() and team.alive < workers:
                    team.wait()
                store.begin(asked.fixed(), team.facts()[1])
                todo = missing(store, samples, asked)
                return _loop(store, len(samples), team.measured(samples, todo), begin)
        vlm = load_model("embedded", device="cpu")
        store.begin(asked.fixed(), provenance.of_run(vlm, "embedded"))
        todo = missing(store, samples, asked)
        done = ((s, measure.sample_part(vlm, s, todo[s.sample_id], asked)) for s in samples)
        return _loop(store, len(samples), done, begin)


def _loop(store: Store, count: int, done: Iterator[tuple[Sample, bytes]], begin: float) -> dict[str, float]:
    """Store what is done: seconds of start-up and of a sample, and what this process worked for it."""
    started, worked, memory = time.perf_counter(), time.process_time(), {}
    for number, (sample, part) in enumerate(done, start=1):
        store.add(sample.sample_id, part)
        if number in (EARLY, count):
            own = psutil.Process()
            sizes = [c.memory_info().rss for c in own.children(recursive=True) if c.name().startswith("ray::Worker")]
            memory[f"worker_mb_at_{number}"] = max(sizes, default=own.memory_info().rss) >> 20
    took = time.perf_counter() - started
    share = {"startup": started - begin, "seconds_a_sample": took / count}
    return share | {"driver_cpu_a_sample": (time.process_time() - worked) / count, **memory}


def main() -> None:
    """Measure both and print them, or the memory of one worker."""
    memory, os.environ["OMP_NUM_THREADS"] = "memory" in sys.argv, "1"
    count = next((int(word) for word in sys.argv if word.isdecimal()), 500 if memory else 120)
    if memory:
        found = alone(timed, count, 1, "cross-frame,video->last")
        print(", ".join(f"{name} {mb}" for name, mb in found.items() if name.startswith("worker_mb")))
        return
    one, two = (alone(timed, count, workers) for workers in (0, 2))
    for name, found in {"one process": one, "two workers": two}.items():
        print(name, ", ".join(f"{k} {v:.3f}" for k, v in found.items() if not isinstance(v, str)))
    driver = two["driver_cpu_a_sample"] / one["driver_cpu_a_sample"]
    gain = one["seconds_a_sample"] / two["seconds_a_sample"]
    print(f"{gain:.2f} times the samples a second; the driver works {driver:.1%} of what a sample takes")


if __name__ == "__main__":
    main()
