"""The network in training against transformers' own classes: one function, exact gradients."""

import numpy as np
import pytest
import torch

from analysis_lib.embedded.smol import network
from analysis_lib.torchvision_ops import ensure_torchvision

ensure_torchvision()
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

CONFIG = LlamaConfig(
    hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
    vocab_size=50, rms_norm_eps=1e-5, tie_word_embeddings=True,
    rope_parameters={"rope_theta": 100000.0, "rope_type": "default"},
)  # fmt: skip


@pytest.fixture
def base():
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).double().eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.fixture
def net(base):
    trained = network.start_adapters(CONFIG, 1)
    for name, tensor in trained.items():
        if name.endswith(".B"):
            tensor.normal_(0, 0.1)
    trained = {name: t.double().requires_grad_() for name, t in trained.items()}
    return network.Network(CONFIG, network.freeze_base(CONFIG, base.state_dict()), trained, None)


def adapted(base, trained):
    """Logits of transformers' model with adapters added in, differentiable in them."""
    weights = {name: p.detach() for name, p in base.named_parameters()}
    for name in [n[:-2] for n in trained if n.endswith(".A")]:
        weights[f"model.{name}.weight"] = weights[f"model.{name}.weight"] + network.SCALE * (
            trained[f"{name}.B"] @ trained[f"{name}.A"]
        )
    return lambda ids: torch.func.functional_call(base, weights, (ids,)).logits[0]


def test_rows_and_gradients_equal_transformers(base, net):
    system, paths = [3, 4], {(0, 5): [7, 8, 9, 10, 11, 12], (1, 3): [7, 8, 20, 21]}  # (row, last place): ids to there
    ids = torch.tensor([[7, 8, 9, 10, 11, 12], [7, 8, 20, 21, 0, 0]])
    mask = torch.zeros(2, 1, 6, 8, dtype=torch.float64)
    mask[:, :, :, 2:] = torch.full((6, 6), -torch.inf).triu(1)
    positions = torch.arange(2, 8).expand(2, 6)
    embed = net.frozen["embed"]
    states = network.decode(net, embed[system], embed[ids], positions, mask)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 50)))
    loss, wanted = 0, 0
    reference = adapted(base, net.trained)
    for (row, place), path in paths.items():
        mine, theirs = network.logits(net, states[row, place]), reference(torch.tensor([system + path]))[-1]
        assert torch.allclose(mine, theirs, atol=1e-5)
        loss, wanted = loss + (weights[row] * mine).sum(), wanted + (weights[row] * theirs).sum()
    got = torch.autograd.grad(loss, [*net.trained.values()])
    expected = torch.autograd.grad(wanted, [*net.trained.values()])
    for name, x, y in zip(net.trained, got, expected, strict=True):
        assert y.abs().max() > 0 and torch.allclose(x, y, rtol=1e-4, atol=1e-6 * float(y.abs().max())), name
