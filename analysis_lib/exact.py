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
run together: all walk up the layers in one batch, each joins it at its first layer, and those that have cut the same so
far are one. Where only the last row
changes, conditions are packed side by side as the queries of one sequence, each blind to the others, so that the clean
keys and values are read once and not copied per condition.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from analysis_lib.errors import StudyError
from analysis_lib.hooks import in_form_of
from analysis_lib.models import Inputs, VideoLLM, decode, decoder_layers, final_norm, unembed
from analysis_lib.passes import Clean, states_of


@dataclass
class Call:
    """How the clean pass called one decoder layer: its input and output (1, n, d), arguments, keys and values
    (1, H, n, D), which keys the model lets each query see (n, n) bool, what the decoder adds to the layer's output
    (1, n, d) or None, and the attention kernel, on which the form of the masks depends.
    """

    hidden: torch.Tensor
    output: torch.Tensor
    kwargs: dict[str, Any]
    keys: torch.Tensor
    values: torch.Tensor
    seen: torch.Tensor
    added: torch.Tensor | None
    kernel: str


@torch.no_grad()
def record(vlm: VideoLLM, inputs: Inputs) -> list[Call]:
    """One clean pass that keeps what each layer was called with, and its keys and values; made once for `inputs`."""
    from transformers import DynamicCache

    kernel = vlm.hf.get_decoder().config._attn_implementation
    if inputs.calls and inputs.calls[0].kernel == kernel:
        return inputs.calls
    arguments: list[tuple[torch.Tensor, dict]] = []
    outputs: list[torch.Tensor] = []

    def keep(module: Any, args: tuple, kwargs: dict) -> None:
        arguments.append((args[0] if args else kwargs["hidden_states"], kwargs))

    def keep_output(module: Any, args: tuple, output: Any) -> None:
        outputs.append(output if torch.is_tensor(output) else output[0])

    modules = decoder_layers(vlm)
    handles = [m.register_forward_pre_hook(keep, with_kwargs=True) for m in (*modules, final_norm(vlm))]
    handles += [m.register_forward_hook(keep_output) for m in modules]
    cache = DynamicCache()
    try:
        decode(vlm, inputs, past_key_values=cache, use_cache=True)
    finally:
        for handle in handles:
            handle.remove()
    calls, seen = [], {}
    for i, own in enumerate(cache.layers):
        hidden, kwargs = arguments[i]
        mask, added = kwargs.get("attention_mask"), _added(outputs[i], arguments[i + 1][0])
        if id(mask) not in seen:  # layers of one kind share their mask
            seen[id(mask)] = _seen(mask, inputs)
        calls.append(Call(hidden, outputs[i], kwargs, own.keys, own.values, seen[id(mask)], added, kernel))
    inputs.calls = calls
    return calls


def recorded_states(vlm: VideoLLM, inputs: Inputs) -> Clean:
    """What `passes.clean_pass` finds, read from the record, so that a sample needs one clean pass and not two."""
    return states_of(vlm, inputs, [call.output for call in record(vlm, inputs)])


def _added(output: torch.Tensor, following: torch.Tensor) -> torch.Tensor | None:
    """What stands between a layer's output and the next one's input: some decoders add visual features there."""
    return None if following is output or torch.equal(following, output) else following - output


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
    vlm: VideoLLM,
    calls: Sequence[Call],
    row: int,
    layers: Sequence[tuple[int, ...]],
    kinds: Sequence[Hashable],
    blocked: torch.Tensor,
) -> tuple[torch.Tensor, int, int]:
    """float32 last-position logits (C, V) of conditions that change nothing before position `row`.

    `layers` (C) are the 1-based layers of each condition's window, `kinds` (C) say which edges it cuts there: `blocked`
    (K, H or 1, r, n) bool has them for each distinct kind, in order of appearance, in each query head or in all, in the
    rows from `row` on. Conditions with one past (the same kind cut in the same layers so far) are one state until they
    part: bottom-up windows share all but their tails, equal clipped windows everything. Also returns how many masks
    reached an attention module, and how many were sent.
    """
    packed = row == calls[0].seen.shape[0] - 1
    call_layer, place = _call_packed if packed else _call, {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
    hidden, states, sent, fired, seen = calls[0].hidden[:0, row:], [], 0, [], None
    for number, (module, call) in enumerate(zip(decoder_layers(vlm), calls, strict=True), start=1):
        before, states = states, [state for state in dict.fromkeys(_pasts(kinds, layers, number)) if state[1]]
        if not states:
            continue
        # A state goes on from the one with the same past, or joins here from the clean pass (place 0).
        pasts = _pasts([kind for kind, _ in states], [cut for _, cut in states], number - 1)
        places = [before.index(past) + 1 if past in before else 0 for past in pasts]
        here, count = call.hidden[:, row:], len(places) - len(before)
        if places == [*range(1, len(before) + 1), *[0] * count]:  # mostly: all go on, and new ones come last
            hidden = torch.cat([hidden.to(here.device), here.expand(count, -1, -1)]) if count else hidden  # (c, r, d)
        else:
            hidden = torch.cat([here, hidden.to(here.device)])[places]  # (c, r, d)
        if seen is not call.seen:  # mostly one for all layers
            seen, whole = call.seen, call.seen[row:].expand(1, blocked.shape[1], -1, -1)
            opened = torch.cat([seen[row:] & ~blocked, whole])  # (K + 1, H or 1, r, n), the last for no cut
        mask = opened[[place[kind] if own[-1] == number else -1 for kind, own in states]]  # (c, H or 1, r, n)
        sent += 1
        with _counted(module, fired), _last_row_only(module, number == len(calls) and not packed):
            hidden = call_layer(module, call, row, hidden, mask)
    ends = [states.index(past) for past in _pasts(kinds, layers, len(calls))]
    return unembed(vlm, hidden[ends, -1]), sum(fired), sent


def _pasts(kinds: Sequence[Hashable], layers: Sequence[tuple[int, ...]], number: int) -> list[tuple]:
    """Each condition's kind and the layers up to `number` in which it cuts; (0,) where it never cuts."""
    return [
        (kind, tuple(layer for layer in own or (0,) if layer <= number))
        for kind, own in zip(kinds, layers, strict=True)
    ]


def _call(module: Any, call: Call, row: int, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The layer on rows `row`… of c conditions as a batch: hidden (c, r, d), mask (c, H or 1, r, n)."""
    return _layer(module, call, row, hidden, mask, slice(row, None))


def _call_packed(module: Any, call: Call, row: int, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The layer on the last row of c conditions, as c queries of one sequence that see the prefix and themselves."""
    mask = mask[:, :, 0].transpose(0, 1)  # (H or 1, c, n)
    own = torch.eye(len(hidden), dtype=torch.bool, device=mask.device) & mask[..., row:]  # (H or 1, c, c)
    both = torch.cat([mask[..., :row], own], -1)[None]  # (1, H or 1, c, row + c)
    return _layer(module, call, row, hidden.transpose(0, 1), both, [row] * len(hidden)).transpose(0, 1)


def _layer(
    module: Any, call: Call, row: int, hidden: torch.Tensor, mask: torch.Tensor, rows: slice | list[int]
) -> torch.Tensor:
    n = call.seen.shape[0]
    kwargs = {name: _at_rows(name, value, rows, n) for name, value in call.kwargs.items() if name != "hidden_states"}
    kwargs["attention_mask"] = in_form_of(call.kwargs.get("attention_mask"), mask)
    out = module(hidden, **{**kwargs, "past_key_values": _Prefix(call, row), "use_cache": True})
    out = out if torch.is_tensor(out) else out[0]
    return out if call.added is None else out + call.added[:, rows]


def _at_rows(name: str, value: Any, rows: slice | list[int], n: int) -> Any:
    """A layer's argument for some of its n rows."""
    if name == "position_embeddings" and isinstance(value, tuple):
        return tuple(part[..., rows, :] for part in value)
    if name in ("position_ids", "cache_position") and value is not None:
        return value[..., rows]
    if torch.is_tensor(value) and name != "attention_mask" and n in value.shape:
        raise StudyError(f"a decoder layer takes {name!r} per position, which exact does not slice; use --mode full")
    return value


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


@contextmanager
def _last_row_only(module: Any, top: bool) -> Iterator[None]:
    """In the top layer nothing but the last row is read afterwards, so its MLP runs on that row; the sum with the
    residual stream repeats it over the others, which are then not states of the model.
    """
    if not top or not isinstance(getattr(module, "mlp", None), torch.nn.Module):
        yield
        return
    handle = module.mlp.register_forward_pre_hook(lambda mlp, args: (args[0][:, -1:], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def first_row(blocked: np.ndarray, calls: Sequence[Call] = ()) -> int:
    """First position that a cut can change (0-based): the first whose reading is cut, the last one if none is.

    Where the model of `calls` lets positions read later ones (a block of image tokens, say), it is the first that
    reads a changed one, so that no block is split.
    """
    rows = np.flatnonzero(blocked.any(1))
    row = int(rows[0]) if len(rows) else len(blocked) - 1
    masks = [call.seen for call in calls if call.kwargs.get("attention_mask") is not None]  # else it is causal
    while masks:
        reading = torch.stack([seen[:row, row:].any(1) for seen in masks]).any(0)  # (row,)
        if not reading.any():
            break
        row = int(reading.nonzero()[0])
    return row
