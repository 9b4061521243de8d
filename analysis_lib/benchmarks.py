"""Questions with their videos, from a folder in TVBench's published layout.

`ROOT/json/{task}.json` is a list of items (video, question, candidates, answer as text, sometimes start and end in
seconds), and `ROOT/video/{task}/` holds the clips. The embedded benchmark is written to disk in the same layout, so
both take one road. An item that cannot be asked becomes a `Skip` with its reason instead of an error. A draw of N
questions per task depends on the seed and the item's number alone: a larger N contains the smaller one, so stored
results stay useful when a run grows. Every question carries a hash of what was asked and of its clip, which a store
compares before it mixes old rows with new ones.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis_lib import paths
from analysis_lib.errors import SampleError, StudyError
from analysis_lib.prompts import LETTERS

KNOWN = ("embedded", "tvbench:ROOT")
# A clip's hash covers its size, first and last 64 KiB: enough to notice another file, cheap for gigabytes.
EDGE_BYTES = 65_536


@dataclass(frozen=True)
class Sample:
    """One multiple-choice question about a clip.

    `answer` is the 0-based index of the right option; `start` and `end` are in seconds. `clip` names the video inside
    the benchmark (the unit of the bootstrap), `sha256` identifies question and clip (16 digits).
    """

    task: str
    sample_id: str
    video: Path
    question: str
    options: tuple[str, ...]
    answer: int
    start: float | None = None
    end: float | None = None
    clip: str = ""
    sha256: str = ""

    @property
    def letter(self) -> str:
        """The right option's letter."""
        return LETTERS[self.answer]

    @property
    def answer_text(self) -> str:
        """The right option's text."""
        return self.options[self.answer]


@dataclass(frozen=True)
class Skip:
    """A requested question that cannot be measured, and why."""

    task: str
    sample_id: str
    reason: str
    clip: str = ""
    sha256: str = ""


def load_benchmark(
    spec: str, *, tasks: Sequence[str] | None = None, samples: int | None = None, seed: int = 0
) -> tuple[list[Sample], list[Skip]]:
    """The questions of `spec` ("embedded" or "tvbench:ROOT"), tasks alphabetically, then in file order.

    `tasks` None or empty means all; `samples` (None or 0: all) is the number of questions drawn from each task, good
    and bad alike. The embedded benchmark is rendered when it is first asked for.

    Raises:
        StudyError: unknown benchmark or task (the line lists the known ones), or a folder or json file of no use.
    """
    name, root, known = _locate(spec)
    chosen = sorted(set(known if not tasks else [_known_task(task, known) for task in tasks]))
    if samples is not None and samples < 0:
        raise StudyError(f"samples is {samples}; use a positive number per task, or 0 for all")
    hashes: dict[str, str] = {}
    if name == "embedded":
        from analysis_lib import quiz

        quiz.write_benchmark(root)
        # hashes of the pictures before encoding: the same on machines whose encoders differ by a byte
        hashes = json.loads((root / "manifest.json").read_text(encoding="utf-8"))["frames_sha256"]
    found: list[Sample | Skip] = []
    for task in chosen:
        items = _read_items(root / "json" / f"{task}.json")
        found += [_parse(items[i], task, i, root, hashes) for i in draw(task, len(items), samples, seed)]
    return [f for f in found if isinstance(f, Sample)], [f for f in found if isinstance(f, Skip)]


def benchmark_name(spec: str) -> str:
    """The part of a benchmark's name before the colon."""
    return spec.partition(":")[0]


def check_benchmark(spec: str, tasks: Sequence[str] | None = None) -> None:
    """Refuse an unknown benchmark or task (StudyError) without rendering or reading any question."""
    _, _, known = _locate(spec)
    for task in tasks or ():
        _known_task(task, known)


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


def _locate(spec: str) -> tuple[str, Path, list[str]]:
    """Name, folder and known tasks of a benchmark."""
    name, _, root = spec.partition(":")
    if spec == "embedded":
        from analysis_lib import quiz

        return name, paths.BENCHMARK, sorted(quiz.TASKS)
    if name != "tvbench":
        raise StudyError(f"unknown benchmark {spec!r}; known: {', '.join(KNOWN)}")
    if not root:
        raise StudyError("the benchmark tvbench needs its folder: tvbench:ROOT, where ROOT holds json/ and video/")
    folder = Path(root).expanduser()
    known = sorted(file.stem for file in (folder / "json").glob("*.json"))
    if not known:
        raise StudyError(f"{folder}/json holds no task files; tvbench:ROOT needs ROOT/json/TASK.json and ROOT/video/")
    return name, folder.resolve(), known


def _known_task(task: str, known: Sequence[str]) -> str:
    if task in known:
        return task
    name = task.strip().lower().replace(" ", "_")  # the paper writes "Action Antonym"
    if name not in known:
        raise StudyError(f"unknown task {task!r}; known: {', '.join(known)}")
    return name


def _read_items(file: Path) -> list[Any]:
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{file} cannot be read as JSON ({error}); download it again") from error
    if not isinstance(items, list) or not items:
        raise StudyError(f"{file} must hold a list of questions")
    return items


def _parse(item: Any, task: str, index: int, root: Path, hashes: dict[str, str]) -> Sample | Skip:
    """One item as a Sample, or as a Skip that says what is wrong with it."""
    sample_id, clip = f"{task}/{index:04d}", ""
    try:
        clip = f"{task}/{_text(item, 'video')}"
        video = root / "video" / clip
        question, options = _text(item, "question"), _options(item)
        start, end, answer = _seconds(item, "start"), _seconds(item, "end"), _answer(item, options)
    except SampleError as error:
        return Skip(task, sample_id, str(error), clip, _digest(task, index, repr(item)))
    pixels = hashes[clip] if clip in hashes and video.exists() else _file_hash(video)
    digest = _digest(task, clip, question, options, answer, start, end, pixels)
    return Sample(task, sample_id, video, question, options, answer, start, end, clip, digest)


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, ensure_ascii=True).encode()).hexdigest()[:16]


def _text(item: Any, key: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise SampleError(f"the item has no {key}" if not value else f"the item's {key} is not text")
    return value


def _options(item: dict) -> tuple[str, ...]:
    given = item.get("candidates")
    if not isinstance(given, list) or not all(isinstance(option, str | int | float) for option in given):
        raise SampleError("the item has no list of candidates")
    options = tuple(str(option) for option in given)
    if not 2 <= len(options) <= len(LETTERS):
        raise SampleError(f"{len(options)} options; a question needs 2 to {len(LETTERS)}")
    seen: dict[str, str] = {}
    for letter, option in zip(LETTERS, options, strict=False):
        bare = option.strip()
        if not bare:
            raise SampleError(f"option {letter} is empty")
        if bare in seen:
            raise SampleError(f"duplicate options: {seen[bare]} and {letter} are both {bare!r}")
        seen[bare] = letter
    return options


def _answer(item: dict, options: tuple[str, ...]) -> int:
    answer = str(item.get("answer", "")).strip()
    bare = [option.strip() for option in options]
    if answer not in bare:
        raise SampleError(f"the answer {answer!r} is not among the options")
    return bare.index(answer)


def _seconds(item: dict, key: str) -> float | None:
    value = item.get(key)
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise SampleError(f"the item's {key} is {value!r}, not a time in seconds")
    return seconds


def _file_hash(video: Path) -> str:
    """Identity of a clip on disk, or of a folder's pictures with their names; "missing" if there is none."""
    digest = hashlib.sha256()
    try:
        files = sorted(f for f in video.iterdir() if f.is_file()) if video.is_dir() else [video]
        for file in files:
            size = file.stat().st_size
            digest.update(f"{file.name if video.is_dir() else ''} {size} ".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(EDGE_BYTES))
                stream.seek(max(stream.tell(), size - EDGE_BYTES))
                digest.update(stream.read(EDGE_BYTES))
    except OSError:
        return "missing"
    return digest.hexdigest()[:16]
