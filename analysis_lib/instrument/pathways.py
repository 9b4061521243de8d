"""Effective pathways: suppress every edge outside the named routes, and see whether the answers stay.

A pathway says in which layers each of three routes is open: cross-frame, video -> question, question -> last.
Everything else that the paper closes (section 3.5) follows from that: video -> last and last -> last everywhere, all
edges among video tokens above the last open video -> question layer, all edges within the question above the last open
question -> last layer. These rules leave template tokens alone: these read the video and are read by the last
position, a route around the pathway. `leak_report` finds such routes: information moves from key to query, one edge a
layer, and stays where it is in between. The strict variant closes them by giving all text after the first video token
the question's limits. Controls remove as many edges at random. Suppressed edges are not saved time: `flops_kept` counts
what a forward pass would still have to compute, which is far more than the share of edges that stays open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import ceil

import numpy as np
import pandas as pd
import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument.edges import ROUTES, blocked_edges
from analysis_lib.instrument.passes import masked_logits
from analysis_lib.instrument.receipts import Receipt, fully_blocked_rows, measure
from analysis_lib.models.decoder import attention_of, decoder_layers, decoder_of, inner_width, mixer_of, moving_layers
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.models.roles import Roles

Masks = Sequence[np.ndarray]  # one (n, n) bool [query, key] per layer, True = cut
STOPS = ("frame_text", "after_video", "question_block", "tail")  # where information can pause between video and last


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


def pathway_ranges(n_layers: int, family: str = "llava", *, given: Mapping[str, Sequence[int]] | None = None) -> Ranges:
    """Open layers: `given` ones ({"cross_frame": (first, last), …}, 1-based), else published ones, else LLaVA's scaled
    to the depth. Raises StudyError if given ranges lack a route or leave the model."""
    spans = given or PUBLISHED.get((family, n_layers))
    if spans is None:
        share, known = n_layers / 32, PUBLISHED["llava", 32].items()
        spans = {name: (round((first - 1) * share) + 1, ceil(last * share)) for name, (first, last) in known}
    for name in ROUTES:
        if name not in spans or not 1 <= spans[name][0] <= spans[name][1] <= n_layers:
            raise StudyError(f"pathway range {name}={spans.get(name)} must be (first, last) within 1 to {n_layers}")
    return Ranges(**{name: tuple(range(spans[name][0], spans[name][1] + 1)) for name in ROUTES})


def effective_pathway(roles: Roles, n_layers: int, ranges: Ranges, *, strict: bool = False) -> Masks:
    """The pathway's cut edges in each layer. `strict` gives all text that may read a video token (in most models, all
    after the first), up to but without the last position, the question's limits."""
    readable = roles.readable
    video, last, question = (_member(roles, name) for name in ("video", "last", "question_block"))
    if strict:
        question = _member(roles, "text") & (readable & video).any(1) & ~last
    integrated, answered = (max(layers, default=0) for layers in (ranges.video_question, ranges.question_last))
    rules = [  # edges, and the layers in which they are open
        (last[:, None] & (video | last), ()),
        (blocked_edges("cross-frame", roles), ranges.cross_frame),
        (question[:, None] & video, ranges.video_question),
        (last[:, None] & question, ranges.question_last),
        (video[:, None] & video, range(1, integrated + 1)),
        (question[:, None] & question, range(1, answered + 1)),
    ]
    layers = range(1, n_layers + 1)
    return [readable & np.any([edges for edges, opened in rules if layer not in opened], axis=0) for layer in layers]


def random_control(roles: Roles, masks: Masks, *, seed: int | Sequence[int]) -> Masks:
    """As many edges as `masks` cut, drawn at random, as published: the same number in every layer, a new draw in each,
    from all edges between positions that are not before the video."""
    begun = np.cumsum(roles.frame_of) > 0
    pool = np.flatnonzero(roles.readable & begun[:, None] & begun)
    total = sum(int(mask.sum()) for mask in masks)
    if (most := ceil(total / len(masks))) > len(pool):
        known = f"only {len(pool)} are not before the video"
        raise StudyError(f"a random control must cut {most} edges a layer, but {known}")
    return _drawn([(pool, total)], masks, seed)


def matched_control(roles: Roles, masks: Masks, *, seed: int | Sequence[int]) -> Masks:
    """As many edges as `masks` cut in each group of edges, but spread evenly over the layers, drawn at random in each.

    Groups are pairs of roles (cross-frame, within a frame, video -> question, question -> last, …). What the pathway
    never touches stays untouched, so a difference to the pathway speaks of which layers, not of how much or what kind.
    """
    groups = _edge_groups(roles)
    pools = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    return _drawn([(pool, sum(int(mask.ravel()[pool].sum()) for mask in masks)) for pool in pools], masks, seed)


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


def _drawn(pools: Sequence[tuple[np.ndarray, int]], masks: Masks, seed: int | Sequence[int]) -> Masks:
    """Masks like `masks`, with so many edges of each pool of flat indices, divided evenly among the layers."""
    drawn, rng = [np.zeros(mask.size, bool) for mask in masks], np.random.default_rng(seed)
    for i, cut in enumerate(drawn):
        for pool, total in pools:
            count = total // len(masks) + (i < total % len(masks))
            cut[rng.permutation(pool)[:count]] = True
    return [cut.reshape(mask.shape) for cut, mask in zip(drawn, masks, strict=True)]


def _edge_groups(roles: Roles) -> np.ndarray:
    """(n, n) int, which group an edge belongs to; -1 where there is none."""
    kinds = ("system", "video", "frame_text", "question_block", "tail", "last")
    kind = sum(i * _member(roles, name) for i, name in enumerate(kinds))  # (n,)
    groups = kind[:, None] * len(kinds) + kind
    groups[blocked_edges("cross-frame", roles)] = len(kinds) ** 2
    return np.where(roles.readable, groups, -1)


def run_pathways(
    vlm: VideoLLM, inputs: Inputs, pathways: Mapping[str, Masks]
) -> tuple[dict[str, torch.Tensor], Receipt]:
    """float32 last-position logits (V,) by name, all in one batch, and the receipt (one of them is measured). Raises
    StudyError if masks do not fit the model and the prompt, or if the receipt fails."""
    depth = len(decoder_layers(vlm))
    for name, masks in pathways.items():
        if len(masks) != depth or any(mask.shape != (inputs.n, inputs.n) for mask in masks):
            raise StudyError(f"pathway {name!r} must have {depth} masks of ({inputs.n}, {inputs.n})")
    stacked = {  # of masks (P, 1, n, n)
        layer: torch.from_numpy(np.stack([masks[layer - 1] for masks in pathways.values()])[:, None]).to(vlm.device)
        for layer in moving_layers(vlm)
    }
    logits, fired = masked_logits(vlm, inputs, stacked)
    full = sum(fully_blocked_rows(mask, inputs.roles.ahead) for mask in chain.from_iterable(pathways.values()))
    receipt = Receipt(fired=fired, expected=len(stacked), fully_blocked_rows=full, conditions=len(pathways))
    pick = sum(inputs.input_ids) % len(pathways)
    alone = measure(vlm, inputs, {layer: mask[[pick]] for layer, mask in stacked.items()}, logits[pick])
    return dict(zip(pathways, logits, strict=True)), receipt.merge(alone).check(vlm.dtype)


def edges_kept(masks: Masks, readable: np.ndarray) -> tuple[int, int]:
    """Edges left open and all edges, each summed over layers (not heads); `readable` (n, n) bool as in `Roles`."""
    total = len(masks) * int(readable.sum())
    return total - sum(int(mask.sum()) for mask in masks), total


def leak_report(roles: Roles, masks: Masks, *, named: Sequence[str] = ("question_block",)) -> pd.DataFrame:
    """Every route from video to the last position, by the roles it stops at: `route`, `named`, `open`, and `arrives`,
    the 1-based layer in which video first reaches the last position that way, 0 if never.

    A route is named if all its stops are in `named`; an open one that is not is a leak. For a strict pathway, which
    puts all stops under the question's limits, pass `named=STOPS`."""
    stops = [stop for stop in STOPS if len(roles.positions(stop))]
    rows = []
    for chosen in chain.from_iterable(combinations(stops, count) for count in range(len(stops) + 1)):
        arrives = _arrival(roles, masks, chosen)
        route = " -> ".join(("video", *chosen, "last"))
        rows.append((route, bool(chosen) and set(chosen) <= set(named), arrives > 0, arrives))
    return pd.DataFrame(rows, columns=["route", "named", "open", "arrives"])


def _arrival(roles: Roles, masks: Masks, stops: Sequence[str]) -> int:
    """The layer in which video, going through all of `stops` in turn, first reaches the last position; 0 if never."""
    groups, readable = [roles.positions(stop) for stop in (*stops, "last")], roles.readable
    reached = [roles.positions("video"), *(np.empty(0, int) for _ in groups)]
    for layer, cut in enumerate(masks, start=1):
        before = list(reached)
        for i, group in enumerate(groups, start=1):
            sources = np.concatenate(before[i - 1 : i + 1])  # from the stop before, or spreading inside this one
            at = np.ix_(group, sources)
            open_edges = readable[at] & ~cut[at]
            reached[i] = np.union1d(before[i], group[open_edges.any(1)])
        if len(reached[-1]):
            return layer
    return 0


def live_rows(masks: Masks, readable: np.ndarray) -> list[np.ndarray]:
    """Positions whose state the last position's answer needs: L + 1 arrays (n,) bool, below layer 1, above it, ….
    `readable` (n, n) bool as in `Roles`."""
    live = [np.arange(len(readable)) == len(readable) - 1]
    for cut in reversed(masks):  # a position is needed if one that is needed above reads it
        live.append(live[-1] | (readable & ~cut)[live[-1]].any(0))
    return live[::-1]


def flops_kept(vlm: VideoLLM, masks: Masks, readable: np.ndarray) -> float:
    """Share (0..1) of the multiplications of a dense pass (all rows, all edges) that an exact one still needs;
    `readable` (n, n) bool as in `Roles`.

    Counted are the decoder's linear maps (keys and values for every row that a live row may read, the rest for live
    rows) and two products per open edge of a live row; embedding, norms, vision tower and head are not. A layer with a
    recurrence has no products per edge, and all its mixer's maps count for every row that is read."""
    config = decoder_of(vlm.hf).config
    width, heads = config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or width // heads
    per_row = width * (2 * heads * head + 3 * inner_width(vlm))  # query and output maps, gated feed-forward
    per_key_row = width * 2 * (config.num_key_value_heads or heads) * head
    attending, feed_forward = (per_row, per_key_row, 2 * heads * head), width * 3 * inner_width(vlm)
    n, live, spent, dense = len(readable), live_rows(masks, readable), 0, 0
    for layer, below, above, cut in zip(decoder_layers(vlm), live, live[1:], masks, strict=False):
        row, key_row, edge = attending if attention_of(layer) is not None else _mixing(layer, feed_forward)
        spent += row * above.sum() + key_row * below.sum() + edge * (readable & ~cut)[above].sum()
        dense += n * (row + key_row) + edge * int(readable.sum())
    return float(spent / dense)


def _mixing(layer: torch.nn.Module, feed_forward: int) -> tuple[int, int, int]:
    """The same three costs of a layer without softmax attention."""
    mixer = mixer_of(layer)
    maps = [] if mixer is None else [weight.numel() for weight in mixer.parameters() if weight.ndim == 2]
    return feed_forward, sum(maps), 0
