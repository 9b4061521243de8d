"""A download is counted, its videos are opened, and what a sweep would lose is said in one line each."""

import json
import shutil

import pytest
from published import WRITERS, write_json, write_tomato, write_tvbench

from analysis_lib import __main__ as cli
from analysis_lib.inputs import doctor


def run(capsys, spec: str) -> tuple[int, str, list[str]]:
    """Exit code, report and problem lines."""
    code = cli.main(["doctor", spec])
    printed = capsys.readouterr()
    return code, printed.out, [line for line in printed.err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("name", WRITERS)
def test_a_complete_download_is_usable(name, tmp_path, capsys):
    code, out, errors = run(capsys, f"{name}:{WRITERS[name](tmp_path)}")
    assert code == 0 and not errors and "usable: every question can be asked" in out


def test_counts_are_compared_with_the_published_ones(tmp_path):
    report = doctor.examine(f"tomato:{write_tomato(tmp_path)}")
    assert report.rows["direction"] == dict(zip(doctor.COLUMNS, (1, 403, 1, 0, 0, 0), strict=True))
    assert any("6 questions, 1484 published (in count, direction" in note for note in report.notes)
    assert not report.problems


def test_action_antonym_is_not_on_the_hub_and_the_rest_is_usable(tmp_path, capsys):
    code, out, errors = run(capsys, f"tvbench:{write_tvbench(tmp_path, without='action_antonym')}")
    assert code == 0 and not errors
    assert "note: action_antonym: the videos of Action Antonym are from NTU RGB+D" in out
    assert "put them into video/action_antonym" in out and "licence of TVBench: CC BY 4.0" in out


def test_missing_broken_and_refused_videos_are_problems(tmp_path, capsys):
    root = write_tvbench(tmp_path)
    (root / "video/object_count/object_count.mp4").unlink()
    clip = root / "video/object_shuffle/object_shuffle.mp4"
    clip.write_bytes(clip.read_bytes()[:-100])
    items = json.loads((root / "json/action_count.json").read_text())
    write_json(root / "json/action_count.json", [items[0], items[0] | {"video": "/etc/passwd"}])
    code, out, errors = run(capsys, f"tvbench:{root}")
    assert code == 2 and "usable" not in out.replace("unusable", "")
    assert errors[0] == "error: action_count: 1 questions cannot be asked: " + (
        "the path '/etc/passwd' leaves the benchmark's folder; nothing outside of it is read"
    )
    assert errors[1] == "error: object_count: 1 of 1 videos are missing, object_count/object_count.mp4 first"
    assert errors[2].startswith("error: object_shuffle: 1 of 1 videos are broken") and "truncated" in errors[2]
    assert len(errors) == 3


def test_a_span_outside_of_its_video_is_broken(tmp_path):
    root = write_tvbench(tmp_path)
    items = json.loads((root / "json/action_sequence.json").read_text())
    write_json(root / "json/action_sequence.json", [items[0] | {"start": 50, "end": 60}])
    (problem,) = doctor.examine(f"tvbench:{root}").problems
    assert "action_sequence: 1 of 1 videos are broken" in problem and "span from 50.0 s to 60.0 s" in problem


def test_a_bounded_task_without_bounds_is_not_the_published_one(tmp_path):
    root = write_tvbench(tmp_path)
    items = json.loads((root / "json/action_sequence.json").read_text())
    write_json(root / "json/action_sequence.json", [{k: v for k, v in items[0].items() if k != "end"}])
    assert doctor.examine(f"tvbench:{root}").problems == [
        "action_sequence: questions without start or end, which the published ones have"
    ]


def test_half_a_download(tmp_path, capsys):
    root = write_tvbench(tmp_path)
    shutil.rmtree(root / "video/moving_direction")
    (root / "video/moving_direction.zip").touch()
    (root / "json/unexpected_action.json").unlink()
    client = root / doctor.CLIENT / "json"
    client.mkdir(parents=True)
    (client / "unexpected_action.json.incomplete").touch()
    (client / "action_count.json.metadata").write_text("c0ffee\netag\n1.0\n")
    code, out, errors = run(capsys, f"tvbench:{root}")
    assert code == 2 and "revision c0ffee, annotations " in out.splitlines()[0]
    for line, part in zip(
        errors,
        (
            "moving_direction: 1 of 1 videos are missing",
            "no annotations of unexpected_action",
            "unpack video/moving_direction.zip",
            "half a",
        ),
        strict=True,
    ):
        assert part in line


def test_nothing_to_count_ends_in_one_line(tmp_path, capsys):
    code, out, errors = run(capsys, f"videomme:{tmp_path}")
    assert code == 2 and not out and len(errors) == 1 and "holds no videomme/test-*.parquet" in errors[0]


def test_open_ended_and_unread_fields_are_noted(tmp_path, capsys):
    code, out, _ = run(capsys, f"vcgbench:{WRITERS['vcgbench'](tmp_path / 'v')}")
    assert code == 0 and "--measure response follows the verbs" in out
    _, out, _ = run(capsys, f"tomato:{write_tomato(tmp_path / 't')}")
    assert "note: fields that nothing reads: motion_type, note, variation, video_source_url" in out
    _, out, _ = run(capsys, f"folder:{WRITERS['folder'](tmp_path / 'f')}")
    assert "nothing reads" not in out  # its fields that may be absent are read where they are there
    for name, left in (
        ("vcgbench", ""),
        ("nextqa", "frame_count, height, qid, width"),
        ("egoschema", "google_drive_id"),
    ):
        _, out, _ = run(capsys, f"{name}:{WRITERS[name](tmp_path / name)}")
        assert [line for line in out.splitlines() if "nothing reads" in line] == [
            f"note: fields that nothing reads: {left}" for _ in range(bool(left))
        ]


def test_the_embedded_benchmark_has_no_notes_of_tvbench(tmp_path, monkeypatch, capsys):
    from analysis_lib.embedded import quiz
    from analysis_lib.inputs import benchmarks

    render = quiz.write_benchmark
    monkeypatch.setattr(benchmarks.paths, "BENCHMARK", tmp_path / "benchmark")
    monkeypatch.setattr(quiz, "write_benchmark", lambda root: render(root, questions_per_task=1))
    code, out, errors = run(capsys, "embedded")
    assert code == 0 and not errors and "NTU" not in out and "Apache-2.0" in out
