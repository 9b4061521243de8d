"""The training of smol on a few steps with a tiny base: its state, its workers, its checkpoints."""

import json
import multiprocessing
import os
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from smol_base import write_tiny_base

from analysis_lib import paths
from analysis_lib.embedded import quiz, world
from analysis_lib.embedded.smol import (
    base,
    card,
    folder,
    learner,
    lessons,
    network,
    projector,
    replay,
    score,
    state,
    train,
    worker,
)
from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Question
from analysis_lib.instrument.checks import load_model
from analysis_lib.models import bases
from analysis_lib.models.merging import make_inputs, model_logits
from analysis_lib.paths import write_atomic

TOWER = paths.MODELS / "embedded-image"
STAGES = tuple(
    replace(stage, steps=3, plan=replace(stage.plan, clips=1, length=190, busy=0.0, shares=(0.3, 0.3, 0.4, 0, 0)))
    for stage in train.STAGES
    if stage.name in ("more stills", "video-words", "video")
)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A tiny base in its place, few labelled frames and questions; returns its folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker does
    monkeypatch.setattr(bases, "BASES", tmp_path / "base")
    monkeypatch.setattr(projector, "BATCHES", 1)
    monkeypatch.setattr(projector, "CLIPS", 8)
    monkeypatch.setattr(worker, "VALIDATION_CLIPS", 2)
    monkeypatch.setattr(worker, "LOG_EVERY", 2)
    monkeypatch.setattr(score, "LENGTH", 190)
    yield write_tiny_base(tmp_path / "base" / base.NAME)
    torch.set_num_threads(threads)


def run_in(work, **other):
    work.mkdir()
    return worker.Run(0, torch.device("cpu"), work, STAGES[:2], **other)


def test_a_stopped_training_goes_on_with_the_same_bytes(tiny, tmp_path, monkeypatch):
    whole = run_in(tmp_path / "whole")
    worker.work(whole, worker.build(whole, tiny, TOWER))
    stopped, calls, record = run_in(tmp_path / "stopped"), [], state.record
    monkeypatch.setattr(worker, "STORE_SECONDS", 0)

    def once(work, facts, counts):
        record(work, facts, counts)
        calls.append(facts)
        if facts["stage"] == "video-words" and facts["step"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(state, "record", once)
    with pytest.raises(KeyboardInterrupt):
        worker.work(stopped, worker.build(stopped, tiny, TOWER))
    monkeypatch.setattr(state, "record", record)
    worker.work(stopped, worker.build(stopped, tiny, TOWER))
    for name in ("more stills", "video-words"):
        one, other = (torch.load(run.work / f"{name}.pt", weights_only=True)["trained"] for run in (whole, stopped))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    curves = [pd.read_csv(run.work / "curve.csv").drop(columns="minutes") for run in (whole, stopped)]
    pd.testing.assert_frame_equal(*curves)
    assert set(curves[0]["split"]) == {"training", "validation"} and set(curves[0]["step"]) == {2, 3}
    validated = curves[0][curves[0]["split"] == "validation"]
    assert set(validated["kind"]) == set(score.KINDS) and (validated["letters"] == 2).all()


def test_two_workers_learn_what_one_learns(tiny, tmp_path, monkeypatch):
    barrier, given, own = threading.Barrier(2), {}, threading.local()

    def all_reduce(values):
        given[own.rank] = values.clone()
        barrier.wait()
        total = given[0] + given[1]
        barrier.wait()
        values.copy_(total)

    def start(rank):
        own.rank = rank
        worker.work(replace(both, rank=rank), tasks[rank])

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    one, both = run_in(tmp_path / "one"), run_in(tmp_path / "both", workers=2)
    worker.work(one, worker.build(one, tiny, TOWER))
    tasks = [worker.build(both, tiny, TOWER) for _ in range(2)]
    threads = [threading.Thread(target=start, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = (torch.load(r.work / "video-words.pt", weights_only=True)["trained"] for r in (one, both))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(tasks[0].learner.views[name], second[name]) for name in second)
    curves = [(run.work / "curve.csv").read_text().splitlines() for run in (one, both)]
    assert [line.split(",")[4:] for line in curves[0]] == [line.split(",")[4:] for line in curves[1]]


def test_everything_trained_moves_and_nothing_else(tiny, tmp_path):
    run = run_in(tmp_path / "run")
    task = worker.build(run, tiny, TOWER)
    before = {name: t.detach().clone() for name, t in task.learner.views.items()}
    frozen = {name: t.clone() for name, t in task.net.frozen.items()}
    worker.work(run, task)
    assert all((t != before[name]).any() for name, t in task.learner.views.items())
    assert {name.split(".")[0] for name in before} == set(learner.RATES)
    assert all(torch.equal(t, frozen[name]) for name, t in task.net.frozen.items())
    assert not any(p.requires_grad for p in task.net.tower.parameters())


def test_a_tensor_without_a_gradient_is_an_error():
    taught = learner.Learner({"layers.0.A": torch.ones(2), "projector.b": torch.ones(1)}, torch.device("cpu"))
    taught.views["layers.0.A"].sum().backward()
    with pytest.raises(RuntimeError, match="no gradient for projector.b"):
        taught.gradients()


def test_padding_changes_nothing(tiny, tmp_path):
    run = run_in(tmp_path / "run")
    task = worker.build(run, tiny, TOWER)
    half = lessons.make_half(np.random.default_rng(4), task.prompts, STAGES[1].plan)
    shown = network.shown(task.net, half, run.device)
    longer = replay.padded(shown, 197)
    assert longer["ids"].shape == (len(half["ids"]), 197) and len(longer["said"]) == replay.STEP
    plain, other = (learner.learn(task.net, task.learner, one) for one in (shown, longer))
    assert plain[0].abs().max() > 0.01 and torch.allclose(plain[0], other[0], atol=1e-5)
    assert torch.allclose(plain[1], other[1]) and torch.equal(plain[2], other[2][: len(half["said"])])
    assert score.count(half, plain[2]) == score.count(half, other[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replayed_kernels_learn_what_started_ones_learn(tiny, tmp_path):
    run = replace(run_in(tmp_path / "run"), device=torch.device("cuda"))
    task = worker.build(run, tiny, TOWER)
    plain = partial(learner.learn, task.net, task.learner)
    again = replay.replayed(plain)
    for seed in (1, 2, 3):
        half = lessons.make_half(np.random.default_rng(seed), task.prompts, STAGES[1].plan)
        shown = replay.padded(network.shown(task.net, half, run.device), 190)
        for started, replayed in zip(plain(shown), again(shown), strict=True):
            assert torch.allclose(started, replayed, atol=1e-5)
        task.learner.step(plain(shown)[0], 1.0)


def test_the_exported_folder_computes_what_was_trained(tiny, tmp_path):
    run = run_in(tmp_path / "run")
    task = worker.build(run, tiny, TOWER)
    with torch.no_grad():
        for name, view in task.learner.views.items():
            if name.endswith(".B"):
                view.normal_(0, 0.1)
            view.copy_(view.bfloat16())  # as stored
    folder.write_folder(task.learner.views, tiny, TOWER, tmp_path / "smol")
    vlm = load_model(str(tmp_path / "smol"), device="cpu")
    half = score._questions(task.prompts, "moving_direction", [np.random.default_rng(5)])
    with torch.no_grad():
        trained = score.answers(task.net, network.shown(task.net, half, run.device))
    rng = np.random.default_rng(5)
    clip = world.make_scenario(rng, "moving_direction", lessons.TIMES)
    asked = quiz.ask(clip, "moving_direction", rng)
    sample = Question(asked.question, asked.options, asked.answer)
    logits = model_logits(vlm, make_inputs(vlm, sample, half["images"][0]))
    number = next(numbers[0] for _, letter, numbers in half["asked"] if letter)
    assert torch.allclose(logits, trained[number], atol=1e-4) and logits.std() > 0.1
    assert vlm.num_frames == 8 and not any(
        "language" in name for name in load_file(tmp_path / "smol/model.safetensors")
    )


def test_a_checkpoint_without_its_base_says_what_to_type(tiny, tmp_path, monkeypatch):
    task = worker.build(run_in(tmp_path / "run"), tiny, TOWER)
    folder.write_folder(task.learner.views, tiny, TOWER, tmp_path / "smol")
    monkeypatch.setattr(bases, "BASES", tmp_path / "nowhere")
    with pytest.raises(StudyError, match="make base"):
        load_model(str(tmp_path / "smol"), device="cpu")
    with pytest.raises(StudyError, match="make base"):
        train.train_smol(out=tmp_path)
    stated = json.loads((tmp_path / "smol/adapter_config.json").read_text())
    (tmp_path / "smol/adapter_config.json").write_text(json.dumps(stated | {"base_model_name_or_path": "some/other"}))
    with pytest.raises(StudyError, match="the language model 'other' under this checkpoint is not in"):
        load_model(str(tmp_path / "smol"), device="cpu")


def in_one_process(_, args, nprocs):
    run, *folders = args
    assert run.workers == nprocs == worker.HALVES
    worker.work(replace(run, workers=1), worker.build(run, *folders))


def test_training_writes_checkpoints_with_their_scores(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.multiprocessing, "spawn", in_one_process)
    monkeypatch.setattr(train, "STAGES", STAGES)
    monkeypatch.setattr(card, "STILLS", 2)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "BENCHMARK", tmp_path / "benchmark")
    monkeypatch.setattr(quiz, "write_benchmark", partial(quiz.write_benchmark, questions_per_task=1))
    train.train_smol(seed=0, device="cpu", out=tmp_path / "out")
    stills, video = ((tmp_path / "out" / name / "README.md").read_text() for name in ("smol-image", "smol"))
    assert "| more stills | 3 | 2 |" in stills and "video" not in stills.split("## Training")[1].split("## Scores")[0]
    assert "| video | 3 | 2 |" in video and all(f"| {task} |" in video for task in quiz.TASKS)
    assert (tmp_path / "build/train-smol-0/state.pt").exists()

    monkeypatch.setattr(train, "write_folder", lambda *_: pytest.fail("a finished checkpoint was written again"))
    train.train_smol(seed=0, device="cpu", out=tmp_path / "out")
    monkeypatch.setattr(train, "write_folder", folder.write_folder)
    train.train_smol(seed=1, device="cpu", out=tmp_path / "out")  # the video stages alone
    start = torch.load(tmp_path / "build/train-smol-1/start.pt", weights_only=True)
    image, first, second = (folder.read_folder(tmp_path / "out" / f"smol{name}") for name in ("-image", "", "-seed1"))
    assert all(torch.equal(start[name], tensor) for name, tensor in image.items()) and start.keys() == image.keys()
    moved = [max((other[name] - t).abs().max() for name, t in first.items()) for other in (image, second)]
    assert min(moved) > 1e-4
    curve = pd.read_csv(tmp_path / "build/train-smol-1/curve.csv")
    assert set(curve["stage"]) == {"video-words", "video"}
    with pytest.raises(StudyError, match="train seed 0 first"):
        train.train_smol(seed=1, device="cpu", out=tmp_path / "elsewhere")


# ---- the base ----


def test_another_file_than_the_pinned_one_is_refused(tmp_path, monkeypatch):
    def download(scratch):
        (scratch / "file.gguf").write_bytes(b"other")
        return scratch / "file.gguf"

    monkeypatch.setattr(base, "BASES", tmp_path / "base")
    monkeypatch.setattr(base, "_download", download)
    with pytest.raises(StudyError, match="holds another file than expected"):
        base.fetch_base()
    assert list((tmp_path / "base").iterdir()) == []


def test_the_placeholder_takes_the_place_of_a_spare_token(tmp_path, monkeypatch):
    before = base.load_tokenizer(write_tiny_base(tmp_path / "old"))
    monkeypatch.setattr(base, "SPARE", "<0x07>")
    monkeypatch.setattr(base, "PLACEHOLDER", "<clip>")
    number = before.convert_tokens_to_ids("<0x07>")
    base._write_tokenizer(before, tmp_path / "new")
    after = base.load_tokenizer(tmp_path / "new")
    assert len(after) == len(before) and after.convert_tokens_to_ids("<clip>") == number
    assert number in after("see <clip> and")["input_ids"]


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    with train._alone(tmp_path), pytest.raises(StudyError, match="another process trains"), train._alone(tmp_path):
        pass
    with train._alone(tmp_path):
        pass  # given up with the process that held it


def _wait_for_ever(path):
    Thread(target=train._end_with_parent, daemon=True).start()
    write_atomic(Path(path), str(os.getpid()).encode())
    time.sleep(600)


def _start_and_die(path):
    multiprocessing.get_context("spawn").Process(target=_wait_for_ever, args=(path,)).start()
    while not Path(path).exists():
        time.sleep(0.01)
    os._exit(1)


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a process that ended can wait there for ever if nobody asks for its end
    return not (stat.exists() and ") Z " in stat.read_text())


def test_a_worker_ends_with_the_process_that_started_it(tmp_path):
    parent = multiprocessing.get_context("spawn").Process(target=_start_and_die, args=(str(tmp_path / "pid"),))
    parent.start()
    parent.join(120)
    worker_id, until = int((tmp_path / "pid").read_text()), time.time() + 60
    while _runs(worker_id) and time.time() < until:
        time.sleep(0.1)
    assert not _runs(worker_id)
