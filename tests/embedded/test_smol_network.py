"""The network in training against transformers' own classes: one function, exact gradients."""

import numpy as np
import pytest
import torch
from smol_base import tiny_config, tiny_decoder

from analysis_lib.embedded.smol import network


@pytest.fixture
def decoder():
    return tiny_decoder().double()


@pytest.fixture
def net(decoder):
    trained = network.start_adapters(tiny_config(), 1)
    for name, tensor in trained.items():
        if name.endswith(".B"):
            tensor.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    trained = {name: t.double().requires_grad_() for name, t in trained.items()}
    return network.Network(tiny_config(), network.freeze_base(tiny_config(), decoder.state_dict()), trained, None)


def adapted(decoder, trained):
    """transformers' model with adapters added in, differentiable in them."""
    weights = {name: p.detach() for name, p in decoder.named_parameters()}
    for name in [n[:-2] for n in trained if n.endswith(".A")]:
        low = trained[f"{name}.B"] @ trained[f"{name}.A"]
        weights[f"model.{name}.weight"] = weights[f"model.{name}.weight"] + network.SCALE * low
    return lambda ids: torch.func.functional_call(decoder, weights, (torch.tensor([ids]),)).logits[0, -1]


def test_rows_and_their_gradients_equal_transformers(decoder, net):
    # two rows: a path with a branch that leaves it at place 2, and one that ends early
    system, ids = [3, 4], torch.tensor([[7, 8, 9, 10, 11, 12], [7, 8, 20, 21, 0, 0]])
    paths = {(0, 4): [7, 8, 9, 10, 11], (0, 5): [7, 8, 9, 12], (1, 3): [7, 8, 20, 21]}
    seen, positions = torch.ones(2, 6, 6, dtype=torch.bool).tril(), torch.arange(2, 8).repeat(2, 1)
    seen[0, 5, 3:5], positions[0, 5] = False, 5
    mask = torch.zeros(2, 1, 6, 8, dtype=torch.float64)
    mask[:, 0, :, 2:] = torch.where(seen, 0.0, -torch.inf)
    embed, reference = net.frozen["embed"], adapted(decoder, net.trained)
    states = network.decode(net, embed[system], embed[ids], positions, mask)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 50)))
    mine, theirs = 0, 0
    for weight, (at, path) in zip(weights, paths.items(), strict=True):
        got, wanted = network.logits(net, states[at]), reference(system + path)
        assert torch.allclose(got, wanted, atol=1e-5)
        mine, theirs = mine + (weight * got).sum(), theirs + (weight * wanted).sum()
    parameters = [*net.trained.values()]
    gradients = zip(
        net.trained, torch.autograd.grad(mine, parameters), torch.autograd.grad(theirs, parameters), strict=True
    )
    for name, got, wanted in gradients:
        assert wanted.abs().max() > 0 and torch.allclose(got, wanted, atol=1e-5 * float(wanted.abs().max())), name


def test_adapters_begin_without_effect(decoder):
    config = tiny_config()
    trained = {name: t.double() for name, t in network.start_adapters(config, 0).items()}
    net = network.Network(config, network.freeze_base(config, decoder.state_dict()), trained, None)
    assert all(torch.equal(whole, net.frozen[name]) for name, whole in network.merge(net).items())
    assert all(t.abs().max() > 0 for name, t in trained.items() if name.endswith(".A"))
