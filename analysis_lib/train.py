"""Re-create the two embedded models from nothing: `embedded-image`, then `embedded`, the former tuned on video.

The recipe follows real Video LLMs in small. *vision*: the tower learns dense labels of single frames (which colour and
shape covers each patch, and where) and is frozen afterwards, as in the paper's training (appendix H). *drill*: the
upper layers learn, from text alone, to find a word among lettered options. *align*: the projector learns to turn each
patch into the sum of the embeddings of the words that describe it. *image words*: the lower layers learn to answer
questions about stills in words. *image*: the upper layers, on top of them, find the letter of the answer's word; that
is `embedded-image`. *video words*, *video hard words*, *video letters*, *video hard letters*, *video*: the same with
the five video tasks, where those that take longest come more often for a while; that is `embedded`. Muon moves the
hidden matrices, AdamW the rest. The state is stored as it goes; the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from analysis_lib import paths
from analysis_lib.embedded.smol.train import train_smol
from analysis_lib.errors import StudyError
from analysis_lib.export import export, write_card
from analysis_lib.lessons import make_batch, make_drill, make_frames
from analysis_lib.network import EXIT, VISION_HEADS, WIDTH, align_loss, build_model, language_loss, settle, vision_loss
from analysis_lib.packer import Packer
from analysis_lib.vocabulary import build_tokenizer

STORE_EVERY = 100  # steps
ROUNDS = 4


@dataclass(frozen=True)
class Stage:
    """One stage: steps, clips a step, tokens a branch, and the peak learning rates of Muon and AdamW.

    `questions` are asked about each clip, in words and with options. From step `since` on, the clips' tasks are drawn
    with `shares` (of TASKS; None: all alike). When a model begins to see what a stage is about depends on the seed: if
    the running share of right `words` or `letters` that `goal` names is not reached by the last step, the stage goes on
    for another round of as many steps, ROUNDS at most.
    """

    name: str
    steps: int
    clips: int
    length: int = 0
    muon: float = 0.02
    adam: float = 3e-3
    since: int = 0
    shares: tuple[float, ...] | None = None
    questions: tuple[int, int] = (7, 3)
    goal: tuple[str, float] | None = None


STAGES = (
    Stage("vision", 700, 80, adam=2e-3),
    Stage("drill", 1000, 10, 40, adam=5e-3, goal=("letters", 0.94)),
    Stage("align", 350, 48),
    Stage("image words", 300, 32, 50, goal=("words", 0.9)),
    Stage("image", 150, 32, 50, goal=("letters", 0.8)),
    # A video task asks one thing about a clip: more clips teach more than more questions.
    Stage("video words", 1050, 54, 52, since=400, shares=(0.1, 0.2, 0.1, 0.5, 0.1), questions=(2, 1)),
    Stage("video hard words", 450, 48, 52, 0.01, 1.5e-3, shares=(0.1, 0.15, 0.1, 0.55, 0.1), questions=(3, 1)),
    Stage("video letters", 250, 32, 52),
    Stage("video hard letters", 250, 32, 52, shares=(0.1, 0.1, 0.4, 0.3, 0.1)),
    Stage("video", 200, 32, 52, shares=(0.3, 0.1, 0.25, 0.25, 0.1)),
)
OPEN = 30  # tokens of a question without options, with its answer
WORDS = tuple(stage.name for stage in STAGES if stage.name.endswith("words"))  # train the layers up to EXIT
FINISHES = {"image": "embedded-image", "video": "embedded"}  # stage that completes a checkpoint


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


def _make(stage: Stage, packer: Packer) -> Callable[[np.random.Generator, int], dict[str, Any]]:
    """The stage's batches as a function of a random generator and the step."""

    def lesson(rng: np.random.Generator, step: int) -> dict[str, Any]:
        if stage.name in ("vision", "align"):
            return make_frames(rng, clips=stage.clips)
        if stage.name == "drill":
            return make_drill(rng, packer, rows=stage.clips, length=stage.length)
        opened = stage.name.endswith("words") and rng.random() < 0.5
        return make_batch(
            rng,
            packer,
            clips=stage.clips,
            video=stage.name.startswith("video"),
            letters=not opened,
            questions=stage.questions[not opened],
            length=OPEN if opened else stage.length,
            shares=stage.shares if step >= stage.since else None,
        )

    return lesson


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
    source = _Batches(_make(stage, packer), seed * 10 + [s.name for s in STAGES].index(stage.name), start)
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


def main(argv: list[str] | None = None) -> int:
    """`python -m analysis_lib train`: run every stage that is not finished, then write the two checkpoints."""
    parser = argparse.ArgumentParser(prog="python -m analysis_lib train", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded", choices=("embedded", "smol"), help="which pair of checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=paths.MODELS, help="where the two checkpoint folders are written")
    args = parser.parse_args(argv)
    door = {"embedded": train, "smol": train_smol}[args.model]
    door(seed=args.seed, device=args.device, out=args.out)
    return 0


def train(*, seed: int = 0, device: str = "auto", out: Path = paths.MODELS) -> None:
    """Train both embedded models. State lives in build/train-<seed>; the same call resumes there."""
    from transformers import PreTrainedTokenizerFast

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
