"""The exact engine: recompute only what a knockout can change.

    layer   rows before the first cut query row   rows from there to the last
      L     ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·    X  X  X  X    above the window: changed states, clean keys
      .     ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·    X  X  X  X
    window  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·    X  X  X  X    inside: the same, with edges cut
      .     ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·    ·  ·  ·  ·    below: the clean pass, stored once
      1     ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·    ·  ·  ·  ·

The decoder is causal, so rows before the first cut query row never change, and below a window nothing does; rows that
read each other both ways count as one. One clean pass keeps every layer's input, keys and values (`·`). Then the
unmodified decoder layers are called on the rows marked `X` alone, with the clean keys and values of the earlier rows
before theirs. All conditions walk up together, in one call a layer (`grouped.py`). Each joins at its window's first
layer, and those that have cut the same so far are one."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument.grouped import Call, Cut, Group, grouped_attention, recorded_attention, run_layer
from analysis_lib.instrument.mixers import reach_of, runs_of
from analysis_lib.instrument.passes import Clean, calls_of, seen_under, states_of
from analysis_lib.models.decoder import (
    attention_of,
    decode,
    decoder_layers,
    decoder_of,
    final_norm,
    mixer_of,
    moving_layers,
    unembed,
)
from analysis_lib.models.records import Inputs, VideoLLM


@torch.no_grad()
def record(vlm: VideoLLM, inputs: Inputs) -> list[Call]:
    """One clean pass that keeps what each layer was called with, and its keys and values; made once for `inputs`."""
    kernel = decoder_of(vlm.hf).config._attn_implementation
    if inputs.calls and inputs.calls[0].kernel == kernel:
        return inputs.calls
    layers = decoder_layers(vlm)
    if sharing := [i for i, layer in enumerate(layers, 1) if getattr(attention_of(layer), "is_kv_shared_layer", False)]:
        found = f"layers {', '.join(map(str, sharing))} read the keys of layers below, which exact does not follow"
        raise StudyError(f"{type(vlm.hf).__name__}: {found}; use --mode full")
    mixers = {i: mixer for i, layer in enumerate(layers) if (mixer := mixer_of(layer)) is not None}
    with recorded_attention(vlm) as kept, calls_of(mixers.values()) as mixed:
        with calls_of([*layers, final_norm(vlm)]) as found:
            decode(vlm, inputs)
    calls, seen = [], {}
    before = {i: states for i, (states, *_) in zip(mixers, mixed, strict=True)}
    for i, (layer, (hidden, kwargs, output), (following, *_)) in enumerate(zip(layers, found, found[1:], strict=False)):
        attention = attention_of(layer)
        mask = None if attention is None else kwargs.get("attention_mask")
        if id(mask) not in seen:  # layers of one kind share their mask
            seen[id(mask)] = seen_under(mask, inputs.embeds)[0, 0]
        same = following is output or torch.equal(following, output)
        added = None if same else following - output  # some decoders add visual features between layers
        keys, values = kept.get(id(attention), (None, None))
        calls.append(Call(hidden, output, kwargs, keys, values, seen[id(mask)], added, kernel, before.get(i)))
    inputs.calls = calls
    return calls


def recorded_states(vlm: VideoLLM, inputs: Inputs) -> Clean:
    """What `passes.clean_pass` finds, read from the record, so that a sample needs one clean pass and not two."""
    return states_of(vlm, inputs, [call.output for call in record(vlm, inputs)])


@torch.no_grad()
def staggered(
    vlm: VideoLLM, calls: list[Call], rows: list[int], layers: list[tuple[int, ...]], kinds: Sequence, blocked: Mapping
) -> tuple[torch.Tensor, int, int]:
    """float32 last-position logits (C, V) of conditions that change nothing before their position in `rows` (C).

    `layers` (C) are those of each condition's window, `kinds` (C) say which edges it cuts there: `blocked` maps each to
    (H or 1, n - row, n) bool, True = cut, in each query head or in all. Conditions of a kind share their row; those
    with one past (the same kind cut in the same layers so far) are one state until they part: bottom-up windows share
    all but their tails, equal clipped windows everything. Also returns in how many layers masks reached the attention
    kernel, and in how many they should have."""
    of = {row: [i for i, own in enumerate(rows) if own == row] for row in sorted(set(rows))}
    cut, plans, ends = {}, {}, {}
    for row, here in of.items():
        own = {kind: k for k, kind in enumerate(dict.fromkeys(kinds[i] for i in here))}
        cut[row] = torch.stack([blocked[kind] for kind in own])  # (K, H or 1, r, n)
        windows = tuple(tuple(layers[i]) or (0,) for i in here)
        plans[row], ends[row] = _plan(tuple(own[kinds[i]] for i in here), windows, len(calls))
    hidden, sent, fired, seen, runs, moving = {}, 0, [], None, {}, moving_layers(vlm)
    with grouped_attention(vlm):
        for number, (module, call) in enumerate(zip(decoder_layers(vlm), calls, strict=True), start=1):
            if seen is not call.seen:  # mostly one for all layers
                seen = call.seen  # what rows from `row` on see under each cut and, last, under none (K + 1, …, r, n):
                below = {row: seen[row:].expand(1, table.shape[1], -1, -1) for row, table in cut.items()}
                opened = {row: torch.cat([seen[row:] & ~table, below[row]]) for row, table in cut.items()}
            if call.mixed is not None and not runs:  # what each kind's mixers run without; the last kind cuts nothing
                reach = reach_of(mixer_of(module))
                runs = {r: [*(runs_of(t[0].cpu().numpy(), reach) for t in table), []] for r, table in cut.items()}
            groups, pieces = [], []
            for row, plan in plans.items():
                origins, cuts = plan[number - 1]
                if origins:
                    groups.append(Group(row, opened[row].index_select(0, cuts.to(seen.device))))
                    groups[-1].runs = [runs[row][cut] for cut in cuts] if runs else []
                    clean = call.hidden[:, row:]  # (1, r, d)
                    pieces += _going_on(hidden.get(row, clean[:0]).to(clean.device), origins, clean[0])
            if not groups:
                continue
            sent += number in moving
            flat = torch.cat(pieces)[None]
            flat = run_layer(module, flat, Cut(call, groups, fired, top=number == len(calls)))  # (1, sum of c * r, d)
            parts = flat[0].split([group.size for group in groups])
            hidden = {group.row: part.unflatten(0, group.shape) for group, part in zip(groups, parts, strict=True)}
    last = torch.cat([hidden[row][end, -1] for row, end in ends.items()])  # (C, d), by row
    order = np.argsort([i for here in of.values() for i in here])
    return unembed(vlm, last[order]), sum(fired), sent


@lru_cache(maxsize=64)  # the same for every sample
def _plan(kinds: tuple[int, ...], layers: tuple[tuple[int, ...], ...], depth: int) -> tuple[list[tuple], list[int]]:
    """What conditions of these kinds, cut in these layers, share. A state is a kind and the layers so far in which it
    was cut; layer 0 stands for a condition that never cuts.

    For each layer, of each state there, the state below from which it goes on (None: it joins here, from the clean
    pass), and the kind that it cuts (the number of kinds: none); and for each condition its state at the top."""
    steps, places, none = [], {}, len(set(kinds))
    for number in range(1, depth + 1):
        states = [(kind, own[: bisect_right(own, number)]) for kind, own in zip(kinds, layers, strict=True)]
        now = [state for state in dict.fromkeys(states) if state[1]]
        cuts = torch.tensor([kind if past[-1] == number else none for kind, past in now], dtype=torch.long)
        before = [(kind, past[:-1] if past[-1] == number else past) for kind, past in now]
        steps.append(([places.get(state) for state in before], cuts))
        places = {state: i for i, state in enumerate(now)}
    return steps, [places[state] for state in states]


def _going_on(hidden: torch.Tensor, origins: list[int | None], clean: torch.Tensor) -> list[torch.Tensor]:
    """Each state's input (r, d), or that of several, `hidden` (c, r, d), as (c * r, d)."""
    new = [clean] * (len(origins) - len(hidden))
    if origins == [*range(len(hidden)), *[None] * len(new)]:  # mostly: all go on, and new ones come last
        return [hidden.flatten(0, 1), *new]
    return [clean if place is None else hidden[place] for place in origins]


def first_row(blocked: np.ndarray, calls: Sequence[Call] = ()) -> int:
    """First position that a cut can change (0-based): the first whose reading is cut, the last one if none is.

    Where the model of `calls` lets positions read later ones (a block of image tokens, say), it is the first that
    reads a changed one, so that no block is split."""
    rows = np.flatnonzero(blocked.any(1))
    row = int(rows[0]) if len(rows) else len(blocked) - 1
    masks = [call.seen for call in calls if call.kwargs.get("attention_mask") is not None]  # else it is causal
    while masks and (reading := torch.stack([seen[:row, row:].any(1) for seen in masks]).any(0)).any():  # (row,)
        row = int(reading.nonzero()[0])
    return row
