"""One annotation item as a question that can be asked, or as the reason why it cannot.

The hashes are the identity of a stored result: of what was asked, and of the clip's file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis_lib.errors import SampleError
from analysis_lib.inputs import sources
from analysis_lib.inputs.formats import Format
from analysis_lib.inputs.records import LETTERS, Sample, Skip

# A clip's hash covers its size, first and last 64 KiB: enough to notice another file, cheap for gigabytes.
EDGE_BYTES = 65_536


def parse(
    item: Any, task: str, index: int, root: sources.Root, form: Format, hashes: Mapping[str, str]
) -> Sample | Skip:
    """One item as a Sample, or as a Skip that says what is wrong with it.

    `hashes` are those of clips whose pictures are known; the others get a hash of their file.
    """
    sample_id, clip, options, reference, stem = f"{task}/{index:04d}", "", (), "", ""
    try:
        video, clip = sources.video_of(root, form, task, item)
        question = sources.text_of(item, form.question)
        if form.options:
            options = _options(item, form)
        start, end = (_seconds(item, key) if _is_bounded(task, form) else None for key in form.bounds)
        if options:
            answer = _answer(item.get(form.answer), options, form.answer_kind)
        else:
            answer, reference = 0, sources.text_of(item, form.answer)
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


def _is_bounded(task: str, form: Format) -> bool:
    """Whether start and end count; in a task that was not published with the benchmark they do."""
    return form.bounded is None or task in form.bounded or task not in form.counts


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, ensure_ascii=True).encode()).hexdigest()[:16]


def _options(item: dict, form: Format) -> tuple[str, ...]:
    given = item.get(form.options)
    if not isinstance(given, list) or not all(isinstance(option, str | int | float) for option in given):
        raise SampleError(f"the item has no list of {form.options}")
    options = tuple(str(option) for option in given)
    if not 2 <= len(options) <= len(LETTERS):
        raise SampleError(f"{len(options)} options; a question needs 2 to {len(LETTERS)}")
    if form.lettered:  # the prompt writes the letters itself
        if any(not option.startswith(f"{letter}.") for letter, option in zip(LETTERS, options, strict=False)):
            raise SampleError("the options do not begin with A., B. and so on")
        options = tuple(option[2:].strip() for option in options)
    seen: dict[str, str] = {}
    for letter, option in zip(LETTERS, options, strict=False):
        bare = option.strip()
        if not bare:
            raise SampleError(f"option {letter} is empty")
        if bare in seen:
            raise SampleError(f"duplicate options: {seen[bare]} and {letter} are both {bare!r}")
        seen[bare] = letter
    return options


def _answer(given: Any, options: tuple[str, ...], kind: str) -> int:
    """The index of the right option, from its text, letter or index."""
    answer = "" if given is None else str(given).strip()
    names: list[list[str]] = []
    if kind in ("text", "either"):
        names.append([option.strip() for option in options])
    if kind in ("letter", "either"):
        names.append(list(LETTERS[: len(options)]))
    if kind == "index":
        names.append([str(i) for i in range(len(options))])
    for known in names:
        if answer in known:
            return known.index(answer)
    raise SampleError(f"the answer {answer!r} is not among the options")


def _seconds(item: dict, key: str) -> float | None:
    value = item.get(key) if key else None
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
