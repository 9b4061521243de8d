"""One worker of a training: it takes its halves of each batch, and keeps in step with the others once a step."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from analysis_lib.embedded.smol import base, network, projector, score, state
from analysis_lib.embedded.smol.folder import read_folder
from analysis_lib.embedded.smol.learner import HALVES, Learner, learn, pace
from analysis_lib.embedded.smol.lessons import Plan, make_half
from analysis_lib.embedded.smol.replay import Pass, padded, replayed
from analysis_lib.embedded.smol.rows import Prompts
from analysis_lib.embedded.smol.wording import WORDINGS
from analysis_lib.models.torchvision_ops import ensure_torchvision

AHEAD = min(6, os.cpu_count() or 1)  # processes that make halves for a GPU
LOG_EVERY, VALIDATE_EVERY, VALIDATION_CLIPS = 25, 250, 30  # steps, steps, clips a kind
STORE_SECONDS = 300
KEYS = [(kind, measure) for kind in (*WORDINGS, "drill", "read", "still") for measure in state.MEASURES]


@dataclass(frozen=True)
class Stage:
    """One stage: its name, steps, what each half of a batch holds, whether learning rates fall at its end, and the
    checkpoint that it completes."""

    name: str
    steps: int
    plan: Plan
    falls: bool = False
    checkpoint: str = ""


@dataclass(frozen=True)
class Run:
    """One worker's share of a training: which halves it takes, and where the state lies. `origin`: the checkpoint that
    it starts from; none: new adapters, and a projector that says words."""

    seed: int
    device: torch.device
    work: Path
    stages: tuple[Stage, ...]
    rank: int = 0
    workers: int = 1
    origin: Path | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device.type == "cuda"

    def together(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the workers."""
        if self.workers > 1:
            torch.distributed.all_reduce(values)
        return values

    def counted(self, counts: score.Counts) -> score.Counts:
        """Counts over all workers."""
        total = self.together(torch.tensor([float(counts[key]) for key in KEYS]))
        return Counter({key: int(value) for key, value in zip(KEYS, total.tolist(), strict=True) if value})


@dataclass(frozen=True)
class Task:
    """What a worker works on."""

    net: network.Network
    prompts: Prompts
    learner: Learner
    validation: list[dict[str, Any]]  # this worker's part of it


def build(run: Run, folder: Path, tower: Path) -> Task:
    """The network at its start: the base in `folder`, the vision tower of the checkpoint `tower`, and what is trained,
    as it is before."""
    ensure_torchvision()
    from safetensors.torch import load_file  # heavy
    from transformers import LlamaConfig

    config = LlamaConfig.from_pretrained(folder)
    frozen = network.freeze_base(config, load_file(folder / "model.safetensors"))
    net = network.Network(config, frozen, {}, projector.load_tower(tower))
    prompts = Prompts(base.load_tokenizer(folder))
    learner = Learner(_start(run, net, prompts), run.device)
    net.frozen = {name: tensor.to(run.device) for name, tensor in frozen.items()}
    net.trained, net.tower = learner.views, net.tower.to(run.device)
    validation = score.validation(prompts, VALIDATION_CLIPS, run.rank, run.workers)
    return Task(net, prompts, learner, validation)


def _start(run: Run, net: network.Network, prompts: Prompts) -> dict[str, torch.Tensor]:
    """What is trained, before it is: computed once, then read from `start.pt`."""
    stored = run.work / "start.pt"
    if stored.exists():
        return torch.load(stored, weights_only=True)
    if run.origin:
        trained = read_folder(run.origin)
    else:
        trained = network.start_adapters(net.config, run.seed)
        trained |= projector.start_projector(net, prompts.tokenizer, run.seed)
    if run.rank == 0:
        state.save(stored, trained)
    return trained


def stages_done(run: Run) -> int:
    """How many stages the stored state has behind it."""
    return state.stored(run.work, run.device)["stage"]


def work(run: Run, task: Task) -> None:
    """Run all stages that are not finished. When one is, what it trained is in `<name>.pt`."""
    at = state.restore(run.work, task.learner, run.device)
    if run.rank == 0:
        state.rewind(run.work, [stage.name for stage in run.stages], at["stage"], at["step"])
    for number in range(at["stage"], len(run.stages)):
        stage = run.stages[number]
        _run_stage(run, number, task, at)
        at |= {"stage": number + 1, "step": 0, "counts": Counter()}
        task.learner.optimizer.state.clear()  # each stage begins with an optimizer of its own
        if run.rank == 0:
            trained = {name: view.detach().clone() for name, view in task.learner.views.items()}
            facts = {"seconds": at["seconds"], "device": _name(run.device)}
            state.save(run.work / f"{stage.name}.pt", {"trained": trained, **facts})
            state.keep(run.work, task.learner, at)


def _name(device: torch.device) -> str:
    """What the card calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, two cores"


def _run_stage(run: Run, number: int, task: Task, at: dict[str, Any]) -> None:
    stage, clock = run.stages[number], time.perf_counter if run.on_gpu else time.process_time
    began, stored = clock() - at["seconds"], time.time()
    halves, taught = iter(_halves(run, number, at["step"], task.prompts)), _taught(run, stage.plan, task)
    for step in range(at["step"], stage.steps):
        gradients, losses, counts = _learn(run, [next(halves) for _ in range(HALVES // run.workers)], taught)
        task.learner.step(gradients, pace(step, stage.steps, stage.falls))
        at |= {"step": step + 1, "seconds": clock() - began, "counts": at["counts"] + counts}
        _report(run, stage, task, at)
        if run.rank == 0:
            minutes = at["seconds"] / 60
            words, letters = losses
            print(f"{stage.name} {step + 1}/{stage.steps} {minutes:.1f} min {words:.3f} {letters:.3f}", flush=True)
            if time.time() - stored > STORE_SECONDS:
                state.keep(run.work, task.learner, at)
                stored = time.time()


@dataclass(frozen=True)
class _Halves:
    """The halves of a stage's batches, by step and half."""

    seeds: tuple[int, int]
    prompts: Prompts
    plan: Plan

    def __getitem__(self, at: tuple[int, int]) -> dict[str, Any]:
        return make_half(np.random.default_rng([*self.seeds, *at]), self.prompts, self.plan)


def _as_made(half: dict[str, Any]) -> dict[str, Any]:
    return half


def _halves(run: Run, number: int, start: int, prompts: Prompts) -> DataLoader:
    """This worker's halves from step `start` on, in order; on a GPU processes make them ahead."""
    stage = run.stages[number]
    wanted = [(step, half) for step in range(start, stage.steps) for half in range(run.rank, HALVES, run.workers)]
    made, ahead = _Halves((run.seed, number), prompts, stage.plan), AHEAD if run.on_gpu else 0
    return DataLoader(made, batch_size=None, sampler=wanted, num_workers=ahead, collate_fn=_as_made)


def _taught(run: Run, plan: Plan, task: Task) -> Pass:
    """The pass over a half as it is made."""
    whole = partial(learn, task.net, task.learner)
    recorded = replayed(whole) if run.on_gpu else whole

    def taught(half: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        half = network.shown(task.net, half, run.device)
        return recorded(padded(half, plan.length) if run.on_gpu else half)

    return taught


def _learn(run: Run, halves: list[dict[str, Any]], taught: Pass) -> tuple[torch.Tensor, list[float], score.Counts]:
    """The mean gradient over all halves of the batch, their losses on words and letters, and the counts."""
    counts: score.Counts = Counter()
    gradients, losses = torch.zeros(()), torch.zeros(2)
    for half in halves:
        own, lost, found = taught(half)
        counts += score.count(half, found)
        gradients = gradients.to(own.device) + own
        losses += lost.cpu() / HALVES
    return run.together(gradients), run.together(losses).tolist(), run.counted(counts)


def _report(run: Run, stage: Stage, task: Task, at: dict[str, Any]) -> None:
    """Write to the curve where it is time to."""
    facts = {"stage": stage.name, "step": at["step"], "minutes": round(at["seconds"] / 60, 1)}
    last = at["step"] == stage.steps
    if at["step"] % LOG_EVERY == 0 or last:
        if run.rank == 0:
            state.record(run.work, facts | {"split": "training"}, at["counts"])
        at["counts"] = Counter()
    if at["step"] % VALIDATE_EVERY == 0 or last:
        counts = _validate(run, task)
        if run.rank == 0:
            state.record(run.work, facts | {"split": "validation"}, counts)


@torch.no_grad()
def _validate(run: Run, task: Task) -> score.Counts:
    counts: score.Counts = Counter()
    for half in task.validation:
        counts += score.count(half, score.answers(task.net, network.shown(task.net, half, run.device)).argmax(-1))
    return run.counted(counts)
