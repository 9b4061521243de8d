"""The sweep over samples that notebooks and the command line call, and what they get back.

A sweep compares what is asked for with what the results folder holds, computes only what is missing, and returns
frames. Nothing is computed twice, so the same call serves a first run, a run that was killed, a larger run and a
redraw. The model is loaded when the first missing row needs it; anything wrong with the request is said before that."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from analysis_lib.embedded.door import load_benchmark
from analysis_lib.errors import StudyError
from analysis_lib.inputs.benchmarks import benchmark_name, check_benchmark
from analysis_lib.inputs.records import Sample
from analysis_lib.instrument.checks import load_model
from analysis_lib.instrument.pathways import pathway_ranges
from analysis_lib.models import checkpoints
from analysis_lib.models.records import VideoLLM
from analysis_lib.study import examples, measure, provenance, single_samples
from analysis_lib.study.cluster import crew
from analysis_lib.study.folders import Todo, lacking, look_at_model, missing, results_dir
from analysis_lib.study.request import ALL_MEASURES, FOR_ALL, Request, check_request
from analysis_lib.study.rows import LONG, narrowed, rows_of
from analysis_lib.study.store import Store
from analysis_lib.study.tables import SECONDS, Where

BAR = {"unit": "sample", "ascii": True, "file": sys.stderr, "mininterval": 0.5}


class Results:
    """The stored rows of the samples, edge sets and measures asked for, read when they are first looked at: a frame
    each for `baseline`, `skipped` and every measure (`request.ALL_MEASURES`), but `Rows` for those of `LONG`, of which
    a large run has more than fit; the `request`, the `manifest`, and `dir`, the results folder."""

    def __init__(self, store: Store, request: Request, ids: set[str]) -> None:
        self.request, self.manifest, self.dir = request, store.manifest, store.folder
        self._store, self._ids = store, ids

    def _wanted(self, table: str) -> Where:
        """Which rows of a table are those asked for."""
        request, wanted = self.request, {"sample_id": self._ids}
        if table in ALL_MEASURES and table not in FOR_ALL:
            wanted = {"sample_id": self._kept}
        if table in ALL_MEASURES and table not in request.measure:
            wanted = {"sample_id": ()}
        if table in request.cuts():
            wanted |= {"edge_set": request.cuts()[table]}
        if table == "pathway":
            wanted |= {"ranges": [request.ranges_name]}
        return wanted

    def __getattr__(self, name: str) -> Any:
        if name not in ("baseline", "skipped", *ALL_MEASURES):
            raise AttributeError(name)
        wanted = self._wanted(name)

        def read(columns: Sequence[str], where: Where) -> pd.DataFrame:
            return self._store.read(name, columns, narrowed(wanted, where))

        long = name in LONG
        found = rows_of(self.dir, name, read, self.baseline["task"].unique()) if long else read((), {})
        vars(self)[name] = found
        return found

    @cached_property
    def _kept(self) -> list[str]:
        known = self._store.read("baseline", ["sample_id", "correct"], {"sample_id": self._ids})
        return [row.sample_id for row in known.itertuples() if self.request.keeps(row.correct)]


def sweep(
    *, out: str | Path | None = None, compute: bool = True, workers: str | int = "", gpus_per_model: int | str = 1,
    **asked: Any,
) -> Results:  # fmt: skip
    """Measure what the results folder lacks and return what was asked for. `asked` has fields of `request.Request`,
    which says what they mean: model, benchmark, tasks, samples, edges, window, style, keep, measure, dtype, device,
    seed, mode, ranges; all but the model have a default. `out` is the results folder (None: `results_dir`). If
    `compute` is False, no model is loaded. `workers` spreads the samples (`cluster.crew`; empty: this process measures
    all), each worker with `gpus_per_model` GPUs. Raises StudyError for a request that cannot be met, for settings other
    than those of the stored rows, and, naming the command that measures, for missing rows that may not be computed."""
    request = check_request(**asked)
    if not str(gpus_per_model).isdecimal() or not int(gpus_per_model):
        raise StudyError(f"gpus_per_model is {gpus_per_model!r}; use a whole number from 1 on")
    if not compute:
        return _redraw(request, out)
    check_benchmark(request.benchmark, request.tasks)
    k, weights = look_at_model(request.model, request.window, request.style)
    if request.ranges:
        pathway_ranges(checkpoints.depth_of(checkpoints.find(request.model)), given=request.ranges)
    request = replace(request, window=k)
    with Store(out or results_dir(request.model, request.benchmark, k, request.style)) as store:
        store.check(request.fixed() | weights)
        draw = {name: getattr(request, name) for name in ("tasks", "samples", "seed")}
        chosen, skips = load_benchmark(request.benchmark, **draw)
        todo, total = missing(store, chosen, request), len(chosen) + len(skips)
        where = f"{Path(request.model).name} on {benchmark_name(request.benchmark)}"
        print(f"{where}: {total - len(todo)} of {total} samples stored, computing {len(todo)}", flush=True)
        if todo:
            _compute(
                store, request, [s for s in chosen if s.sample_id in todo], todo, str(workers), int(gpus_per_model)
            )
        store.finish(provenance.summary, tables=request.measure, skipped=map(measure.skip_row, skips))
        if "lens" in request.measure:
            names = {s.sample_id for s in chosen}
            first = _first_kept(store.read("baseline", ["sample_id", "correct"], {"sample_id": names}), request)
            _store_examples(request, chosen, first, store.folder)
        return Results(store, request, {s.sample_id for s in [*chosen, *skips]})


def example(task: str, *, sample_id: str | None = None, **request: Any) -> examples.Example:
    """One sample for pictures (see `examples.Example`). Takes the arguments of `sweep` (without tasks and measure), and
    runs it with the lens on this task. Without `sample_id` it is the first sample of the seed's draw that `keep` keeps.
    Its file is in DIR/examples, so a redraw needs no model. Raises StudyError if no sample of the task is kept."""
    found = sweep(**request, tasks=[task], measure=["lens"])
    name = sample_id or "".join(_first_kept(found.baseline, found.request))
    if not name:
        raise StudyError(f"{found.dir} holds no sample of {task} that is kept; ask for more samples, or keep all")
    file = examples.file_of(found.dir, name)
    if not file.exists():
        if not request.get("compute", True):
            raise StudyError(f"{file} is not stored; measure it: {found.request.command(found.dir)}")
        every = load_benchmark(found.request.benchmark, tasks=[task])[0]
        if name not in {sample.sample_id for sample in every}:
            raise StudyError(f"{found.request.benchmark} has no usable sample {name}")
        _store_examples(found.request, every, [name], found.dir)
    return examples.read(file)


def _compute(
    store: Store, request: Request, samples: list[Sample], todo: dict[str, Todo], workers: str, gpus: int
) -> None:
    """Measure the samples, storing each as it is done; the time goes to DIR/seconds.csv."""
    if workers:
        with crew(request, workers, gpus, store.folder) as team:
            model, run = team.facts()
            store.begin(request.fixed() | model, run)
            began = time.monotonic()
            with tqdm(total=len(samples), **BAR) as bar:
                for sample, part in team.measured(samples, todo):
                    store.add(sample.sample_id, part)
                    bar.set_postfix(workers=team.alive, refresh=False)
                    bar.update()
            took = time.monotonic() - began
    else:
        vlm, fixed = _load(request.model, request.dtype, request.device), request.fixed()
        store.begin(fixed | provenance.of_model(vlm), provenance.of_run(vlm, fixed["benchmark"]))
        began = time.monotonic()
        for task in sorted({s.task for s in samples}):
            for sample in tqdm([s for s in samples if s.task == task], desc=task, **BAR):
                store.add(sample.sample_id, measure.sample_part(vlm, sample, todo[sample.sample_id], request))
        took = time.monotonic() - began
    with (store.folder / SECONDS).open("a", encoding="utf-8") as file:
        file.write(f"{' '.join(request.measure)},{len(samples)},{took:.3f}\n")


@lru_cache(maxsize=1)
def _load(model: str, dtype: str, device: str) -> VideoLLM:
    return load_model(model, dtype=dtype, device=device)


def _first_kept(baseline: pd.DataFrame, request: Request) -> list[str]:
    """The kept sample of each task that the seed draws first, so that a larger run has the same one."""
    kept = [row.sample_id for row in baseline.itertuples() if request.keeps(row.correct)]
    last_to_first = sorted(kept, key=request.rank, reverse=True)
    return sorted({name.rpartition("/")[0]: name for name in last_to_first}.values())


def _store_examples(request: Request, samples: Sequence[Sample], names: Sequence[str], folder: Path) -> None:
    """Store the examples of the samples with these names that are not there."""
    for sample in samples:
        file = examples.file_of(folder, sample.sample_id)
        if sample.sample_id in names and not file.exists():
            vlm = _load(request.model, request.dtype, request.device)
            single_samples.write_example(vlm, sample, file, measure.keywords(request.benchmark, vlm))


def _redraw(request: Request, out: str | Path | None) -> Results:
    """What is asked for from stored rows alone, without model and benchmark."""
    k = request.window or "auto"
    store = Store(out or results_dir(request.model, request.benchmark, k, request.style), write=False)
    store.check(request.fixed())
    every = pd.concat([store.read(name, ["task", "sample_id"]) for name in ("baseline", "skipped")])
    by_task = {task: sorted(names, key=request.rank) for task, names in every.groupby("task")["sample_id"]}
    ids = {name for task in request.tasks or by_task for name in by_task.get(task, [])[: request.samples or None]}
    absent = [task for task in request.tasks if task not in by_task]
    if not ids or absent or ids & set(lacking(store, request)):
        what = f"rows of {', '.join(absent)}" if absent else "rows that are asked for"
        raise StudyError(f"{store.folder} lacks {what}; measure them: {request.command(out)}")
    return Results(store, request, ids)
