"""Every published form of a benchmark gives the same questions, and an item of another shape is named, not guessed."""

import shutil

import pytest
from downloads import DOWNLOADS, unpack
from published import WRITERS, write_json

from analysis_lib.errors import StudyError
from analysis_lib.inputs import doctor, items
from analysis_lib.inputs.benchmarks import load_benchmark
from analysis_lib.inputs.formats import FORMATS
from analysis_lib.inputs.videos import load_clip


def asked(name: str, root) -> list[tuple]:
    """What a model would be asked, in order."""
    samples, _ = load_benchmark(f"{name}:{root}")
    return [(s.task, s.question, s.options, s.letter, s.answer_text, s.start, s.end) for s in samples]


@pytest.mark.parametrize("form", DOWNLOADS)
def test_a_download_gives_the_same_questions_once_it_is_unpacked(form, tmp_path):
    name = form.split()[0]
    root = unpack(DOWNLOADS[form](tmp_path / "download"))
    held_back = FORMATS[name].withheld
    plain = asked(name, WRITERS[name](tmp_path / "plain"))
    assert asked(name, root) == [question for question in plain if question[0] not in held_back]
    for sample in load_benchmark(f"{name}:{root}")[0]:
        load_clip(sample.video, 8, start=sample.start, end=sample.end, rule=sample.rule)
    assert not doctor.examine(f"{name}:{root}").problems


PACKED = {
    "tvbench": "unpack video/action_count.zip, video/action_localization.zip",
    "mvbench": "unpack video/FunQA_test.zip, video/Moments_in_Time_Raw.zip, video/data0613.zip and others",
    "longvideobench": "unpack subtitles.tar, videos.tar.part.aa, videos.tar.part.ab",
    "videomme": "unpack subtitle.zip, videos_chunked_01.zip",
    "vcgbench": "unpack videos.zip",
    "tempcompass": "unpack tempcompass_videos.zip",
    "perceptiontest": "holds no mc_question_valid.json",
    "nextqa": "unpack videos.zip",
    "egoschema": "unpack videos_chunked_01.zip",
}


@pytest.mark.parametrize("name", PACKED)
def test_a_download_that_is_still_packed_says_what_to_unpack(name, tmp_path):
    with pytest.raises(StudyError, match=PACKED[name]):
        load_benchmark(f"{name}:{DOWNLOADS[name](tmp_path)}")


def test_an_archive_that_was_unpacked_into_a_folder_of_its_own_name(tmp_path):
    root = WRITERS["tvbench"](tmp_path)
    before = load_benchmark(f"tvbench:{root}")[0]
    for folder in sorted((root / "video").iterdir()):
        shutil.move(folder, root / "aside")
        folder.mkdir()
        shutil.move(root / "aside", folder / folder.name)
    samples, skips = load_benchmark(f"tvbench:{root}")
    assert not skips and all(s.video.is_file() for s in samples)
    assert [(s.clip, s.sha256) for s in samples] == [(s.clip, s.sha256) for s in before]  # stored rows stay valid


EXPECTED = {
    "tempcompass": [
        ("direction", "Which way?", ("left", "right", "up"), "B", "7"),
        ("direction", "Which way?", ("left", "right", "up"), "A", "7_reverse"),
        ("order", "Which way?", ("left", "right", "up"), "B", "7"),
    ],
    "perceptiontest": [
        ("Memory", "What next?", ("one", "two", "three"), "A", "video_1"),
        ("Physics", "What next?", ("one", "two", "three"), "C", "video_1"),
        ("Physics", "What next?", ("one", "two", "three"), "C", "video_2"),
    ],
    "nextqa": [
        ("CW", "why did the boy run", ("one", "two", "three, or so", "four", "five"), "A", "400"),
        ("TN", "why did the boy run", ("one", "two", "three, or so", "four", "five"), "B", "401"),
        ("TN", "why did the boy run", ("one", "two", "three, or so", "four", "five"), "C", "402"),
    ],
    "egoschema": [
        ("egoschema", "What is C doing?", tuple(f"C does {i}." for i in range(5)), "B", "u-0"),
        ("egoschema", "What is C doing?", tuple(f"C does {i}." for i in range(5)), "E", "u-2"),
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_questions_are_those_of_the_authors_loader(name, tmp_path):
    samples, skips = load_benchmark(f"{name}:{WRITERS[name](tmp_path)}")
    assert not skips
    assert [(s.task, s.question, s.options, s.letter, s.clip) for s in samples] == EXPECTED[name]


BROKEN = {
    "an answer that is no line of the question": (
        {"question": "Q\nA. x\nB. y", "answer": "C. z"},
        "'C. z' is not among",
    ),
    "letters that skip one": ({"question": "Q\nA. x\nC. y", "answer": "A. x"}, "do not begin with A., B."),
    "no options": ({"question": "Q", "answer": "A. x"}, "0 options"),
    "no question": ({"answer": "A. x"}, "no question"),
    "the same option twice": ({"question": "Q\nA. x\nB. x", "answer": "A. x"}, "duplicate options"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_question_of_another_shape_is_skipped_with_its_reason(case, tmp_path):
    row, reason = BROKEN[case]
    good = {"question": "Q\nA. x\nB. y", "answer": "B. y"}
    write_json(WRITERS["tempcompass"](tmp_path) / "questions/multi-choice.json", {"7": {"order": [good, row]}})
    (sample,), (skip,) = load_benchmark(f"tempcompass:{tmp_path}")
    assert sample.letter == "B" and reason in skip.reason


def test_an_option_of_nextqa_that_is_missing_does_not_move_the_others(tmp_path):
    file = WRITERS["nextqa"](tmp_path) / "dataset/nextqa/test.csv"
    file.write_text(file.read_text().replace("CW,one", "CW,"))
    samples, (skip,) = load_benchmark(f"nextqa:{tmp_path}")
    assert len(samples) == 2 and skip.reason == "the item has no list of options"


def test_questions_without_the_file_of_answers_beside_them(tmp_path):
    root = WRITERS["egoschema"](tmp_path / "root")
    (root / "subset_answers.json").unlink()
    with pytest.raises(StudyError, match="no question with an answer without subset_answers.json beside it"):
        load_benchmark(f"egoschema:{root}")
    write_json(tmp_path / "elsewhere.json", {"u-0": 1})
    (root / "subset_answers.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(StudyError, match=r"subset_answers.json is a link that leaves"):
        load_benchmark(f"egoschema:{root}")
    (root / "subset_answers.json").unlink()
    write_json(root / "subset_answers.json", [1])
    with pytest.raises(StudyError, match="must map each q_uid to its answer"):
        load_benchmark(f"egoschema:{root}")


def test_a_path_that_a_file_beside_holds_is_looked_at_too(tmp_path):
    root = WRITERS["nextqa"](tmp_path)
    write_json(root / "dataset/nextqa/map_vid_vidorID.json", {"400": "../../secret", "401": "0001/401"})
    (present, missing), (skip,) = load_benchmark(f"nextqa:{root}")
    assert "'../../secret' leaves the benchmark's folder" in skip.reason
    assert present.video.exists() and not missing.video.exists()  # the third is not in the map


def test_two_files_of_one_task_are_refused(tmp_path):
    root = DOWNLOADS["tomato"](tmp_path)
    first = next((root / "data").glob("count-*"))
    shutil.copy(first, first.with_name("count-00000-of-00002.parquet"))
    with pytest.raises(StudyError, match="both hold the task count; keep one of them"):
        load_benchmark(f"tomato:{root}")


@pytest.mark.parametrize("name", ["videomme", "vcgbench", "tempcompass", "perceptiontest", "nextqa", "egoschema"])
@pytest.mark.parametrize("item", ["text", None, 7, []])
def test_what_is_no_item_is_left_for_the_reason_of_its_skip(name, item):
    assert getattr(items, name)(item, "") == [item]
