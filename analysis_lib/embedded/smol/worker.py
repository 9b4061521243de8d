"""One worker of a training: it takes its halves of each batch, and keeps in step with the others once a step."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis_lib.embedded.smol import base, network, projector, score, state
from analysis_lib.embedded.smol.folder import read_folder
from analysis_lib.embedded.smol.learner import Learner, loss_of, pace
from analysis_lib.embedded.smol.lessons import Plan, make_half
from analysis_lib.embedded.smol.rows import Prompts
from analysis_lib.embedded.smol.wording import WORDINGS
from analysis_lib.models.torchvision_ops import ensure_torchvision

HALVES = 2
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
    return Task(net, prompts, learner)


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
            state.save(run.work / f"{stage.name}.pt", {"trained": trained, "seconds": at["seconds"]})
            state.keep(run.work, task.learner, at)


def _run_stage(run: Run, number: int, task: Task, at: dict[str, Any]) -> None:
    stage, began, stored = run.stages[number], time.process_time() - at["seconds"], time.time()
    for step in range(at["step"], stage.steps):
        halves = [_half(run, number, step, half, task) for half in range(run.rank, HALVES, run.workers)]
        gradients, losses, counts = _learn(run, task, halves)
        task.learner.step(gradients, pace(step, stage.steps, stage.falls))
        at |= {"step": step + 1, "seconds": time.process_time() - began, "counts": at["counts"] + counts}
        _report(run, stage, task, at)
        if run.rank == 0:
            minutes = at["seconds"] / 60
            words, letters = losses
            print(f"{stage.name} {step + 1}/{stage.steps} {minutes:.1f} min {words:.3f} {letters:.3f}", flush=True)
            if time.time() - stored > STORE_SECONDS:
                state.keep(run.work, task.learner, at)
                stored = time.time()


def _half(run: Run, number: int, step: int, half: int, task: Task) -> dict[str, Any]:
    made = make_half(np.random.default_rng([run.seed, number, step, half]), task.prompts, run.stages[number].plan)
    return on(run.device, made)


def on(device: torch.device, half: dict[str, Any]) -> dict[str, Any]:
    """A half's arrays as tensors."""
    return {k: torch.from_numpy(v).to(device) if isinstance(v, np.ndarray) else v for k, v in half.items()}


def _learn(run: Run, task: Task, halves: list[dict[str, Any]]) -> tuple[torch.Tensor, tuple[float, ...], score.Counts]:
    """The mean gradient over all halves of the batch, their losses on words and letters, and the counts."""
    counts: score.Counts = Counter()
    losses = torch.zeros(2)
    for half in halves:
        words, letters, found = loss_of(task.net, task.prompts, half)
        ((words + letters) / HALVES).backward()
        counts += found
        losses += torch.stack([words.detach(), letters.detach()]).cpu() / HALVES
    gradients = run.together(task.learner.gradients())
    return gradients, tuple(run.together(losses).tolist()), run.counted(counts)


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
    for half in score.validation(task.prompts, VALIDATION_CLIPS, run.rank, run.workers):
        half = on(run.device, half)
        counts += score.count(half, score.answers(task.net, task.prompts, half).argmax(-1))
    return run.counted(counts)
