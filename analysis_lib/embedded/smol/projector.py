"""The frozen vision tower, and a start for the projector: each patch becomes the words that describe it.

Real Video LLMs first train the projector alone on captions. Here the same is had in closed form: the second layer is
the ridge regression from the first one's features onto mean word embeddings, over labelled frames.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from analysis_lib.embedded import world
from analysis_lib.embedded.lessons import PATCHES, make_frames
from analysis_lib.embedded.smol import network
from analysis_lib.models.torchvision_ops import ensure_torchvision

BATCHES, CLIPS, RIDGE = 40, 32, 1e-3  # frames are CLIPS · 3 a batch
SIDES = (("left", "right"), ("top", "bottom"), ("small", "large"))  # words at the two ends of `centre`'s three numbers


def load_tower(folder: Path) -> Any:
    """The vision tower of a `llava` checkpoint, frozen."""
    ensure_torchvision()
    from transformers import CLIPVisionConfig, CLIPVisionModel  # heavy

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vision_config"]
    tower = CLIPVisionModel(CLIPVisionConfig(**config))
    tower.load_state_dict({name.removeprefix("vision_tower.vision_model."): t for name, t in tower_tensors(folder)})
    return tower.eval().requires_grad_(False)


def tower_tensors(folder: Path) -> list[tuple[str, torch.Tensor]]:
    """The tower's tensors under their published names."""
    from safetensors.torch import load_file  # heavy

    tensors = load_file(folder / "model.safetensors")
    return [(name, t) for name, t in tensors.items() if name.startswith("vision_tower.")]


def start_projector(net: network.Network, tokenizer: Any, seed: int) -> dict[str, torch.Tensor]:
    """The projector's four tensors: a random first layer, and a second that says words."""
    width, into = net.config.hidden_size, net.tower.config.hidden_size
    generator = torch.Generator().manual_seed(seed)
    batches = [make_frames(np.random.default_rng([seed, 0, i]), clips=CLIPS) for i in range(BATCHES)]
    states = [network.patch_features(net, torch.from_numpy(b["images"])).flatten(0, 1) for b in batches]
    mean, std = (f(torch.cat(states), 0) for f in (torch.mean, torch.std))
    first = torch.randn(width, into, generator=generator) / (std * math.sqrt(into))
    bias = torch.randn(width, generator=generator) * 0.5 - first @ mean
    products, sums = torch.zeros(width + 1, width + 1), torch.zeros(width + 1, width)
    for state, batch in zip(states, batches, strict=True):
        hidden = functional.pad(functional.gelu(state @ first.T + bias), (0, 1), value=1.0)
        products += hidden.T @ hidden
        sums += hidden.T @ described(net.frozen["embed"], tokenizer, batch)
    ridge = RIDGE * products.diagonal().mean() * torch.eye(width + 1)
    second = torch.linalg.solve((products + ridge).double(), sums.double()).float()
    return {
        "projector.linear_1.weight": first,
        "projector.linear_1.bias": bias,
        "projector.linear_2.weight": second[:-1].T.contiguous(),
        "projector.linear_2.bias": second[-1].clone(),
    }


def described(embedding: torch.Tensor, tokenizer: Any, batch: dict[str, np.ndarray]) -> torch.Tensor:
    """What each patch should become (B·T·36, d): the mean word, moved towards its scene, its colour and shape, and the
    words for where it is and how large."""
    centre = embedding.mean(0)

    def words(*names: str) -> torch.Tensor:
        return embedding[[tokenizer(f" {name}")["input_ids"][-1] for name in names]] - centre

    nothing = torch.zeros(1, len(centre))
    colour = torch.cat([nothing, words(*world.COLOURS, "white")])[batch["colour"].reshape(-1)]
    shape = torch.cat([nothing, words(*world.SHAPES)])[batch["shape"].reshape(-1)]
    scene = words(*world.SCENES)[batch["scene"].reshape(-1)].repeat_interleave(PATCHES**2, 0)
    ends = torch.stack([words(high)[0] - words(low)[0] for low, high in SIDES]) / 2  # (3, d)
    where = torch.from_numpy(batch["centre"]).flatten(0, -2) @ ends  # zero on empty patches
    return centre + 2 * (colour + shape) + where + 0.7 * scene
