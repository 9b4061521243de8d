"""Edge sets and layer windows: what a knockout cuts, and where.

An edge is one (query, key) pair with key <= query: the query position may read the key position. An edge set is a
block of edges named `source->destination` by roles: `video->question` cuts what the question's positions read from
video tokens. `cross-frame` cuts what video tokens read from earlier frames, leaving their own frame and all text open.
As in the paper, `question` in these names is the whole block from `Question:` to the last option, `question_only` the
bare sentence, and where source and destination are the same, the diagonal is cut too (`last->last` is the last
position's view of itself). Windows say in which layers an edge set is cut (paper, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis_lib.errors import StudyError
from analysis_lib.roles import Roles

EDGE_SETS = (
    "cross-frame",
    "video->question",
    "video->last",
    "question->last",
    "last->last",
    "question_only->last",
    "true_option->last",
    "false_options->last",
    "video->question_only",
    "question_only->true_option",
    "video->true_option",
)
# The three routes from the video to the answer, as pathways name them.
ROUTES = {"cross_frame": "cross-frame", "video_question": "video->question", "question_last": "question->last"}
# The words that name a source or a destination, and the roles they stand for. Any pair of them is an edge set.
ENDS = {
    "system": "system",
    "video": "video",
    "frame_text": "frame_text",
    "text": "text",
    "question": "question_block",
    "question_only": "question_only",
    "options": "options",
    "true_option": "true_option",
    "false_options": "false_options",
    "after_video": "after_video",
    "tail": "tail",
    "last": "last",
}
STYLES = ("center", "inverse", "top_down", "bottom_up")


def blocked_edges(name: str, roles: Roles) -> np.ndarray:
    """(n, n) bool [query, key], True where the edge set cuts. Only edges with key <= query are set.

    `name` is one of EDGE_SETS or any `source->destination` of ENDS. Raises StudyError for other names.
    """
    check_edge_set(name)
    causal = np.tri(len(roles.names), dtype=bool)
    if name == "cross-frame":
        frame = roles.frame_of
        return causal & (frame[None, :] > 0) & (frame[None, :] < frame[:, None])
    source, destination = name.split("->")
    keys, queries = np.zeros(len(causal), bool), np.zeros(len(causal), bool)
    keys[roles.positions(ENDS[source])] = True
    queries[roles.positions(ENDS[destination])] = True
    return causal & queries[:, None] & keys[None, :]


def check_edge_set(name: str) -> None:
    """Raise StudyError, listing the known names, if `name` is no edge set."""
    source, arrow, destination = name.partition("->")
    if name != "cross-frame" and not (arrow and source in ENDS and destination in ENDS):
        raise StudyError(
            f"unknown edge set {name!r}; known: {', '.join(EDGE_SETS)}, or source->destination of {', '.join(ENDS)}"
        )


@dataclass(frozen=True)
class Window:
    """Layers in which an edge set is cut, 1-based. `layer` is the centre (or, in the one-sided styles, the border).

    `first` and `last` are the lowest and highest layer cut, 0 if none is; `inverse` windows have a hole between them.
    """

    layer: int
    first: int
    last: int
    layers: tuple[int, ...]


def windows(n_layers: int, k: int, style: str = "center") -> list[Window]:
    """One window per layer, in order.

    center: k layers around the layer (for even k one more below than above), clipped at both ends, so windows near the
    ends are narrower, as published; inverse: all other layers; top_down: from the layer up; bottom_up: up to the
    layer. Raises StudyError for k < 1, k > n_layers, or an unknown style.
    """
    if not 1 <= k <= n_layers:
        raise StudyError(f"window {k} does not fit a model of {n_layers} layers; choose 1 to {n_layers}")
    if style not in STYLES:
        raise StudyError(f"unknown window style {style!r}; known: {', '.join(STYLES)}")
    found = []
    for layer in range(1, n_layers + 1):
        low, high = layer - k // 2, layer + (k - 1) // 2
        inside = {
            "center": lambda i, low=low, high=high: low <= i <= high,
            "inverse": lambda i, low=low, high=high: not low <= i <= high,
            "top_down": lambda i, layer=layer: i >= layer,
            "bottom_up": lambda i, layer=layer: i <= layer,
        }[style]
        layers = tuple(i for i in range(1, n_layers + 1) if inside(i))
        found.append(Window(layer, min(layers, default=0), max(layers, default=0), layers))
    return found


def default_window(n_layers: int) -> int:
    """The odd width with the share of depth that 9 has in the paper's 32 layers: 3 of 12, 9 of 32, 11 of 40."""
    return 2 * round((n_layers * 9 / 32 - 1) / 2) + 1 if n_layers > 4 else 1
