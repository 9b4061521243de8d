"""From a published item to questions with the same fields, whichever of its published forms a benchmark came in.

A benchmark is often published twice: as the files that its authors' loader reads, and as a copy on the hub, in parquet,
that an evaluation harness reads. Here is one function a benchmark that knows both. It takes an item and its key (where
the file is an object of items, else ""), and returns the item's questions. What it cannot make sense of it returns as
it came, so the reason of a skip names the item's own fields. Sources of every form: docs/benchmarks.md."""

import re
from typing import Any

OPTIONS = 5  # of a question of NExT-QA and EgoSchema


def _without(item: dict, *names: str) -> dict:
    """An item without the fields that were read into others."""
    return {name: value for name, value in item.items() if name not in names}


def as_published(item: Any, _key: str) -> list[Any]:
    """An item that is one question already."""
    return [item]


def videomme(item: Any, _key: str) -> list[Any]:
    """A file is named by its video's id: the field `videoID`, which the harness reads, or the id in the address."""
    if not isinstance(item, dict) or not isinstance(item.get("url"), str):
        return [item]
    found = re.search(r"[?&]v=([^&#]*)", item["url"])
    name = item.get("videoID") or (found[1] if found else "")
    return [_without(item, "url", "videoID") | {"youtube_id": name}]


def vcgbench(item: Any, _key: str) -> list[Any]:
    """The consistency task asks each thing in two wordings: Q1 and Q2 of an item, or two rows of the hub's copy, each
    with "None" in the place of the other wording."""
    if not isinstance(item, dict):
        return [item]
    if "Q1" in item:
        rest = _without(item, "Q1", "Q2")
        return [rest | {"Q": item["Q1"]}, rest | {"Q": item.get("Q2")}]
    names = ("question", "question_1", "question_2")
    asked = [item[name] for name in names if item.get(name) not in (None, "None")]
    rest = _without(item, *names, "answer")
    return [rest | {"Q": wording, "A": item.get("answer")} for wording in asked] or [item]


def tempcompass(item: Any, key: str) -> list[Any]:
    """A question's options are its last lines, "A. text" and so on, and its answer is one of these lines. The authors'
    file maps videos to aspects of time to questions; the hub's copy holds a row a question."""
    if not isinstance(item, dict):
        return [item]
    if "question" in item:
        return [_lines(item)]
    groups = [(dim, group) for dim, group in item.items() if isinstance(group, list)]
    return [_lines(row, {"video_id": key, "dim": dim}) for dim, group in groups for row in group] or [item]


def _lines(row: Any, more: dict[str, Any] | None = None) -> Any:
    """A question of TempCompass with its options apart, and the letter of the answer."""
    if not isinstance(row, dict):
        return row
    row = (more or {}) | row
    if not isinstance(row.get("question"), str):
        return row
    lines, answer = row["question"].strip().split("\n"), row.get("answer")
    first = next((i for i, line in enumerate(lines) if line.startswith("A.")), len(lines))
    apart = {"question": "\n".join(lines[:first]), "options": lines[first:]}
    return row | apart | {"answer": answer[:1] if answer in lines[first:] else answer}


def perceptiontest(item: Any, key: str) -> list[Any]:
    """The authors' file maps videos to their annotations, the questions among them; the hub's copy holds a row a
    question."""
    if not isinstance(item, dict) or "question" in item:
        return [item]
    about, asked = item.get("metadata"), item.get("mc_question", [])
    if not isinstance(asked, list):
        return [item]
    name = about.get("video_id", key) if isinstance(about, dict) else key
    return [{"video_name": name} | row if isinstance(row, dict) else row for row in asked]


def nextqa(item: Any, _key: str) -> list[Any]:
    """Options stand in fields of their own; a video is a number; before and after (TP, TN) are one task in the authors'
    evaluation."""
    if not isinstance(item, dict) or item.get("video") is None:
        return [item]
    names = [f"a{i}" for i in range(OPTIONS)]
    task = "TN" if item.get("type") == "TP" else item.get("type")
    found = {"video": str(item["video"]), "options": [item.get(name) for name in names], "type": task}
    return [_without(item, *names) | found]


def egoschema(item: Any, _key: str) -> list[Any]:
    """Of the authors' questions only those with a public answer; options in fields of their own, or, in the hub's copy,
    in a list with letters before them."""
    if not isinstance(item, dict):
        return [item]
    if item.get("answer") is None:
        return []
    names = [f"option {i}" for i in range(OPTIONS)]
    options, name = [item.get(name) for name in names], item.get("q_uid")
    if isinstance(item.get("option"), list):
        options = [str(text).removeprefix(f"{letter}. ") for letter, text in zip("ABCDE", item["option"], strict=False)]
        name = item.get("video_idx")
    rest = _without(item, *names, "q_uid", "option", "video_idx")
    return [rest | {"video_id": name, "options": options, "task": "egoschema"}]
