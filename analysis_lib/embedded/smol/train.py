"""Train `smol-image` on stills, then `smol` on the five video tasks: next-token loss on captions, answers and letters.

Two workers, one thread each, take half of every batch; on a GPU one process takes both halves. Threads that wait for
each other within each product lose most of their time on a machine that others use too; workers wait once a step. The
state is stored as it goes, and the same command goes on from there with the same bytes. `curve.csv` beside it holds how
many answers were right: on training clips before they were learned from (each clip is shown once), and on a validation
set.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from analysis_lib import paths
from analysis_lib.bases import check_base
from analysis_lib.embedded.smol import worker
from analysis_lib.embedded.smol.base import NAME
from analysis_lib.embedded.smol.lessons import Plan
from analysis_lib.embedded.smol.worker import HALVES, Run, Stage

STAGES = (
    Stage("stills", 300, Plan(clips=3, drills=1, length=176, video=False, lettered=0.6), "smol-image"),
    Stage("video-words", 2000, Plan(clips=3, drills=0, length=224, video=True, lettered=0.25, busy=0.7)),
    Stage("video", 2500, Plan(clips=3, drills=0, length=264, video=True), "smol"),
)
TOWER = "embedded-image"  # whose vision tower is used


def train_smol(*, seed: int = 0, device: str = "auto", out: Path = paths.MODELS, work: Path | None = None) -> None:
    """Train both checkpoints and write them to `out`. State lives in `work` (build/train-smol-<seed>); the same call
    goes on from there. Raises StudyError if the base is not there, or a GPU is asked for and there is none."""
    from analysis_lib.checkpoints import device_for

    place, folder = device_for(device), check_base(NAME)
    work = work or paths.ROOT / "build" / f"train-smol-{seed}"
    work.mkdir(parents=True, exist_ok=True)
    workers = 1 if place.type == "cuda" else HALVES
    run = Run(seed, place, work, STAGES, workers=workers)
    (work / "meeting").unlink(missing_ok=True)
    if workers == 1:
        worker.work(run, worker.build(run, folder, paths.MODELS / TOWER))
    else:
        torch.multiprocessing.spawn(_start, (run, folder, paths.MODELS / TOWER), nprocs=workers)


def _start(rank: int, run: Run, folder: Path, tower: Path) -> None:
    """A worker process."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{run.work / 'meeting'}", rank=rank, world_size=run.workers
    )
    run = Run(run.seed, run.device, run.work, run.stages, rank, run.workers)
    worker.work(run, worker.build(run, folder, tower))
    torch.distributed.destroy_process_group()
