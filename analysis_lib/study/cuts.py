"""Knockouts of one sample as rows of the stored tables: windows, window sizes, single heads, pairs of frames.

Each function lists its conditions with the columns that name them; one call of the engine then runs them all, and
`cut_rows` puts the effects beside the names. `knockout` follows the request's windows (paper, section 3), `widths`
takes the paper's sizes (G.6). `heads` asks which query heads carry a route into the last token, layer by layer. `pairs`
cuts edges in all layers at once, since a narrow window can be repaired by the layers outside: which earlier frame does
a frame need?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis_lib.errors import StudyError
from analysis_lib.instrument.edges import Window, blocked_edges, frame_edge_sets, window_sizes, windows
from analysis_lib.instrument.knockout import Condition, knockout_logits, query_heads
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.study.answers import Answer, Rows, Settings


def _knockout(answer: Answer, edge_sets: Sequence[str], settings: Settings) -> Rows:
    """One row per edge set and window."""
    cuts = [({"edge_set": name, **layers_of(window)}, window) for name in edge_sets for window in settings.windows]
    return cut_rows(answer, f"knockout {','.join(edge_sets)}", cuts, settings)


def _widths(answer: Answer, edge_sets: Sequence[str], settings: Settings) -> Rows:
    """One row per edge set, size of window and layer, windows centred."""
    depth = len(decoder_layers(answer.vlm))
    cuts = [
        ({"edge_set": name, "window": size, **layers_of(window)}, window)
        for name in edge_sets
        for size in window_sizes(depth)
        for window in windows(depth, size)
    ]
    return cut_rows(answer, f"widths {','.join(edge_sets)}", cuts, settings)


def _heads(answer: Answer, edge_sets: Sequence[str], settings: Settings) -> Rows:
    """One row per edge set, layer and query head, each cut alone."""
    single = windows(len(decoder_layers(answer.vlm)), 1)
    heads = range(1, query_heads(answer.vlm) + 1)
    cuts = [
        ({"edge_set": name, "layer": window.layer, "head": head}, window)
        for name in edge_sets
        for window in single
        for head in heads
    ]
    return cut_rows(answer, f"heads {','.join(edge_sets)}", cuts, settings)


def frame_pairs(answer: Answer, settings: Settings) -> Rows:
    """One row per pair of frames, and per group of pairs (`edges.frame_edge_sets`), cut in all layers."""
    depth = len(decoder_layers(answer.vlm))
    everywhere = Window(1, 1, depth, tuple(range(1, depth + 1)))
    names = ("query_frame", "key_frame", "distance")
    sets = frame_edge_sets(int(answer.inputs.roles.frame_of.max()))
    cuts = [
        ({"edge_set": name, **dict(zip(names, frames, strict=True)), "first_layer": 1, "last_layer": depth}, everywhere)
        for name, frames in sets.items()
    ]
    return cut_rows(answer, "pairs", cuts, settings)


CUT = {"knockout": _knockout, "widths": _widths, "heads": _heads}


def layers_of(window: Window) -> dict[str, int]:
    """The columns that say where a window lies."""
    return {"layer": window.layer, "first_layer": window.first, "last_layer": window.last}


def cut_rows(answer: Answer, what: str, cuts: Sequence[tuple[dict[str, Any], Window]], settings: Settings) -> Rows:
    """One row per condition, its own columns (with `edge_set`, and `head` if one is cut alone) and its effect; all
    conditions share batches. The first word of `what` is the table.
    """
    blocked = {own["edge_set"]: blocked_edges(own["edge_set"], answer.inputs.roles) for own, _ in cuts}
    empty = [name for name, edges in blocked.items() if not edges.any()]
    if empty:
        raise StudyError(f"{', '.join(empty)} holds no edge in this prompt (queries read earlier keys); leave it out")
    conditions = [
        Condition(own["edge_set"], window, blocked[own["edge_set"]], (own["head"],) if "head" in own else ())
        for own, window in cuts
    ]
    logits, receipt = knockout_logits(answer.vlm, answer.inputs, conditions, mode=settings.mode)  # (C, V)
    base, rows = answer.base, []
    for (own, _), knocked in zip(cuts, answer.read(logits), strict=True):
        effect = {
            "p_base": base.p_token,
            "p_knock": knocked.p_token,
            "relative_change": 100 * (knocked.p_token - base.p_token) / base.p_token,
            "margin_base": base.margin,
            "margin_knock": knocked.margin,
            "p_answer": knocked.p_answer,
            "prediction": knocked.prediction,
            "correct": knocked.correct,
        }
        rows.append(answer.key | own | effect)
    return {what.split()[0]: rows, "receipts": [answer.receipt_row(what, receipt)]}
