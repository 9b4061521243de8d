"""What is known of each benchmark: where its files lie, which field says what, how many questions were published.

One `Format` a benchmark, and nothing of a benchmark anywhere else, but for the shapes of items in `items`. `sources`
finds and reads the files, `benchmarks` makes samples of the items. Facts are from the benchmarks' own folders and
loaders, as the paper's code uses them: field names, folders, the tasks whose questions are about a part of the video,
the sampling rule. Where they are read, and where ours differ from them: docs/benchmarks.md."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from analysis_lib.errors import SampleError
from analysis_lib.inputs import items


@dataclass(frozen=True)
class Format:
    """The description of one benchmark; paths are below ROOT."""

    title: str
    annotations: tuple[str, ...]  # patterns, the first that matches counts; without a field `task`, `*` is the task
    videos: tuple[str, ...]  # the paths of a video, with the item's fields (and task, folder) in braces
    question: str = "question"
    options: str = "options"  # "": open-ended questions
    answer: str = "answer"
    answer_kind: str = "text"  # or "index" (0-based), "letter" (options are written "A. text"), "either" text or letter
    task: str = ""  # the field that names an item's task
    identity: str = ""  # the field that must not repeat
    bounds: tuple[str, str] = ("start", "end")  # in seconds
    bounded: frozenset[str] | None = None  # the tasks in which bounds count; None: in all
    rule: str = "middle"  # of sampling (`videos.sample_indices`)
    endings: tuple[str, ...] = ()  # tried where the annotations name no file ending
    folders: Mapping[str, str] = field(default_factory=dict)  # of each task's videos
    counts: Mapping[str, int] = field(default_factory=dict)  # questions published in each task; empty: `total` in all
    total: int = 0
    withheld: Mapping[str, str] = field(default_factory=dict)  # why a task's videos are not there, and what to do
    notes: tuple[str, ...] = ()
    expand: Callable[[Any, str], list[Any]] = items.as_published  # the questions of an item and its key
    lookup: (
        tuple[()] | tuple[str, str, str]
    ) = ()  # a JSON file beside the annotations, its key's field, the field it holds
    optional: tuple[str, ...] = ()  # fields that may be absent
    strict: bool = False  # refuse any other field
    wording: str = "options"  # how questions are put (`models.prompts`)
    complete: Callable[..., tuple[str, str]] | None = None  # (task, question, answer): a sentence's start and its end


OBJECTS = ("jacket", "shoe", "bag", "headphone", "hat/cap", "glasses")  # of Action Antonym
NUMBERS = dict(zip(map(str, range(11)), "zero one two three four five six seven eight nine ten".split(), strict=True))


def _completion(task: str, question: str, answer: str) -> tuple[str, str]:
    """TVBench's question as a sentence to complete (paper, B.1), and what completes it. SampleError if none fits."""
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


# fmt: off
NTU = ("the videos of {0} are from NTU RGB+D, whose licence keeps them off the hub: ask its owners for them "
       "and put them into video/{1} under the names in the annotations")
MVBENCH_TASKS = {  # by the folder below video/ that holds their videos
    "ssv2_video": "action_antonym",
    "perception/videos": "action_count character_order object_shuffle state_change",
    "sta/sta_video": "action_localization",
    "star/Charades_v1_480": "action_prediction action_sequence object_interaction",
    "clevrer/video_validation": "counterfactual_inference moving_attribute moving_count moving_direction "
    "object_existence",
    "vlnqa": "egocentric_navigation",
    "tvqa/frames_fps3_hq": "episodic_reasoning",  # folders of pictures, three a second
    "Moments_in_Time_Raw/videos": "fine_grained_action",
    "nturgbd": "fine_grained_pose",
    "scene_qa/video": "scene_transition",
    "FunQA_test/test": "unexpected_action",
}
MVBENCH_FOLDERS = {task: folder for folder, tasks in MVBENCH_TASKS.items() for task in tasks.split()}

# Line by line: the files, the fields, what was published, notes.
FORMATS: dict[str, Format] = {
    "tvbench": Format(
        "TVBench", ("json/*.json",), ("video/{task}/{video}", "video/{task}/{task}/{video}"), options="candidates",
        bounded=frozenset(("action_localization", "action_sequence")),
        withheld={"action_antonym": NTU.format("Action Antonym", "action_antonym")},
        counts={"action_antonym": 320, "action_count": 536, "action_localization": 160, "action_sequence": 528,
                "egocentric_sequence": 200, "moving_direction": 232, "object_count": 148, "object_shuffle": 225,
                "scene_transition": 185, "unexpected_action": 120},
        notes=("licence of TVBench: CC BY 4.0",
               "published counts are the original ones; the hub's copy lost doubled questions in October 2024 (Action "
               "Sequence has 437 there, Unexpected Action 82), so state the revision with your results"),
    ),
    "mvbench": Format(
        "MVBench", ("json/*.json",), ("video/{folder}/{video}", "video/data0613/{folder}/{video}"),
        folders=MVBENCH_FOLDERS, options="candidates",
        bounded=frozenset(("action_sequence", "action_prediction", "object_interaction", "action_localization",
                           "episodic_reasoning")),
        withheld={"fine_grained_pose": NTU.format("Fine-grained Pose", "nturgbd")},
        counts=dict.fromkeys(MVBENCH_FOLDERS, 200),
        notes=("videos of MVBench are from other data sets, each with its own licence; its annotations: MIT",),
    ),
    "tomato": Format(
        "TOMATO", ("data/*.json", "jsons/*.json", "data/*-?????-of-?????*.parquet"),
        ("videos/{demonstration_type}/{key}.mp4",), answer_kind="index",
        counts={"count": 292, "direction": 403, "rotation": 286, "shape&trend": 223, "velocity&frequency": 210,
                "visual_cues": 70},
        notes=("videos of TOMATO are a download of their own (Drive), linked in its repository",
               "licence of TOMATO: CC BY-SA 4.0"),
    ),
    "longvideobench": Format(
        "LongVideoBench", ("lvb_val.json",), ("videos/{video_path}",),
        options="candidates", answer="correct_choice", answer_kind="index", task="question_category", identity="id",
        bounds=("", "duration"), rule="stride", total=1337,
        notes=("subtitles are not used, as in the paper", "licence of LongVideoBench: CC BY-NC-SA 4.0"),
    ),
    "videomme": Format(
        "Video-MME", ("videomme/test-*.parquet",), ("data/{youtube_id}",),
        endings=(".mp4", ".avi", ".mov", ".mkv", ".MP4"), answer_kind="letter", task="task_type",
        identity="question_id", expand=items.videomme, total=2700,
        notes=("subtitles are not used, as in the paper", "licence of Video-MME: academic research only"),
    ),
    "vcgbench": Format(
        "VCGBench", ("Benchmarking_QA/*_qa.json", "*/test-*.parquet"), ("Test_Videos/{video_name}",),
        endings=(".mp4", ".avi", ".mov", ".mkv", ".MP4"), question="Q", options="", answer="A", wording="chat",
        expand=items.vcgbench, counts={"consistency": 998, "generic": 1996, "temporal": 499},
        notes=("questions of VCGBench are open-ended: --measure response follows the verbs of the model's own answer",),
    ),
    "tempcompass": Format(
        "TempCompass, multi-choice", ("questions/multi-choice.json", "multi-choice/test-*.parquet"),
        ("videos/{video_id}",), endings=(".mp4",), answer_kind="letter", task="dim", expand=items.tempcompass,
        total=1580, notes=("a video and its reverse are two clips with the same pixels in another order",),
    ),
    "perceptiontest": Format(
        "Perception Test, multiple choice, validation",
        ("mc_question_valid.json", "all_valid.json", "mc_question_val/validation-*.parquet"), ("videos/{video_name}",),
        endings=(".mp4", ".MP4"), answer="answer_id", answer_kind="index", task="area", expand=items.perceptiontest,
        total=19140, notes=("licence of the Perception Test: CC BY 4.0", "sound is not used"),
    ),
    "nextqa": Format(
        "NExT-QA, multi-choice, test", ("dataset/nextqa/test.csv", "nextqa/test.csv", "MC/test-*.parquet"),
        ("NExTVideo/{video}", "NExTVideo/{vidor}"), endings=(".mp4",), answer_kind="index", task="type",
        expand=items.nextqa, lookup=("map_vid_vidorID.json", "video", "vidor"), total=8564,
        notes=("videos of NExT-QA are VidOR's; licence of its repository: MIT",),
    ),
    "egoschema": Format(
        "EgoSchema, public answers", ("questions.json", "Subset/test-*.parquet"), ("videos/{video_id}",),
        endings=(".mp4", ".MP4"), answer_kind="index", task="task", identity="q_uid", expand=items.egoschema,
        lookup=("subset_answers.json", "q_uid", "answer"), total=500,
        notes=("of 5,031 questions only the 500 with a public answer are asked", "videos of EgoSchema are Ego4D's"),
    ),
    "folder": Format(
        "the folder", ("*.csv", "*.jsonl"), ("videos/{video}",),
        answer_kind="either", task="task", optional=("task", "start", "end"), strict=True,
    ),
}
# The paper's open-ended questions (B.1): TVBench's without options, as a sentence to complete.
FORMATS["tvbench-open"] = replace(FORMATS["tvbench"], title="TVBench open-ended", options="",
                                  wording="completion", complete=_completion)
EMBEDDED_TASKS = ("action_antonym", "action_sequence", "moving_direction", "object_count", "scene_transition")
# Written in TVBench's layout, so it is read as that, but nothing of what is known of TVBench's content applies.
EMBEDDED = replace(FORMATS["tvbench"], title="the embedded benchmark",
                   bounded=None, counts={}, withheld={}, notes=("Apache-2.0",))
# fmt: on
