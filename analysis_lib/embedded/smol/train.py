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
from analysis_lib.embedded.smol.folder import write_folder
from analysis_lib.embedded.smol.lessons import Plan
from analysis_lib.embedded.smol.worker import HALVES, Run, Stage
from analysis_lib.errors import StudyError
from analysis_lib.models.bases import check_base
from analysis_lib.models.loading import device_for

# of action_antonym, action_sequence, moving_direction, object_count and scene_transition, which is learned first
SHARES = (0.24, 0.24, 0.26, 0.21, 0.05)
STAGES = (
    Stage("drills", 175, Plan(clips=2, drills=1, length=176, video=False, lettered=0.6)),
    Stage("stills", 350, Plan(clips=2, drills=0.5, length=200, video=False, read=0.75), "smol-image"),
    Stage(
        "video-words",
        2500,
        Plan(clips=2, drills=0.25, length=224, video=True, lettered=0.25, shares=SHARES, busy=0.7, read=0.75),
    ),
    Stage("video", 3000, Plan(clips=2, drills=0, length=264, video=True, shares=SHARES), "smol"),
)
TOWER = "embedded-image"  # whose vision tower is used
PATIENCE = timedelta(days=7)  # for the other worker: on a busy machine, or a stopped one, a step can take hours


def train_smol(*, seed: int = 0, device: str = "auto", out: Path = paths.MODELS) -> None:
    """Train both checkpoints and write them, with their cards, to `out`.

    State lives in build/train-smol-<seed>; the same call goes on from there. Raises StudyError if the base is not
    there, a GPU is asked for and there is none, or another process trains this.
    """
    place, base, tower = device_for(device), check_base(NAME), paths.MODELS / TOWER
    run = Run(seed, place, paths.ROOT / "build" / f"train-smol-{seed}", STAGES, workers=1)
    run.work.mkdir(parents=True, exist_ok=True)
    with _alone(run.work):
        (run.work / "meeting").unlink(missing_ok=True)
        if place.type == "cuda":
            worker.work(run, worker.build(run, base, tower))
        else:
            torch.multiprocessing.spawn(_start, (replace(run, workers=HALVES), base, tower), nprocs=HALVES)
        _finish(run, base, tower, out)
    print(f"smol-image and smol are in {out}; the curve of their training is {run.work / 'curve.csv'}")


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


def _finish(run: Run, base: Path, tower: Path, out: Path) -> None:
    """Write the checkpoints of finished stages, and their cards."""
    spent: list[Spent] = []
    for stage in run.stages:
        stored = torch.load(run.work / f"{stage.name}.pt", map_location="cpu", weights_only=True)
        took = stored["seconds"] - sum(earlier.seconds for earlier in spent)
        spent.append(Spent(stage.name, stage.steps, HALVES * stage.plan.clips, took))
        if stage.checkpoint:
            write_folder(stored["trained"], base, tower, out / stage.checkpoint)
            write_card(out / stage.checkpoint, seed=run.seed, device=run.device.type, spent=spent)
