"""Forward passes through the unmodified decoder: one that keeps states, and one with edges cut.

Merged embeddings go in; the last position's logits come out in float32. The vision tower is not run again. States are
read by forward hooks on the decoder layers, so they are true residual states: the list that transformers returns has
the last one normed already.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

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
    with calls_of(decoder_layers(vlm)) as calls:
        decode(vlm, inputs)
    return states_of(vlm, inputs, [output for *_, output in calls])


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
    layers = decoder_layers(vlm)
    with (
        attention_mask_hooks(vlm, layer_masks) as fired,
        layers[0].register_forward_pre_hook(partial(_repeat, batch), with_kwargs=True),
        calls_of(layers[-1:]) as calls,
    ):
        decode(vlm, inputs)
    [(*_, output)] = calls  # (B, n, d)
    return unembed(vlm, output[:, -1]), fired.total()


def _same_for_all(inputs: Inputs) -> bool:
    """Whether copies of the prompt can share its decoder arguments; features for given rows of one copy cannot."""
    return inputs.decoder_kwargs.keys() <= {"attention_mask", "position_ids", "cache_position"}


def _repeat(batch: int, module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """A layer's arguments with its states `batch` times."""
    if args:
        return (args[0].expand(batch, -1, -1), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": kwargs["hidden_states"].expand(batch, -1, -1)}


@contextmanager
def calls_of(modules: Iterable[torch.nn.Module]) -> Iterator[list[tuple[torch.Tensor, dict, torch.Tensor]]]:
    """Collects what the modules are called with inside the block, states (B, n, d) and what else by name, and the
    states that they return."""
    calls: list[tuple[torch.Tensor, dict, torch.Tensor]] = []

    def keep(module: Any, args: tuple, kwargs: dict, output: Any) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        calls.append((states, kwargs, output if torch.is_tensor(output) else output[0]))

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(keep, with_kwargs=True))
        yield calls
