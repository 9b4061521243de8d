"""Time by owner and memory by size, on sweeps and tensors of known cost."""

import pytest
import torch

from analysis_lib.reports import bench, profiles


@pytest.fixture(scope="module")
def sweep(tiny_vlm):
    vlm = bench.random_model(tiny_vlm, 64, 2, 4)
    return bench.sweep_alone(vlm, bench.random_inputs(vlm, 4, 2, 3))


def test_overhead_is_a_share(sweep, monkeypatch):
    monkeypatch.setattr(profiles, "_seconds", lambda run: run() or 60.0)  # a slow moment of the machine changes nothing
    assert 0 < profiles.overhead(sweep, repeats=2) < 100


def test_operations_belong_to_who_calls_them(sweep):
    from torch.profiler import profile

    with profiles._owners(), profile() as seen:
        sweep()
    owners = {}
    for event in seen.events():
        owners.setdefault(event.name, set()).add(profiles._owner(event))
    assert owners["aten::mm"] == owners["aten::silu"] == {profiles.MODEL}
    assert owners["aten::scaled_dot_product_attention"] == {profiles.MODEL}
    assert owners["aten::bitwise_not"] == {profiles.OURS}  # masks
    assert owners["aten::cat"] == {profiles.MODEL, profiles.OURS}  # rotary halves; clean keys before changed ones


def test_the_products_of_attention_are_counted():
    query, keys = torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 5, 8)
    run = lambda: torch.nn.functional.scaled_dot_product_attention(query, keys, keys)  # noqa: E731
    [gflop] = profiles.costs([(run, 1)], 0)["gflop"]
    assert gflop * 1e9 == pytest.approx(2 * (2 * 2 * 3 * 5 * 8))  # two products of 2 heads, two operations an entry


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_is_the_most_held_at_once(device):
    given = torch.zeros(1000, device=device)

    def run() -> None:
        first = given + 1  # 4000 bytes
        seen = first.view(10, 100).t()  # a view
        second = seen * 2  # 4000
        del first, seen
        given.add_(second.flatten())  # in place
        third = [second.new_zeros(500) for _ in range(3)]  # 6000
        assert len(third) == 3

    assert profiles.peak_bytes(run) == 10_000


def test_memory_inside_compound_operations_is_counted():
    queries = torch.zeros(1, 1, 300, 4, device="meta")
    peak = profiles.peak_bytes(lambda: torch.nn.functional.scaled_dot_product_attention(*[queries] * 3))
    assert peak > 4 * 300 * 300  # the scores
