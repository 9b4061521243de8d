"""Cuts in layers that move information by a recurrence or a short convolution, where no edge has a weight.

That position q does not read the sources S means here: the layer's output at q is what the layer computes where nothing
of S was written. In that run the sources' taps of the convolution are zero, their keys and values are not written into
the state, and their gates neither erase nor decay it: the recurrence goes on as if they were not there. All other
positions write. (A decay that stayed would still carry what a source says, since its gate is computed from it.) A
query is the reader's own: where a position's view of itself is cut, its query keeps its own tap, as a softmax query
does. Positions that share their sources share a run, so a block of edges costs two, a position's own and the sources'.

The module itself is unmodified. Hooks on its projections change what the sources hand on (`families.MIXERS`), and its
`forward` is replaced inside a block by one that calls it once a run and puts the rows together."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from analysis_lib.errors import StudyError
from analysis_lib.models.families import MIXERS, mixer_kind

TOKENS = 1 << 15  # positions of one call; more runs go in several


@dataclass(frozen=True, eq=False)
class Run:
    """The layer without some of its sources, and the rows that are read from it."""

    sources: np.ndarray  # (n,) bool
    rows: np.ndarray  # positions, ascending

    @property
    def own(self) -> np.ndarray:
        """(n,) bool, rows whose view of themselves is cut."""
        return self.sources & np.isin(np.arange(len(self.sources)), self.rows)


class Carry:
    """What a mixer hands from earlier positions to later ones, in the form of transformers' caches."""

    def __init__(self, taps: torch.Tensor | None = None, state: torch.Tensor | None = None) -> None:
        self.taps, self.state = taps, state  # (B, channels, kernel), (B, …)

    def get_conv_state(self, *_: Any, **__: Any) -> torch.Tensor | None:
        """The last inputs of the convolution before the call's."""
        return self.taps

    def get_recurrent_state(self, *_: Any, **__: Any) -> torch.Tensor | None:
        """The state that the call starts from."""
        return self.state

    def is_recording_past(self, *_: Any) -> bool:
        """No: it is not for speculative decoding."""
        return False

    def update_conv_state(self, taps: torch.Tensor, *_: Any, conv_kernel_size: int, **__: Any) -> torch.Tensor:
        """The call's inputs of the convolution (B, channels, r) with the earlier ones in front; the last are kept."""
        whole = taps if self.taps is None else torch.cat([self.taps, taps], -1)
        self.taps = torch.nn.functional.pad(whole, (max(0, conv_kernel_size - whole.shape[-1]), 0))
        self.taps = self.taps[..., -conv_kernel_size:]
        return whole

    def update_recurrent_state(self, state: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Keeps the state after the call."""
        self.state = state
        return state

    def of(self, which: Sequence[int]) -> "Carry":
        """Those of some runs, not shared with this one."""
        return Carry(*(None if part is None else part[which].clone() for part in (self.taps, self.state)))


def reach_of(module: torch.nn.Module) -> int:
    """How many positions a mixer's convolution sees at once."""
    return getattr(module, MIXERS[mixer_kind(module)].conv).kernel_size[0]


def runs_of(blocked: np.ndarray, reach: int) -> list[Run]:
    """The runs that the cut edges `blocked` (r, n) of the last r positions need; none without an edge.

    Later sources do not matter to a position, so it may share the run of a later one. Positions within one reach of a
    convolution share none if the earlier one's view of itself is cut: its query keeps a tap that the others must not
    see."""
    first, found = blocked.shape[1] - len(blocked), []  # (sources, rows), rows from the last up
    for q in range(blocked.shape[1] - 1, first - 1, -1):
        cut = blocked[q - first]
        if not cut[: q + 1].any():
            continue
        for sources, rows in found:
            if np.array_equal(sources[: q + 1], cut[: q + 1]) and not (cut[q] and rows[-1] - q < reach):
                rows.append(q)
                break
        else:
            found.append((cut, [q]))
    return [Run(sources, np.array(rows[::-1])) for sources, rows in found]


@contextmanager
def left_out(module: torch.nn.Module, sources: torch.Tensor, own: torch.Tensor) -> Iterator[None]:
    """A block in which the mixer's positions `sources` (B, r) write nothing; queries of `own` keep their own tap.
    Raises StudyError if a part of the mixer was not reached."""
    fired, mixer = [], MIXERS[mixer_kind(module)]
    least, upper = getattr(module, "time_step_limit", (0.0, math.inf))
    # The smallest time step that a mixer allows is one for all positions, so it is put before the softplus instead.
    floor = math.log(math.expm1(least)) - module.dt_bias if least > 0 else None
    empty = {"write": (sources, 0.0), "read": (sources & ~own, 0.0), "gate": (sources, -math.inf)}

    def change(sizes: tuple, part: Any, args: tuple, output: torch.Tensor) -> torch.Tensor:
        held = [output.shape[-1] if size < 0 else size for size, _ in sizes]
        if output.shape[:2] != sources.shape or sum(held) != output.shape[-1]:
            raise StudyError(f"{type(module).__name__} is not made as {mixer_kind(module)}; it cannot be cut")
        fired.append(part)
        pieces = []
        for piece, (_, what) in zip(output.split(held, -1), sizes, strict=True):
            piece = torch.maximum(piece, floor.to(piece)) if what == "gate" and floor is not None else piece
            if what in empty:
                mask, value = empty[what]
                piece = piece.masked_fill(mask[(..., *[None] * (piece.ndim - 2))], value)
            pieces.append(piece)
        return torch.cat(pieces, -1)

    with ExitStack() as stack:
        for name, parts in mixer.parts.items():
            hook = partial(change, parts(module))
            stack.enter_context(getattr(module, name).register_forward_hook(hook))
        if least > 0:
            stack.callback(setattr, module, "time_step_limit", (least, upper))
            module.time_step_limit = (0.0, upper)
        yield
    if len(fired) != len(mixer.parts):
        raise StudyError(f"{len(fired)} of {len(mixer.parts)} parts of {type(module).__name__} were reached by a cut")


@contextmanager
def mixing_by(module: torch.nn.Module, function: Callable) -> Iterator[None]:
    """A block in which the module's forward is `function(own forward, states, other arguments)`."""
    before, own = module.__dict__.get("forward"), module.forward

    def forward(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return function(own, hidden_states, kwargs)

    try:
        module.forward = forward
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def mixed(
    module: torch.nn.Module, forward: Callable, states: torch.Tensor, runs: Sequence[Sequence[Run]], kwargs: dict,
    *, before: torch.Tensor | None = None, observe: Callable[[float], None] | None = None,
) -> torch.Tensor:  # fmt: skip
    """A mixer's output (B, r, d) for `states` (B, r, d) at a prompt's last r positions, each with its own runs.

    `before` (1, m, d) is what the clean pass called it with at the m positions in front. `observe` is called with the
    largest change of a cut row when the sources say something else: 0 if the cut holds."""
    at = 0 if before is None else before.shape[1]
    if at and states.shape[1] == 1:  # one position alone would go through another kernel
        states = torch.cat([before[:, -1:].expand(len(states), -1, -1), states], 1)
        return mixed(module, forward, states, runs, kwargs, before=before[:, :-1], observe=observe)[:, 1:]
    call, n = partial(_call, forward, kwargs), at + states.shape[1]
    carry = Carry()
    if at:
        call(before, carry, 0)
    whole = call(states, carry.of([0] * len(states)) if at else None, at)
    pairs, each = [(i, run) for i, own in enumerate(runs) for run in own], max(1, TOKENS // n)
    if observe:
        observe(0.0)
    for start in range(0, len(pairs), each):
        which, chosen = zip(*pairs[start : start + each], strict=True)
        distinct = list({id(run): run for run in chosen}.values())
        place, carry, (sources, own) = [distinct.index(run) for run in chosen], Carry(), _masks(chosen, states.device)
        if at:
            with left_out(module, *(mask[:, :at] for mask in _masks(distinct, states.device))):
                call(before.expand(len(distinct), -1, -1), carry, 0)

        def without(given: torch.Tensor, carry=carry, place=place, masks=(sources[:, at:], own[:, at:])):
            with left_out(module, *masks):
                return call(given, carry.of(place) if at else None, at)

        given = states[list(which)]  # (c, r, d)
        found = without(given)
        if observe:
            other = without(torch.where((sources & ~own)[:, at:, None], given.flip(-1) - 2 * given, given))
        for j, (i, run) in enumerate(zip(which, chosen, strict=True)):
            rows = torch.from_numpy(run.rows - at).to(states.device)
            whole[i, rows] = found[j, rows]
            if observe:
                observe(float((other[j, rows] - found[j, rows]).abs().max()))
    return whole


def _masks(runs: Sequence[Run], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The runs' sources, and their own rows among them, (B, n) bool each."""
    parts = np.stack([run.sources for run in runs]), np.stack([run.own for run in runs])
    return tuple(torch.from_numpy(part).to(device) for part in parts)


def _call(forward: Callable, kwargs: dict, states: torch.Tensor, carry: Carry | None, start: int) -> torch.Tensor:
    """The mixer's own forward for positions from `start` on, from what is carried."""
    name = next((name for name in ("cache_params", "past_key_values") if name in kwargs), None)
    if name is None and carry is not None:
        raise StudyError("a layer takes no state to start from, so exact cannot cut it; use --mode full")
    given = {**kwargs, **({name: carry} if name else {})}
    if given.get("attention_mask") is not None:  # 1 where the prompt is not padding
        given["attention_mask"] = given["attention_mask"][:1, start : start + states.shape[1]]
    return forward(states, **given)
