"""What runs cost: seconds, operations, the share of time that is not the model's own work, and memory.

torch counts operations and says who calls them; its MemTracker adds inputs and weights, so memory is counted here."""

import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from analysis_lib.instrument import grouped

MODEL, OURS = "the model's", "ours"  # whose operations a profiler sees
# torch's counter passes over the products of this attention kernel.
UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **options: (
        sdpa_flop_count(query, key, value)
    )
}


@torch.no_grad()
def costs(runs: list[tuple[Callable[[], Any], int]], repeats: int) -> pd.DataFrame:
    """Median `seconds`, and `gflop`, 10^9 floating-point operations, of each of `runs`, times how often it is needed.
    They are timed in turns, so that a slow moment of the machine meets them all."""
    counted = []
    for run, _ in runs:
        with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
            run()
        counted.append(counter.get_total_flops() / 1e9)
    spent = [[_seconds(run) for run, _ in runs] for _ in range(repeats)]
    seconds = pd.DataFrame(spent, columns=range(len(runs)), dtype=float).median()
    return pd.DataFrame({"seconds": seconds, "gflop": counted}).mul([times for _, times in runs], axis=0)


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def overhead(run: Callable[[], Any], *, repeats: int = 25) -> float:
    """Percent of an exact sweep's time outside the model's operations: Python, masks, rows and keys that are moved.
    Operations are timed under the profiler and the sweep without it, since its bookkeeping is no part of a sweep; in
    turns, medians of both."""
    kernels, spent = [], []
    run()
    for _ in range(repeats):
        spent.append(_seconds(run))
        with _owners(), profile(activities=[ProfilerActivity.CPU]) as seen:
            run()
        operations = [event for event in seen.events() if event.name.startswith("aten::") and _owner(event) == MODEL]
        kernels.append(sum(event.self_cpu_time_total for event in operations) / 1e6)
    return 100 * (1 - statistics.median(kernels) / statistics.median(spent))


@contextmanager
def _owners() -> Iterator[None]:
    """Inside the block a profiler sees whose code calls an operation: the model's if one of its modules or its
    attention kernel does, ours if our code does, that between a module and the kernel included."""

    def marked(name: str, run: Callable) -> Callable:  # a new mark each call: modules call modules
        return lambda *args, **kwargs: record_function(name)(run)(*args, **kwargs)

    kernel = grouped._kernel
    between = {"_grouped": marked(OURS, grouped._grouped), "_kernel": lambda *args: marked(MODEL, kernel(*args))}
    module = mock.patch.object(torch.nn.Module, "__call__", marked(MODEL, torch.nn.Module.__call__))
    with module, mock.patch.multiple(grouped, **between):
        yield


def _owner(event: Any) -> str:
    while event is not None and event.name not in (MODEL, OURS):
        event = event.cpu_parent
    return event.name if event is not None else OURS


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most bytes that tensors made by `run` hold at once, by their sizes: on "meta" too, where nothing is held.
    Memory inside one fused kernel is not seen."""
    with _Held() as held:
        run()
    return held.peak


class _Held(TorchDispatchMode):
    now, peak = 0, 0  # bytes; each new storage counts from the operation that makes it until it is freed

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        given = _storages((args, kwargs))  # their views, and what is changed in place, are not new
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out) - given:
            self._add(storage.nbytes())
            weakref.finalize(storage, self._add, -storage.nbytes())
        return out

    def _add(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def _storages(tree: Any) -> set[torch.UntypedStorage]:
    return {leaf.untyped_storage() for leaf in tree_leaves(tree) if torch.is_tensor(leaf)}
