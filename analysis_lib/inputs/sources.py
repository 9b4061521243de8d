"""From NAME:ROOT to annotation items and video paths on disk.

ROOT is a folder that holds a benchmark as published, or a hub id with its commit (owner/name@COMMIT), which the hub
client downloads or finds in its cache. Annotations are not trusted: a path in them that is absolute, climbs with `..`,
or reaches through a link out of the benchmark is refused before anything is read there. What is wrong with a whole
download ends in one StudyError, what is wrong with one item in a SampleError."""

import os
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs import files
from analysis_lib.inputs.formats import Format

HUB_ID = re.compile(r"([\w.-]+/[\w.-]+?)(?:@(\w+))?")
ARCHIVES = ("*.zip", "*.tar", "*.tar.*")


@dataclass(frozen=True)
class Root:
    """A benchmark's folder, and the folder that nothing read may leave (the same, or the hub's cache of this set)."""

    folder: Path
    fence: Path


def find_root(name: str, given: str, form: Format) -> Root:
    """The folder of `NAME:given`. StudyError if there is none, or it does not hold the annotations of this format."""
    where = " or ".join(form.annotations)
    if not given:
        raise StudyError(f"the benchmark {name} needs its folder: {name}:ROOT, where ROOT holds {where}")
    folder, hub = Path(given).expanduser(), HUB_ID.fullmatch(given)
    if hub and not folder.exists():
        beside = [f"*{name}" for name in form.lookup[:1]]
        needed = dict.fromkeys([*form.annotations, *beside, *(f"{p.partition('/')[0]}/*" for p in form.videos)])
        snapshot = _fetch(name, *hub.groups(), tuple(needed))
        root = Root(snapshot, snapshot.resolve().parent.parent)  # its files are links into the cache of this set
        if not annotation_files(root, form):
            raise StudyError(f"{given} holds no {where}; is it a copy of {form.title} as published?")
        return root
    if not folder.is_dir():
        raise StudyError(f"there is no folder {folder}; {name}:ROOT needs ROOT/{where}")
    root = Root(folder.resolve(), folder.resolve())
    if not annotation_files(root, form):
        others = [*sorted(child for child in folder.iterdir() if child.is_dir()), root.folder.parent]
        near = next((other for other in others if _matches(other, form)), None)
        fix = f", but {near} does: use {name}:{near}" if near else f"; {name}:ROOT needs ROOT/{where}"
        raise StudyError(f"{folder} holds no {where}{fix}")
    return root


@lru_cache(maxsize=4)
def _fetch(name: str, repo: str, revision: str | None, needed: tuple[str, ...]) -> Path:
    """The files of a data set on the hub that match `needed`; the StudyError says how to get them by hand."""
    if not revision or not re.fullmatch(r"[0-9a-f]{40}", revision):
        wanted = f"as a hub id it needs its commit, {name}:{repo}@COMMIT with 40 hex digits"
        raise StudyError(f"there is no folder {repo}{'@' + revision if revision else ''} here; {wanted}")
    import huggingface_hub  # heavy
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # lines about retries would drown the one that matters
    print(f"looking for {repo} at {revision} in the cache and on the hub", flush=True)
    by_hand = f"`hf download {repo} --repo-type dataset --revision {revision} --local-dir ROOT`"
    by_hand = f"on a machine with access {by_hand} (needed: {', '.join(needed)}), unpack, then use {name}:ROOT"
    patterns = {"allow_patterns": needed, "ignore_patterns": list(ARCHIVES)}
    try:
        return Path(huggingface_hub.snapshot_download(repo, repo_type="dataset", revision=revision, **patterns))
    except GatedRepoError as error:
        page = f"https://huggingface.co/datasets/{repo}"
        raise StudyError(f"{repo} is gated: accept its terms on {page}, then `hf auth login`; or {by_hand}") from error
    except LocalEntryNotFoundError as error:
        raise StudyError(f"{repo} is not in the hub's cache and the hub cannot be reached: {by_hand}") from error
    except Exception as error:  # the client raises many kinds, also from the network libraries under it
        raise StudyError(f"{repo} cannot be downloaded ({type(error).__name__}): {by_hand}") from error


def bare(name: str) -> str:
    """A task's name without what differs from one writing of it to another."""
    return re.sub(r"[\W_]", "", name.lower())


def _matches(folder: Path, form: Format) -> list[tuple[Path, str]]:
    """The files of the first pattern that matches, each with what the pattern's first `*` stands for; those of all
    patterns where any file would do (one is allowed)."""
    found = []
    for pattern in form.annotations:
        task = re.escape(pattern).replace(r"\*", "(.*?)", 1).replace(r"\*", ".*").replace(r"\?", ".")
        here = sorted(f for f in folder.glob(pattern) if f.name[0] != ".")  # no ._x.json of a Mac
        names = (re.fullmatch(task, f.relative_to(folder).as_posix()) for f in here)
        found.append([(f, name[1] if name and name.groups() else "") for f, name in zip(here, names, strict=True)])
    return sum(found, []) if form.strict else next(filter(None, found), [])


def annotation_files(root: Root, form: Format) -> dict[str, Path]:
    """The annotation files below ROOT by task, sorted: what `*` stands for, written as in the format. StudyError if
    one lies outside or has rivals."""
    found, written = _matches(root.folder, form), {bare(task): task for task in form.counts}
    for file, _ in found:
        _stay_inside(root, file)
    if form.strict and len(found) > 1:
        raise StudyError(f"{root.folder} holds {', '.join(f.name for f, _ in found)}; keep one file of questions there")
    tasks: dict[str, Path] = {}
    for file, name in found:
        task = written.get(bare(name), name)
        if task in tasks:
            raise StudyError(f"{tasks[task]} and {file} both hold the task {task or form.title}; keep one of them")
        tasks[task] = file
    return tasks


def _stay_inside(root: Root, file: Path) -> None:
    if not file.resolve().is_relative_to(root.fence):
        raise StudyError(f"{file} is a link that leaves {root.folder}; put the file itself there")


def task_names(root: Root, form: Format) -> list[str]:
    """The tasks of a download, sorted (the published order)."""
    if form.task:
        return sorted(read_items(root, form))
    return sorted(name for name in annotation_files(root, form) if name in form.folders or not form.folders)


def read_items(root: Root, form: Format, tasks: Collection[str] | None = None) -> dict[str, list[Any]]:
    """The questions of each task in file order. StudyError for a file of no use, or that repeats an id."""
    found: dict[str, list[Any]] = {}
    for name, file in annotation_files(root, form).items():
        if form.task or tasks is None or name in tasks:
            for number, item in enumerate(_read(root, file, form), 1):
                found.setdefault(_task_field(file, number, item, form) if form.task else name, []).append(item)
    return {task: items for task, items in found.items() if tasks is None or task in tasks}


def _task_field(file: Path, number: int, item: Any, form: Format) -> str:
    """The task that an item names; without one, the file's name where that is allowed."""
    task = item.get(form.task) if isinstance(item, dict) else None
    if task is None and form.task in form.optional:
        task = file.stem
    if not isinstance(task, str) or not task.strip() or re.search(r"[,/\\]", task):
        raise StudyError(f"{file}, item {number}: its {form.task} {task!r} is not a name without commas and slashes")
    return task.strip()


def _read(root: Root, file: Path, form: Format) -> list[Any]:
    """The questions of one file, which holds a list of items, or a JSON object that maps ids to items."""
    items = files.load(file, _fix(form))
    keys: list[str] = []
    if isinstance(items, dict) and all(isinstance(item, dict) for item in items.values()):
        keys, items = [*items], [*items.values()]
    if not isinstance(items, list) or not items:
        raise StudyError(f"{file} must hold a list of questions")
    ids = Counter(str(item[form.identity]) for item in items if isinstance(item, dict) and form.identity in item)
    if twice := [name for name, count in ids.items() if count > 1]:
        raise StudyError(f"{file} holds the {form.identity} {twice[0]!r} twice; download it again, or remove one")
    items = _look_up(root, file, form, items) if form.lookup else items
    questions = [
        question
        for item, key in zip(items, keys or [""] * len(items), strict=True)
        for question in form.expand(item, key)
    ]
    if not questions:
        where = f" without {form.lookup[0]} beside it" if form.lookup else ""
        raise StudyError(f"{file} holds no question with an answer{where}; {_fix(form)}")
    dicts = [item for item in questions if isinstance(item, dict)]
    held, needed = set().union(*dicts), fields_of(form)
    known = needed | {*form.optional}
    if dicts and (lacking := sorted(needed - held)):
        raise StudyError(f"{file}: no item has {', '.join(lacking)}; the fields there are {', '.join(sorted(held))}")
    if form.strict and (unknown := sorted(held - known)):
        raise StudyError(f"{file}: unknown fields {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return questions


def _fix(form: Format) -> str:
    return "mend it" if form.strict else "download it again"


def _look_up(root: Root, file: Path, form: Format, items: list[Any]) -> list[Any]:
    """Items with the field that a file beside theirs holds for some of them, by the field that is its key."""
    name, key, field = form.lookup
    beside = file.with_name(name)
    if not beside.exists():
        return items
    _stay_inside(root, beside)
    table = files.load(beside, _fix(form))
    if not isinstance(table, dict):
        raise StudyError(f"{beside} must map each {key} to its {field}; {_fix(form)}")
    found = [table.get(str(item.get(key))) if isinstance(item, dict) else None for item in items]
    return [item if value is None else item | {field: value} for item, value in zip(items, found, strict=True)]


def fields_of(form: Format) -> set[str]:
    """The fields without which no question can be made."""
    needed = {*_path_fields(form.videos[0]), form.question, form.options, form.answer, form.task}
    return needed - {"", *form.optional}


def _path_fields(pattern: str) -> list[str]:
    """The item's fields in the path of its video."""
    return [name for name in re.findall(r"{(\w+)}", pattern) if name not in ("task", "folder")]


def video_of(root: Root, form: Format, task: str, item: Any) -> tuple[Path, str]:
    """Where an item's video is, or is to be if it is in none of the format's places, and its name inside the benchmark,
    the same in every place. SampleError if the path is refused."""
    values = {name: text_of(item, name) for name in _path_fields(form.videos[0])}
    more = [name for pattern in form.videos[1:] for name in _path_fields(pattern) if name in item]
    values |= {name: text_of(item, name) for name in more}
    for value in values.values():
        if value.startswith(("/", "\\", "~")) or re.match(r"\w:[\\/]", value) or ".." in re.split(r"[\\/]", value):
            raise SampleError(f"the path {value!r} leaves the benchmark's folder; nothing outside of it is read")
    values |= {"task": task, "folder": form.folders.get(task, "")}
    places = [p.format(**values) for p in form.videos if {*_path_fields(p)} <= {*values}]
    ended = [root.folder / f"{place}{ending}" for place in places for ending in form.endings or ("",)]
    path = next((candidate for candidate in ended if os.path.exists(candidate)), ended[0])  # False for any bad name
    try:
        held = [path, *(path.iterdir() if path.is_dir() else ())]  # or the pictures in a folder of frames
        left = any(not file.resolve().is_relative_to(root.fence) for file in held)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name that no file can have
        raise SampleError(f"the path {places[0]!r} cannot be followed") from error
    if left:
        raise SampleError(f"{places[0]} is a link that leaves the benchmark's folder; nothing outside of it is read")
    return path, places[0].partition("/")[2]


def text_of(item: Any, key: str) -> str:
    """A field that must hold text."""
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise SampleError(f"the item has no {key}" if not value else f"the item's {key} is not text")
    return value


def packed(root: Root) -> str:
    """Where missing videos may be packed, and what to do; empty if there is no sign of it."""
    if root.fence != root.folder.resolve():
        return "the hub may hold the videos in archives: `hf download` them into a folder, unpack, and use that folder"
    found = sorted(str(f.relative_to(root.folder)) for kind in ARCHIVES for f in root.folder.rglob(kind))
    return f"unpack {', '.join(found[:3])}{' and others' if len(found) > 3 else ''}" if found else ""
