"""Is a download of a benchmark complete and sound? `python -m analysis_lib doctor BENCHMARK:ROOT`.

Questions are read as a sweep reads them and counted against the published ones; two frames of every clip's span are
decoded as a sweep would. So what passes here can be measured, apart from damage in other frames. Videos that a licence
keeps off the hub are a note, because nobody can download them; all else that a sweep would lose is a problem."""

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass, field

import pandas as pd
from tqdm import tqdm

from analysis_lib.errors import SampleError
from analysis_lib.inputs import sources
from analysis_lib.inputs.benchmarks import locate, read_questions
from analysis_lib.inputs.formats import Format
from analysis_lib.inputs.records import Sample, Skip
from analysis_lib.inputs.videos import load_clip

FRAMES = 2  # decoded of every clip
CLIENT = ".cache/huggingface/download"  # what the hub client leaves in a folder that it downloads into
COLUMNS = ("questions", "published", "videos", "missing", "broken", "unusable")


@dataclass
class Report:
    """What was found: one row of counts a task (`COLUMNS`), notes, and problems, one line each."""

    title: str
    notes: list[str]
    rows: dict[str, dict[str, int | str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def examine(spec: str) -> Report:
    """Check a benchmark on disk or in the hub's cache. StudyError where nothing can be counted."""
    form, root, known = locate(spec)
    found = read_questions(form, root, known)
    report = Report(f"{form.title} in {root.folder}, {_revision(root, form)}", [*form.notes])
    for task in known:
        _examine_task(report, task, [f for f in found if f.task == task], form)
    if absent := sorted(set(form.counts) - set(known)):
        report.problems.append(f"no annotations of {', '.join(absent)}; download them, or measure the others only")
    if form.counts and (extra := sorted(set(known) - set(form.counts))):
        report.notes.append(f"not among the published tasks: {', '.join(extra)}")
    differ = [task for task in known if report.rows[task]["published"] not in ("", report.rows[task]["questions"])]
    if differ or (form.total and len(found) != form.total):
        where = f" (in {', '.join(differ)})" if differ else ""
        counts = f"{len(found)} questions, {form.total or sum(form.counts.values())} published{where}"
        report.notes.append(f"{counts}: state the revision with your results")
    lacking = any(row["missing"] for task, row in report.rows.items() if task not in form.withheld)
    if lacking and (fix := sources.packed(root)):
        report.problems.append(f"before another download: {fix}")
    if partial := len([*(root.folder / CLIENT).rglob("*.incomplete")]):
        report.problems.append(f"half a download: {partial} files are incomplete; run the same `hf download` again")
    items = [item for group in sources.read_items(root, form, known).values() for item in group]
    held = set().union(*(item for item in items if isinstance(item, dict)))
    if unread := sorted(held - sources.fields_of(form) - {*form.bounds, *form.optional, form.identity, *form.lookup}):
        report.notes.append(f"fields that nothing reads: {', '.join(unread)}")
    return report


def _revision(root: sources.Root, form: Format) -> str:
    """What is known of a download's version: the hub's commit, and a hash of the annotations (16 digits)."""
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources.annotation_files(root, form).values()))
    left = {file.read_text(encoding="utf-8").split("\n")[0] for file in (root.folder / CLIENT).rglob("*.metadata")}
    pinned = {root.folder.name} if root.fence != root.folder.resolve() else left
    commits = f"revision {' and '.join(sorted(pinned))}" if pinned else "revision not recorded in the folder"
    return f"{commits}, annotations {digest.hexdigest()[:16]}"


def _examine_task(report: Report, task: str, found: list[Sample | Skip], form: Format) -> None:
    """Add a task's row, and what is wrong with the task."""
    asked, skips = [f for f in found if isinstance(f, Sample)], [f for f in found if isinstance(f, Skip)]
    clips, missing = {s.clip for s in asked}, sorted({s.clip for s in asked if not s.video.exists()})
    broken = _broken(task, [s for s in asked if s.video.exists()])
    counts = len(found), form.counts.get(task) or "", len(clips), len(missing), len(broken), len(skips)
    report.rows[task] = dict(zip(COLUMNS, counts, strict=True))
    if missing and len(missing) == len(clips) and task in form.withheld:
        report.notes.append(f"{task}: {form.withheld[task]}, or leave the task out")
    elif missing:
        report.problems.append(f"{task}: {len(missing)} of {len(clips)} videos are missing, {missing[0]} first")
    if broken:
        clip, reason = next(iter(broken.items()))
        report.problems.append(f"{task}: {len(broken)} of {len(clips)} videos are broken, {clip} first: {reason}")
    for reason, count in Counter(skip.reason for skip in skips).most_common(3):
        report.problems.append(f"{task}: {count} questions cannot be asked: {reason}")
    if form.bounded and task in form.bounded and any(s.start is None or s.end is None for s in asked):
        report.problems.append(f"{task}: questions without start or end, which the published ones have")


def _broken(task: str, samples: list[Sample]) -> dict[str, str]:
    """Reasons why clips cannot be used, by clip. Each span of a clip is tried once."""
    spans = {(s.video, s.start, s.end): s for s in samples}
    broken: dict[str, str] = {}
    for sample in tqdm(spans.values(), desc=task, ascii=True, file=sys.stderr, disable=None):  # on a terminal alone
        try:
            load_clip(sample.video, FRAMES, start=sample.start, end=sample.end, rule=sample.rule)
        except SampleError as error:
            broken.setdefault(sample.clip, str(error).removeprefix(f"{sample.video}: "))
    return broken


def main(benchmark: str) -> int:
    """Print the report; returns 0 if the download is usable, else 2 with one line a problem on stderr."""
    report = examine(benchmark)
    table = pd.DataFrame.from_dict(report.rows, orient="index").rename_axis(columns="task")
    print("\n".join([report.title, table.to_string(), *(f"note: {note}" for note in report.notes)]))
    for problem in report.problems:
        print(f"error: {problem}", file=sys.stderr)
    if not report.problems:
        print("usable: every question can be asked and every video that can be downloaded opens")
    return 2 if report.problems else 0
