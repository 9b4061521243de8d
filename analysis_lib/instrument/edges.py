"""Edge sets and layer windows: what a knockout cuts, and where.

An edge is one (query, key) pair where the query position may read the key position: itself, an earlier one, or a later
one that the model's own mask leaves open (`Roles.readable`). An edge set is a block of edges named
`source->destination` by roles: `video->question` cuts what the question's positions read from video tokens.
`cross-frame` cuts what video tokens read from other frames, leaving their own frame and all text open; `cross-frame@3`
only what they read three frames away, `frame 2->frame 5` what frame 5 reads from frame 2, and `frame 2->later frames`
and `earlier frames->frame 5` the column and the row of such pairs. In most models other frames are earlier ones; where
frames read each other both ways, `frame 2->other frames` and `other frames->frame 5` are the whole column and row.
As in the paper, `question` in these names is the whole block from `Question:` to the last option, `question_only` the
bare sentence, and where source and destination are the same, the diagonal is cut too (`last->last` is the last
position's view of itself). Windows say in which layers an edge set is cut (paper, section 3)."""

import re
from dataclasses import dataclass

import numpy as np

from analysis_lib.errors import StudyError
from analysis_lib.models.roles import Roles

EDGE_SETS = (
    "cross-frame", "video->question", "video->last", "question->last", "last->last", "question_only->last",
    "true_option->last", "false_options->last", "video->question_only", "question_only->true_option",
    "video->true_option",
)  # fmt: skip
# The three routes from the video to the answer, as pathways name them.
ROUTES = {"cross_frame": "cross-frame", "video_question": "video->question", "question_last": "question->last"}
# The roles that name a source or a destination. Any pair of them is an edge set, and so are pairs with `frame 3`.
ENDS = (
    "system", "video", "frame_text", "text", "question", "question_only", "options", "true_option", "false_options",
    "after_video", "tail", "response", "last",
)  # fmt: skip
FRAME = re.compile(r"frame ([1-9]\d*)")  # counted from 1
DISTANCE = re.compile(r"cross-frame@([1-9]\d*)")
OTHERS = re.compile(r"frame [1-9]\d*->(later|other) frames|(earlier|other) frames->frame [1-9]\d*")
STYLES = ("center", "inverse", "top_down", "bottom_up")


def blocked_edges(name: str, roles: Roles) -> np.ndarray:
    """(n, n) bool [query, key], True where the edge set cuts; only edges of `roles.readable` are set. Raises StudyError
    for names that are no edge set, for frames that the clip does not have, and for what a frame cannot read."""
    check_edge_set(name)
    frame, distance = roles.frame_of, DISTANCE.fullmatch(name)
    frames = [int(number) for number in FRAME.findall(name)]
    needed = max([*frames, int(distance[1]) + 1 if distance else 1])
    if needed > frame.max():
        raise StudyError(f"edge set {name!r} needs {needed} frames; the clip has {frame.max()}")
    if name in ("earlier frames->frame 1", f"frame {frame.max()}->later frames"):
        raise StudyError(f"edge set {name!r} holds no edge in a clip of {frame.max()} frames")
    video = frame > 0  # (n,)
    earlier = np.where(video[:, None] & video, frame[:, None] - frame, 0)  # (n, n) frames the key lies before the query
    if distance:
        return roles.readable & (abs(earlier) == int(distance[1]))
    if name == "cross-frame":
        return roles.readable & (earlier != 0)
    if others := OTHERS.fullmatch(name):
        apart = earlier != 0 if "other" in others.groups() else earlier > 0
        return roles.readable & apart & (frame == frames[0] if others[1] else frame[:, None] == frames[0])
    keys, queries = (roles.positions("question_block" if end == "question" else end) for end in name.split("->"))
    block = np.zeros((len(frame), len(frame)), bool)
    block[np.ix_(queries, keys)] = True
    block &= roles.readable
    if len(frames) == 2 and frames[0] > frames[1] and not block.any():
        raise StudyError(f"edge set {name!r} holds no edge: frame {frames[1]} cannot read a later frame")
    return block


def check_edge_set(name: str) -> None:
    """Raise StudyError, listing the known names, if `name` is no edge set."""
    ends = name.split("->")
    pair = len(ends) == 2 and all(end in ENDS or FRAME.fullmatch(end) for end in ends)
    if not (name == "cross-frame" or DISTANCE.fullmatch(name) or OTHERS.fullmatch(name) or pair):
        known = f"{', '.join(EDGE_SETS)}, source->destination of {', '.join(ENDS)} and frames (frame 2->frame 5)"
        more = "frame 2->later frames, earlier frames->frame 5, or cross-frame@3 (3 apart)"
        raise StudyError(f"unknown edge set {name!r}; known: {known}, {more}")


def frame_edge_sets(n_frames: int, *, both_ways: bool = False) -> dict[str, tuple[int, int, int]]:
    """Every pair of frames, as name: (query frame, key frame, distance), 1-based; then all pairs of one query frame,
    of one key frame, and of one distance, and all together. 0 stands for all. Queries are the later frames, unless
    frames read each other `both_ways`."""
    frames = range(1, n_frames + 1)
    pairs = [(query, key) for query in frames for key in frames if key < query or both_ways and key > query]
    pairs = {f"frame {key}->frame {query}": (query, key, abs(query - key)) for query, key in pairs}
    before, after, alone = ("other", "other", 0) if both_ways else ("earlier", "later", 1)
    rows = {f"{before} frames->frame {query}": (query, 0, 0) for query in frames[alone:]}
    columns = {f"frame {key}->{after} frames": (0, key, 0) for key in frames[: n_frames - alone]}
    distances = {f"cross-frame@{distance}": (0, 0, distance) for distance in range(1, n_frames)}
    return pairs | rows | columns | distances | {"cross-frame": (0, 0, 0)}


@dataclass(frozen=True)
class Window:
    """Layers in which an edge set is cut, 1-based."""

    layer: int  # the centre; in the one-sided styles, the border
    first: int  # the lowest layer cut, 0 if none is
    last: int  # the highest; `inverse` windows have a hole in between
    layers: tuple[int, ...]


def windows(n_layers: int, k: int, style: str = "center") -> list[Window]:
    """One window per layer, in order.

    center: k layers around the layer (for even k one more below than above), fewer near the ends, as published;
    inverse: all other layers; top_down: from the layer up; bottom_up: up to the layer. Raises StudyError for k < 1,
    k > n_layers, or an unknown style."""
    if not 1 <= k <= n_layers:
        raise StudyError(f"window {k} does not fit a model of {n_layers} layers; choose 1 to {n_layers}")
    if style not in STYLES:
        raise StudyError(f"unknown window style {style!r}; known: {', '.join(STYLES)}")
    found, end = [], n_layers + 1
    for layer in range(1, end):
        low, high = max(layer - k // 2, 1), min(layer + (k + 1) // 2, end)  # the first inside, the first above
        layers = {
            "center": tuple(range(low, high)),
            "inverse": (*range(1, low), *range(high, end)),
            "top_down": tuple(range(layer, end)),
            "bottom_up": tuple(range(1, layer + 1)),
        }[style]
        found.append(Window(layer, min(layers, default=0), max(layers, default=0), layers))
    return found


def default_window(n_layers: int, of_32: int = 9) -> int:
    """The odd width with the share of depth that 9 has in the paper's 32 layers: 3 of 12, 9 of 32, 11 of 40."""
    return 2 * round((n_layers * of_32 / 32 - 1) / 2) + 1


def window_sizes(n_layers: int) -> tuple[int, ...]:
    """The same for 1, 5, 9 and 13 of 32 layers (paper, G.6), doubles dropped: 1, 3 and 5 of 12."""
    return tuple(dict.fromkeys(default_window(n_layers, width) for width in (1, 5, 9, 13)))
