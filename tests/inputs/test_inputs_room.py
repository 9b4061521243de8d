"""What comes into the room `inputs`, and what goes out of it: a benchmark's folder, its questions, their clips."""

import numpy as np
import pytest
from clips import item, write_clip, write_task

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs import doctor
from analysis_lib.inputs.benchmarks import load_benchmark
from analysis_lib.inputs.formats import FORMATS
from analysis_lib.inputs.videos import load_clip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A benchmark as published: json/TASK.json beside video/TASK/. Its last question cannot be asked."""
    folder = tmp_path_factory.mktemp("tvbench")
    questions = [item(f"{i}.mp4", "Which way?", ["left", "right"], "right") for i in range(3)]
    write_task(folder, "moving_direction", [*questions, item("0.mp4", answer="neither")])
    return folder


def test_in_comes_a_folder_and_out_go_questions_and_skips(root):
    samples, skips = load_benchmark(f"tvbench:{root}")
    assert [(s.sample_id, s.answer_text, s.letter) for s in samples] == [
        (f"moving_direction/000{i}", "right", "B") for i in range(3)
    ]
    assert [(s.sample_id, s.reason) for s in skips] == [
        ("moving_direction/0003", "the answer 'neither' is not among the options")
    ]


def test_a_draw_of_questions_is_contained_in_a_larger_one(root):
    drawn = [{s.sample_id for found in load_benchmark(f"tvbench:{root}", samples=n) for s in found} for n in (1, 2, 4)]
    assert drawn[0] < drawn[1] < drawn[2] and len(drawn[2]) == 4


def test_a_question_leads_to_its_clip(root):
    sample = load_benchmark(f"tvbench:{root}")[0][0]
    clip = load_clip(sample.video, 8, start=sample.start, end=sample.end, rule=sample.rule)
    assert clip.frames.shape == (8, 48, 48, 3) and clip.frames.dtype == np.uint8
    assert clip.indices == (1, 3, 6, 8, 11, 13, 15, 18)  # the middles of eight segments of 19 / 8 frames
    assert clip.seconds == tuple(i / 8 for i in clip.indices)  # at eight frames a second


def test_one_bad_clip_is_a_sample_error_and_a_bad_benchmark_a_study_error(tmp_path):
    with pytest.raises(SampleError, match="short.mp4: the video holds 5 frames, fewer than the 8 that the model takes"):
        load_clip(write_clip(tmp_path / "short.mp4", 5), 8)
    with pytest.raises(StudyError, match="unknown benchmark 'mine'; known: embedded, tvbench:ROOT"):
        load_benchmark("mine")
    with pytest.raises(StudyError, match="holds no json"):
        load_benchmark(f"tvbench:{tmp_path}")


def test_the_doctor_says_whether_a_download_can_be_measured(root, capsys):
    assert doctor.main(f"tvbench:{root}") == 2
    printed = capsys.readouterr()
    title, head, row, *notes = printed.out.splitlines()
    assert title.startswith(f"TVBench in {root.resolve()}, revision not recorded in the folder, annotations ")
    assert head.split() == ["task", *doctor.COLUMNS] and row.split() == ["moving_direction", *"4 232 3 0 0 1".split()]
    assert all(note.startswith("note: ") for note in notes)
    first = "error: moving_direction: 1 questions cannot be asked: the answer 'neither' is not among the options"
    assert printed.err.splitlines()[0] == first


def test_all_that_is_known_of_a_benchmark_stands_in_its_format():
    names = "tvbench mvbench tomato longvideobench videomme vcgbench tempcompass perceptiontest nextqa egoschema"
    assert [*FORMATS] == [*names.split(), "folder", "tvbench-open"]
    form = FORMATS["tvbench"]
    assert (form.annotations, form.videos) == (
        ("json/*.json",),
        ("video/{task}/{video}", "video/{task}/{task}/{video}"),
    )
    assert form.counts["moving_direction"] == 232 and form.options == "candidates" and form.rule == "middle"
