"""The whole study in one command: `python -m analysis_lib reproduce` executes the notebooks in order.

A reproduction measures into a place of its own and never touches the record (`data/results`, `figures` and
`notebooks/executed`); the verb `record` alone writes there. A notebook has one cell tagged `parameters`, of lines such
as `samples: int = 0  # a task, 0 = all`. Among them are `model`, `out` ("": the record; else a folder for everything,
copies in OUT/executed/<model>) and `compute` (False: draw stored results, without a model). An option goes to every
selected notebook that takes it; refused are one that none takes, and a redraw or another folder where a single notebook
could not follow. Nothing is skipped because it ran before: the results store knows which rows exist, so a second run
only draws."""

import csv
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis_lib import paths
from analysis_lib.embedded import door
from analysis_lib.errors import StudyError
from analysis_lib.inputs.benchmarks import benchmark_name, is_open
from analysis_lib.reports.runner import check_parameters, parameters_of, run_notebook
from analysis_lib.study.request import check_request
from analysis_lib.study.tables import SECONDS

MAPS = {"widths", "pairs", "heads"}  # what is measured on `map_samples` questions a task
FOR_ALL = ("compute", "out")  # a notebook that ignored one of these would measure, or overwrite committed files


def own_place(model: str) -> str:
    """The folder of a model's reproductions, as seen from here."""
    return os.path.relpath(paths.BUILD / "reproduce" / Path(model).name)


def drawing_place(model: str, benchmark: str) -> str:
    """Where stored results of a model are redrawn: a fresh folder with a copy of the record's tables, or, for a model
    without a record, where its reproduction is."""
    if not any((paths.RESULTS / Path(model).name).glob(f"{benchmark_name(benchmark)}-k*")):
        return own_place(model)
    place = paths.BUILD / "figures" / Path(model).name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(paths.RESULTS, place / "results")
    return os.path.relpath(place)


def same_as_record(model: str, out: str) -> str:
    """A line: how many of the figures drawn below `out` have the record's bytes."""
    drawn, kept = ({f.name: f.read_bytes() for f in (root / Path(model).name).glob("*") if f.suffix in (".png", ".csv")}
                   for root in (Path(out) / "figures", paths.FIGURES))  # fmt: skip
    names = sorted(name for name in drawn if drawn[name] != kept.get(name))
    other = f"; others: {', '.join(names)}" if names else ""
    return f"{len(drawn) - len(names)} of {len(drawn)} figures and their numbers are the record's, byte for byte{other}"


def select(which: str = "", folder: Path = paths.NOTEBOOKS) -> list[Path]:
    """The notebooks of the study in order; `which` names some of them by their first letters ("00,03")."""
    known = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not known:
        raise StudyError(f"there are no notebooks in {folder}")
    wanted = tuple(name.strip() for name in which.split(",") if name.strip())
    for name in wanted:
        if not any(path.name.startswith(name) for path in known):
            raise StudyError(f"unknown notebook {name}; there are {', '.join(path.stem for path in known)}")
    return [path for path in known if not wanted or path.name.startswith(wanted)]


def assign(notebooks: Sequence[Path], given: dict) -> list[dict[str, Any]]:
    """The checked parameters of each notebook; StudyError for a parameter that goes nowhere."""
    takes = [parameters_of(notebook) for notebook in notebooks]
    known = {name for names in takes for name in names}  # what is not goes to all, so the first one refuses it
    return [
        check_parameters(notebook, {n: given[n] for n in given if n in names or n in FOR_ALL or n not in known})
        for notebook, names in zip(notebooks, takes, strict=True)
    ]


def executed_folder(model: str, out: str = "", base: Path = paths.EXECUTED) -> Path:
    """Where the executed copies of a model go; StudyError if nothing can be written there."""
    folder = (Path(out) / "executed" if out else base) / Path(model).name
    paths.write_atomic(probe := folder / ".writable", b"")
    probe.unlink()
    return folder


def reproduce(given: dict, which: str = "", *, folder: Path = paths.NOTEBOOKS, base: Path = paths.EXECUTED) -> float:
    """Execute the notebooks of `folder` that `which` selects, a line of progress each; the seconds that they took.
    `given` are parameters by name, as values or text; `base` is the parent of the executed copies if they have no
    `out`. Raises StudyError for bad input, if possible before the first kernel starts, and NotebookFailed."""
    if is_open(benchmark := str(given.get("benchmark", ""))):
        raise StudyError(f"the notebooks need options, {benchmark} has none; docs/open_ended.md says how to measure it")
    notebooks = select(which, folder)
    parameters = assign(notebooks, given)
    first = parameters_of(notebooks[0]) | parameters[0]
    if first["out"] and {paths.RESULTS, paths.FIGURES} & {
        Path(first["out"]).resolve() / n for n in ("results", "figures")
    }:
        raise StudyError(f"OUT={first['out']} holds the record, which `record` alone writes; name another folder")
    target = executed_folder(first["model"], first["out"], base)
    begin = time.monotonic()
    if first["compute"] and "benchmark" in first:
        door.render(first["benchmark"])  # here, so that a first run's copies do not differ from a second's
    for number, (notebook, values) in enumerate(zip(notebooks, parameters, strict=True), start=1):
        print(f"[{number}/{len(notebooks)}] {notebook.stem:<32}", end="", flush=True)
        start = time.monotonic()
        try:
            run_notebook(notebook, values, target / notebook.name)
        except BaseException:
            print("  stopped", flush=True)  # ends the line of progress; the caller says why
            raise
        print(f"{time.monotonic() - start:6.0f} s", flush=True)
    took = time.monotonic() - begin
    print(f"done in {took:.0f} s; the executed notebooks are in {target}", flush=True)
    return took


def forecast(given: dict, took: float) -> str:
    """How long all questions would take, after a run with `given` (`samples`, and an `out` of its own) took `took`
    seconds: what each sweep spent on its samples grows with their number, the rest stays."""
    request = check_request(model="", benchmark=given.get("benchmark", "embedded"), tasks=given.get("tasks"))
    asked = Counter(sample.task for sample in door.load_benchmark(request.benchmark, tasks=request.tasks)[0])
    a_task = next(names["map_samples"] for names in map(parameters_of, select()) if "map_samples" in names)
    mapped = sum(min(count, a_task) for count in asked.values())
    more = 0.0
    for file in Path(given["out"]).rglob(SECONDS):
        for measures, count, spent in csv.reader(file.read_text(encoding="utf-8").splitlines()):
            wanted = mapped if MAPS.intersection(measures.split()) else asked.total()
            more += float(spent) * (wanted / int(count) - 1)
    return f"all {asked.total()} questions will take about {(took + more) / 60:.0f} minutes on this machine"
