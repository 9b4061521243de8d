"""Questions are drawn and identified; one that cannot be asked is recorded, not raised."""

import json
import shutil

import pytest
from clips import item, write_small_benchmark, write_task

from analysis_lib.errors import StudyError
from analysis_lib.inputs.benchmarks import benchmark_hash, check_benchmark, draw, load_benchmark
from analysis_lib.inputs.records import Sample


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_small_benchmark(tmp_path_factory.mktemp("bench"))


def test_samples_in_order_with_their_facts(root):
    samples, skips = load_benchmark(f"tvbench:{root}")
    assert not skips and [s.sample_id for s in samples] == [
        f"{task}/{i:04d}" for task in ("action_antonym", "object_count") for i in range(3)
    ]
    last = samples[-1]
    assert (last.letter, last.answer_text, last.options) == ("C", "2", ("0", "1", "2", "3"))
    assert last.video == root.resolve() / "video/object_count/o2.mp4" and last.clip == "object_count/o2.mp4"


def test_tasks_are_chosen_by_file_name_or_by_the_papers_name(root):
    for name in ("object_count", "Object Count"):
        assert {s.task for s in load_benchmark(f"tvbench:{root}", tasks=[name])[0]} == {"object_count"}


def test_a_larger_draw_contains_the_smaller_one_and_depends_on_the_seed():
    for n in range(1, 20):
        assert set(draw("t", 20, n, 0)) < set(draw("t", 20, n + 1, 0)) or n == 19
    assert draw("t", 20, 5, 0) != draw("t", 20, 5, 1) and draw("t", 20, 5, 0) != draw("u", 20, 5, 0)
    assert draw("t", 4, None, 0) == draw("t", 4, 0, 0) == draw("t", 4, 99, 0) == [0, 1, 2, 3]


BAD = {
    "not among": item("x.mp4", answer="It flies."),
    "duplicate options: A and C": item("x.mp4", candidates=["left", "right", " left "]),
    "1 options": item("x.mp4", candidates=["left"]),
    "9 options": item("x.mp4", candidates=list("123456789")),
    "option B is empty": item("x.mp4", candidates=["left", " "]),
    "no question": item("x.mp4", question=""),
    "no list of candidates": item("x.mp4") | {"candidates": None},
    "no video": item("x.mp4") | {"video": ""},
    "not a time": item("x.mp4", start="soon"),
    "not a time in seconds": item("x.mp4", end=10**400),
}


def test_a_question_that_cannot_be_asked_is_skipped_with_its_reason(tmp_path):
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "t.json").write_text(json.dumps([*BAD.values(), "not an item"]))
    samples, skips = load_benchmark(f"tvbench:{tmp_path}")
    assert not samples and len(skips) == len(BAD) + 1
    for reason, skip in zip(BAD, skips, strict=False):
        assert reason in skip.reason


def test_repeating_and_non_ascii_texts_are_fine(tmp_path):
    options = ["He sits.", "He sits. He sits.", "Он сидит 🚶", "坐下"]
    write_task(tmp_path, "t", [item("x.mp4", "He sits. – Sitzt er? He sits.", options, "坐下")])
    samples, skips = load_benchmark(f"tvbench:{tmp_path}")
    assert not skips and samples[0].options == tuple(options) and samples[0].letter == "D"


def test_numbers_as_candidates_and_bounds(tmp_path):
    write_task(tmp_path, "t", [item("x.mp4", candidates=[0, 1, 2], answer=1, start="0.5", end=2)])
    (sample,), _ = load_benchmark(f"tvbench:{tmp_path}")
    assert (sample.options, sample.letter, sample.start, sample.end) == (("0", "1", "2"), "B", 0.5, 2.0)


def test_hash_follows_question_and_clip(tmp_path, root):
    names, hashes = zip(*((s.sample_id, s.sha256) for s in load_benchmark(f"tvbench:{root}")[0]), strict=True)
    assert benchmark_hash(names, hashes) == benchmark_hash(names[::-1], hashes[::-1])
    assert benchmark_hash(names, hashes) != benchmark_hash(names[:-1], hashes[:-1])
    write_task(tmp_path, "t", [item("x.mp4")])
    before = load_benchmark(f"tvbench:{tmp_path}")[0][0].sha256
    clip = tmp_path / "video/t/x.mp4"
    clip.write_bytes(clip.read_bytes()[:-1])
    assert load_benchmark(f"tvbench:{tmp_path}")[0][0].sha256 != before


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("charades:/x", "unknown benchmark 'charades:/x'; known: embedded, tvbench:ROOT, mvbench:ROOT, tomato:ROOT"),
        ("tvbench", "needs its folder"),
        ("tvbench:/nowhere", "there is no folder /nowhere"),
    ],
)
def test_unknown_benchmark(spec, line):
    with pytest.raises(StudyError, match=line):
        check_benchmark(spec)


def test_unknown_task_lists_the_known(root):
    with pytest.raises(StudyError, match="unknown task 'cooking'; known: action_antonym, object_count"):
        load_benchmark(f"tvbench:{root}", tasks=["cooking"])
    with pytest.raises(StudyError, match="unknown task"):
        check_benchmark("embedded", ["cooking"])


def test_a_task_without_any_video_is_skipped_or_refused_when_named(tmp_path):
    root = write_small_benchmark(tmp_path)
    shutil.rmtree(root / "video/action_antonym")
    samples, skips = load_benchmark(f"tvbench:{root}")
    assert {s.task for s in samples} == {"object_count"} and len(skips) == 3
    assert all("NTU RGB+D" in skip.reason and skip.clip.startswith("action_antonym/") for skip in skips)
    with pytest.raises(StudyError, match="no video of action_antonym is there.*NTU RGB.*--tasks object_count"):
        load_benchmark(f"tvbench:{root}", tasks=["Action Antonym"])
    (root / "video/object_count/o1.mp4").unlink()
    samples = load_benchmark(f"tvbench:{root}")[0]
    assert len(samples) == 3 and isinstance(samples[1], Sample)  # a single video is judged when it is read


def test_no_video_at_all_is_refused_and_archives_are_named(tmp_path):
    root = write_small_benchmark(tmp_path)
    shutil.rmtree(root / "video")
    (root / "video").mkdir()
    (root / "video/object_count.zip").touch()
    line = "no video of action_antonym, object_count is there.*unpack video/object_count.zip; download the videos"
    with pytest.raises(StudyError, match=line):
        load_benchmark(f"tvbench:{root}")


def test_a_published_task_that_is_not_in_the_download(root):
    with pytest.raises(StudyError, match="the task action_count is not in this download of TVBench; known: action_ant"):
        check_benchmark(f"tvbench:{root}", ["Action Count"])


def test_hashes_are_those_of_stored_results(tmp_path):
    """Rows that were stored before stay valid only while these values stand."""
    task = [item("x.mp4", start="0.5", end=2), item("x.mp4", answer="It flies.")]
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "t.json").write_text(json.dumps(task))
    (tmp_path / "video/t").mkdir(parents=True)
    (tmp_path / "video/t/x.mp4").write_bytes(b"not a clip")
    (sample,), (skip,) = load_benchmark(f"tvbench:{tmp_path}")
    assert (sample.sample_id, sample.sha256) == ("t/0000", "8383d93aea5e05e4")
    assert (skip.sample_id, skip.sha256) == ("t/0001", "5aa6cd58b62f12f8")


def test_damaged_json_and_negative_samples(tmp_path, root):
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "t.json").write_text("[{")
    with pytest.raises(StudyError, match="t.json cannot be read"):
        load_benchmark(f"tvbench:{tmp_path}")
    with pytest.raises(StudyError, match="samples is -1"):
        load_benchmark(f"tvbench:{root}", samples=-1)
