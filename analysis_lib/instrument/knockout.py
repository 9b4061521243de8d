"""Knockouts of one sample: many conditions, one set of logits each, and a receipt.

Attention knockout (Geva et al. 2023; the paper's section 3): a condition cuts an edge set in the layers of a window,
and the last position is read out. Two modes give the same numbers. `exact` recomputes only the rows and layers that a
condition can change (`exact.py`). `full` makes one complete pass per condition; every receipt repeats one condition in
this way. Conditions run in batches; different samples never share one, so nothing is padded."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument.edges import Window
from analysis_lib.instrument.exact import first_row, record, staggered
from analysis_lib.instrument.passes import masked_logits
from analysis_lib.instrument.receipts import Receipt, fully_blocked_rows, measure
from analysis_lib.models.decoder import (
    attention_of,
    decoder_layers,
    decoder_of,
    inner_width,
    moving_layers,
    output_head,
)
from analysis_lib.models.records import Inputs, VideoLLM

CACHE, MOST = 16 << 20, 8 << 30  # bytes for one batch: on a CPU, and the most on a GPU
Found = Iterator[tuple[list[int], torch.Tensor, int, int]]  # conditions, their logits, masks applied, masks sent


@dataclass(frozen=True)
class Condition:
    """Edges that are cut in the layers of a window."""

    edge_set: str
    window: Window
    blocked: np.ndarray  # (n, n) bool [query, key]
    heads: tuple[int, ...] = ()  # query heads in which they are cut, 1-based; none named: in all


def knockout_logits(
    vlm: VideoLLM, inputs: Inputs, conditions: Sequence[Condition], *, mode: str = "exact", batch: int | None = None
) -> tuple[torch.Tensor, Receipt]:
    """float32 last-position logits (C, V) of each condition, in order, and the receipt; `batch` conditions at a time
    (None: as many as fit a fixed memory). Raises StudyError for an unknown mode, conditions that do not fit the prompt
    or the model, or a receipt that fails."""
    if mode not in MODES:
        raise StudyError(f"unknown mode {mode!r}; known: {', '.join(MODES)}")
    _check_conditions(vlm, inputs, conditions)
    if not conditions:
        return torch.empty(0, output_head(vlm).out_features), Receipt()
    rows, distinct = {}, _distinct(conditions)
    full = {key: fully_blocked_rows(blocked, inputs.roles.ahead) for key, blocked in distinct.items()}
    full_rows = sum(full[id(condition.blocked)] for condition in conditions if condition.window.layers)
    receipt = Receipt(conditions=len(conditions), fully_blocked_rows=full_rows)
    for chunk, found, fired, sent in MODES[mode](vlm, inputs, conditions, batch):
        receipt = receipt.merge(Receipt(fired=fired, expected=sent))
        rows.update(zip(chunk, found.expand(len(chunk), -1), strict=True))  # one row if the chunk cuts nothing
    logits = torch.stack([rows[i] for i in range(len(conditions))])
    pick = sum(inputs.input_ids) % len(conditions)  # another one from sample to sample, the same in every run
    alone = measure(vlm, inputs, _layer_masks(vlm, [conditions[pick]]), logits[pick])
    return logits, receipt.merge(alone).check(vlm.dtype)


def _full(vlm: VideoLLM, inputs: Inputs, conditions: Sequence[Condition], batch: int | None) -> Found:
    """A complete pass for each condition."""

    def run(chunk: list[int]) -> tuple[torch.Tensor, int, int]:
        masks = _layer_masks(vlm, [conditions[i] for i in chunk])
        return *masked_logits(vlm, inputs, masks), len(masks)

    return _in_batches(vlm, dict.fromkeys(range(len(conditions)), inputs.n), inputs.n, batch, run)


def _exact(vlm: VideoLLM, inputs: Inputs, conditions: Sequence[Condition], batch: int | None) -> Found:
    """Changed rows only; all walk up the layers together, by first changed row, then by first layer."""
    calls, distinct = record(vlm, inputs), _distinct(conditions)
    edges = {key: torch.tensor(blocked, device=vlm.device) for key, blocked in distinct.items()}  # (n, n) each
    rows = {key: first_row(blocked, calls) for key, blocked in distinct.items()}
    shared = _shared_rows(sorted(set(rows.values())), inputs.n)
    first = [shared[rows[id(condition.blocked)]] for condition in conditions]

    def run(chunk: list[int]) -> tuple[torch.Tensor, int, int]:
        kinds = [(id(conditions[i].blocked), conditions[i].heads) for i in chunk]
        once = dict(zip(kinds, chunk, strict=True))  # one condition of each kind
        heads = _in_heads(vlm, [conditions[i] for i in once.values()])  # (K, H or 1, 1, 1)
        blocked = {kind: edges[kind[0]][first[once[kind]] :] & cut for kind, cut in zip(once, heads, strict=True)}
        layers = [conditions[i].window.layers for i in chunk]
        return staggered(vlm, calls, [first[i] for i in chunk], layers, kinds, blocked)

    order = sorted(range(len(conditions)), key=lambda i: (first[i], conditions[i].window.first))
    return _in_batches(vlm, {i: inputs.n - first[i] for i in order}, inputs.n, batch, run)


def _shared_rows(rows: Sequence[int], n: int) -> dict[int, int]:
    """For each of the ascending rows of n the row to start at: one above it, where that adds a tenth at most. The last
    row stays alone, since its conditions are packed."""
    shared, start = {}, -inf  # none above the first
    for row in rows:
        if 10 * (n - start) > 11 * (n - row) or row == n - 1:
            start = row
        shared[row] = start
    return shared


MODES = {"exact": _exact, "full": _full}


def _check_conditions(vlm: VideoLLM, inputs: Inputs, conditions: Sequence[Condition]) -> None:
    depth = len(decoder_layers(vlm))
    for blocked in _distinct(conditions).values():
        if blocked.shape != (inputs.n, inputs.n) or (np.triu(blocked, 1) & ~np.asarray(inputs.roles.ahead)).any():
            wanted = f"({inputs.n}, {inputs.n}) with key <= query, or later keys that the model's mask opens"
            raise StudyError(f"blocked edges must be {wanted}; got {blocked.shape}")
    for condition in conditions:
        if any(not 1 <= layer <= depth for layer in condition.window.layers):
            raise StudyError(f"window {condition.window.layers} does not fit a model of {depth} layers")
        if condition.heads and (without := sorted(set(condition.window.layers) - set(attention_layers(vlm)))):
            raise StudyError(f"layers {', '.join(map(str, without))} have no query heads; cut all of them, or others")
        if any(not 1 <= head <= query_heads(vlm) for head in condition.heads):
            raise StudyError(f"heads {condition.heads} do not fit a model of {query_heads(vlm)} heads")


def attention_layers(vlm: VideoLLM) -> tuple[int, ...]:
    """The layers with softmax attention, counted from 1: those in which single heads can be cut."""
    return tuple(i for i, layer in enumerate(decoder_layers(vlm), start=1) if attention_of(layer) is not None)


def query_heads(vlm: VideoLLM) -> int:
    """Number of query heads in each decoder layer."""
    return decoder_of(vlm.hf).config.num_attention_heads


def _in_heads(vlm: VideoLLM, conditions: Sequence[Condition]) -> torch.Tensor:
    """(c, H, 1, 1) bool, the query heads that each condition cuts; (c, 1, 1, 1) if all of them cut in all heads."""
    every = range(1, query_heads(vlm) + 1) if any(condition.heads for condition in conditions) else (1,)
    cut = [[head in (condition.heads or every) for head in every] for condition in conditions]
    return torch.tensor(cut, device=vlm.device)[..., None, None]


def _layer_masks(vlm: VideoLLM, conditions: Sequence[Condition]) -> dict[int, torch.Tensor]:
    """Masks (c, H or 1, n, n) for each layer in which some condition cuts and which holds edges."""
    edges = torch.from_numpy(np.stack([condition.blocked for condition in conditions])[:, None]).to(vlm.device)
    heads, layers = _in_heads(vlm, conditions), [condition.window.layers for condition in conditions]
    found = [layer for layer in moving_layers(vlm) if any(layer in own for own in layers)]
    here = {layer: torch.tensor([layer in own for own in layers]) for layer in found}  # (c,)
    return {layer: edges & (heads & cut.to(vlm.device)[:, None, None, None]) for layer, cut in here.items()}


def _distinct(conditions: Sequence[Condition]) -> dict[int, np.ndarray]:
    """The arrays in use; conditions of one edge set share theirs."""
    return {id(condition.blocked): condition.blocked for condition in conditions}


def _in_batches(vlm: VideoLLM, rows: dict[int, int], n: int, batch: int | None, run: Callable) -> Found:
    """What `run` finds for `batch` conditions at a time, or as many as fit; half as many from where the GPU's memory
    does not suffice. `rows` says how many of n rows each condition recomputes."""
    rest, room = list(rows), batch or _room(vlm)
    cost = {count: 1 if batch else _bytes(vlm, count, n) for count in set(rows.values())}
    while rest:
        need = np.cumsum([cost[rows[i]] for i in rest])
        chunk = rest[: max(1, int((need <= room).sum()))]
        try:
            found = run(chunk)
        except torch.OutOfMemoryError as error:
            if len(chunk) == 1:
                raise StudyError("not even one condition fits into the GPU's memory; use another device") from error
            room = need[len(chunk) // 2 - 1]
            torch.cuda.empty_cache()
            warnings.warn("out of GPU memory: from here on batches are smaller", stacklevel=2)
            continue
        rest = rest[len(chunk) :]
        yield chunk, *found


def _room(vlm: VideoLLM) -> int:
    """Bytes for one batch: what a CPU's cache holds; on a GPU half of what is free, up to what keeps it busy."""
    return CACHE if vlm.device.type != "cuda" else min(torch.cuda.mem_get_info(vlm.device)[0] // 2, MOST)


def _bytes(vlm: VideoLLM, rows: int, n: int) -> int:
    """What a condition that recomputes `rows` of n rows needs: on a CPU the widest activation, on a GPU a layer's
    activations, keys, values and masks."""
    inner, width, size = inner_width(vlm), decoder_of(vlm.hf).config.hidden_size, vlm.dtype.itemsize
    if vlm.device.type == "cpu":
        return size * rows * inner
    return size * rows * (3 * inner + 6 * width) + size * n * 4 * width + rows * n * 5
