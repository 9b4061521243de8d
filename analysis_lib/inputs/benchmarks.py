"""Questions with their videos, from the embedded benchmark or a published one on disk.

`formats` knows the benchmarks, `sources` reads their files, this module makes questions of the items; one that cannot
be asked becomes a `Skip` with its reason. The embedded benchmark is on disk in TVBench's layout, so all take one road.
A draw of N questions per task depends on the seed and the item's number alone: a larger N contains the smaller one, so
stored results stay useful when a run grows. Every question carries a hash of what was asked and of its clip, which a
store compares before it mixes old rows with new ones."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from analysis_lib import paths
from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs import sources
from analysis_lib.inputs.formats import EMBEDDED, EMBEDDED_TASKS, FORMATS, Format
from analysis_lib.inputs.records import LETTERS, Sample, Skip
from analysis_lib.inputs.sources import Root

EDGE_BYTES = 65_536  # at either end of a file, in its hash: enough to notice another file, cheap for gigabytes


def load_benchmark(
    spec: str, *, tasks: Sequence[str] | None = None, samples: int | None = None, seed: int = 0
) -> tuple[list[Sample], list[Skip]]:
    """The questions of `spec` ("embedded", or NAME:ROOT of a format), tasks alphabetically, then in file order. `tasks`
    None or empty means all; `samples` (None or 0: all) is the number of questions drawn from each task, good and bad
    alike. A task without a single video is skipped question by question, and refused when it is named. Raises
    StudyError: unknown benchmark or task (the line lists the known ones), folder or file of no use, no video."""
    form, root, known = locate(spec)
    chosen = sorted({_known_task(task, known, form) for task in tasks or known})
    if samples is not None and samples < 0:
        raise StudyError(f"samples is {samples}; use a positive number per task, or 0 for all")
    found = read_questions(form, root, chosen, samples, seed)
    asked = [f for f in found if isinstance(f, Sample)]
    with_video = {s.task for s in asked if s.video.exists()}
    if (absent := {s.task for s in asked} - with_video) and (tasks or not with_video):
        others = ",".join(task for task in known if task not in absent)
        go_on = f"measure the others with --tasks {others}" if others else "download the videos"
        fixes = filter(None, [*map(form.withheld.get, sorted(absent)), sources.packed(root), go_on])
        example = next(s.video for s in asked if s.task in absent)
        raise StudyError(f"no video of {', '.join(sorted(absent))} is there, for example {example}; {'; '.join(fixes)}")
    for i, f in enumerate(found):
        if isinstance(f, Sample) and f.task in absent:
            reason = form.withheld.get(f.task, "no video of this task is there")
            found[i] = Skip(f.task, f.sample_id, reason, f.clip, f.sha256)
    return [f for f in found if isinstance(f, Sample)], [f for f in found if isinstance(f, Skip)]


def read_questions(
    form: Format, root: Root, tasks: Sequence[str], samples: int | None = None, seed: int = 0
) -> list[Sample | Skip]:
    """The questions of a benchmark that `locate` found, in order, without looking whether videos are there."""
    hashes: dict[str, str] = {}
    if form is EMBEDDED:
        manifest = root.folder / "manifest.json"
        if not manifest.exists():
            raise StudyError(f"{root.folder} is not rendered; run python -m analysis_lib benchmark")
        # hashes of the pictures before encoding: the same on machines whose encoders differ by a byte
        hashes = json.loads(manifest.read_text(encoding="utf-8"))["frames_sha256"]
    items = sources.read_items(root, form, tasks)
    drawn = [(task, i) for task in tasks for i in draw(task, len(items[task]), samples, seed)]
    return [_question(items[task][i], task, i, root, form, hashes) for task, i in drawn]


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
    name = benchmark_name(spec)
    return name in FORMATS and not FORMATS[name].options


def rank(task: str, index: int, seed: int) -> bytes:
    """The place of item `index` in the draw of `task`: items are drawn in the order of this hash."""
    return hashlib.sha256(f"{seed}:{task}:{index}".encode()).digest()


def draw(task: str, n: int, samples: int | None, seed: int) -> list[int]:
    """Indices of the drawn items out of `n`, ascending; all of them if `samples` is None or 0."""
    return sorted(sorted(range(n), key=lambda index: rank(task, index, seed))[: samples or n])


def benchmark_hash(sample_ids: Iterable[str], hashes: Iterable[str]) -> str:
    """One hash (16 digits) over the identities of questions and clips (`sha256` of samples), whatever their order."""
    lines = sorted(map("{} {}".format, sample_ids, hashes))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def locate(spec: str) -> tuple[Format, Root, list[str]]:
    """Format, folder and known tasks of a benchmark. StudyError if it is unknown or not there."""
    name, _, given = spec.partition(":")
    if spec == "embedded":
        return EMBEDDED, Root(paths.BENCHMARK, paths.BENCHMARK.resolve()), sorted(EMBEDDED_TASKS)
    if name not in FORMATS:
        known = ("embedded", *(f"{name}:ROOT" for name in FORMATS))
        raise StudyError(f"unknown benchmark {spec!r}; known: {', '.join(known)}")
    root = sources.find_root(name, given, FORMATS[name])
    return FORMATS[name], root, sources.task_names(root, FORMATS[name])


def _known_task(task: str, known: Sequence[str], form: Format) -> str:
    """The known name of a task, which may be written as in the paper ("Action Antonym")."""
    if task in known:
        return task
    same = next((name for name in (*known, *form.counts) if sources.bare(name) == sources.bare(task)), None)
    if same in known:
        return same
    problem = f"the task {same} is not in this download of {form.title}" if same else f"unknown task {task!r}"
    raise StudyError(f"{problem}; known: {', '.join(known)}")


def _question(item: Any, task: str, index: int, root: Root, form: Format, hashes: Mapping[str, str]) -> Sample | Skip:
    """One item as a Sample, or as a Skip that says what is wrong with it; `hashes` of pictures by clip, where known."""
    sample_id, clip, options, answer, reference, stem = f"{task}/{index:04d}", "", (), 0, "", ""
    # start and end count in a task that was not published with the benchmark, too
    bounded = form.bounded is None or task in form.bounded or task not in form.counts
    try:
        video, clip = sources.video_of(root, form, task, item)
        question = sources.text_of(item, form.question)
        if form.options:
            options = _options(item, form)
        start, end = (_seconds(item, key) if bounded else None for key in form.bounds)
        if options:
            answer = _answer(item.get(form.answer), options, form.answer_kind)
        else:
            reference = sources.text_of(item, form.answer)
        if form.complete:
            stem, reference = form.complete(task, question, reference)
    except SampleError as error:
        return Skip(task, sample_id, str(error), clip, _digest(task, index, repr(item)))
    pixels = hashes[clip] if clip in hashes and video.exists() else _file_hash(video)
    open_ended = [text for text in (reference, stem) if text]
    digest = _digest(task, clip, question, options, answer, start, end, pixels, *open_ended)
    return Sample(
        question, options, answer, reference, form.wording, stem, task=task, sample_id=sample_id, video=video,
        start=start, end=end, clip=clip, sha256=digest, rule=form.rule,
    )  # fmt: skip


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, ensure_ascii=True).encode()).hexdigest()[:16]


def _options(item: dict, form: Format) -> tuple[str, ...]:
    given = item.get(form.options)
    if not isinstance(given, list) or not all(isinstance(option, str | int | float) for option in given):
        raise SampleError(f"the item has no list of {form.options}")
    options = tuple(map(str, given))
    if not 2 <= len(options) <= len(LETTERS):
        raise SampleError(f"{len(options)} options; a question needs 2 to {len(LETTERS)}")
    if form.answer_kind == "letter":  # the prompt writes the letters itself
        if any(not option.startswith(f"{letter}.") for letter, option in zip(LETTERS, options, strict=False)):
            raise SampleError("the options do not begin with A., B. and so on")
        options = tuple(option[2:].strip() for option in options)
    bare = [option.strip() for option in options]
    for letter, option in zip(LETTERS, bare, strict=False):
        if not option:
            raise SampleError(f"option {letter} is empty")
        first = LETTERS[bare.index(option)]
        if first != letter:
            raise SampleError(f"duplicate options: {first} and {letter} are both {option!r}")
    return options


def _answer(given: Any, options: tuple[str, ...], kind: str) -> int:
    """The index of the right option, from its text, letter or index."""
    answer, count = "" if given is None else str(given).strip(), len(options)
    texts, letters = [option.strip() for option in options], list(LETTERS[:count])
    names = {"text": texts, "letter": letters, "either": texts + letters, "index": [str(i) for i in range(count)]}[kind]
    if answer not in names:
        raise SampleError(f"the answer {answer!r} is not among the options")
    return names.index(answer) % count


def _seconds(item: dict, key: str) -> float | None:
    value = item.get(key) if key else None
    if value is None:
        return None
    with suppress(TypeError, ValueError, OverflowError):
        if 0 <= float(value) < math.inf:
            return float(value)
    raise SampleError(f"the item's {key} is {value!r}, not a time in seconds")


def _file_hash(video: Path) -> str:
    """Identity of a clip's file, or of a folder's pictures with their names; "missing" where there is neither."""
    digest = hashlib.sha256()
    try:
        folder = video.is_dir()
        files = sorted(f for f in (video.iterdir() if folder else [video]) if f.is_file())  # a pipe blocks for ever
        for file in files:
            size = file.stat().st_size
            digest.update(f"{file.name if folder else ''} {size} ".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(EDGE_BYTES))
                stream.seek(max(stream.tell(), size - EDGE_BYTES))
                digest.update(stream.read(EDGE_BYTES))
    except OSError:
        return "missing"
    return digest.hexdigest()[:16] if files or folder else "missing"
