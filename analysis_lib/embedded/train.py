"""Re-create the two embedded models from nothing: `embedded-image`, then `embedded`, the former tuned on video.

The stages stand in `recipe.py`. Muon moves the hidden matrices, AdamW the rest. The state is stored as it goes; the
same command resumes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from analysis_lib import paths
from analysis_lib.embedded.export import export, write_card
from analysis_lib.embedded.network import (
    VISION_HEADS,
    WIDTH,
    align_loss,
    build_model,
    language_loss,
    settle,
    vision_loss,
)
from analysis_lib.embedded.packer import Packer
from analysis_lib.embedded.recipe import EXIT, FINISHES, STAGES, WORDS, Stage, batches_of
from analysis_lib.embedded.vocabulary import build_tokenizer
from analysis_lib.errors import StudyError

STORE_EVERY = 100  # steps
ROUNDS = 4


def _optimizers(named: list[tuple[str, torch.nn.Parameter]], stage: Stage) -> list[torch.optim.Optimizer]:
    def hidden(name: str, p: torch.nn.Parameter) -> bool:
        return p.ndim == 2 and not any(word in name for word in ("embed", "lm_head", "heads", "projector"))

    groups = [p for n, p in named if hidden(n, p)], [p for n, p in named if not hidden(n, p)]
    muon = [torch.optim.Muon(groups[0], lr=stage.muon, weight_decay=0.01)] if groups[0] else []
    return [*muon, torch.optim.AdamW(groups[1], lr=stage.adam, betas=(0.9, 0.98), weight_decay=0.01)]


def _pace(step: int, steps: int) -> float:
    """Share of the peak learning rate: 50 steps up, flat, and down over the last 40 %."""
    return min(1.0, (step + 1) / 50, max(0.02, (steps - step) / (0.4 * steps)))


class _Batches(torch.utils.data.IterableDataset):
    """Batches by number, made in a process of their own."""

    def __init__(self, make: Callable[[np.random.Generator, int], dict], seed: int, start: int) -> None:
        self.make, self.seed, self.start = make, seed, start

    def __iter__(self) -> Iterator[dict]:
        torch.set_num_threads(1)
        step = self.start
        while True:
            made = self.make(np.random.default_rng([self.seed, step]), step)
            yield {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in made.items()}
            step += 1


def _trained(model: Any, heads: torch.nn.Module, stage: Stage) -> list[tuple[str, torch.nn.Parameter]]:
    """Named parameters that the stage moves."""
    parts, decoder = model.model, model.model.language_model
    modules = {
        "vision": {"tower": parts.vision_tower, "heads": heads},
        "align": {"projector": parts.multi_modal_projector},
    }
    lower = {"embed": model.get_input_embeddings(), "norm": decoder.norm, "layers": decoder.layers[:EXIT]}
    modules |= {"drill": lower | {"layers": decoder.layers[EXIT:]}}
    modules |= {name: lower | {"projector": parts.multi_modal_projector} for name in WORDS}
    chosen = modules.get(stage.name, {"layers": decoder.layers[EXIT:]})
    return [pair for name, module in chosen.items() for pair in module.named_parameters(prefix=name)]


def _train(model: Any, stage: Stage, packer: Packer, *, seed: int, device: torch.device, store: Path) -> tuple:
    """Run one stage to its end, from the stored state if there is one; return the seconds and steps it took.

    Raises StudyError for a stage that does not reach its goal.
    """
    torch.manual_seed(seed)
    torch.compiler.reset()  # each stage trains other weights: the last stages would exceed the limit of recompilations
    heads = torch.nn.ModuleDict({k: torch.nn.Linear(WIDTH, n) for k, n in VISION_HEADS.items()}).to(device)
    named = _trained(model, heads, stage)
    model.requires_grad_(False)
    for _, parameter in named:
        parameter.requires_grad_(True)
    optimizers = _optimizers(named, stage)
    peaks = [o.param_groups[0]["lr"] for o in optimizers]
    start, before, shown = _restore(store, stage, model, heads, optimizers, device)  # shown: running means
    began = time.time() - before
    source = _Batches(batches_of(stage, packer), seed * 10 + [s.name for s in STAGES].index(stage.name), start)
    batches = iter(torch.utils.data.DataLoader(source, batch_size=None, num_workers=1))
    bar = tqdm(initial=start, total=stage.steps, desc=f"{stage.name:11}", mininterval=10)
    for step in range(start, stage.steps * ROUNDS):
        if step % stage.steps == 0 and step and _reached(stage, shown):
            break
        batch = {k: v.to(device) if torch.is_tensor(v) else v for k, v in next(batches).items()}
        loss, report = _loss(model, heads, packer, stage, batch, device)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * _pace(step % stage.steps, stage.steps)
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for name, value in {"loss": loss.detach(), **report}.items():
            shown[name] = 0.95 * shown.get(name, float(value)) + 0.05 * float(value)
        bar.set_postfix_str(" ".join(f"{name} {value:.3f}" for name, value in shown.items()), refresh=False)
        bar.update()
        if (step + 1) % STORE_EVERY == 0 or (step + 1) % stage.steps == 0:
            _keep(store, stage, step + 1, model, heads, optimizers, time.time() - began, shown)
    bar.close()
    if not _reached(stage, shown):
        name, share = stage.goal
        raise StudyError(
            f"stage {stage.name} ends with {shown[name]:.2f} of its {name} right, {share} are needed; "
            "the models of this seed would not answer, so use another --seed"
        )
    settle(model, stage.name)
    return time.time() - began, bar.n


def _reached(stage: Stage, shown: dict[str, float]) -> bool:
    return stage.goal is None or shown[stage.goal[0]] >= stage.goal[1]


def _loss(model: Any, heads: Any, packer: Packer, stage: Stage, batch: dict, device: torch.device) -> tuple:
    with torch.autocast(device.type, torch.bfloat16):
        if stage.name == "vision":
            return vision_loss(model, heads, batch)
        if stage.name == "align":
            return align_loss(model, packer, batch)
        layers = {"drill": slice(EXIT, None)} | dict.fromkeys(WORDS, slice(EXIT))
        return language_loss(model, batch, layers.get(stage.name, slice(None)))


def _keep(
    store: Path, stage: Stage, step: int, model: Any, heads: Any, optimizers: list, seconds: float, shown: dict
) -> None:
    state = {
        "seconds": seconds,
        "shown": shown,
        "stage": stage.name,
        "step": step,
        "model": model.state_dict(),
        "heads": heads.state_dict(),
    }
    _save(store, {**state, "optimizers": [o.state_dict() for o in optimizers]})


def _save(path: Path, value: dict) -> None:
    partial = path.with_name(path.name + ".tmp")
    torch.save(value, partial)
    os.replace(partial, path)


def _restore(store: Path, stage: Stage, model: Any, heads: Any, optimizers: list, device: torch.device) -> tuple:
    """Load the stored state if it belongs to `stage`; return the step at which the stage goes on, the seconds spent,
    and the running means.
    """
    state = torch.load(store, map_location=device, weights_only=True) if store.exists() else {"stage": None}
    if state["stage"] != stage.name:
        return 0, 0.0, {}
    model.load_state_dict(state["model"])
    heads.load_state_dict(state["heads"])
    for optimizer, old in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(old)
    return state["step"], state["seconds"], state["shown"]


def train(*, seed: int = 0, device: str = "auto", out: Path = paths.MODELS) -> None:
    """Train both embedded models. State lives in build/train-<seed>; the same call resumes there."""
    from transformers import PreTrainedTokenizerFast  # heavy

    if device == "cuda" and not torch.cuda.is_available():
        raise StudyError("device cuda asked for, but this torch sees no GPU; use --device cpu")
    place = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    work = paths.ROOT / "build" / f"train-{seed}"
    build_tokenizer(work / "tokenizer")
    packer = Packer(PreTrainedTokenizerFast.from_pretrained(work / "tokenizer"))
    model = build_model(packer.tokenizer, seed).to(place)
    for layer in model.model.language_model.layers:
        layer.compile(dynamic=False)
    times = work / "seconds.json"
    spent = json.loads(times.read_text()) if times.exists() else {}  # seconds and steps by stage
    for number, stage in enumerate(STAGES):
        done = work / f"{number}-{stage.name.replace(' ', '-')}.pt"
        if done.exists():
            model.load_state_dict(torch.load(done, map_location=place, weights_only=True))
        else:
            spent[stage.name] = _train(model, stage, packer, seed=seed, device=place, store=work / "state.pt")
            times.write_text(json.dumps(spent))
            _save(done, model.state_dict())
        if stage.name in FINISHES:
            export(model, work / "tokenizer", out / FINISHES[stage.name])
            rows = [(s.name, spent[s.name][1], s.clips, spent[s.name][0]) for s in STAGES[: number + 1]]
            machine = f"{place.type}, {torch.get_num_threads()} threads"
            write_card(out / FINISHES[stage.name], seed=seed, device=machine, stages=rows)
    print(f"trained in {sum(took for took, _ in spent.values()) / 60:.0f} minutes; checkpoints in {out}")
