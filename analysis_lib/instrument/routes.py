"""What a set of cut edges leaves open, and what it would save.

Open routes: information moves from key to query, one edge a layer, and stays where it is in between. So whether video
can still reach the last position, and through which roles, is reachability over the layers' open edges. Savings: a
position needs computing in a layer only if some position that is needed above reads it. Walking down from the last
position gives the live rows of each layer; all others could be dropped without changing the answer. This counts what
suppression really saves, which is far less than the share of edges that it closes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from analysis_lib.models.records import VideoLLM
from analysis_lib.models.roles import Roles

STOPS = ("frame_text", "after_video", "question_block", "tail")  # where information can pause between video and last


def leak_report(
    roles: Roles, masks: Sequence[np.ndarray], *, named: Sequence[str] = ("question_block",)
) -> pd.DataFrame:
    """Every route from video to the last position, by the roles it stops at: `route`, `named`, `open`, `arrives`.

    `masks` has one (n, n) bool [query, key] array a layer, True = cut. `arrives` is the 1-based layer in which video
    first reaches the last position that way, 0 if never. A route is named if all its stops are in `named`; an open
    route that is not is a leak. For a strict pathway, which puts all stops under the question's limits, pass
    `named=STOPS`.
    """
    stops = [stop for stop in STOPS if len(roles.positions(stop))]
    rows = []
    for count in range(len(stops) + 1):
        for chosen in combinations(stops, count):
            arrives = _arrival(roles, masks, chosen)
            rows.append(
                (
                    " -> ".join(("video", *chosen, "last")),
                    bool(chosen) and set(chosen) <= set(named),
                    arrives > 0,
                    arrives,
                )
            )
    return pd.DataFrame(rows, columns=["route", "named", "open", "arrives"])


def _arrival(roles: Roles, masks: Sequence[np.ndarray], stops: Sequence[str]) -> int:
    """The layer in which video, going through all of `stops` in turn, first reaches the last position; 0 if never."""
    groups = [roles.positions(stop) for stop in (*stops, "last")]
    reached = [roles.positions("video"), *(np.empty(0, int) for _ in groups)]
    for layer, cut in enumerate(masks, start=1):
        before = [at.copy() for at in reached]
        for i, group in enumerate(groups, start=1):
            sources = np.concatenate([before[i - 1], before[i]])  # from the stop before, or spreading inside this one
            open_edges = ~cut[np.ix_(group, sources)] & (sources[None, :] <= group[:, None])
            reached[i] = np.union1d(before[i], group[open_edges.any(1)])
        if len(reached[-1]):
            return layer
    return 0


def live_rows(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Positions whose state is needed: L + 1 arrays (n,) bool, below layer 1, above it, …, above layer L."""
    n = len(masks[0])
    live = np.zeros(n, bool)
    live[-1] = True
    needed = [live]
    for cut in reversed(masks):
        rows = np.flatnonzero(live)
        open_edges = ~cut[rows] & (np.arange(n) <= rows[:, None])
        live = live | open_edges.any(0)
        needed.append(live)
    return needed[::-1]


def flops_kept(vlm: VideoLLM, masks: Sequence[np.ndarray]) -> float:
    """Share (0..1) of the decoder's multiplications that an exact forward with these masks still needs.

    Against the dense pass: all rows in all layers, all causal edges. Counted are the linear maps (keys and values for
    every row that a live row may read, the rest for live rows) and two products per open edge of a live row;
    embedding, norms, vision tower and head are not.
    """
    config = vlm.hf.get_decoder().config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, (config.num_key_value_heads or config.num_attention_heads) * head
    per_row = config.hidden_size * (
        2 * queries + 3 * config.intermediate_size
    )  # query and output maps, gated feed-forward
    per_key_row = config.hidden_size * 2 * keys
    per_edge = 2 * queries
    n, live = len(masks[0]), live_rows(masks)
    causal = np.tri(n, dtype=bool)
    spent = 0
    for below, above, cut in zip(live, live[1:], masks, strict=False):
        spent += per_row * above.sum() + per_key_row * below.sum() + per_edge * (causal & ~cut)[above].sum()
    dense = len(masks) * (n * (per_row + per_key_row) + per_edge * n * (n + 1) // 2)
    return float(spent / dense)
