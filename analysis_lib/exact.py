"""The exact engine: recompute only what a knockout can change.

    layer   rows before the first cut query row   rows from there to the last
      L     ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·    X  X  X  X    above the window: changed states, clean keys
      .     ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·    X  X  X  X
    window  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·    X  X  X  X    inside: the same, with edges cut
      .     ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·    ·  ·  ·  ·    below: the clean pass, stored once
      1     ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·    ·  ·  ·  ·

The decoder is causal, so rows before the first cut query row never change, and below a window nothing does. One clean
pass keeps every layer's input, keys and values (`·`). Then the unmodified decoder layers are called on the rows marked
`X` alone: a stand-in for transformers' cache puts the clean keys and values of the earlier rows before theirs. Windows
run together: all walk up the layers in one batch, and each joins it at its first layer. Where only the last row
changes, conditions are packed side by side as the queries of one sequence, each blind to the others, so that the clean
keys and values are read once and not copied per condition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from analysis_lib.errors import StudyError
from analysis_lib.models import Inputs, VideoLLM, decoder_layers, unembed


@dataclass
class Call:
    """How the clean pass called one decoder layer: its input (1, n, d), arguments, keys and values (1, H, n, D), and
    which keys the model lets each query see (n, n) bool."""

    hidden: torch.Tensor
    kwargs: dict[str, Any]
    keys: torch.Tensor
    values: torch.Tensor
    seen: torch.Tensor


@torch.no_grad()
def record(vlm: VideoLLM, inputs: Inputs) -> list[Call]:
    """One clean pass that keeps what each layer was called with, and its keys and values."""
    from transformers import DynamicCache

    arguments: list[tuple[torch.Tensor, dict]] = []

    def keep(module: Any, args: tuple, kwargs: dict) -> None:
        arguments.append((args[0] if args else kwargs["hidden_states"], kwargs))

    handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in decoder_layers(vlm)]
    cache = DynamicCache()
    try:
        vlm.hf.get_decoder()(inputs_embeds=inputs.embeds, past_key_values=cache, use_cache=True)
    finally:
        for handle in handles:
            handle.remove()
    pairs = zip(arguments, cache.layers, strict=True)
    return [
        Call(hidden, kw, own.keys, own.values, _seen(kw.get("attention_mask"), inputs)) for (hidden, kw), own in pairs
    ]


def _seen(mask: torch.Tensor | None, inputs: Inputs) -> torch.Tensor:
    if mask is None:  # the kernel applies causality by itself
        return torch.ones(inputs.n, inputs.n, dtype=torch.bool, device=inputs.embeds.device).tril()
    return (mask if mask.dtype == torch.bool else mask == 0)[0, 0]


class _Prefix:
    """Stands in for transformers' cache in one layer: the clean keys and values of the rows before `row` come first."""

    def __init__(self, call: Call, row: int) -> None:
        self.keys, self.values = call.keys[:, :, :row], call.values[:, :, :row]

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        copies = (len(keys), -1, -1, -1)
        return torch.cat([self.keys.expand(copies), keys], 2), torch.cat([self.values.expand(copies), values], 2)


@torch.no_grad()
def staggered(
    vlm: VideoLLM, calls: Sequence[Call], row: int, layers: Sequence[Sequence[int]], blocked: torch.Tensor
) -> tuple[torch.Tensor, int, int]:
    """float32 last-position logits (C, V) of conditions that change nothing before position `row`.

    `layers` (C) are the 1-based layers of each condition's window, by ascending first layer; `blocked` (C, H or 1, r,
    n) bool the edges cut in them, in each query head or in all, in the rows from `row` on. Also returns how many masks
    reached an attention module, and how many were sent.
    """
    n = calls[0].seen.shape[0]
    packed = row == n - 1
    hidden, sent, fired = calls[0].hidden[:0, row:], 0, []
    for number, (module, call) in enumerate(zip(decoder_layers(vlm), calls, strict=True), start=1):
        joining = sum(min(own, default=1) == number for own in layers)
        hidden = torch.cat([hidden, call.hidden[:, row:].expand(joining, -1, -1)])  # (c, r, d)
        if not len(hidden):
            continue
        cut = torch.tensor([number in own for own in layers[: len(hidden)]], device=hidden.device)
        mask = call.seen[row:] & ~(blocked[: len(hidden)] & cut[:, None, None, None])  # (c, H or 1, r, n)
        sent += 1
        with _counted(module, fired):
            hidden = (_call_packed if packed else _call)(module, call, row, hidden, mask)
    return unembed(vlm, hidden[:, -1]), sum(fired), sent


def _call(module: Any, call: Call, row: int, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The layer on rows `row`… of c conditions as a batch: hidden (c, r, d), mask (c, H or 1, r, n)."""
    return _layer(module, call, row, hidden, mask, slice(row, None))


def _call_packed(module: Any, call: Call, row: int, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The layer on the last row of c conditions, as c queries of one sequence that see the prefix and themselves."""
    mask = mask[:, :, 0].transpose(0, 1)  # (H or 1, c, n)
    own = torch.eye(len(hidden), dtype=torch.bool, device=hidden.device) & mask[..., row:]  # (H or 1, c, c)
    both = torch.cat([mask[..., :row], own], -1)[None]  # (1, H or 1, c, row + c)
    return _layer(module, call, row, hidden.transpose(0, 1), both, [row] * len(hidden)).transpose(0, 1)


def _layer(
    module: Any, call: Call, row: int, hidden: torch.Tensor, mask: torch.Tensor, rows: slice | list[int]
) -> torch.Tensor:
    changed = {"attention_mask": mask, "past_key_values": _Prefix(call, row), "use_cache": True}
    kwargs = {**call.kwargs, **changed}
    kwargs.pop("hidden_states", None)
    if kwargs.get("position_embeddings") is not None:
        kwargs["position_embeddings"] = tuple(part[..., rows, :] for part in kwargs["position_embeddings"])
    if kwargs.get("position_ids") is not None:
        kwargs["position_ids"] = kwargs["position_ids"][..., rows]
    out = module(hidden, **kwargs)
    return out if torch.is_tensor(out) else out[0]


@contextmanager
def _counted(module: Any, fired: list[int]) -> Iterator[None]:
    """Notes whether the layer's attention was called with a mask."""
    attention = getattr(module, "self_attn", None)
    if attention is None:
        raise StudyError("a decoder layer has no self-attention, so no edge can be cut there; use another model")

    def note(module: Any, args: tuple, kwargs: dict) -> None:
        fired.append(int(kwargs.get("attention_mask") is not None))

    handle = attention.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def first_row(blocked: np.ndarray) -> int:
    """First position whose reading is cut (0-based); the last one if none is."""
    rows = np.flatnonzero(blocked.any(1))
    return int(rows[0]) if len(rows) else len(blocked) - 1
