"""Each benchmark is read as published: tasks and their order, options, letters, answers, bounds, frame indices."""

import hashlib
import re

import numpy as np
import pytest
from published import WRITERS, write_jsonl, write_tomato

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs.benchmarks import load_benchmark
from analysis_lib.inputs.formats import FORMATS
from analysis_lib.inputs.videos import load_clip, sample_indices
from analysis_lib.study.request import check_request


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """One folder of each benchmark, written once."""
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in WRITERS.items()}


@pytest.fixture(scope="module")
def loaded(roots):
    """The samples of each benchmark; none may be skipped."""
    found = {name: load_benchmark(f"{name}:{root}") for name, root in roots.items()}
    assert not any(skips for _, skips in found.values())
    return {name: samples for name, (samples, _) in found.items()}


PUBLISHED_ORDER = {
    "tvbench": "action_antonym action_count action_localization action_sequence egocentric_sequence moving_direction "
    "object_count object_shuffle scene_transition unexpected_action".split(),
    "tomato": ["count", "direction", "rotation", "shape&trend", "velocity&frequency", "visual_cues"],
    "longvideobench": ["O2E", "SOS", "SOS"],
    "videomme": ["Action Recognition", "OCR Problems", "Object Reasoning"],
    "vcgbench": ["consistency", "consistency", "generic", "temporal"],
    "tempcompass": ["direction", "direction", "order"],
    "perceptiontest": ["Memory", "Physics", "Physics"],
    "nextqa": ["CW", "TN", "TN"],
    "egoschema": ["egoschema", "egoschema"],
    "folder": ["counts", "turns"],
}


@pytest.mark.parametrize("name", PUBLISHED_ORDER)
def test_tasks_come_in_the_published_order(name, loaded):
    assert [sample.task for sample in loaded[name]] == PUBLISHED_ORDER[name]


def test_mvbench_has_its_twenty_tasks_and_shares_folders(loaded):
    assert len({s.task for s in loaded["mvbench"]}) == 20
    clips = {s.task: s.clip for s in loaded["mvbench"]}
    assert clips["action_sequence"] == clips["object_interaction"] == "star/Charades_v1_480/a.mp4"
    assert clips["episodic_reasoning"] == "tvqa/frames_fps3_hq/episode"


@pytest.mark.parametrize("name", WRITERS)
def test_every_video_opens_with_its_span(name, loaded):
    for sample in loaded[name]:
        clip = load_clip(sample.video, 8, start=sample.start, end=sample.end, rule=sample.rule)
        assert len(set(clip.indices)) == 8


ANSWERS = {  # options, letter and answer of each sample in order
    "tvbench": [(("one", "two", "three"), "B", "two")] * 10,
    "mvbench": [(("one", "two", "three"), "B", "two")] * 20,
    "tomato": [(("x", "y", "z"), "ABC"[i % 3], "xyz"[i % 3]) for i in range(6)],
    "longvideobench": [(tuple("abcde"), letter, letter.lower()) for letter in "BAC"],
    "videomme": [(tuple(f"text {x}" for x in "ABCD"), letter, f"text {letter}") for letter in "DBC"],
    "folder": [(("1", "2"), "A", "1"), (("left", "right"), "B", "right")],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_options_letters_and_answers(name, loaded):
    assert [(s.options, s.letter, s.answer_text) for s in loaded[name]] == ANSWERS[name]


def test_bounds_count_where_the_published_loaders_apply_them(loaded):
    bounded = {name: {s.task for s in loaded[name] if (s.start, s.end) == (1.0, 9.0)} for name in WRITERS}
    assert bounded["tvbench"] == {"action_sequence", "action_localization"}
    assert bounded["mvbench"] == set(
        "action_sequence action_prediction object_interaction action_localization episodic_reasoning".split()
    )
    assert bounded["folder"] == {"counts"}
    unbounded = set(WRITERS) - {"tvbench", "mvbench", "folder", "longvideobench"}
    assert all(s.start is None and s.end is None for name in unbounded for s in loaded[name])


def test_bounds_of_another_published_task_are_not_applied(tmp_path):
    from clips import item, write_task

    write_task(tmp_path, "object_count", [item("a.mp4", start=1, end=2)])
    assert load_benchmark(f"tvbench:{tmp_path}")[0][0].start is None


# Worked by hand from the published rules (frames of the video, a second, bounds): middles of eight segments of
# (last - first) / 8; folders of pictures count from 1; LongVideoBench takes every int(int(seconds * fps) / 8)-th frame.
INDICES = {
    "tvbench action_count": ((100, 25, None, None), (6, 18, 31, 43, 56, 68, 80, 93)),
    "tvbench action_sequence": ((300, 30, 2.0, 5.0), (65, 76, 87, 99, 110, 121, 133, 144)),
    "mvbench episodic_reasoning": ((90, 3, 5.0, 25.0), (17, 25, 32, 39, 47, 55, 62, 69)),
    "tomato count": ((61, 30, None, None), (3, 11, 18, 25, 33, 41, 48, 55)),
    "videomme OCR Problems": ((801, 25, None, None), (50, 150, 250, 350, 450, 550, 650, 750)),
    "longvideobench O2E": ((3000, 29.97, None, 100.4), tuple(376 * i for i in range(8))),
    "folder x": ((300, 30, 2.0, 5.0), (65, 76, 87, 99, 110, 121, 133, 144)),
}


@pytest.mark.parametrize("case", INDICES)
def test_frame_indices_are_those_of_the_published_rule(case):
    name, _, task = case.partition(" ")
    (frames, fps, start, end), expected = INDICES[case]
    number = 1 if task == "episodic_reasoning" else 0
    rule = FORMATS[name].rule
    assert sample_indices(frames, 8, fps=fps, start=start, end=end, rule=rule, first_number=number) == expected


def test_middles_are_those_of_the_loaders_that_mvbench_and_tvbench_publish():
    """Their rule, said once more: s + half a segment + the rounded start of segment i, in a span from s to e."""
    for n, fps, start, end in [(n, 25, None, None) for n in range(9, 300)] + [(n, 29.97, 1.3, 6.7) for n in (200, 500)]:
        s = 0 if start is None else round(start * fps)
        e = n - 1 if end is None else min(round(end * fps), n - 1)
        theirs = [int(s + (e - s) / 16 + np.round((e - s) / 8 * i)) for i in range(8)]
        assert list(sample_indices(n, 8, fps=fps, start=start, end=end)) == theirs


@pytest.mark.parametrize(
    ("frames", "duration", "line"), [(3000, 7.9, "7.9 s give 7 frames"), (150, 10.0, "fewer than its annotated 10.0 s")]
)
def test_the_stride_rule_refuses_what_would_repeat_or_leave_frames(frames, duration, line):
    with pytest.raises(SampleError, match=re.escape(line)):
        sample_indices(frames, 8, fps=25.0, end=duration, rule="stride")


def test_the_stride_rule_needs_a_frame_rate():
    with pytest.raises(SampleError, match="states no frame rate"):
        sample_indices(100, 8, fps=0.0, rule="stride")


def test_open_ended_questions_have_no_options(roots, loaded):
    first, second = loaded["vcgbench"][:2]
    assert (first.question, second.question) == ("What is it?", "Which is it?")
    assert first.options == () and first.answer_text == first.reference == "A cat."
    assert (first.wording, first.stem, first.letter) == ("chat", "", "")
    with pytest.raises(StudyError, match="questions of vcgbench have no options; leave out 'true_option->last'"):
        check_request(model="m", benchmark=f"vcgbench:{roots['vcgbench']}", edges="true_option->last")
    asked = check_request(model="m", benchmark=f"vcgbench:{roots['vcgbench']}", edges="all")
    assert len(asked.edges) == 7 and not any("option" in name for name in asked.edges)


@pytest.mark.parametrize(
    ("task", "question", "answer", "length", "sha", "word"),
    [
        ("action_antonym", "", "Put on a jumper.", 46, "42e4423ea53521a9", "put on a jumper"),
        ("action_antonym", "", "Take off the bag", 64, "ec9c81a401914d55", "take off the bag"),
        ("action_sequence", "", "Sat down.", 43, "6b0e70fae09228ee", "sat down"),
        ("moving_direction", "Where does the gray cube move?", "Up and to the left.", 27, "dbf151b92f09f5bb", "left"),
        ("object_count", "", "3", 32, "c764f6b5d8ef734d", "three"),
        ("scene_transition", "", "From the bar to a hall.", 40, "f484b4c39ea0f194", "bar to a hall"),
    ],
)
def test_sentences_to_complete_have_the_published_hashes(task, question, answer, length, sha, word):
    stem, completes = FORMATS["tvbench-open"].complete(task, question, answer)
    assert (len(stem), hashlib.sha256(stem.encode()).hexdigest()[:16], completes) == (length, sha, word)


@pytest.mark.parametrize(
    ("task", "question", "answer"),
    [("object_shuffle", "", "a"), ("moving_direction", "Where?", "left"), ("moving_direction", "the red cube", "up")],
)
def test_what_no_sentence_fits_is_a_bad_sample(task, question, answer):
    with pytest.raises(SampleError):
        FORMATS["tvbench-open"].complete(task, question, answer)


def test_a_folder_with_json_lines_and_no_tasks(tmp_path):
    (sample,), _ = load_benchmark(f"folder:{write_jsonl(tmp_path)}")
    assert (sample.task, sample.letter, sample.question) == ("mine", "A", "Links\u2028oder rechts?")


def test_tomato_in_the_folder_that_the_reference_wants(tmp_path):
    assert len(load_benchmark(f"tomato:{write_tomato(tmp_path, 'jsons')}")[0]) == 6


@pytest.mark.parametrize(
    ("name", "given", "task"),
    [("tomato", "ShapeTrend", "shape&trend"), ("videomme", "action_recognition", "Action Recognition")],
)
def test_tasks_may_be_written_as_elsewhere(name, given, task, roots):
    assert {s.task for s in load_benchmark(f"{name}:{roots[name]}", tasks=[given])[0]} == {task}


def test_published_counts_add_up():
    totals = {name: sum(form.counts.values()) for name, form in FORMATS.items()}
    assert (totals["tvbench"], totals["tomato"], totals["mvbench"]) == (2654, 1484, 4000)
