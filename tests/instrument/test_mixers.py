"""Cuts in layers without softmax attention: what a cut position reads is what a layer without the sources computes."""

import numpy as np
import pytest
import tiny_mixers
import torch
from tiny_mixers import WIDTH

from analysis_lib.errors import StudyError
from analysis_lib.instrument.mixers import Run, left_out, mixed, reach_of, runs_of
from analysis_lib.models.families import MIXERS, mixer_kind

N = 24
pytestmark = pytest.mark.usefixtures("ops")


@pytest.fixture(scope="module")
def ops():
    from analysis_lib.models.torchvision_ops import ensure_torchvision

    ensure_torchvision()


@pytest.fixture(scope="module", params=tiny_mixers.KINDS)
def mixer(request):
    module = tiny_mixers.build(request.param)
    assert mixer_kind(module) == request.param
    return module


def states(seed=0, n=N):
    return torch.randn(1, n, WIDTH, generator=torch.Generator().manual_seed(seed))


def block(queries, keys, n=N):
    blocked = np.zeros((n, n), bool)
    blocked[np.ix_(queries, keys)] = True
    return np.tril(blocked)


def given(module):
    return {"past_key_values" if mixer_kind(module) == "short convolution" else "cache_params": None}


def cut(module, blocked, x, before=None, observe=None):
    runs = [runs_of(blocked, reach_of(module))] * len(x)
    return mixed(module, module.forward, x, runs, given(module), before=before, observe=observe)


@torch.no_grad()
def test_nothing_cut_is_the_untouched_layer_bit_by_bit(mixer):
    assert torch.equal(cut(mixer, np.zeros((N, N), bool), states()), mixer(states()))


@torch.no_grad()
def test_a_cut_position_feels_nothing_of_its_sources_and_the_others_everything(mixer):
    queries, keys, felt = [12, 13, 14, 23], [4, 9, 10, 11], []
    blocked, x = block(queries, keys), states()
    other = x.clone()
    other[:, keys] = states(1)[:, keys]
    one, two, whole = cut(mixer, blocked, x, observe=felt.append), cut(mixer, blocked, other), mixer(x)
    assert torch.equal(one[:, queries], two[:, queries]) and max(felt) == 0
    left = [i for i in range(N) if i not in queries]
    assert torch.equal(one[:, left], whole[:, left])
    assert (one[:, [12, 13]] - whole[:, [12, 13]]).abs().amax(-1).min() > 1e-4
    assert (whole[:, [12, 13]] - mixer(other)[:, [12, 13]]).abs().amax(-1).min() > 1e-4  # uncut, they feel it


@torch.no_grad()
def test_positions_before_all_others_are_as_if_the_layer_began_after_them(mixer):
    begun = mixer(states()[:, 9:])
    assert torch.allclose(cut(mixer, block(range(9, N), range(9)), states())[:, 9:], begun, atol=1e-5)


def pointwise(module):
    """The same layer with a convolution that sees each position alone."""
    conv = getattr(module, MIXERS[mixer_kind(module)].conv)
    conv.weight[..., :-1], conv.weight[..., -1] = 0, 1
    return module


@pytest.mark.parametrize("kind", tiny_mixers.KINDS[:3])
@torch.no_grad()
def test_sources_cut_for_all_are_absent_from_the_recurrence(kind):
    """Wherever they lie: neither their writes nor their decay are left."""
    module, sources = pointwise(tiny_mixers.build(kind)), [2, 3, 9, 15]
    left = [i for i in range(N) if i not in sources]
    found = cut(module, block(left, sources), states())[:, left]
    assert torch.allclose(found, module(states()[:, left]), atol=1e-5)


@torch.no_grad()
def test_without_decay_it_is_the_masked_matrix_of_softmax_style_cuts(monkeypatch):
    """In float64. A Mamba-2 layer whose state does not decay is linear attention: query times key times value, summed
    over the positions that may be read."""
    module = pointwise(tiny_mixers.build("Mamba-2")).double()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # transformers' own rounds on the way
    monkeypatch.setattr(module.norm, "forward", lambda scan, gate: scan)
    module.A_log.fill_(-torch.inf)
    module.conv1d.bias.zero_()
    x, blocked = states().double(), np.tril(np.random.default_rng(0).random((N, N)) < 0.4)
    inner, groups, size, heads = module.intermediate_size, module.n_groups, module.ssm_state_size, module.num_heads
    _, value, key, query, dt = module.in_proj(x)[0].split([inner, inner, groups * size, groups * size, heads], -1)
    value, key, query = (torch.nn.functional.silu(part) for part in (value, key, query))
    dt = torch.nn.functional.softplus(dt + module.dt_bias).clamp(min=module.time_step_limit[0])  # (N, heads)
    key, query = (part.view(N, groups, size).repeat_interleave(heads // groups, 1) for part in (key, query))
    scores = torch.einsum("qhs,khs->hqk", query, key) * dt.T[:, None]  # (heads, N, N)
    scores = scores.tril().masked_fill(torch.from_numpy(blocked), 0)
    value = value.view(N, heads, -1)
    # What its skip adds of the value itself goes with a position's view of itself.
    skip = module.D[:, None] * value * ~torch.from_numpy(blocked.diagonal().copy())[:, None, None]
    wanted = module.out_proj((torch.einsum("hqk,khd->qhd", scores, value) + skip).flatten(1))
    assert torch.allclose(cut(module, blocked, x)[0], wanted, rtol=0, atol=1e-10)


@torch.no_grad()
def test_two_runs_make_a_block_and_one_per_frame_the_cross_frame_edges(mixer):
    reach = reach_of(mixer)
    assert [run.rows.tolist() for run in runs_of(block(range(12, 20), range(4, 8)), reach)] == [[*range(12, 20)]]
    frames = np.arange(N) // 6
    runs = runs_of(frames[:, None] > frames, reach)
    assert [run.rows[0] for run in runs] == [18, 12, 6] and all(len(run.rows) == 6 for run in runs)
    assert runs_of(np.zeros((N, N), bool), reach) == []
    # A triangle, as question->question: each row's own sources are those of the last, as far as it can see.
    assert len(runs_of(block(range(4, 20), range(4, 20)), reach)) == reach
    rows = sorted(np.concatenate([run.rows for run in runs_of(block(range(4, 20), range(4, 20)), reach)]).tolist())
    assert rows == [*range(4, 20)]


@torch.no_grad()
def test_runs_together_are_each_row_alone(mixer):
    """Any mask: every row equals a layer of its own, without its sources."""
    blocked, x = np.tril(np.random.default_rng(0).random((N, N)) < 0.3), states()
    together = cut(mixer, blocked, x)
    for q in (3, 11, 12, 23):
        run = [Run(blocked[q], np.array([q]))]
        alone = mixed(mixer, mixer.forward, x, [run], given(mixer))
        assert torch.allclose(together[:, q], alone[:, q], atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("row", [1, 10, 22, 23])
def test_a_layer_goes_on_from_clean_positions(mixer, row):
    """Exact: only the rows from `row` on are computed, from what the others hand on."""
    whole = block(range(row, N), [0, 5, 6, 9, row]) | block([23], [22])
    whole[:row] = False
    x, tails = states(), torch.cat([states(2), states(3)])[:, row:]
    clean = x.expand(2, -1, -1).clone()
    clean[:, row:] = tails
    full, part = cut(mixer, whole, clean), cut(mixer, whole[row:], tails, before=x[:, :row])
    assert torch.allclose(full[:, row:], part, atol=1e-5)


@torch.no_grad()
def test_a_query_keeps_its_own_tap(mixer):
    """Where only its view of itself is cut, what a position asks is unchanged, and what it answers is not written."""
    kind, x = mixer_kind(mixer), states()
    here, other = cut(mixer, block([23], [23]), x), x.clone()
    assert not torch.allclose(here[:, 23], mixer(x)[:, 23], atol=1e-4)
    other[:, 23] = states(1)[:, 23]
    moved = (cut(mixer, block([23], [23]), other)[:, 23] - here[:, 23]).abs().max()
    assert moved > 1e-4, kind  # its query or its output gate


@torch.no_grad()
def test_a_layer_whose_parts_are_not_all_reached_is_refused(mixer):
    part, nothing = next(iter(MIXERS[mixer_kind(mixer)].parts)), torch.zeros(1, N, dtype=torch.bool)
    limit = getattr(mixer, "time_step_limit", None)
    with pytest.raises(StudyError, match="were reached by a cut"):
        with left_out(mixer, nothing, nothing):
            getattr(mixer, part)(states())
            getattr(mixer, part)(states())  # twice is as wrong as not at all
    assert not getattr(mixer, part)._forward_hooks and getattr(mixer, "time_step_limit", None) == limit
    with pytest.raises(StudyError, match="is not made as"):
        with left_out(mixer, nothing[:, 1:], nothing[:, 1:]):
            mixer(states())
