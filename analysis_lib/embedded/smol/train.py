"""Train `smol-image` on stills, then `smol` on the five video tasks: next-token loss on captions, answers and letters.

Two workers, one thread each, take half of every batch; on a GPU one process takes both halves. Threads that wait for
each other within each product lose most of their time on a machine that others use too; workers wait once a step. The
state is stored as it goes, and the same command goes on from there with the same bytes. `curve.csv` beside it holds how
many answers were right: on training clips before they were learned from (each clip is shown once), and on a validation
set.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from multiprocessing import connection, parent_process
from pathlib import Path
from threading import Thread

import torch

from analysis_lib import paths
from analysis_lib.embedded.smol import worker
from analysis_lib.embedded.smol.base import NAME
from analysis_lib.embedded.smol.card import Spent, write_card
from analysis_lib.embedded.smol.folder import is_written, write_folder
from analysis_lib.embedded.smol.learner import HALVES
from analysis_lib.embedded.smol.lessons import Plan
from analysis_lib.embedded.smol.worker import Run, Stage
from analysis_lib.errors import StudyError
from analysis_lib.models.bases import check_base
from analysis_lib.models.devices import device_for

# of action_antonym, action_sequence, moving_direction, object_count and scene_transition, which is learned first
SHARES = (0.24, 0.24, 0.26, 0.21, 0.05)
IMAGE, TOWER = "smol-image", "embedded-image"  # what the video stages start from; whose vision tower is used
STAGES = (
    Stage("drills", 175, Plan(clips=2, drills=1, length=176, video=False, lettered=0.6)),
    Stage("stills", 350, Plan(clips=2, drills=0.5, length=200, video=False, read=0.75), falls=True),
    Stage("more stills", 250, Plan(clips=2, drills=0.25, length=200, video=False, read=1.0), True, IMAGE),
    Stage(
        "video-words",
        2000,
        Plan(clips=2, drills=0.25, length=224, video=True, lettered=0.25, shares=SHARES, busy=0.7, read=0.75),
    ),
    Stage("video", 3000, Plan(clips=2, drills=0, length=264, video=True, shares=SHARES), True, "smol"),
)
PATIENCE = timedelta(days=7)  # for the other worker: on a busy machine, or a stopped one, a step can take hours


def train_smol(*, seed: int = 0, device: str = "auto", out: Path = paths.MODELS) -> None:
    """Train both checkpoints and write each, with its card, to `out` as soon as it is done. Another seed than 0 trains
    the video stages alone, from the `smol-image` in `out`, and writes `smol-seed<seed>`.

    State lives in build/train-smol-<seed>; the same call goes on from there. Raises StudyError if the base is not
    there, a GPU is asked for and there is none, another process trains this, or there is no `smol-image` to start from.
    """
    place, folders = device_for(device), (check_base(NAME), paths.MODELS / TOWER)
    run = _run_of(seed, place, out / IMAGE)
    run.work.mkdir(parents=True, exist_ok=True)
    with _alone(run.work):
        for end, stage in enumerate(run.stages, start=1):
            if stage.checkpoint:
                part = replace(run, stages=run.stages[:end])
                if worker.stages_done(part) < end:
                    _train(part, *folders)
                _finish(part, *folders, out / stage.checkpoint)
    print(f"the curve of the training is {run.work / 'curve.csv'}")


def _run_of(seed: int, place: torch.device, image: Path) -> Run:
    work = paths.ROOT / "build" / f"train-smol-{seed}"
    if seed == 0:
        return Run(seed, place, work, STAGES)
    names = [stage.checkpoint for stage in STAGES]
    first = names.index(IMAGE) + 1
    if not (image / "adapter_model.safetensors").exists():
        raise StudyError(f"seed {seed} trains the video stages, from {image}, which is not there; train seed 0 first")
    named = [replace(s, checkpoint=s.checkpoint and f"{s.checkpoint}-seed{seed}") for s in STAGES[first:]]
    return Run(seed, place, work, tuple(named), origin=image)


def _train(run: Run, base: Path, tower: Path) -> None:
    """Run what is left of the stages, in one process on a GPU, in two on a CPU."""
    (run.work / "meeting").unlink(missing_ok=True)
    if run.on_gpu:
        with _quick_products():
            worker.work(run, worker.build(run, base, tower))
    else:
        torch.multiprocessing.spawn(_start, (replace(run, workers=HALVES), base, tower), nprocs=HALVES)


@contextmanager
def _quick_products() -> Iterator[None]:
    """A GPU's TF32 in products of float32, as is usual in training; the study itself keeps all digits."""
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(usual)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold the folder of a training: two processes would overwrite each other's state."""
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StudyError(f"another process trains in {work}; wait for it, or end it") from error
        yield


def _end_with_parent() -> None:
    """Leave as soon as the process that started this one is gone, however it went."""
    connection.wait([parent_process().sentinel])
    os._exit(1)


def _start(rank: int, run: Run, base: Path, tower: Path) -> None:
    """A worker process."""
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    meeting = f"file://{run.work / 'meeting'}"
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=run.workers, timeout=PATIENCE
    )
    run = replace(run, rank=rank)
    worker.work(run, worker.build(run, base, tower))
    torch.distributed.destroy_process_group()


def _finish(run: Run, base: Path, tower: Path, folder: Path) -> None:
    """Write the checkpoint that the last of the stages completes, and its card, unless both are there."""
    spent: list[Spent] = []
    for stage in run.stages:
        stored = torch.load(run.work / f"{stage.name}.pt", map_location="cpu", weights_only=True)
        took = stored["seconds"] - sum(earlier.seconds for earlier in spent)
        spent.append(Spent(stage.name, stage.steps, HALVES * stage.plan.clips, took, stored["device"]))
    if not is_written(stored["trained"], folder):
        write_folder(stored["trained"], base, tower, folder)
        write_card(folder, seed=run.seed, spent=spent)
        print(f"{folder.name} is in {folder.parent}")
