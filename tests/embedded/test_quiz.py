"""Questions and the embedded benchmark's files."""

import json
from collections import Counter

import numpy as np
import pytest

from analysis_lib.embedded import quiz, world
from analysis_lib.errors import StudyError

TIMES = world.video_times()


def draw(task, seed):
    rng = np.random.default_rng([seed, quiz.TASKS.index(task)])
    clip = world.make_scenario(rng, task, TIMES)
    return clip, quiz.ask(clip, task, rng)


@pytest.mark.parametrize("task", quiz.TASKS)
def test_options_differ_and_letters_are_balanced(task):
    questions = [draw(task, seed)[1] for seed in range(400)]
    assert all(len(set(q.options)) == len(q.options) for q in questions)
    n = len(questions[0].options)
    counts = Counter(q.answer for q in questions)
    assert max(abs(counts[i] / 400 - 1 / n) for i in range(n)) < 0.09


@pytest.mark.parametrize("task", ["action_antonym", "scene_transition", "moving_direction", "object_count"])
def test_no_answer_is_more_frequent_than_its_alternatives(task):
    answers = Counter(q.options[q.answer] for q in (draw(task, seed)[1] for seed in range(600)))
    assert max(answers.values()) < 1.6 * 600 / len(answers)


def test_antonyms_are_the_time_reversed_pair():
    for seed in range(50):
        clip, question = draw("action_antonym", seed)
        pair = next(pair for pair in world.ANTONYMS if clip.things[0].behaviour in pair)
        assert set(question.options) == {quiz.VERBS[name] for name in pair}


def test_first_and_last_have_opposite_answers():
    clip, _ = draw("action_sequence", 3)
    told = {}
    for seed in range(20):
        question = quiz.ask(clip, "action_sequence", np.random.default_rng(seed))
        told["first" in question.question] = question.options[question.answer]
    assert told[True] == quiz.VERBS[clip.things[0].events[0]] and told[False] == quiz.VERBS[clip.things[0].events[1]]


def test_benchmark_folder_is_tvbench_and_deterministic(tmp_path, capsys):
    first = quiz.write_benchmark(tmp_path / "a", questions_per_task=2)
    second = quiz.write_benchmark(tmp_path / "b", questions_per_task=2)
    assert (first / "manifest.json").read_text() == (second / "manifest.json").read_text()
    for task in quiz.TASKS:
        items = json.loads((first / "json" / f"{task}.json").read_text())
        assert len(items) == 2 and all((first / "video" / task / item["video"]).stat().st_size for item in items)
        assert all(item["answer"] in item["candidates"] for item in items)
    capsys.readouterr()
    quiz.write_benchmark(first, questions_per_task=2)
    assert capsys.readouterr().out == ""  # complete: nothing is rendered again


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match="cannot write the embedded benchmark"):
        quiz.write_benchmark(tmp_path / "file" / "benchmark", questions_per_task=1)
