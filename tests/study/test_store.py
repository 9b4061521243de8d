"""Stored rows survive interruptions, never double, and come out the same byte for byte."""

import json
import os
import subprocess
import sys

import pytest

from analysis_lib.errors import StudyError
from analysis_lib.paths import write_atomic
from analysis_lib.study import parts
from analysis_lib.study import store as store_module
from analysis_lib.study.parts import to_part
from analysis_lib.study.store import Store
from analysis_lib.study.tables import read_manifest, read_table

SETTINGS = {"window": 3, "style": "center"}


def baseline(sample: str, **more) -> dict:
    task = sample.split("/")[0]
    return {
        "task": task, "sample_id": sample, "video": f"{task}/v.mp4", "question": "Q – 问?", "options": ["a", "b"],
        "answer": "A", "answer_text": "a", "n_tokens": 99, "n_frames": 8, "frame_indices": [0, 3], "prediction": "A",
        "correct": True, "p_base": 0.1 + 0.2, "p_answer": 0.3, "margin_base": -1e-7, "p_options": [0.3, 1 / 3],
        "frames_sha256": "f", "sample_sha256": "s",
    } | more  # fmt: skip


def knockout(sample: str, edge_set: str, layer: int = 1) -> dict:
    numbers = dict.fromkeys(["p_base", "p_knock", "relative_change", "margin_base", "margin_knock", "p_answer"], 0.5)
    return {
        "task": sample.split("/")[0], "sample_id": sample, "edge_set": edge_set, "layer": layer, "first_layer": 1,
        "last_layer": 2, "video": "v", "prediction": "B", "correct": False,
    } | numbers  # fmt: skip


def rows(sample: str, *edge_sets: str) -> dict:
    return {"baseline": [baseline(sample)], "knockout": [knockout(sample, e, i) for e in edge_sets for i in (1, 2)]}


def run(folder, *samples: str, edge_sets=("cross-frame",), finish=True) -> None:
    opened = Store(folder)
    try:
        opened.begin(SETTINGS, {"commit": "c"})
        for sample in samples:
            opened.add(sample, to_part(rows(sample, *edge_sets)))
        if finish:
            opened.finish(lambda tables: {"counts": len(tables("baseline"))}, tables=["knockout"])
    finally:
        opened.close()


def files(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_round_trip_keeps_values_exactly(tmp_path):
    run(tmp_path, "t/0001")
    found = read_table(tmp_path, "baseline").iloc[0]
    for name, value in baseline("t/0001").items():
        assert (list(found[name]) if isinstance(value, list) else found[name]) == value


def test_order_of_arrival_does_not_matter(tmp_path):
    run(tmp_path / "a", "t/0000", "t/0001", "u/0000")
    run(tmp_path / "b", "u/0000", "t/0001", "t/0000")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert read_table(tmp_path / "a", "baseline")["sample_id"].tolist() == ["t/0000", "t/0001", "u/0000"]


def test_leftover_parts_are_merged_at_the_next_opening_and_never_double(tmp_path):
    run(tmp_path / "a", "t/0000", "t/0001", "t/0002")
    run(tmp_path / "b", "t/0001", finish=False)
    assert list((tmp_path / "b" / "parts").iterdir())
    run(tmp_path / "b", "t/0001", "t/0002", finish=False)
    run(tmp_path / "b", "t/0000")
    assert files(tmp_path / "b") == files(tmp_path / "a")


@pytest.mark.parametrize("steps", range(1, 9))
def test_killed_between_any_two_steps_of_the_merge(tmp_path, monkeypatch, steps):
    """The n-th write of the final merge never happens; the next opening still ends with the same files."""
    run(tmp_path / "a", "t/0000", "t/0001")
    run(tmp_path / "b", "t/0000", "t/0001", finish=False)
    count = iter(range(100))

    def dying(path, content):
        if next(count) == steps:
            raise KeyboardInterrupt
        write_atomic(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_atomic", dying)
        patch.setattr(parts, "write_atomic", dying)
        try:
            run(tmp_path / "b")
        except KeyboardInterrupt:
            pass
    run(tmp_path / "b")
    assert files(tmp_path / "b") == files(tmp_path / "a")


def test_torn_parts_and_temporary_files_are_ignored_and_removed(tmp_path):
    run(tmp_path / "a", "t/0000")
    run(tmp_path / "b", "t/0000", finish=False)
    whole = (tmp_path / "b" / "parts" / "t-0000.arrow").read_bytes()
    (tmp_path / "b" / "parts" / "t-0001.arrow").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b" / "parts" / ".t-0002.arrow.tmp").write_bytes(whole)
    (tmp_path / "b" / ".knockout.parquet.tmp").write_text("half")
    run(tmp_path / "b")
    assert files(tmp_path / "b") == files(tmp_path / "a")


def test_later_rows_are_added_and_earlier_ones_kept(tmp_path):
    run(tmp_path, "t/0000")
    before = read_table(tmp_path, "knockout")
    run(tmp_path, "t/0000", "t/0001", edge_sets=("cross-frame", "video->last"))
    after = read_table(tmp_path, "knockout")
    assert len(before) == 2 and len(after) == 8
    merged = before.merge(after)
    assert len(merged) == len(before)


def test_writing_again_changes_no_byte(tmp_path):
    run(tmp_path, "t/0000")
    before = files(tmp_path)
    run(tmp_path, finish=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize(("name", "value"), [("window", 5), ("style", "inverse")])
def test_other_settings_are_refused_by_name(tmp_path, name, value):
    run(tmp_path, "t/0000")
    opened = Store(tmp_path)
    with pytest.raises(StudyError, match=f"{name} = {SETTINGS[name]}, this run asks for {name} = {value}.*--out"):
        opened.begin(SETTINGS | {name: value}, {})
    opened.close()


def test_settings_of_a_run_without_rows_bind_nobody(tmp_path):
    run(tmp_path)
    opened = Store(tmp_path)
    opened.begin({"window": 7}, {})
    opened.close()
    assert read_manifest(tmp_path)["settings"] == {"window": 7}


def test_other_provenance_stands_beside_the_old(tmp_path):
    run(tmp_path, "t/0000")
    opened = Store(tmp_path)
    for _ in range(2):
        opened.begin(SETTINGS, {"commit": "d", "packages": {"torch": "2"}})
    opened.close()
    assert read_manifest(tmp_path)["commit"] == "c, d" and read_manifest(tmp_path)["packages"] == {"torch": "2"}


def test_skipped_samples_are_kept_until_measured(tmp_path):
    skip = {"task": "t", "sample_id": "t/0001", "video": "v", "reason": "empty", "sample_sha256": "1"}
    opened = Store(tmp_path)
    opened.begin(SETTINGS, {})
    opened.finish(lambda tables: {}, skipped=[skip])
    opened.finish(lambda tables: {}, skipped=[skip | {"reason": "truncated"}])
    opened.close()
    assert read_table(tmp_path, "skipped")["reason"].tolist() == ["truncated"]
    run(tmp_path, "t/0001")
    assert read_table(tmp_path, "skipped").empty


def test_reading_does_not_write(tmp_path):
    run(tmp_path, "t/0000")
    run(tmp_path, "t/0001", finish=False)
    before = files(tmp_path)
    assert len(Store(tmp_path, write=False).read("baseline")) == 2
    assert files(tmp_path) == before


def test_two_writers_are_refused(tmp_path):
    first = Store(tmp_path)
    with pytest.raises(StudyError, match="another run is writing"):
        Store(tmp_path)
    first.close()
    Store(tmp_path).close()


def test_a_lock_ends_with_the_process_that_dies(tmp_path):
    script = f"from analysis_lib.study.store import Store; Store({str(tmp_path)!r}); print('open', flush=True); input()"
    run = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "open\n"
    with pytest.raises(StudyError, match="another run is writing"):
        Store(tmp_path)
    run.kill()
    run.communicate()
    Store(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_does_not_stop_a_run(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(store_module.fcntl, "flock", unsupported)
    run(tmp_path, "t/0000")
    assert len(read_table(tmp_path, "baseline")) == 1


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot write .*--out"):
        Store(tmp_path / "file" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StudyError, match="cannot write .*Permission denied"):
        Store(tmp_path)


def test_read_only_file_system():
    with pytest.raises(StudyError, match="cannot write /proc/"):
        Store("/proc/out")


def test_full_disk_is_told_before_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(StudyError, match="0 MB free"):
        Store(tmp_path)


@pytest.mark.parametrize("name", ["baseline.parquet", "manifest.json"])
def test_damaged_file_is_named(tmp_path, name):
    run(tmp_path, "t/0000")
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(StudyError, match=name):
        Store(tmp_path).check({})


def test_tables_without_a_manifest_are_refused(tmp_path):
    run(tmp_path, "t/0000")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(StudyError, match="without manifest.json"):
        Store(tmp_path)


def test_finished_samples_of_an_earlier_version_are_taken(tmp_path):
    run(tmp_path / "a", "t/0000")
    run(tmp_path / "b", finish=False)
    write_atomic(tmp_path / "b" / "parts" / "t-0000.json", json.dumps(rows("t/0000", "cross-frame")).encode())
    run(tmp_path / "b")
    assert files(tmp_path / "b") == files(tmp_path / "a")
