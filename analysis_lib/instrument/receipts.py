"""Proof that interventions happened.

A knockout that silently does nothing looks like a finding ("this edge does not matter"). So every sample's run is
checked from outside: an all-open mask must leave the untouched model's logits as they were; one condition is repeated
alone, with the attention weights of its cut edges measured; and each mask must have been applied as often as planned.
A failed receipt is an error, never a row."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Self

import numpy as np
import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument.passes import (
    Seen,
    attention_mask_hooks,
    in_all_layers,
    masked_logits,
    measured_attention,
    probed_mixers,
)  # fmt: skip
from analysis_lib.models.decoder import decode, decoder_of, own_head
from analysis_lib.models.merging import own_logits
from analysis_lib.models.records import Inputs, VideoLLM

TOLERANCE = {torch.float16: 0.5, torch.bfloat16: 0.5, torch.float32: 1e-3, torch.float64: 1e-6}  # a logit's rounding
TIMES = 10  # how many times its own measured rounding a condition may differ where that is more


@dataclass
class Receipt:
    """Numbers of one run, or of many: merging adds the counts and takes the largest of the rest.

    `rounding` is measured where the spot check exceeds TOLERANCE: a cut can leave a state that amplifies rounding ten
    thousand times. In a row that is left without any open key SDPA returns 0; it never reads the future."""

    # Largest numbers, those of conditions from the ones that were measured.
    # Attention weight on a cut edge; change of a mixer's cut row when its sources say something else (must be 0).
    max_blocked_weight: float = 0.0
    kernel_difference: float = 0.0  # of the attention kernel's output to measured weights times values
    noop_difference: float = 0.0  # of a logit, when an all-open mask is put on every layer
    spot_check_difference: float = 0.0  # of a logit, between the batch and the condition run alone
    rounding: float = 0.0  # change of a logit of a condition when its prompt moves by the last digit
    other_heads_difference: float = 0.0  # of a weight in heads left alone, in the first cut layer (must be 0)
    fired: int = 0  # masks applied
    expected: int = 0  # masks that should have been
    fully_blocked_rows: int = 0  # query rows left without any open key, summed over conditions
    conditions: int = 0
    measured: int = 0  # conditions run alone, with their attention measured

    def merge(self, *others: Self) -> Self:
        """All receipts as one."""
        return merged({name: [getattr(receipt, name) for receipt in (self, *others)] for name in vars(self)})

    def check(self, dtype: torch.dtype) -> Self:
        """The receipt itself; StudyError if it proves that an intervention did not happen, or not as asked, or proves
        nothing since a number is none (NaN, as half precision yields where it overflows)."""
        weight, heads, alone = self.max_blocked_weight, self.other_heads_difference, self.spot_check_difference
        if unknown := [name for name, value in vars(self).items() if math.isnan(value)]:
            raise StudyError(f"{', '.join(unknown)} is not a number, so nothing is proven; use --dtype float32")
        if self.fired != self.expected:
            raise StudyError(f"masks were applied {self.fired} times, not {self.expected}; results would be wrong")
        if weight != 0:
            raise StudyError(f"a cut edge still has weight {weight:.2g}; results would be wrong")
        if heads != 0:
            raise StudyError(f"attention changed by {heads:.2g} in heads left alone; results would be wrong")
        if not alone < max(TOLERANCE[dtype], TIMES * self.rounding):
            raise StudyError(f"a condition run alone differs by {alone:.2g} in a logit; use --mode full and report it")
        return self


def merged(numbers: Mapping[str, Sequence[float]]) -> Receipt:
    """Any number of receipts as one, from their numbers by field; a field without any keeps its default."""
    join = {field.name: largest if isinstance(field.default, float) else sum for field in fields(Receipt)}
    return Receipt(**{name: how(numbers[name]) for name, how in join.items() if numbers.get(name)})


def largest(numbers: Sequence[float]) -> float:
    """The largest of some numbers; NaN if one is NaN, which Python's `max` may pass over."""
    return float(np.max(numbers))


def fully_blocked_rows(blocked: np.ndarray, ahead: np.ndarray | bool) -> int:
    """How many rows of (n, n) bool [query, key], True = cut, have no open key; `ahead` as in `Roles`."""
    later = np.broadcast_to(ahead, blocked.shape).sum(1)  # (n,) keys after the query's position
    return int((blocked.sum(1) == np.arange(1, len(blocked) + 1) + later).sum())


@torch.no_grad()
def measure(vlm: VideoLLM, inputs: Inputs, layer_masks: Mapping[int, torch.Tensor], expected: torch.Tensor) -> Receipt:
    """Repeat one condition alone, complete, with its attention measured, and run the no-op. `layer_masks` maps 1-based
    layers to (1, H or 1, n, n) bool, True = cut; `expected` (V,) are the logits as first computed."""
    kernel = decoder_of(vlm.hf).config._attn_implementation
    key = (kernel, sha256(inputs.embeds.float().cpu().numpy().tobytes()).hexdigest())
    if key not in vlm.noops:  # once per prompt and clip for a loaded model
        vlm.noops[key] = noop_difference(vlm, inputs)
    receipt = Receipt(measured=1, expected=len(layer_masks), noop_difference=vlm.noops[key])
    seen_layers, first = set(), []  # and the first cut layer, its mask, and its weights (1, H, n, n)

    def observe(seen: Seen) -> None:
        seen_layers.add(seen.layer)
        mask = layer_masks[seen.layer].to(seen.weights.device)
        if not first:
            first.extend((seen.layer, mask, seen.weights))
        on_cut_edges = seen.weights.masked_fill(~mask, 0)
        receipt.max_blocked_weight = largest([receipt.max_blocked_weight, float(on_cut_edges.max())])
        receipt.kernel_difference = largest([receipt.kernel_difference, seen.kernel_difference])

    def feel(layer: int, change: float) -> None:
        seen_layers.add(layer)
        receipt.max_blocked_weight = largest([receipt.max_blocked_weight, change])

    with measured_attention(vlm, observe, layer_masks), probed_mixers(feel):
        alone, receipt.fired = masked_logits(vlm, inputs, layer_masks)
    if seen_layers != set(layer_masks):
        missed = ", ".join(map(str, sorted(set(layer_masks) - seen_layers)))
        raise StudyError(f"attention in layers {missed} could not be measured; this model cannot be trusted to be cut")
    if first:
        receipt.other_heads_difference = _other_heads(vlm, inputs, *first)
    receipt.spot_check_difference = float((alone[0] - expected).abs().max())
    if not receipt.spot_check_difference < TOLERANCE[vlm.dtype]:
        moved = [masked_logits(vlm, last_digit_moved(inputs, seed), layer_masks)[0] for seed in range(2)]
        receipt.rounding = largest([float((logits - alone).abs().max()) for logits in moved])
    return receipt


def last_digit_moved(inputs: Inputs, seed: int) -> Inputs:
    """The same prompt with every number of its embeddings (1, n, d) one last digit up or down, at random."""
    draws = torch.Generator().manual_seed(seed)
    signs = 2 * torch.randint(2, inputs.embeds.shape, generator=draws) - 1  # (1, n, d)
    step = torch.finfo(inputs.embeds.dtype).eps * signs.to(inputs.embeds)
    return replace(inputs, embeds=inputs.embeds * (1 + step))


def _other_heads(vlm: VideoLLM, inputs: Inputs, layer: int, mask: torch.Tensor, cut: torch.Tensor) -> float:
    """Largest difference of the weights `cut` (1, H, n, n) of a layer to the untouched pass, in heads without a cut."""
    left_alone, clean = ~mask.any((-2, -1)), []  # (1, H or 1)
    if left_alone.shape[1] == 1 or not left_alone.any():
        return 0.0
    with measured_attention(vlm, lambda seen: clean.append(seen.weights), [layer]):
        masked_logits(vlm, inputs, {})
    return float((cut - clean[0])[left_alone].abs().max())


@torch.no_grad()
def noop_difference(vlm: VideoLLM, inputs: Inputs) -> float:
    """Largest change of a logit by an all-open mask on every layer, against the untouched model's own forward, which
    takes the prompt with placeholders. Compared in the model's dtype, through its own norm and head."""
    untouched = own_logits(vlm, inputs)  # (rows, V)
    open_mask = torch.zeros(1, 1, inputs.n, inputs.n, dtype=torch.bool, device=vlm.device)
    with attention_mask_hooks(vlm, in_all_layers(vlm, open_mask)):
        hidden = decode(vlm, inputs)  # (1, n, d)
    hooked = own_head(vlm, hidden[:, -len(untouched) :])[0]  # as many rows: kernels round alike
    return float((hooked[-1].to(untouched.device) - untouched[-1]).abs().max())
