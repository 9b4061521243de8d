"""A download that cannot be used ends in one clear line, and nothing outside of it is read."""

import json
import os
import shutil
import signal

import huggingface_hub
import pytest
from clips import item, write_clip, write_task
from huggingface_hub import constants, errors
from published import write_csv, write_json, write_longvideobench, write_tomato, write_tvbench, write_videomme

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs import doctor, sources
from analysis_lib.inputs.benchmarks import check_benchmark, load_benchmark
from analysis_lib.inputs.videos import load_clip

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def refused(spec: str, **request: object) -> str:
    """The one line of a benchmark that is refused."""
    with pytest.raises(StudyError) as caught:
        load_benchmark(spec, **request)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_root_one_level_too_high_or_too_low_names_the_right_one(tmp_path):
    write_task(tmp_path / "TVBench", "t", [item("x.mp4")])
    for given in (tmp_path, tmp_path / "TVBench" / "json"):
        assert f"use tvbench:{tmp_path}/TVBench" in refused(f"tvbench:{given}")
    write_tomato(tmp_path / "TOMATO")
    assert f"use tomato:{tmp_path}/TOMATO" in refused(f"tomato:{tmp_path}")


def test_a_folder_of_something_else(tmp_path):
    assert "holds no lvb_val.json; longvideobench:ROOT needs" in refused(f"longvideobench:{tmp_path}")


def test_annotations_with_other_fields_name_both(tmp_path):
    write_json(tmp_path / "json/t.json", [{"clip": "x.mp4", "query": "?", "candidates": ["a", "b"], "answer": "a"}])
    line = refused(f"tvbench:{tmp_path}")
    assert "no item has question, video; the fields there are answer, candidates, clip, query" in line


def test_a_column_that_nothing_reads_is_refused_in_a_users_folder(tmp_path):
    file = write_csv(tmp_path) / "questions.csv"
    file.write_text(file.read_text(encoding="utf-8-sig").replace(",end", ",stop"))
    assert "unknown fields stop; known: answer, end, options, question" in refused(f"folder:{tmp_path}")


def test_rows_that_do_not_fit_and_two_tables(tmp_path):
    file = write_csv(tmp_path) / "questions.csv"
    text = file.read_text()
    file.write_text(text + "a.mp4,What?,a|b,a,t,,,more\n")
    assert "cannot be read as CSV (a row has more cells than the header: ['more'])" in refused(f"folder:{tmp_path}")
    file.write_text(text)
    shutil.copy(file, tmp_path / "other.csv")
    assert "holds other.csv, questions.csv; keep one" in refused(f"folder:{tmp_path}")


def test_a_task_that_is_no_name(tmp_path):
    file = write_csv(tmp_path) / "questions.csv"
    file.write_text(file.read_text().replace("turns", "left/right"))
    assert "item 1: its task 'left/right' is not a name" in refused(f"folder:{tmp_path}")


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.mp4", "a/../../../secret.mp4", "C:\\x.mp4", "~/x.mp4"])
def test_a_path_that_leaves_the_folder_is_refused(path, tmp_path):
    write_clip(tmp_path / "secret.mp4")
    write_json(tmp_path / "b/json/t.json", [item(path), item("good.mp4")])
    write_clip(tmp_path / "b/video/t/good.mp4")
    samples, (skip,) = load_benchmark(f"tvbench:{tmp_path / 'b'}")
    assert len(samples) == 1 and f"{path!r} leaves the benchmark's folder" in skip.reason


def test_a_name_that_no_file_can_have(tmp_path):
    write_task(tmp_path, "t", [item("good.mp4")])
    write_json(tmp_path / "json/t.json", [item("good.mp4"), item("x" * 5000), item("a\0b")])
    skips = load_benchmark(f"tvbench:{tmp_path}")[1]
    assert len(skips) == 2 and all("cannot be followed" in skip.reason for skip in skips)


def test_hidden_files_are_no_annotations(tmp_path):
    write_task(tmp_path, "t", [item("x.mp4")])
    (tmp_path / "json/._t.json").write_bytes(b"\x00\x05\x16\x07")
    assert len(load_benchmark(f"tvbench:{tmp_path}")[0]) == 1


def test_every_field_of_a_path_is_looked_at(tmp_path):
    file = write_tomato(tmp_path) / "data/count.json"
    items = json.loads(file.read_text())
    items["7"]["demonstration_type"] = "../human"
    write_json(file, items)
    assert "'../human' leaves" in load_benchmark(f"tomato:{tmp_path}")[1][0].reason


def test_links_that_leave_the_folder_are_refused(tmp_path):
    root, secret = tmp_path / "b", write_clip(tmp_path / "secret/a.mp4")
    (secret.parent / "0.png").write_bytes(b"private")
    names = ["file.mp4", "folder", "frames", "loop.mp4", "good.mp4"]
    write_json(root / "json/t.json", [item(name) for name in names])
    here = root / "video/t"
    (here / "frames").mkdir(parents=True)
    (here / "file.mp4").symlink_to(secret)
    (here / "folder").symlink_to(secret.parent)
    (here / "frames/0.png").symlink_to(secret.parent / "0.png")
    (here / "loop.mp4").symlink_to("loop.mp4")
    shutil.copy(secret, here / "real.mp4")
    (here / "good.mp4").symlink_to("real.mp4")  # stays inside
    (good,), skips = load_benchmark(f"tvbench:{root}")
    assert good.clip == "t/good.mp4" and [s.clip for s in skips] == [""] * 4
    assert all("leaves the benchmark's folder" in s.reason for s in skips[:3])
    assert "cannot be followed" in skips[3].reason


def test_an_annotation_file_that_is_a_link_elsewhere_is_refused(tmp_path):
    write_json(tmp_path / "elsewhere.json", [item("x.mp4")])
    (tmp_path / "b/json").mkdir(parents=True)
    (tmp_path / "b/json/t.json").symlink_to(tmp_path / "elsewhere.json")
    assert "t.json is a link that leaves" in refused(f"tvbench:{tmp_path / 'b'}")


def test_a_link_to_the_root_itself_is_fine(tmp_path):
    write_task(tmp_path / "real", "t", [item("x.mp4")])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(load_benchmark(f"tvbench:{tmp_path / 'link'}")[0]) == 1


def test_ids_that_repeat(tmp_path):
    write_longvideobench(tmp_path / "l")
    file = tmp_path / "l/lvb_val.json"
    file.write_text(file.read_text().replace("v_2", "v_1"))
    assert "lvb_val.json holds the id 'v_1' twice" in refused(f"longvideobench:{tmp_path / 'l'}")
    write_videomme(tmp_path / "v", question_id="001-1")
    assert "holds the question_id '001-1' twice" in refused(f"videomme:{tmp_path / 'v'}")
    write_tomato(tmp_path / "t")
    file = tmp_path / "t/data/count.json"
    file.write_text('{"7": {}, ' + file.read_text()[1:])
    assert "the key '7' is there twice" in refused(f"tomato:{tmp_path / 't'}")


@pytest.mark.parametrize(
    ("answer", "line"), [("E", "'E' is not among"), ("", "'' is not among"), ("AB", "'AB' is not")]
)
def test_an_answer_that_is_no_option(answer, line, tmp_path):
    samples, skips = load_benchmark(f"videomme:{write_videomme(tmp_path, answer=answer)}")
    assert not samples and len(skips) == 3 and all(line in skip.reason for skip in skips)


@pytest.mark.parametrize("choice", [5, -1, 1.5, None, True])
def test_an_index_that_is_no_option(choice, tmp_path):
    file = write_longvideobench(tmp_path) / "lvb_val.json"
    items = json.loads(file.read_text())
    items[0]["correct_choice"] = choice
    write_json(file, items)
    assert "is not among the options" in load_benchmark(f"longvideobench:{tmp_path}")[1][0].reason


def test_options_without_their_letters(tmp_path):
    root = write_videomme(tmp_path, options=["B. x", "A. y"])
    assert "do not begin with A., B." in load_benchmark(f"videomme:{root}")[1][0].reason


@pytest.mark.parametrize("name", ["lvb_val.json", "videomme/test-00000-of-00001.parquet"])
def test_half_an_annotation_file(name, tmp_path):
    write = write_videomme if name.startswith("videomme") else write_longvideobench
    file = write(tmp_path) / name
    file.write_bytes(file.read_bytes()[:-40])
    line = refused(f"{'videomme' if name.startswith('videomme') else 'longvideobench'}:{tmp_path}")
    assert f"{name} cannot be read as" in line and "download it again" in line


@pytest.fixture
def impatient():
    """Whoever waits for a pipe is woken after five seconds, with an error."""

    def wake(*_: object):
        raise AssertionError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_a_pipe_in_the_place_of_a_video_or_picture_is_not_waited_for(tmp_path, impatient):
    write_task(tmp_path, "t", [item("good.mp4")])
    write_json(tmp_path / "json/t.json", [item("good.mp4"), item("pipe.mp4"), item("frames")])
    (_, missing, _), _ = load_benchmark(f"tvbench:{tmp_path}")
    (tmp_path / "video/t/frames").mkdir()
    for name in ("pipe.mp4", "frames/0.png"):
        os.mkfifo(tmp_path / "video/t" / name)
    (_, pipe, frames), skips = load_benchmark(f"tvbench:{tmp_path}")
    assert not skips and pipe == missing  # the same hash: there is no file
    with pytest.raises(SampleError, match="pipe.mp4: no such video file"):
        load_clip(pipe.video, 8)
    with pytest.raises(SampleError, match="the picture 0.png cannot be read"):
        load_clip(frames.video, 1)
    assert doctor.examine(f"tvbench:{tmp_path}").rows["t"]["broken"] == 2


def test_a_pipe_in_the_place_of_annotations_is_refused(tmp_path, impatient):
    (tmp_path / "json").mkdir()
    os.mkfifo(tmp_path / "json/t.json")
    assert "t.json cannot be read as JSON (not a file)" in refused(f"tvbench:{tmp_path}")


# ---- the hub ----


def hub_cache(tmp_path, monkeypatch):
    """A cache as the hub client makes it: snapshots of links into a folder of blobs."""
    home = tmp_path / "datasets--owner--set"
    made = write_tvbench(tmp_path / "made")
    for file in sorted(f for f in made.rglob("*") if f.is_file()):
        blob = home / "blobs" / file.name
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blob)
        link = home / "snapshots" / COMMIT / file.relative_to(made)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    sources._fetch.cache_clear()


def test_a_pinned_hub_id_is_read_from_the_cache(tmp_path, monkeypatch):
    hub_cache(tmp_path, monkeypatch)
    samples, skips = load_benchmark(f"tvbench:owner/set@{COMMIT}")
    assert len(samples) == 10 and not skips and all(s.video.is_file() for s in samples)


def test_a_hub_copy_without_unpacked_videos_says_so(tmp_path, monkeypatch):
    hub_cache(tmp_path, monkeypatch)
    shutil.rmtree(tmp_path / "datasets--owner--set/snapshots" / COMMIT / "video")
    assert "`hf download` them into a folder, unpack" in refused(f"tvbench:owner/set@{COMMIT}")


def test_the_doctor_names_the_commit_of_a_hub_copy(tmp_path, monkeypatch):
    hub_cache(tmp_path, monkeypatch)
    report = doctor.examine(f"tvbench:owner/set@{COMMIT}")
    assert not report.problems and f"revision {COMMIT}, annotations " in report.title


def test_an_offline_machine_is_told_what_to_download_and_where_to_put_it(tmp_path, monkeypatch):
    hub_cache(tmp_path, monkeypatch)
    line = refused(f"tvbench:owner/other@{COMMIT}")
    assert "hub cannot be reached" in line and "needed: json/*.json, video/*" in line
    assert f"`hf download owner/other --repo-type dataset --revision {COMMIT} --local-dir ROOT`" in line
    assert line.endswith("then use tvbench:ROOT")
    line = refused(f"egoschema:owner/other@{COMMIT}")
    assert "needed: questions.json, Subset/test-*.parquet, *subset_answers.json, videos/*" in line


def test_a_gated_set_names_its_page(monkeypatch):
    import httpx

    def gated(*_, **__):
        request = httpx.Request("GET", "https://huggingface.co/api/datasets/o/n")
        raise errors.GatedRepoError("403", response=httpx.Response(403, request=request))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    sources._fetch.cache_clear()
    line = refused(f"longvideobench:o/n@{COMMIT}")
    assert "o/n is gated: accept its terms on https://huggingface.co/datasets/o/n" in line
    assert "needed: lvb_val.json, videos/*" in line


@pytest.mark.parametrize("given", ["owner/set", "owner/set@main", "owner/set@0123abc"])
def test_a_hub_id_needs_its_commit(given):
    with pytest.raises(
        StudyError, match=f"no folder {given} here; as a hub id it needs its commit, tvbench:owner/set@"
    ):
        check_benchmark(f"tvbench:{given}")
