"""A sweep stores what it measured once, resumes after any death, and refuses to mix what does not belong together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from clips import item, write_clip, write_small_benchmark, write_sound, write_task
from conftest import GOLDEN

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.figures import maps
from analysis_lib.study import measure, tables
from analysis_lib.study import runs as study
from analysis_lib.study.request import MEASURES

EDGES = ("cross-frame", "video->last")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_small_benchmark(tmp_path_factory.mktemp("bench"), 2)


def sweep(root, out, **more):
    """Everything measured by default, on two edge sets; the random model is never right, so all samples are kept."""
    request = {"model": str(GOLDEN), "edges": EDGES, "keep": "all", "out": out}
    return study.sweep(benchmark=f"tvbench:{root}", **(request | more))


@pytest.fixture(scope="module")
def full(root, tmp_path_factory):
    return sweep(root, tmp_path_factory.mktemp("full"))


@pytest.fixture
def copy(full, tmp_path):
    """A copy of the full results, free to be extended or damaged."""
    return shutil.copytree(full.dir, tmp_path / "copy")


@pytest.fixture
def measured(monkeypatch):
    """The (sample, todo) pairs that are measured during the test."""
    seen, real = [], measure.measure_sample

    def counting(vlm, sample, todo, request):
        seen.append((sample.sample_id, todo))
        return real(vlm, sample, todo, request)

    monkeypatch.setattr(measure, "measure_sample", counting)
    return seen


def files(folder) -> dict[str, bytes]:
    """Every result's bytes; of the manifest all but the commit, which may change while the tests run."""
    results = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != study.SECONDS]
    found = {str(p.relative_to(folder)): p.read_bytes() for p in results}
    lines = found["manifest.json"].splitlines()
    return found | {"manifest.json": b"".join(line for line in lines if not line.startswith(b' "commit"'))}


# ---- what is stored ----

CONTRACT = {
    "baseline": "task sample_id video question options answer n_tokens n_frames frame_indices prediction correct "
    "p_base margin_base p_options",
    "knockout": "task sample_id edge_set layer first_layer last_layer p_base p_knock relative_change margin_base "
    "margin_knock prediction",
    "emergence": "task sample_id layer option is_answer probability normed",
    "lens": "task sample_id layer keyword kind count",
    "pathway": "task sample_id pathway edges_kept edges_total flops_kept p_base p_pruned prediction_base prediction",
}


@pytest.mark.parametrize("table", CONTRACT)
def test_columns_of_the_contract(full, table):
    stored = pd.read_parquet(full.dir / f"{table}.parquet")
    assert set(CONTRACT[table].split()) <= set(stored) and len(stored)


def test_only_a_sweep_that_measures_notes_its_time(full, root):
    sweep(root, full.dir)
    measures, samples, seconds = (full.dir / study.SECONDS).read_text().strip().split(",")
    assert measures == " ".join(MEASURES) and samples == "4" and float(seconds) > 0


def test_one_row_for_each_condition(full):
    assert len(full.baseline) == 4 and full.skipped.empty
    counts = full.knockout.groupby(["sample_id", "edge_set"])["layer"].apply(list)
    assert len(counts) == 8 and all(layers == list(range(1, 13)) for layers in counts)
    assert full.emergence.groupby("sample_id").size().to_dict() == {
        row.sample_id: 12 * len(row.options) for row in full.baseline.itertuples()
    }
    assert {"effective", "random"} <= set(full.pathway["pathway"])


def test_values_agree_with_each_other(full):
    base = full.baseline.set_index("sample_id")
    assert not base["correct"].any() and (base["p_options"].map(len) == base["options"].map(len)).all()
    assert [row.p_options[ord(row.answer) - 65] for row in base.itertuples()] == pytest.approx(base["p_answer"])
    rows = full.knockout
    assert (rows["p_base"].to_numpy() == base.loc[rows["sample_id"], "p_base"].to_numpy()).all()
    assert np.allclose(rows["relative_change"], 100 * (rows["p_knock"] / rows["p_base"] - 1))
    last = full.emergence[(full.emergence["layer"] == 12) & full.emergence["is_answer"]].set_index("sample_id")
    assert last["probability"].to_dict() == pytest.approx(base["p_answer"].to_dict(), abs=1e-6)


def test_manifest_says_what_the_rows_depend_on(full):
    manifest = json.loads((full.dir / "manifest.json").read_text())
    assert manifest["settings"] | {"window": 3, "dtype": "float32"} == manifest["settings"]
    assert manifest["samples"]["object_count"] == {"measured": 2, "correct": 0, "skipped": 0}
    receipt = manifest["receipts"]["knockout"]
    assert receipt["max_blocked_weight"] == 0 and receipt["fired"] == receipt["expected"] > 0
    assert {"model", "revision", "weights_sha256", "benchmark_sha256", "packages", "device", "commit"} <= set(manifest)
    assert not {"time", "date", "seconds", "duration"} & set(manifest)


def test_published_numbers_come_out_of_a_sweep(golden, tmp_path):
    """The golden clip as a folder of frames, its questions as a benchmark, the command's own road."""
    clip = tmp_path / "video" / "t" / "clip"
    clip.mkdir(parents=True)
    for picture in GOLDEN.glob("frame_*.png"):
        shutil.copy(picture, clip)
    asked = [item("clip", s["question"], s["candidates"], s["answer"]) for s in golden["samples"]]
    write_task(tmp_path, "t", asked)
    found = sweep(tmp_path, tmp_path / "out", edges="all", window=golden["window"], measure="knockout")
    for number, expected in enumerate(golden["samples"]):
        name = f"t/{number:04d}"
        base = found.baseline.set_index("sample_id").loc[name]
        assert base["p_base"] == pytest.approx(expected["base_prob"], abs=1e-4)
        assert base["p_options"] == pytest.approx(expected["option_probs"], abs=1e-4)
        assert base["frame_indices"].tolist() == list(range(8))
        rows = found.knockout[found.knockout["sample_id"] == name]
        assert len(rows) == len(expected["knockout"]) == 11 * 12


# ---- dying and going on ----


def test_two_runs_from_scratch_are_equal_byte_for_byte(root, full, tmp_path):
    sweep(root, tmp_path)
    assert files(tmp_path) == files(full.dir)


def test_killed_run_resumes_to_the_same_bytes(root, full, tmp_path):
    script = f"""
from analysis_lib.study import runs as study
study.sweep(model={str(GOLDEN)!r}, benchmark="tvbench:{root}", edges={EDGES!r}, keep="all", out={str(tmp_path)!r})
"""
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600  # on a busy machine
    while not list((tmp_path / "parts").glob("*.json")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    stored = len(list((tmp_path / "parts").glob("*.json")))
    assert 1 <= stored < 4
    found = sweep(root, tmp_path)
    assert files(tmp_path) == files(full.dir)
    assert not found.knockout.duplicated(tables.keys("knockout")).any()


def test_resume_measures_only_what_is_left(root, tmp_path, measured, monkeypatch, capsys):
    real = study.Store.add

    def dying(store, sample_id, rows):
        if len(measured) == 2:
            raise KeyboardInterrupt
        real(store, sample_id, rows)

    with monkeypatch.context() as patch:
        patch.setattr(study.Store, "add", dying)
        with pytest.raises(KeyboardInterrupt):
            sweep(root, tmp_path, measure="emergence")
    measured.clear()
    sweep(root, tmp_path, measure="emergence")
    assert len(measured) == 3 and "1 of 4 samples stored, computing 3" in capsys.readouterr().out


def test_disk_that_fills_up_ends_in_one_line_and_can_be_resumed(root, full, tmp_path, monkeypatch):
    real, count = paths.os.replace, iter(range(100))

    def filling(source, target):
        if next(count) == 3:  # after the probe, the manifest and one sample
            raise OSError(28, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(paths.os, "replace", filling)
        with pytest.raises(StudyError, match="cannot write .*No space left on device.*--out"):
            sweep(root, tmp_path)
    sweep(root, tmp_path)
    assert files(tmp_path) == files(full.dir)


def test_second_run_loads_no_model_and_changes_no_byte(root, copy, full, monkeypatch):
    monkeypatch.setattr(study, "_load", lambda *_: pytest.fail("a model was loaded"))
    found = sweep(root, copy)
    assert files(copy) == files(full.dir)
    pd.testing.assert_frame_equal(found.knockout, full.knockout)


# ---- growing ----


def test_more_samples_edges_and_measures_compute_only_what_is_missing(root, full, tmp_path, measured):
    sweep(root, tmp_path, samples=1, edges=EDGES[:1], measure="knockout")
    first = {name for name, _ in measured}
    assert len(first) == 2
    measured.clear()
    grown = sweep(root, tmp_path)
    todo = dict(measured)
    assert len(todo) == 4 and todo[min(first)].edges == {"knockout": EDGES[1:]} and todo[min(first)].frames_sha256
    assert todo[min(first)].measures == {"emergence", "lens", "pathway"}
    pd.testing.assert_frame_equal(grown.knockout, full.knockout, rtol=1e-3, atol=1e-3)
    pd.testing.assert_frame_equal(grown.baseline, full.baseline)


def test_results_hold_what_was_asked_for(root, copy):
    found = sweep(root, copy, samples=1, tasks="object_count", edges="cross-frame", measure=["knockout"])
    assert set(found.baseline["task"]) == {"object_count"} and len(found.baseline) == 1
    assert set(found.knockout["edge_set"]) == {"cross-frame"} and len(found.knockout) == 12
    assert found.lens.empty and len(pd.read_parquet(copy / "knockout.parquet")) == 96


def test_keep_correct_gives_a_model_that_is_never_right_no_knockouts(root, tmp_path):
    found = sweep(root, tmp_path, keep="correct", samples=1)
    assert len(found.baseline) == 2 and found.knockout.empty and found.lens.empty
    assert set(found.pathway["sample_id"]) == set(found.baseline["sample_id"])  # accuracy counts wrong answers too
    assert (tmp_path / "knockout.parquet").exists()


def test_pathways_with_given_layers_stand_beside_the_published(root, copy):
    spans = {"cross_frame": (1, 4), "video_question": (2, 8), "question_last": (5, 12)}
    found = sweep(root, copy, samples=1, measure="pathway", ranges=spans)
    assert set(found.pathway["ranges"]) == {"cross_frame 1-4 question_last 5-12 video_question 2-8"}
    assert set(sweep(root, copy, samples=1, measure="pathway").pathway["ranges"]) == {"published"}


def test_controls_answer_without_evidence_in_time(root, copy):
    found = sweep(root, copy, measure="controls").controls
    assert set(found["control"]) == {"text only", "single frame", "shuffled frames"} and len(found) == 12
    wide = found.pivot(index="sample_id", columns="control", values="margin")
    assert (wide.nunique(axis=1) == 3).all()


def test_maps_hold_every_pair_head_and_width(root, copy):
    found = sweep(root, copy, samples=1, measure=("pairs", "heads", "widths"))
    assert len(found.baseline) == 2 and found.knockout.empty
    assert set(found.pairs.groupby("sample_id")["edge_set"].nunique()) == {28 + 7 + 7 + 7 + 1}
    assert (found.pairs["first_layer"] == 1).all() and (found.pairs["last_layer"] == 12).all()
    alone = maps.single_pairs(found.pairs)
    assert (alone["distance"] == alone["query_frame"] - alone["key_frame"]).all()
    assert set(found.heads["edge_set"]) == {"video->last"}  # of the two sets, the one into the last token
    assert len(found.heads.drop_duplicates(["layer", "head"])) == 12 * 4 and len(found.heads) == 2 * 12 * 4
    assert found.widths.groupby(["sample_id", "edge_set", "window"]).size().to_dict() == {
        (name, edges, size): 12 for name in found.baseline["sample_id"] for edges in EDGES for size in (1, 3, 5)
    }
    for table in ("pairs", "heads", "widths"):
        rows = getattr(found, table)
        assert (rows["relative_change"].abs() > 1e-6).mean() > 0.9  # a cut that does nothing would be 0
        assert found.manifest["receipts"][table]["max_blocked_weight"] == 0
    assert found.manifest["receipts"]["heads"]["other_heads_difference"] == 0


def test_widths_agree_with_the_knockouts_of_that_window(full, root, copy):
    found = sweep(root, copy, measure="widths")
    same = found.widths[found.widths["window"] == 3].merge(full.knockout, on=["sample_id", "edge_set", "layer"])
    assert len(same) == len(full.knockout) and np.allclose(same["p_knock_x"], same["p_knock_y"], atol=1e-6)
    assert (same["first_layer_x"] == same["first_layer_y"]).all()


def test_maps_grow_by_what_is_missing_and_redraw_without_a_model(root, copy, measured, monkeypatch):
    into_last = ("true_option->last", "question->last")
    sweep(root, copy, samples=1, edges=into_last[:1], measure="heads")
    first = {name for name, _ in measured}
    measured.clear()
    grown = sweep(root, copy, edges=into_last, measure=("heads", "pairs"))
    assert dict(measured)[min(first)].edges == {"heads": into_last[1:]}
    assert dict(measured)[min(first)].measures == {"pairs"} and len(measured) == 4
    stored = files(copy)
    with monkeypatch.context() as patch:
        patch.setattr(study, "_load", lambda *_: pytest.fail("a model was loaded"))
        again = sweep(root, copy, edges=into_last, measure=("heads", "pairs"), compute=False)
        with pytest.raises(StudyError, match="measure them: python -m analysis_lib sweep"):
            sweep(root, copy, edges="video->last", measure="heads", compute=False)
    pd.testing.assert_frame_equal(again.heads, grown.heads)
    pd.testing.assert_frame_equal(again.pairs, grown.pairs)
    assert files(copy) == stored


def test_maps_are_the_same_bytes_twice(root, tmp_path):
    for name in ("a", "b"):
        sweep(root, tmp_path / name, samples=1, measure=("pairs", "heads", "widths"))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_another_keep_reads_the_same_folder_and_returns_its_own_samples(root, copy, full):
    found = sweep(root, copy, keep="correct")  # the random model is never right
    assert len(found.baseline) == len(full.baseline) and found.knockout.empty
    assert files(copy) == files(full.dir)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"measure": "heads", "edges": "cross-frame"}, "heads are measured on edges into the last token; none of"),
        ({"measure": "widths", "edges": ""}, "no edge set is named"),
        ({"measure": "pair"}, "unknown measure 'pair'; known: .*pairs, heads"),
        ({"edges": "frame 5->frame 2"}, "holds no edge"),
    ],
)
def test_cuts_that_cannot_be_made_are_refused_before_a_model_loads(root, tmp_path, monkeypatch, asked, said):
    monkeypatch.setattr(study, "_load", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(StudyError, match=said):
        sweep(root, tmp_path, **asked)


def test_an_edge_set_without_edges_is_refused(root, tmp_path):
    with pytest.raises(StudyError, match="question->video holds no edge in this prompt"):
        sweep(root, tmp_path, edges="question->video", measure="knockout")


# ---- not mixing ----

OTHER = {
    "window = 3": {"window": 5},
    "style = center": {"style": "inverse"},
    "seed = 0": {"seed": 1},
    "dtype = float32": {"dtype": "bfloat16", "measure": "controls"},
}


@pytest.mark.parametrize("setting", OTHER)
def test_other_settings_are_refused_by_name(root, copy, full, setting):
    with pytest.raises(StudyError, match=f"holds results with {setting}, this run asks for .*--out"):
        sweep(root, copy, **OTHER[setting])
    assert files(copy) == files(full.dir)


def test_other_weights_are_refused_before_they_are_loaded(root, copy, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(GOLDEN, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr(study, "_load", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(StudyError, match="weights_sha256"):
        sweep(root, copy, model=str(other))


def test_another_question_under_the_same_number_is_refused(root, copy, tmp_path):
    changed = shutil.copytree(root, tmp_path / "bench")
    file = changed / "json" / "object_count.json"
    file.write_text(file.read_text().replace("How many objects", "How many things"))
    with pytest.raises(StudyError, match="another question or clip object_count/0000"):
        sweep(changed, copy)


def test_another_clip_under_the_same_name_is_refused(root, copy, tmp_path):
    changed = shutil.copytree(root, tmp_path / "bench")
    write_clip(changed / "video" / "object_count" / "o1.mp4", seed=9)
    with pytest.raises(StudyError, match="another question or clip object_count/0001"):
        sweep(changed, copy)


# ---- bad samples ----


@pytest.fixture
def bad_root(tmp_path):
    folder = tmp_path / "bench" / "video" / "t"
    write_clip(folder / "good.mp4")
    (folder / "empty.mp4").touch()
    whole = write_clip(folder / "truncated.mp4", 40, movflags="+faststart").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    write_clip(folder / "short.mp4", 5)
    write_sound(folder / "sound.mp4")
    same = ["He sits.", "He sits. He sits.", "Он сидит 🚶", "He"]
    items = [
        item("missing.mp4"), item("empty.mp4"), item("truncated.mp4"), item("short.mp4"), item("sound.mp4"),
        item("good.mp4", answer="It flies."), item("good.mp4", candidates=["left", "left"]),
        item("good.mp4", "He sits. – Sitzt er? 坐下 He sits.", same, same[1]), item("good.mp4"),
        item("good.mp4", "What is <image> here?"),
    ]  # fmt: skip
    (tmp_path / "bench" / "json").mkdir()
    (tmp_path / "bench" / "json" / "t.json").write_text(json.dumps(items))
    return tmp_path / "bench"


REASONS = [
    "no such video", "is empty", "truncated", "holds 5 frames", "no video stream", "not among", "duplicate options",
    None, None, "stands for the video",
]  # fmt: skip


def test_bad_samples_are_skipped_with_their_reason_and_the_rest_is_measured(bad_root, tmp_path, measured):
    found = sweep(bad_root, tmp_path / "out", measure="emergence")
    assert found.baseline["sample_id"].tolist() == ["t/0007", "t/0008"]
    reasons = found.skipped.set_index("sample_id")["reason"]
    for number, reason in enumerate(REASONS):
        assert reason is None or reason in reasons[f"t/{number:04d}"]
    assert not reasons.str.contains(str(bad_root)).any()  # the same wherever the benchmark lies
    assert found.manifest["samples"]["t"] == {"measured": 2, "correct": 0, "skipped": 8}
    measured.clear()
    again = sweep(bad_root, tmp_path / "out", measure="emergence")
    assert not measured and len(again.skipped) == 8


def test_a_repaired_clip_is_measured_at_the_next_run(bad_root, tmp_path):
    sweep(bad_root, tmp_path / "out", measure="emergence")
    write_clip(bad_root / "video" / "t" / "missing.mp4")
    found = sweep(bad_root, tmp_path / "out", measure="emergence")
    assert "t/0000" in set(found.baseline["sample_id"]) and "t/0000" not in set(found.skipped["sample_id"])


# ---- redraws and examples ----


def test_redraw_needs_no_model_and_no_benchmark(root, full, monkeypatch):
    monkeypatch.setattr(study, "_load", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(study, "load_benchmark", lambda *_, **__: pytest.fail("the benchmark was read"))
    found = study.sweep(
        model="gone/model", benchmark="tvbench:/gone", edges=EDGES, keep="all", samples=1, out=full.dir, compute=False
    )
    assert len(found.baseline) == 2 and len(found.knockout) == 2 * 24


def test_redraw_of_what_is_not_stored_names_the_command(root, full, tmp_path):
    for lacking in ({"edges": "all"}, {"tasks": "moving_direction"}, {"out": tmp_path}):
        with pytest.raises(StudyError, match="measure them: python -m analysis_lib sweep --model .*pllava_tiny"):
            sweep(root, **({"out": full.dir} | lacking), compute=False)


def test_example_redraws_without_a_model(root, full, monkeypatch):
    monkeypatch.setattr(study, "_load", lambda *_: pytest.fail("a model was loaded"))
    request = {"model": str(GOLDEN), "benchmark": f"tvbench:{root}", "keep": "all", "out": full.dir, "compute": False}
    shown = study.example("object_count", **request)
    assert shown.question == "How many objects move?" and shown.answer == "C" and shown.kinds["bag"] == "spatial"
    assert shown.frames.shape == (8, 48, 48, 3) and shown.words.shape == (12, 8, 2, 2)
    maps = shown.maps("Objects")
    assert [m.shape for m in maps.values()] == [(12, 8, 2, 2)] * 2
    assert not np.allclose(*maps.values())
    assert all(0 < m.sum(axis=(1, 2, 3)).max() <= 1 for m in maps.values())
    with pytest.raises(StudyError, match="no word of this question; its words: .*objects, move"):
        shown.maps("colour")


def test_example_is_the_first_of_the_draw_unless_named(root, copy):
    request = {"model": str(GOLDEN), "benchmark": f"tvbench:{root}", "keep": "all", "out": copy}
    first = study.example("object_count", **request, samples=1)
    assert first.sample_id == study.example("object_count", **request).sample_id
    assert study.example("object_count", sample_id="object_count/0001", **request).sample_id == "object_count/0001"


def test_default_folder_names_model_benchmark_window_and_style():
    found = study.results_dir(str(GOLDEN), "tvbench:/x", style="inverse")
    assert found == paths.RESULTS / "pllava_tiny" / "tvbench-k3-inverse"
    assert study.results_dir("gone", window=9, root="/o").as_posix() == "/o/results/gone/embedded-k9-center"


def test_keywords():
    published = measure.keywords("tvbench:x")
    assert {kind: len(words) for kind, words in published.items()} == {"spatial": 19, "temporal": 13}
    assert set(measure.keywords("embedded")) == {"spatial", "temporal"}
