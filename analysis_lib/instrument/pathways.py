"""Effective pathways: suppress every edge outside the named routes, and see whether the answers stay.

A pathway says in which layers each of three routes is open: cross-frame, video -> question, question -> last.
Everything else that the paper closes (section 3.5) follows from that: video -> last and last -> last everywhere, all
edges among video tokens above the last open video -> question layer, all edges within the question above the last open
question -> last layer. These rules leave template tokens alone: these read the video and are read by the last
position, a route around the pathway. `leak_report` finds such routes, and the strict variant closes them by giving all
text after the first video token the question's limits. Controls remove as many edges at random. Suppressed edges are
not saved time: `flops_kept` counts what a forward pass would still have to compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument.edges import ROUTES, blocked_edges
from analysis_lib.instrument.passes import masked_logits
from analysis_lib.instrument.receipts import Receipt, measure
from analysis_lib.instrument.routes import STOPS, flops_kept, leak_report
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.models.roles import Roles

__all__ = [
    "PUBLISHED", "STOPS", "Ranges", "all_pathways", "edges_kept", "effective_pathway", "flops_kept", "leak_report",
    "matched_control", "pathway_ranges", "random_control", "run_pathway", "run_pathways",
]  # fmt: skip

Masks = list[np.ndarray]  # one (n, n) bool [query, key] per layer, True = cut


# ---- in which layers the routes are open ----


@dataclass(frozen=True)
class Ranges:
    """1-based layers in which each named route is open."""

    cross_frame: tuple[int, ...]
    video_question: tuple[int, ...]
    question_last: tuple[int, ...]


# First and last open layer (paper, table E), by `model_type` and depth.
PUBLISHED = {
    ("llava", 32): {"cross_frame": (6, 15), "video_question": (6, 20), "question_last": (16, 25)},
    ("llava", 40): {"cross_frame": (6, 15), "video_question": (6, 20), "question_last": (16, 30)},
    ("internvl", 32): {"cross_frame": (6, 15), "video_question": (6, 20), "question_last": (11, 30)},
    ("video_llama_3", 28): {"cross_frame": (1, 15), "video_question": (6, 20), "question_last": (21, 28)},
}


def pathway_ranges(
    n_layers: int, family: str = "llava", *, given: Mapping[str, tuple[int, int]] | None = None
) -> Ranges:
    """Open layers: `given` ones ({"cross_frame": (first, last), …}, 1-based), else published ones, else these scaled
    to the depth.

    Raises StudyError if given ranges lack a route or leave the model.
    """
    spans = given or PUBLISHED.get((family, n_layers))
    if spans is None:
        share = n_layers / 32
        scaled = PUBLISHED["llava", 32].items()
        spans = {name: (round((first - 1) * share) + 1, ceil(last * share)) for name, (first, last) in scaled}
    for name in ROUTES:
        if name not in spans or not 1 <= spans[name][0] <= spans[name][1] <= n_layers:
            raise StudyError(f"pathway range {name}={spans.get(name)} must be (first, last) within 1 to {n_layers}")
    return Ranges(**{name: tuple(range(spans[name][0], spans[name][1] + 1)) for name in ROUTES})


# ---- masks ----


def effective_pathway(roles: Roles, n_layers: int, ranges: Ranges, *, strict: bool = False) -> Masks:
    """The pathway's cut edges in each layer.

    `strict` gives all text after the first video token, up to but without the last position, the question's limits.
    """
    causal = np.tri(len(roles.names), dtype=bool)
    video, last, question = (_member(roles, name) for name in ("video", "last", "question_block"))
    if strict:
        question = _member(roles, "text") & (np.cumsum(video) > 0) & ~last

    def block(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
        return causal & queries[:, None] & keys[None, :]

    always = block(last, last) | block(last, video)
    masks = []
    for layer in range(1, n_layers + 1):
        cut = always.copy()
        if layer not in ranges.cross_frame:
            cut |= blocked_edges("cross-frame", roles)
        if layer not in ranges.video_question:
            cut |= block(question, video)
        if layer not in ranges.question_last:
            cut |= block(last, question)
        if layer > max(ranges.video_question, default=0):
            cut |= block(video, video)
        if layer > max(ranges.question_last, default=0):
            cut |= block(question, question)
        masks.append(cut)
    return masks


def random_control(roles: Roles, masks: Masks, *, seed: int | Sequence[int]) -> Masks:
    """As many edges as `masks` cut, drawn at random, as published: the same number in every layer, a new draw in each,
    from all edges between positions that are not before the video."""
    n, rng = len(roles.names), np.random.default_rng(seed)
    queries, keys = np.nonzero(np.tri(n, dtype=bool))
    inside = keys >= roles.positions("video")[0]
    pool = queries[inside] * n + keys[inside]  # flat indices of edges
    counts = _spread(sum(int(mask.sum()) for mask in masks), len(masks))
    if max(counts) > len(pool):
        raise StudyError(
            f"a random control must cut {max(counts)} edges a layer, but only {len(pool)} are not before the video"
        )
    return [_draw(n, [(pool, count)], rng) for count in counts]


def matched_control(roles: Roles, masks: Masks, *, seed: int | Sequence[int]) -> Masks:
    """As many edges as `masks` cut in each group of edges, but spread evenly over the layers and drawn at random
    within the group.

    Groups are pairs of roles (cross-frame, within a frame, video -> question, question -> last, …). What the pathway
    never touches stays untouched, so a difference to the pathway speaks of which layers, not of how much or what kind.
    """
    n, rng = len(roles.names), np.random.default_rng(seed)
    groups = _edge_groups(roles)  # (n, n) int, -1 above the diagonal
    pools = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    cut = [sum(int(m.ravel()[pool].sum()) for m in masks) for pool in pools]
    counts = [_spread(total, len(masks)) for total in cut]
    return [
        _draw(n, [(pool, count[i]) for pool, count in zip(pools, counts, strict=True)], rng) for i in range(len(masks))
    ]


def all_pathways(roles: Roles, n_layers: int, ranges: Ranges, *, seed: int | Sequence[int]) -> dict[str, Masks]:
    """The pathway, its strict variant, and three controls, by name."""
    effective = effective_pathway(roles, n_layers, ranges)
    return {
        "effective": effective,
        "strict": effective_pathway(roles, n_layers, ranges, strict=True),
        "random": random_control(roles, effective, seed=seed),
        "random_matched": matched_control(roles, effective, seed=seed),
        "all_cross_frame_off": [blocked_edges("cross-frame", roles)] * n_layers,
    }


def _member(roles: Roles, which: str) -> np.ndarray:
    return np.isin(np.arange(len(roles.names)), roles.positions(which))


def _spread(total: int, layers: int) -> list[int]:
    return [total // layers + (i < total % layers) for i in range(layers)]


def _draw(n: int, pools: Sequence[tuple[np.ndarray, int]], rng: np.random.Generator) -> np.ndarray:
    cut = np.zeros(n * n, bool)
    for pool, count in pools:
        cut[rng.permutation(pool)[:count]] = True
    return cut.reshape(n, n)


def _edge_groups(roles: Roles) -> np.ndarray:
    kinds = ("system", "video", "frame_text", "question_block", "tail", "last")
    kind = sum(i * _member(roles, name) for i, name in enumerate(kinds))  # (n,)
    groups = kind[:, None] * len(kinds) + kind[None, :]
    groups[blocked_edges("cross-frame", roles)] = len(kinds) ** 2
    return np.where(np.tri(len(kind), dtype=bool), groups, -1)


# ---- running them ----


def edges_kept(masks: Masks) -> tuple[int, int]:
    """Edges left open and all causal edges, each summed over layers (not heads)."""
    n = len(masks[0])
    total = len(masks) * n * (n + 1) // 2
    return total - sum(int(mask.sum()) for mask in masks), total


def run_pathways(
    vlm: VideoLLM, inputs: Inputs, pathways: Mapping[str, Masks]
) -> tuple[dict[str, torch.Tensor], Receipt]:
    """float32 last-position logits (V,) by name, all in one batch, and the receipt (one of them is measured).

    Raises StudyError if masks do not fit the model and the prompt, or if the receipt fails.
    """
    depth = len(decoder_layers(vlm))
    for name, masks in pathways.items():
        if len(masks) != depth or any(mask.shape != (inputs.n, inputs.n) for mask in masks):
            raise StudyError(f"pathway {name!r} must have {depth} masks of ({inputs.n}, {inputs.n})")
    stacked = {
        layer: torch.from_numpy(np.stack([masks[layer - 1] for masks in pathways.values()])[:, None]).to(vlm.device)
        for layer in range(1, depth + 1)
    }  # (P, 1, n, n) each
    logits, fired = masked_logits(vlm, inputs, stacked)
    open_rows = np.arange(1, inputs.n + 1)
    full = sum(int((mask.sum(1) == open_rows).sum()) for masks in pathways.values() for mask in masks)
    receipt = Receipt(fired=fired, expected=depth, fully_blocked_rows=full, conditions=len(pathways))
    pick = sum(inputs.input_ids) % len(pathways)
    alone = {layer: mask[pick : pick + 1] for layer, mask in stacked.items()}
    receipt = receipt.merge(measure(vlm, inputs, alone, logits[pick])).check(vlm.dtype)
    return dict(zip(pathways, logits, strict=True)), receipt


def run_pathway(vlm: VideoLLM, inputs: Inputs, masks: Masks) -> tuple[torch.Tensor, Receipt]:
    """float32 last-position logits (V,) of one pathway, and its receipt."""
    logits, receipt = run_pathways(vlm, inputs, {"pathway": masks})
    return logits["pathway"], receipt
