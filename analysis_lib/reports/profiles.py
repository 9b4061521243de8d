"""What runs cost: seconds and operations, what part of a sweep's time is not the model's own work, and how much its
tensors hold at once."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from analysis_lib.instrument import grouped

MODEL, OURS = "the model's", "ours"  # whose operations a profiler sees


def costs(runs: list[tuple[Callable[[], Any], int]], repeats: int) -> list[dict[str, float]]:
    """Median seconds, and floating-point operations in 10^9, of each of `runs`, times how often it is needed.

    They are timed in turns, so that a slow moment of the machine meets them all.
    """
    counted, spent = [], [[] for _ in runs]
    for run, _ in runs:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        counted.append(counter.get_total_flops() / 1e9)
    for _ in range(repeats):
        for (run, _), own in zip(runs, spent, strict=True):
            began = time.perf_counter()
            with torch.no_grad():
                run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            own.append(time.perf_counter() - began)
    seconds = [statistics.median(own or [float("nan")]) for own in spent]
    return [{"seconds": s * n, "gflop": g * n} for s, g, (_, n) in zip(seconds, counted, runs, strict=True)]


def overhead(run: Callable[[], Any], *, repeats: int = 25) -> float:
    """Percent of an exact sweep's time outside the model's operations: Python, masks, rows and keys that are moved.

    An operation is the model's if one of its modules or its attention kernel calls it, and ours if our code does, that
    between a module and the kernel included. The profiler's own bookkeeping is no part of a sweep, so operations are
    timed under it and the sweep without it, in turns; medians of both.
    """
    from torch.profiler import ProfilerActivity, profile

    kernels, spent = [], []
    run()
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        spent.append(time.perf_counter() - began)
        with _owners(), profile(activities=[ProfilerActivity.CPU]) as seen:
            run()
        operations = [event for event in seen.events() if event.name.startswith("aten::")]
        kernels.append(sum(event.self_cpu_time_total for event in operations if _owner(event) == MODEL) / 1e6)
    return 100 * (1 - statistics.median(kernels) / statistics.median(spent))


@contextmanager
def _owners() -> Iterator[None]:
    """Inside the block a profiler sees whose code calls an operation."""

    def marked(name: str, run: Callable) -> Callable:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with torch.profiler.record_function(name):  # a new one a call: modules call modules
                return run(*args, **kwargs)

        return recorded

    kernel = grouped._kernel
    with (
        mock.patch.object(torch.nn.Module, "__call__", marked(MODEL, torch.nn.Module.__call__)),
        mock.patch.object(grouped, "_grouped", marked(OURS, grouped._grouped)),
        mock.patch.object(grouped, "_kernel", lambda *args: marked(MODEL, kernel(*args))),
    ):
        yield


def _owner(event: Any) -> str:
    while event is not None and event.name not in (MODEL, OURS):
        event = event.cpu_parent
    return event.name if event is not None else OURS


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most bytes that tensors made by `run` hold at once, by their sizes: on "meta" too, where nothing is held.

    Memory inside one fused kernel is not seen.
    """
    with _Held() as held:
        run()
    return held.peak


class _Held(TorchDispatchMode):
    """Counts each new storage from the operation that makes it until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        with self:  # in inference mode compound operations come whole
            parts = func.decompose(*args, **(kwargs or {}))
        if parts is not NotImplemented:
            return parts
        before = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if torch.is_tensor(leaf):
                self._count(leaf.untyped_storage(), before)
        return out

    def _count(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        if id(storage) in before or storage in self.known:  # a view, or what was there
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.now -= size
