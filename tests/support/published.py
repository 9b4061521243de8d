"""Small folders in the published format of each benchmark: every task, one or two questions, tiny clips."""

import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
from clips import pictures, write_clip
from PIL import Image

from analysis_lib.inputs.formats import FORMATS, MVBENCH_FOLDERS

SECONDS, FPS = 10, 2


def _clips(root: Path, *places: str) -> None:
    """The same clip of 20 frames in every place."""
    first = write_clip(root / places[0], SECONDS * FPS, size=32, fps=FPS)
    for place in places[1:]:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(first, root / place)


def write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def _item(video: str, **more: object) -> dict:
    return {"video": video, "question": "Which is it?", "candidates": ["one", "two", "three"], "answer": "two"} | more


def write_tvbench(root: Path, without: str = "") -> Path:
    """All ten tasks; the videos of the task `without` are not there."""
    tasks = FORMATS["tvbench"].counts
    for task in tasks:
        bounds = {"start": 1.0, "end": 9.0} if task in ("action_sequence", "action_localization") else {}
        write_json(root / "json" / f"{task}.json", [_item(f"{task}.mp4", **bounds)])
    _clips(root, *(f"video/{task}/{task}.mp4" for task in tasks if task != without))
    return root


def write_mvbench(root: Path) -> Path:
    """All twenty tasks; the episodes are folders of pictures from 00001.jpg on."""
    bounded = "action_sequence action_prediction object_interaction action_localization episodic_reasoning".split()
    for task in MVBENCH_FOLDERS:
        bounds = {"start": 1.0, "end": 9.0} if task in bounded else {}
        name = "episode" if task == "episodic_reasoning" else "a.mp4"
        write_json(root / "json" / f"{task}.json", [_item(name, **bounds)])
    folders = {folder for task, folder in MVBENCH_FOLDERS.items() if task != "episodic_reasoning"}
    _clips(root, *(f"video/{folder}/a.mp4" for folder in sorted(folders)))
    episode = root / "video/tvqa/frames_fps3_hq/episode"
    episode.mkdir(parents=True)
    for number, picture in enumerate(pictures(30, size=32), 1):
        Image.fromarray(picture).save(episode / f"{number:05d}.jpg")
    return root


def write_tomato(root: Path, folder: str = "data") -> Path:
    """All six tasks, each with a video of another kind."""
    places = []
    for i, task in enumerate(FORMATS["tomato"].counts):
        kind, key = ("human", "object", "simulated")[i % 3], f"{i:04d}-00"
        item = {"question": "Which?", "options": ["x", "y", "z"], "answer": i % 3, "video_source_url": "", "key": key}
        item |= {"motion_type": task, "variation": {"zoom": 0}, "demonstration_type": kind, "note": ""}
        write_json(root / folder / f"{task}.json", {"7": item})
        places.append(f"videos/{kind}/{key}.mp4")
    _clips(root, *places)
    return root


def write_longvideobench(root: Path) -> Path:
    """Two categories, one of them with two questions about one video."""
    items = []
    for i, category in enumerate(("SOS", "O2E", "SOS")):
        item = {"id": f"v_{i}", "video_id": "v", "video_path": "v.mp4", "question": "What?", "correct_choice": i}
        item |= {"candidates": ["a", "b", "c", "d", "e"], "question_category": category, "duration": 9.9, "level": "L1"}
        items.append(item | {"subtitle_path": "v.json", "starting_timestamp_for_subtitles": 0, "duration_group": 15})
    write_json(root / "lvb_val.json", items)
    _clips(root, "videos/v.mp4")
    return root


def write_videomme(root: Path, **changed: object) -> Path:
    """Three tasks with one question each; the second video is an mkv."""
    rows = []
    for i, task in enumerate(("OCR Problems", "Object Reasoning", "Action Recognition")):
        row = {"url": f"https://www.youtube.com/watch?v=abcdefghij{i}", "task_type": task, "answer": "BCD"[i]}
        row |= {"question": "What?", "options": [f"{letter}. text {letter}" for letter in "ABCD"], "domain": "Art"}
        rows.append(row | {"question_id": f"001-{i}", "duration": "short"} | changed)
    (root / "videomme").mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "videomme/test-00000-of-00001.parquet")
    _clips(root, *(f"data/abcdefghij{i}.mp4" for i in (0, 2)))
    write_clip(root / "data/abcdefghij1.mkv", 20, size=32)
    return root


def write_vcgbench(root: Path) -> Path:
    """The three files of questions; consistency has two wordings."""
    for task in ("generic", "temporal"):
        write_json(root / f"Benchmarking_QA/{task}_qa.json", [{"Q": "What?", "A": "A cat.", "video_name": "v1"}])
    item = {"Q1": "What is it?", "Q2": "Which is it?", "A": "A cat.", "video_name": "v1"}
    write_json(root / "Benchmarking_QA/consistency_qa.json", [item])
    _clips(root, "Test_Videos/v1.mp4")
    return root


LINES = "Which way?\nA. left\nB. right\nC. up"  # of a question of TempCompass


def write_tempcompass(root: Path) -> Path:
    """A video and its reverse, with questions about two aspects of time."""
    asked = {"question": LINES, "answer": "B. right"}
    reverse = {"question": LINES, "answer": "A. left"}
    content = {"7": {"order": [asked], "direction": [asked]}, "7_reverse": {"direction": [reverse]}}
    write_json(root / "questions/multi-choice.json", content)
    _clips(root, "videos/7.mp4", "videos/7_reverse.mp4")
    return root


def write_perceptiontest(root: Path) -> Path:
    """Two videos with questions, one that has none."""
    asked = {"id": 0, "question": "What next?", "options": ["one", "two", "three"], "answer_id": 2}
    asked |= {"area": "Physics", "reasoning": "Predictive", "tag": ["motion"]}
    content = {f"video_{i}": {"metadata": {"video_id": f"video_{i}", "split": "valid"}} for i in range(3)}
    content["video_1"]["mc_question"] = [asked, asked | {"id": 1, "area": "Memory", "answer_id": 0}]
    content["video_2"]["mc_question"] = [asked]
    write_json(root / "mc_question_valid.json", content)
    _clips(root, "videos/video_1.mp4", "videos/video_2.mp4")
    return root


def write_nextqa(root: Path) -> Path:
    """Three questions about videos that lie in VidOR's folders."""
    lines = ["video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"]
    for i, kind in enumerate(("CW", "TP", "TN")):
        lines.append(f'40{i},20,32,32,why did the boy run,{i},{i},{kind},one,two,"three, or so",four,five')
    folder = root / "dataset/nextqa"
    write_json(folder / "map_vid_vidorID.json", {f"40{i}": f"000{i}/40{i}" for i in range(3)})
    (folder / "test.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _clips(root, *(f"NExTVideo/000{i}/40{i}.mp4" for i in range(3)))
    return root


def write_egoschema(root: Path) -> Path:
    """Three questions, two of them with a public answer."""
    options = {f"option {i}": f"C does {i}." for i in range(5)}
    items = [{"q_uid": f"u-{i}", "google_drive_id": "x", "question": "What is C doing?"} | options for i in range(3)]
    write_json(root / "questions.json", items)
    write_json(root / "subset_answers.json", {"u-2": 4, "u-0": 1})
    _clips(root, *(f"videos/u-{i}.mp4" for i in range(3)))
    return root


def write_csv(root: Path) -> Path:
    """A user's folder with a table."""
    lines = ["video,question,options,answer,task,start,end"]
    lines += ['a.mp4,"Left, or right?",left|right,right,turns,,', 'a.mp4,How many?,"[""1"", ""2""]",A,counts,1,9']
    root.mkdir(parents=True, exist_ok=True)
    (root / "questions.csv").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    _clips(root, "videos/a.mp4")
    return root


def write_jsonl(root: Path) -> Path:
    """A user's folder with JSON lines and no tasks."""
    root.mkdir(parents=True, exist_ok=True)
    item = {"video": "a.mp4", "question": "Links\u2028oder rechts?", "options": ["links", "rechts"], "answer": "links"}
    (root / "mine.jsonl").write_text(json.dumps(item, ensure_ascii=False) + "\n\n", encoding="utf-8")
    _clips(root, "videos/a.mp4")
    return root


WRITERS = {
    "tvbench": write_tvbench,
    "mvbench": write_mvbench,
    "tomato": write_tomato,
    "longvideobench": write_longvideobench,
    "videomme": write_videomme,
    "vcgbench": write_vcgbench,
    "tempcompass": write_tempcompass,
    "perceptiontest": write_perceptiontest,
    "nextqa": write_nextqa,
    "egoschema": write_egoschema,
    "folder": write_csv,
}
