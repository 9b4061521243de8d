"""Forward passes through the unmodified decoder: one that keeps states, and one with edges cut.

Merged embeddings go in; the last position's logits come out in float32. The vision tower is not run again. States are
read by forward hooks on the decoder layers, so they are true residual states: the list that transformers returns has
the last one normed already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from analysis_lib.instrument.hooks import attention_mask_hooks
from analysis_lib.models.decoder import decode, decoder_layers, unembed
from analysis_lib.models.records import Inputs, VideoLLM


@dataclass
class Clean:
    """What an untouched pass leaves behind.

    float32 `logits` (V,); states after each layer, none of them normed, at the last position, `last` (L, d), and at
    the video positions, `video` (L, N_v, d).
    """

    logits: torch.Tensor
    last: torch.Tensor
    video: torch.Tensor


@torch.no_grad()
def clean_pass(vlm: VideoLLM, inputs: Inputs) -> Clean:
    """One untouched pass, with the states that lens and emergence read."""
    with _layer_outputs(vlm, slice(None)) as kept:
        decode(vlm, inputs)
    return states_of(vlm, inputs, kept)


def states_of(vlm: VideoLLM, inputs: Inputs, outputs: Sequence[torch.Tensor]) -> Clean:
    """The states (1, n, d) after each layer, in order, at the positions that are read."""
    rows = [inputs.n - 1, *inputs.roles.positions("video")]
    states = torch.cat([output[:, rows].to(vlm.device) for output in outputs])  # (L, 1 + N_v, d)
    return Clean(unembed(vlm, states[-1, 0]), states[:, 0], states[:, 1:])


@torch.no_grad()
def masked_logits(vlm: VideoLLM, inputs: Inputs, layer_masks: Mapping[int, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """float32 last-position logits (B, V) with edges cut, and how many masks were applied.

    `layer_masks` maps 1-based layers to (B, H or 1, n, n) bool, True = cut; all of one batch size B, or of 1.
    """
    batch = max((mask.shape[0] for mask in layer_masks.values()), default=1)
    if batch > 1 and not _same_for_all(inputs):
        each = [{layer: mask[i % len(mask)][None] for layer, mask in layer_masks.items()} for i in range(batch)]
        logits, fired = zip(*(masked_logits(vlm, inputs, masks) for masks in each), strict=True)
        return torch.cat(logits), min(fired)
    with (
        attention_mask_hooks(vlm, layer_masks) as fired,
        _widened(vlm, batch),
        _layer_outputs(vlm, [-1], [-1]) as kept,
    ):
        decode(vlm, inputs)
    return unembed(vlm, kept[0][:, 0]), fired.total()


def _same_for_all(inputs: Inputs) -> bool:
    """Whether copies of the prompt can share its decoder arguments; features for given rows of one copy cannot."""
    return inputs.decoder_kwargs.keys() <= {"attention_mask", "position_ids", "cache_position"}


@contextmanager
def _layer_outputs(
    vlm: VideoLLM, rows: Sequence | slice, layers: Sequence[int] | None = None
) -> Iterator[list[torch.Tensor]]:
    """Collects what each decoder layer (or each given 0-based one) returns at `rows`, in order."""
    kept: list[torch.Tensor] = []

    def keep(module, args, output):
        kept.append((output if torch.is_tensor(output) else output[0])[:, rows])

    modules = decoder_layers(vlm)
    handles = [modules[i].register_forward_hook(keep) for i in (range(len(modules)) if layers is None else layers)]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _widened(vlm: VideoLLM, batch: int) -> Iterator[None]:
    """Repeats the states `batch` times on their way into the first layer."""

    def repeat(module, args, kwargs):
        if args:
            return (args[0].expand(batch, -1, -1), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"].expand(batch, -1, -1)}

    handle = decoder_layers(vlm)[0].register_forward_pre_hook(repeat, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
