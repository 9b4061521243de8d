"""The network while it learns: the base's layers with low-rank adapters, over rows laid out as trees.

It computes what transformers' `llava` model computes from the exported folder (a test compares the two), arranged for a
CPU. The system text, which all rows share, is computed once a batch. Adapters are added into the weights once a step,
so the forward pass has none of their small products; `_Adapted` gives their exact gradients in the backward pass. The
output head, of 49,152 words, sees only the positions where something is to be said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from analysis_lib.embedded.network import MEAN, STD

RANK, ALPHA = 16, 32
SCALE = ALPHA / RANK
GROUPS = {  # linear maps with one input are one product: name of the group, and its maps
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
TARGETS = [name.split(".")[1] for maps in GROUPS.values() for name in maps]
PATCH_GRID = 6  # patches per side of a frame


@dataclass
class Network:
    """All that a pass needs. `frozen` holds the base: `embed`, `norm` and per layer the groups' weights and norms;
    `trained` the adapters (`layers.3.self_attn.q_proj.A` (r, in), `….B` (out, r)) and the projector.
    """

    config: Any  # the base's LlamaConfig
    frozen: dict[str, torch.Tensor]
    trained: dict[str, torch.Tensor]
    tower: Any  # the frozen vision tower, a module


class _Adapted(torch.autograd.Function):
    """x W'ᵀ with W' = W + SCALE·B A already added: gradients of x, of A (all maps of the group under each other), and
    of each B."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, *bs: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight, a, *bs)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple:
        x, weight, a, *bs = ctx.saved_tensors
        parts, low = dy.split([len(b) for b in bs], 1), (x @ a.T).split(RANK, 1)
        db = [SCALE * part.T @ z for part, z in zip(parts, low, strict=True)]
        da = SCALE * torch.cat([part @ b for part, b in zip(parts, bs, strict=True)], 1).T @ x
        return dy @ weight, None, da, *db


def merge(net: Network) -> dict[str, torch.Tensor]:
    """The groups' weights with adapters added in, by `layer.group`; to be made anew after each step."""
    merged = {}
    with torch.no_grad():
        for layer in range(net.config.num_hidden_layers):
            for group, maps in GROUPS.items():
                whole = net.frozen[f"{layer}.{group}"].clone()
                pieces = whole.split([len(net.trained[f"layers.{layer}.{name}.B"]) for name in maps])
                for name, piece in zip(maps, pieces, strict=True):
                    a, b = (net.trained[f"layers.{layer}.{name}.{x}"] for x in "AB")
                    piece.addmm_(b, a, alpha=SCALE)
                merged[f"{layer}.{group}"] = whole
    return merged


def _linear(net: Network, merged: dict[str, torch.Tensor], layer: int, group: str, x: torch.Tensor) -> torch.Tensor:
    names = [f"layers.{layer}.{name}" for name in GROUPS[group]]
    a = torch.cat([net.trained[f"{name}.A"] for name in names])
    return _Adapted.apply(x, merged[f"{layer}.{group}"], a, *(net.trained[f"{name}.B"] for name in names))


def _norm(net: Network, name: str, x: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, x.shape[-1:], net.frozen[name], net.config.rms_norm_eps)


def rotary(config: Any, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine (N, 1, head) of the rotation of each position (N,)."""
    size = config.head_dim
    steps = torch.arange(0, size, 2, device=positions.device).float() / size
    angles = positions[:, None].float() / config.rope_parameters["rope_theta"] ** steps
    angles = torch.cat([angles, angles], 1)[:, None]
    return angles.cos(), angles.sin()


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


def _attend(config: Any, qkv: torch.Tensor, turn: tuple, mask: torch.Tensor) -> torch.Tensor:
    """Attention output (N, heads · head) of flat tokens (N, …): the system text first, then B rows of L tokens, whose
    mask (B, 1, L, P + L) says what they see of the system text and of themselves."""
    heads, shared, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    batch, _, length, total = mask.shape
    start = total - length
    q, k, v = qkv.split([heads * size, shared * size, shared * size], 1)
    q, k = _turn(q.unflatten(1, (heads, size)), *turn), _turn(k.unflatten(1, (shared, size)), *turn)
    k, v = (x.repeat_interleave(heads // shared, 1) for x in (k, v.unflatten(1, (shared, size))))

    def rows(x: torch.Tensor) -> torch.Tensor:  # (B, heads, L, head)
        return x[start:].unflatten(0, (batch, length)).transpose(1, 2)

    def seen(x: torch.Tensor) -> torch.Tensor:  # (B, heads, P + L, head)
        return torch.cat([x[:start].transpose(0, 1).expand(batch, -1, -1, -1), rows(x)], 2)

    attend = functional.scaled_dot_product_attention
    system = attend(*(x[None, :start].transpose(1, 2) for x in (q, k, v)), is_causal=True)  # (1, heads, P, head)
    own = attend(rows(q), seen(k), seen(v), attn_mask=mask)
    return torch.cat([system.transpose(1, 2).flatten(0, 1), own.transpose(1, 2).flatten(0, 1)]).flatten(1)


def decode(net: Network, system: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> Any:
    """Residual stream (B, L, d) after the last layer of rows (B, L, d) behind a system text (P, d).

    `positions` (B, L) and `mask` (B, 1, L, P + L) as `rows.lay_out` makes them.
    """
    start, merged = len(system), merge(net)
    x = torch.cat([system, rows.flatten(0, 1)])
    turn = rotary(net.config, torch.cat([torch.arange(start, device=x.device), positions.flatten()]))
    for layer in range(net.config.num_hidden_layers):
        qkv = _linear(net, merged, layer, "qkv", _norm(net, f"{layer}.input_layernorm", x))
        x = x + _linear(net, merged, layer, "o", _attend(net.config, qkv, turn, mask))
        up = _linear(net, merged, layer, "gate_up", _norm(net, f"{layer}.post_attention_layernorm", x))
        gate, up = up.chunk(2, 1)
        x = x + _linear(net, merged, layer, "down", functional.silu(gate) * up)
    return x[start:].unflatten(0, rows.shape[:2])


def logits(net: Network, states: torch.Tensor) -> torch.Tensor:
    """Logits (n, V) of residual states (n, d); the output head is the embedding."""
    return _norm(net, "norm", states) @ net.frozen["embed"].T


def patch_features(net: Network, images: torch.Tensor) -> torch.Tensor:
    """The tower's states (B·T, 36, d) of images (B, T, S, S, 3) uint8."""
    pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(x, device=pixels.device).view(3, 1, 1) for x in (MEAN, STD))
    with torch.no_grad():
        out = net.tower(pixel_values=(pixels - mean) / std, output_hidden_states=True)
    return out.hidden_states[-1][:, 1:]


def project(net: Network, features: torch.Tensor, frames: int, grid: int) -> torch.Tensor:
    """Video tokens (B, T·grid², d), frame after frame, of patch features (B·T, 36, d): projected, then pooled."""
    t = net.trained
    hidden = functional.gelu(functional.linear(features, t["projector.linear_1.weight"], t["projector.linear_1.bias"]))
    out = functional.linear(hidden, t["projector.linear_2.weight"], t["projector.linear_2.bias"])
    side = PATCH_GRID // grid
    pooled = out.view(-1, grid, side, grid, side, out.shape[-1]).mean((2, 4))  # (B·T, grid, grid, d)
    return pooled.reshape(-1, frames * grid * grid, out.shape[-1])


def shown(net: Network, half: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A half's arrays as tensors on the device, and what the frozen tower sees: `features` (clips·T, 36, d)."""
    on = {name: torch.from_numpy(value).to(device) for name, value in half.items() if isinstance(value, np.ndarray)}
    return half | on | {"images": None, "features": patch_features(net, on["images"])}


def embed(net: Network, half: dict[str, Any], grid: int) -> torch.Tensor:
    """Embeddings (B, L, d) of a half of a batch (`shown`), video tokens at the start of the rows that have a clip."""
    words, video = net.frozen["embed"][half["ids"]], half["video"]
    seen = project(net, half["features"], video // grid**2, grid)  # (clips, video, d)
    with_video = torch.cat([seen, words[: len(seen), video:]], 1)
    return torch.cat([with_video, words[len(seen) :]])


def start_adapters(config: Any, seed: int) -> dict[str, torch.Tensor]:
    """Fresh adapters as PEFT begins: A uniform, B zero."""
    generator = torch.Generator().manual_seed(seed)
    width, inner, kv = config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.head_dim
    attention = config.num_attention_heads * config.head_dim
    shapes = {"q_proj": (attention, width), "k_proj": (kv, width), "v_proj": (kv, width), "o_proj": (width, attention)}
    shapes |= {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
    made = {}
    for layer in range(config.num_hidden_layers):
        for name in (name for maps in GROUPS.values() for name in maps):
            out, into = shapes[name.split(".")[1]]
            a = torch.empty(RANK, into).uniform_(-1 / math.sqrt(into), 1 / math.sqrt(into), generator=generator)
            made |= {f"layers.{layer}.{name}.A": a, f"layers.{layer}.{name}.B": torch.zeros(out, RANK)}
    return made


def freeze_base(config: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The base's weights (named as in its own folder) as `Network.frozen` holds them."""
    frozen = {"embed": tensors["model.embed_tokens.weight"], "norm": tensors["model.norm.weight"]}
    for layer in range(config.num_hidden_layers):
        own = f"model.layers.{layer}"
        for group, maps in GROUPS.items():
            frozen[f"{layer}.{group}"] = torch.cat([tensors[f"{own}.{name}.weight"] for name in maps])
        for name in ("input_layernorm", "post_attention_layernorm"):
            frozen[f"{layer}.{name}"] = tensors[f"{own}.{name}.weight"]
    return frozen
