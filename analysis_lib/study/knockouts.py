"""Knockouts of one sample as rows of the stored tables: windows, window sizes, single heads, pairs of frames.

A cut is the columns that name a condition, and the window in which its edge set is cut. One call of the engine runs
all cuts of a measure, and their effects come beside the names. `knockout` follows the request's windows (paper,
section 3), `widths` takes the paper's sizes (G.6). `heads` asks which query heads carry a route into the last token,
layer by layer. `pairs` cuts edges in all layers at once, since a narrow window can be repaired by the layers outside:
which earlier frame does a frame need?
"""

from collections.abc import Sequence
from typing import Any

from analysis_lib.errors import StudyError
from analysis_lib.instrument.edges import Window, blocked_edges, frame_edge_sets, window_sizes, windows
from analysis_lib.instrument.engine import Condition, knockout_logits, query_heads
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.study.answers import Answer, Rows
from analysis_lib.study.request import Request

Cut = tuple[dict[str, Any], Window]


def edge_set_knockouts(answer: Answer, measure: str, edge_sets: Sequence[str], request: Request) -> Rows:
    """One row per edge set and place: a window, a window of some size, or one query head of one layer."""
    depth, heads = len(decoder_layers(answer.vlm)), range(1, query_heads(answer.vlm) + 1)
    places = {
        "knockout": [(layers_of(w), w) for w in windows(depth, request.window, request.style)],
        "widths": [({"window": k, **layers_of(w)}, w) for k in window_sizes(depth) for w in windows(depth, k)],
        "heads": [({"layer": w.layer, "head": head}, w) for w in windows(depth, 1) for head in heads],
    }[measure]
    cuts = [({"edge_set": name} | columns, window) for name in edge_sets for columns, window in places]
    return cut_rows(answer, f"{measure} {','.join(edge_sets)}", cuts, request)


def frame_pair_knockouts(answer: Answer, request: Request) -> Rows:
    """One row per pair of frames, and per group of pairs (`edges.frame_edge_sets`), cut in all layers."""
    depth = len(decoder_layers(answer.vlm))
    everywhere = Window(1, 1, depth, tuple(range(1, depth + 1)))
    span = {"first_layer": 1, "last_layer": depth}
    cuts = [
        ({"edge_set": name, "query_frame": query, "key_frame": key, "distance": distance} | span, everywhere)
        for name, (query, key, distance) in frame_edge_sets(int(answer.inputs.roles.frame_of.max())).items()
    ]
    return cut_rows(answer, "pairs", cuts, request)


def layers_of(window: Window) -> dict[str, int]:
    """The columns that say where a window lies."""
    return {"layer": window.layer, "first_layer": window.first, "last_layer": window.last}


def cut_rows(answer: Answer, what: str, cuts: Sequence[Cut], request: Request) -> Rows:
    """One row per cut, its own columns (with `edge_set`, and `head` if one is cut alone) and its effect; all conditions
    share batches. The first word of `what` is the table.
    """
    blocked = {own["edge_set"]: blocked_edges(own["edge_set"], answer.inputs.roles) for own, _ in cuts}
    empty = [name for name, edges in blocked.items() if not edges.any()]
    if empty:
        raise StudyError(f"{', '.join(empty)} holds no edge in this prompt (queries read earlier keys); leave it out")
    conditions = [
        Condition(own["edge_set"], window, blocked[own["edge_set"]], (own["head"],) if "head" in own else ())
        for own, window in cuts
    ]
    logits, receipt = knockout_logits(answer.vlm, answer.inputs, conditions, mode=request.mode)  # (C, V)
    base, rows = answer.base, []
    for (own, _), knocked in zip(cuts, answer.read(logits), strict=True):
        change = {"relative_change": 100 * (knocked.p_token - base.p_token) / base.p_token}
        rows.append(answer.key | own | base.columns("base") | knocked.columns("knock") | change)
    return {what.split()[0]: rows, "receipts": [answer.receipt_row(what, receipt)]}
