"""Questions with their videos, from the embedded benchmark or a published one on disk.

`formats` knows the benchmarks, `sources` reads their files, this module makes samples. The embedded benchmark is
written to disk in TVBench's layout, so all take one road. An item that cannot be asked becomes a `Skip` with its reason
instead of an error. A draw of N questions per task depends on the seed and the item's number alone: a larger N contains
the smaller one, so stored results stay useful when a run grows. Every question carries a hash of what was asked and of
its clip, which a store compares before it mixes old rows with new ones.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.inputs import sources
from analysis_lib.inputs.formats import EMBEDDED, EMBEDDED_TASKS, FORMATS, Format
from analysis_lib.inputs.records import Sample, Skip
from analysis_lib.inputs.samples import parse
from analysis_lib.inputs.sources import Root

KNOWN = ("embedded", *(f"{name}:ROOT" for name in FORMATS))


def load_benchmark(
    spec: str, *, tasks: Sequence[str] | None = None, samples: int | None = None, seed: int = 0
) -> tuple[list[Sample], list[Skip]]:
    """The questions of `spec` ("embedded", or NAME:ROOT of a format), tasks alphabetically, then in file order.

    `tasks` None or empty means all; `samples` (None or 0: all) is the number of questions drawn from each task, good
    and bad alike. The embedded benchmark is rendered when it is first asked for. A task without a single video is
    skipped question by question when all tasks are asked for, and refused when it is named.

    Raises:
        StudyError: unknown benchmark or task (the line lists the known ones), a folder or file of no use, no video.
    """
    found = read_questions(spec, tasks=tasks, samples=samples, seed=seed)
    asked = [f for f in found if isinstance(f, Sample)]
    absent = {s.task for s in asked} - {s.task for s in asked if s.video.exists()}
    if absent and (tasks or absent == {s.task for s in asked}):
        raise StudyError(_no_videos(spec, absent, next(s.video for s in asked if s.task in absent)))
    withheld = locate(spec)[0].withheld if absent else {}
    for i, f in enumerate(found):
        if isinstance(f, Sample) and f.task in absent:
            reason = withheld.get(f.task, "no video of this task is there")
            found[i] = Skip(f.task, f.sample_id, reason, f.clip, f.sha256)
    return [f for f in found if isinstance(f, Sample)], [f for f in found if isinstance(f, Skip)]


def read_questions(
    spec: str, *, tasks: Sequence[str] | None = None, samples: int | None = None, seed: int = 0
) -> list[Sample | Skip]:
    """As `load_benchmark`, in order, without looking whether videos are there."""
    form, root, known = locate(spec)
    chosen = sorted(set(known if not tasks else [_known_task(task, known, form) for task in tasks]))
    if samples is not None and samples < 0:
        raise StudyError(f"samples is {samples}; use a positive number per task, or 0 for all")
    hashes: dict[str, str] = {}
    if spec == "embedded":
        if not (root.folder / "manifest.json").exists():
            raise StudyError(f"{root.folder} is not rendered; run python -m analysis_lib benchmark")
        # hashes of the pictures before encoding: the same on machines whose encoders differ by a byte
        hashes = json.loads((root.folder / "manifest.json").read_text(encoding="utf-8"))["frames_sha256"]
    by_task = sources.read_items(root, form, chosen)
    return [
        parse(by_task[task][i], task, i, root, form, hashes)
        for task in chosen
        for i in draw(task, len(by_task[task]), samples, seed)
    ]


def benchmark_name(spec: str) -> str:
    """The part of a benchmark's name before the colon."""
    return spec.partition(":")[0]


def check_benchmark(spec: str, tasks: Sequence[str] | None = None) -> None:
    """Refuse an unknown benchmark or task (StudyError), without rendering or reading videos."""
    form, _, known = locate(spec)
    for task in tasks or ():
        _known_task(task, known, form)


def is_open(spec: str) -> bool:
    """Whether the benchmark's questions are open-ended."""
    form = FORMATS.get(benchmark_name(spec))
    return form is not None and form.answer_kind == "open"


def rank(task: str, index: int, seed: int) -> bytes:
    """The place of item `index` in the draw of `task`: items are drawn in the order of this hash."""
    return hashlib.sha256(f"{seed}:{task}:{index}".encode()).digest()


def draw(task: str, n: int, samples: int | None, seed: int) -> list[int]:
    """Indices of the drawn items out of `n`, ascending; all of them if `samples` is None or 0."""
    order = sorted(range(n), key=lambda index: rank(task, index, seed))
    return sorted(order[: samples or n])


def benchmark_hash(samples: Iterable[Sample | Skip]) -> str:
    """One hash (16 digits) over the identities of questions and clips, whatever their order."""
    lines = sorted(f"{sample.sample_id} {sample.sha256}" for sample in samples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def locate(spec: str) -> tuple[Format, Root, list[str]]:
    """Format, folder and known tasks of a benchmark. StudyError if it is unknown or not there."""
    name, _, given = spec.partition(":")
    if spec == "embedded":
        return EMBEDDED, Root(paths.BENCHMARK, paths.BENCHMARK.resolve()), sorted(EMBEDDED_TASKS)
    if name not in FORMATS:
        raise StudyError(f"unknown benchmark {spec!r}; known: {', '.join(KNOWN)}")
    root = sources.find_root(name, given, FORMATS[name])
    return FORMATS[name], root, sources.task_names(root, FORMATS[name])


def _known_task(task: str, known: Sequence[str], form: Format) -> str:
    """The known name of a task, which may be written as in the paper ("Action Antonym")."""
    if task in known:
        return task
    for names in (known, form.counts):
        for name in names:
            if _bare(name) == _bare(task):
                if names is known:
                    return name
                raise StudyError(f"the task {name} is not in this download of {form.title}; known: {', '.join(known)}")
    raise StudyError(f"unknown task {task!r}; known: {', '.join(known)}")


def _bare(task: str) -> str:
    return re.sub(r"[\W_]", "", task.lower())


def _no_videos(spec: str, tasks: set[str], example: Path) -> str:
    """What to do about tasks none of whose videos are there."""
    form, root, known = locate(spec)
    others = ",".join(task for task in known if task not in tasks)
    fixes = [form.withheld[task] for task in sorted(tasks) if task in form.withheld]
    fixes += filter(None, [sources.packed(root)])
    fixes.append(f"measure the others with --tasks {others}" if others else "download the videos")
    return f"no video of {', '.join(sorted(tasks))} is there, for example {example}; {'; '.join(fixes)}"
