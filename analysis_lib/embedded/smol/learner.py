"""What learns: adapters and projector as flat vectors with an optimizer, the learning rate's course, and the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from analysis_lib.embedded.smol import network, score

HALVES = 2  # of a batch
IGNORE = -100  # nothing is said here
RATES = {"layers": 1e-3, "projector": 2e-4}  # peak learning rates of what is trained, by how its name begins


def pace(step: int, steps: int, falls: bool) -> float:
    """Share of the peak learning rate: 30 steps up, flat, and, if it `falls`, down over the last quarter."""
    end = max(0.02, (steps - step) / (0.25 * steps)) if falls else 1.0
    return min(1.0, (step + 1) / 30, end)


class Learner:
    """What is trained, as one flat vector per learning rate with an optimizer on it; `net.trained` are views of it."""

    def __init__(self, trained: dict[str, torch.Tensor], device: torch.device) -> None:
        """`trained`: named tensors; names begin with a key of RATES."""
        self.views: dict[str, torch.Tensor] = {}
        self.flats: list[torch.nn.Parameter] = []
        for start in RATES:
            own = {name: t for name, t in trained.items() if name.startswith(start)}
            flat = torch.nn.Parameter(torch.cat([t.flatten() for t in own.values()]).to(device))
            pieces = flat.detach().split([t.numel() for t in own.values()])
            self.views |= {
                name: piece.view(t.shape).requires_grad_() for (name, t), piece in zip(own.items(), pieces, strict=True)
            }
            self.flats.append(flat)
        groups = [{"params": [flat], "lr": rate} for flat, rate in zip(self.flats, RATES.values(), strict=True)]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)

    def gradients(self) -> torch.Tensor:
        """All gradients as one vector, and cleared. Raises RuntimeError for a tensor that got none."""
        without = [name for name, view in self.views.items() if view.grad is None]
        if without:
            raise RuntimeError(f"no gradient for {', '.join(without[:3])}")
        whole = torch.cat([view.grad.flatten() for view in self.views.values()])
        for view in self.views.values():
            view.grad = None
        return whole

    def step(self, gradients: torch.Tensor, share: float) -> float:
        """Move by these gradients, their norm clipped to 1, at `share` of the learning rates; returns the norm."""
        norm = gradients.norm()
        gradients = gradients * (1.0 / norm.clamp(min=1.0))
        parts = gradients.split([flat.numel() for flat in self.flats])
        for flat, part, group, rate in zip(self.flats, parts, self.optimizer.param_groups, RATES.values(), strict=True):
            flat.grad, group["lr"] = part, rate * share
        self.optimizer.step()
        return float(norm)


def learn(net: network.Network, learner: Learner, half: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """One half of a batch (`network.shown`): the gradient of its share of the loss, the mean losses (2,) of words and
    of letters, and what was found most likely (n,) wherever something is to be said."""
    logits, said = score.answers(net, half), half["said"]
    each = functional.cross_entropy(logits, said, reduction="none", ignore_index=IGNORE)
    kinds = torch.stack([~half["lettered"] & (said != IGNORE), half["lettered"]])  # (2, n)
    losses = (each * kinds).sum(1) / kinds.sum(1).clamp(min=1)
    (losses.sum() / HALVES).backward()
    return learner.gradients(), losses.detach(), logits.detach().argmax(-1)
