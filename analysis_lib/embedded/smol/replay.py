"""The pass over a half of a batch as a recorded graph of kernels, for GPUs.

A pass is thousands of small kernels, and starting them one by one from Python takes longer than they run. So they are
recorded once and replayed on other contents. A recording holds for one shape: halves are padded to a few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad

from analysis_lib.embedded.smol.learner import IGNORE

STEP = 64  # the number of places where something is said is padded to a multiple

Pass = Callable[[dict[str, Any]], tuple[torch.Tensor, ...]]


def padded(half: dict[str, Any], length: int) -> dict[str, Any]:
    """The half (`network.shown`) with rows of `length` tokens, and with places where nothing is said."""
    system, old = len(half["system"]), half["ids"].shape[1]
    more, room = (0, length - old), (0, -len(half["said"]) % STEP)
    mask = pad(half["mask"], (*more, *more), value=-torch.inf)
    mask[:, :, old:, :system] = 0
    rows, at = half["places"] // old, half["places"] % old
    said = {"said": pad(half["said"], room, value=IGNORE), "lettered": pad(half["lettered"], room)}
    own = {"ids": pad(half["ids"], more), "positions": pad(half["positions"], more), "mask": mask}
    return half | own | said | {"places": pad(rows * length + at, room)}


def replayed(learn: Pass) -> Pass:
    """`learn` from recordings, one for each shape of a half. What it returns holds until the next call."""
    recordings: dict[tuple, tuple] = {}

    def run(half: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        tensors = {name: value for name, value in half.items() if isinstance(value, torch.Tensor)}
        shapes = tuple(value.shape for value in tensors.values())
        if shapes not in recordings:
            recordings[shapes] = _record(learn, half | {name: value.clone() for name, value in tensors.items()})
        graph, given, result = recordings[shapes]
        for name, value in tensors.items():
            given[name].copy_(value)
        graph.replay()
        return result

    return run


def _record(learn: Pass, given: dict[str, Any]) -> tuple:
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # what libraries set up at their first call must not be recorded
        learn(given)
        learn(given)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = learn(given)
    return graph, given, result
