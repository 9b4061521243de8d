"""What is known of each benchmark: where its files lie, which field says what, how many questions were published.

One `Format` a benchmark, and nothing of a benchmark anywhere else. `sources` finds and reads the files, `benchmarks`
makes samples of the items. Facts are from the benchmarks' own folders and loaders, as the paper's code uses them: field
names, folders, the tasks whose questions are about a part of the video, the sampling rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from analysis_lib.errors import SampleError

NTU = (
    "the videos of Action Antonym are from NTU RGB+D, whose licence keeps them off the hub: ask its owners for them "
    "and put them into video/action_antonym under the names in the annotations"
)


def _alone(item: Any) -> list[Any]:
    return [item]


@dataclass(frozen=True)
class Format:
    """The description of one benchmark.

    `annotations` are patterns below ROOT, of which the first that matches counts. Without a field `task`, there is
    one file a task, and the task is what `*` stands for. `videos` is the path of a video below ROOT, with the item's
    fields (and task, folder) in braces; `endings` are tried where the annotations name no file ending. `answer_kind`
    says what the answer's field holds: an option's "text", its "index" (0-based), its "letter", "either" text or
    letter, or an "open" answer without options. `rule` is the sampling rule (`videos.sample_indices`). Bounds in
    seconds count in the tasks `bounded` (None: in all); `bounds` names their fields. `wording` is how questions are
    put (`prompts`), and `complete` turns task, question and answer into the start of a sentence and the word that
    completes it. `counts` are the questions published in each task (empty: `total` in all), `withheld` says of tasks
    why their videos are not in the download, and what to do. `expand` turns one item into its questions; `optional`
    fields may be absent, and a `strict` format refuses all others.
    """

    title: str
    annotations: tuple[str, ...]
    videos: str
    question: str = "question"
    options: str = "options"
    answer: str = "answer"
    answer_kind: str = "text"
    lettered: bool = False  # options are written "A. text"
    task: str = ""
    identity: str = ""  # the field that must not repeat
    bounds: tuple[str, str] = ("start", "end")
    bounded: frozenset[str] | None = None
    rule: str = "middle"
    endings: tuple[str, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    total: int = 0
    withheld: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    expand: Callable[[Any], list[Any]] = _alone
    optional: tuple[str, ...] = ()
    strict: bool = False
    wording: str = "options"
    complete: Callable[[str, str, str], tuple[str, str]] | None = None


def _youtube(item: Any) -> list[Any]:
    """Video-MME names a video by its address, the file by the id in it."""
    if not isinstance(item, dict) or not isinstance(item.get("url"), str):
        return [item]
    return [item | {"youtube_id": parse_qs(urlsplit(item["url"]).query).get("v", [""])[0]}]


def _two_questions(item: Any) -> list[Any]:
    """VCGBench's consistency task asks each thing in two wordings."""
    if not isinstance(item, dict) or "Q1" not in item:
        return [item]
    return [item | {"Q": item["Q1"]}, item | {"Q": item.get("Q2")}]


OBJECTS = ("jacket", "shoe", "bag", "headphone", "hat/cap", "glasses")  # of Action Antonym
NUMBERS = dict(zip(map(str, range(11)), "zero one two three four five six seven eight nine ten".split(), strict=True))


def _completion(task: str, question: str, answer: str) -> tuple[str, str]:
    """TVBench's question as a sentence to complete (paper, B.1), and the answer in lower case that completes it.

    Raises SampleError for a task without such a sentence, and for a question or answer that does not fit it.
    """
    answer = answer.strip().rstrip(".").lower()
    if task == "action_antonym":
        about = next((f" regarding the {name}" for name in OBJECTS if name in answer), "")
        return f"\nThe action being performed in the video{about} is to", answer
    if task == "action_sequence":
        return "\nThe action the person is doing first is to", answer
    if task == "scene_transition":
        return "\nThe scene in the video changes from the", re.sub(r"^from (the |a )?", "", answer)
    if task == "object_count":
        return "\nThe number of moving objects is", NUMBERS.get(answer, answer)
    if task != "moving_direction":
        raise SampleError(f"no sentence to complete is known for the task {task}")
    thing = re.search(r"\bthe ((?:\w+ ){0,3}?(?:cube|sphere|cylinder|object))\b", question.lower())
    sides = [side for side in ("left", "right") if side in answer]
    if not thing or len(sides) != 1:
        raise SampleError(f"neither 'left' nor 'right' completes {question!r} with {answer!r}")
    return f"\nThe {thing[1]} moves to the", sides[0]


CLEVRER, PERCEPTION, STAR = "clevrer/video_validation", "perception/videos", "star/Charades_v1_480"
MVBENCH_FOLDERS = {
    "action_antonym": "ssv2_video",
    "action_count": PERCEPTION,
    "action_localization": "sta/sta_video",
    "action_prediction": STAR,
    "action_sequence": STAR,
    "character_order": PERCEPTION,
    "counterfactual_inference": CLEVRER,
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",  # folders of pictures, three a second
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "fine_grained_pose": "nturgbd",
    "moving_attribute": CLEVRER,
    "moving_count": CLEVRER,
    "moving_direction": CLEVRER,
    "object_existence": CLEVRER,
    "object_interaction": STAR,
    "object_shuffle": PERCEPTION,
    "scene_transition": "scene_qa/video",
    "state_change": PERCEPTION,
    "unexpected_action": "FunQA_test/test",
}

FORMATS: dict[str, Format] = {
    "tvbench": Format(
        "TVBench",
        annotations=("json/*.json",),
        videos="video/{task}/{video}",
        options="candidates",
        bounded=frozenset({"action_localization", "action_sequence"}),
        counts={
            "action_antonym": 320,
            "action_count": 536,
            "action_localization": 160,
            "action_sequence": 528,
            "egocentric_sequence": 200,
            "moving_direction": 232,
            "object_count": 148,
            "object_shuffle": 225,
            "scene_transition": 185,
            "unexpected_action": 120,
        },
        withheld={"action_antonym": NTU},
        notes=(
            "licence of TVBench: CC BY 4.0",
            "published counts are the original ones; the hub's copy lost doubled questions of Action Sequence and "
            "Unexpected Action in October 2024, so state the revision with your results",
        ),
    ),
    "mvbench": Format(
        "MVBench",
        annotations=("json/*.json",),
        videos="video/{folder}/{video}",
        options="candidates",
        bounded=frozenset(
            "action_sequence action_prediction object_interaction action_localization episodic_reasoning".split()
        ),
        folders=MVBENCH_FOLDERS,
        counts=dict.fromkeys(MVBENCH_FOLDERS, 200),
        notes=("videos of MVBench are from other data sets, each with its own licence",),
    ),
    "tomato": Format(
        "TOMATO",
        annotations=("data/*.json", "jsons/*.json"),
        videos="videos/{demonstration_type}/{key}.mp4",
        answer_kind="index",
        counts={
            "count": 292,
            "direction": 403,
            "rotation": 286,
            "shape&trend": 223,
            "velocity&frequency": 210,
            "visual_cues": 70,
        },
        notes=("videos of TOMATO are a download of their own (Drive), linked in its repository",),
    ),
    "longvideobench": Format(
        "LongVideoBench",
        annotations=("lvb_val.json",),
        videos="videos/{video_path}",
        options="candidates",
        answer="correct_choice",
        answer_kind="index",
        task="question_category",
        identity="id",
        bounds=("", "duration"),
        rule="stride",
        total=1337,
        notes=("subtitles are not used, as in the paper",),
    ),
    "videomme": Format(
        "Video-MME",
        annotations=("videomme/test-*.parquet",),
        videos="data/{youtube_id}",
        answer_kind="letter",
        lettered=True,
        task="task_type",
        identity="question_id",
        endings=(".mp4", ".avi", ".mov", ".mkv"),
        total=2700,
        expand=_youtube,
        notes=("subtitles are not used, as in the paper",),
    ),
    "vcgbench": Format(
        "VCGBench",
        annotations=("Benchmarking_QA/*_qa.json",),
        videos="Test_Videos/{video_name}",
        question="Q",
        options="",
        answer="A",
        answer_kind="open",
        wording="chat",
        endings=(".mp4", ".mkv"),
        counts=dict.fromkeys(("consistency", "generic", "temporal"), 0),
        expand=_two_questions,
        notes=("questions of VCGBench are open-ended: --measure response follows the verbs of the model's own answer",),
    ),
    "folder": Format(
        "the folder",
        annotations=("*.csv", "*.jsonl"),
        videos="videos/{video}",
        answer_kind="either",
        task="task",
        optional=("task", "start", "end"),
        strict=True,
    ),
}

# The paper's open-ended questions (B.1): TVBench's without options, as a sentence to complete.
FORMATS["tvbench-open"] = replace(
    FORMATS["tvbench"], title="TVBench open-ended", options="", answer_kind="open", wording="completion",
    complete=_completion,
)  # fmt: skip

EMBEDDED_TASKS = ("action_antonym", "action_sequence", "moving_direction", "object_count", "scene_transition")
# Written in TVBench's layout, so it is read as that, but nothing of what is known of TVBench's content applies.
EMBEDDED = replace(
    FORMATS["tvbench"], title="the embedded benchmark", bounded=None, counts={}, withheld={}, notes=("Apache-2.0",)
)
