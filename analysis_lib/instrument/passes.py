"""Forward passes through the unmodified decoder: clean, with edges cut, and with its attention measured.

States are what decoder layers return, so they are true residual states: the list that transformers returns has the
last one normed. Cutting: a pre-hook on a layer's attention module ANDs our mask with the mask that the model built for
that layer (the causal one where the model leaves it to the kernel), so its own limits, such as sliding windows, stay.
Measuring: for the time of a `with` block the decoder calls an attention function of ours, which runs the very same SDPA
kernel and beside it computes the weights in float32 from the queries, keys and mask that arrived. All of it undoes
itself whatever happens inside a block."""

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument.mixers import mixed, mixing_by, reach_of, runs_of
from analysis_lib.models.decoder import (
    attention_of,
    check_kernel,
    decode,
    decoder_layers,
    decoder_of,
    mixer_of,
    moving_layers,
    opened,
    unembed,
)
from analysis_lib.models.records import Inputs, VideoLLM

_probes: list[Callable] = []  # what to call with a mixer's layer and what its cut rows still feel of their sources
_observers: list[tuple[dict[int, int], Callable]] = []  # layers by id of their attention, and what to call in them


@dataclass
class Clean:
    """What an untouched pass leaves behind: logits, and the states after each layer, none of them normed."""

    logits: torch.Tensor  # (V,) float32
    last: torch.Tensor  # (L, d), at the last position
    video: torch.Tensor  # (L, N_v, d), at the video positions


@dataclass(frozen=True)
class Seen:
    """What one layer's attention did."""

    layer: int  # 1-based
    weights: torch.Tensor  # (B, heads, n, n) float32
    kernel_difference: float  # largest, of the kernel's output to weights times values


@torch.no_grad()
def clean_pass(vlm: VideoLLM, inputs: Inputs) -> Clean:
    """One untouched pass, with the states that lens and emergence read."""
    with calls_of(decoder_layers(vlm)) as calls:
        decode(vlm, inputs)
    return states_of(vlm, inputs, [output for *_, output in calls])


def states_of(vlm: VideoLLM, inputs: Inputs, outputs: Sequence[torch.Tensor]) -> Clean:
    """The states (1, n, d) after each layer, in order, at the positions that are read."""
    if outputs[0].shape[1:] != inputs.embeds.shape[1:]:
        found = f"its layers pass on states of {tuple(outputs[0].shape[1:])}, not {tuple(inputs.embeds.shape[1:])}"
        raise StudyError(f"{type(vlm.hf).__name__}: {found}; a residual stream of several cannot be read or recomputed")
    rows = [inputs.n - 1, *inputs.roles.positions("video")]
    states = torch.cat([output[:, rows].to(vlm.device) for output in outputs])  # (L, 1 + N_v, d)
    return Clean(unembed(vlm, states[-1, 0]), states[:, 0], states[:, 1:])


@torch.no_grad()
def masked_logits(vlm: VideoLLM, inputs: Inputs, layer_masks: Mapping[int, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """float32 last-position logits (B, V) with edges cut, and how many masks were applied. `layer_masks` maps 1-based
    layers to (B, H or 1, n, n) bool, True = cut; all of one batch size B, or of 1."""
    batch = max((mask.shape[0] for mask in layer_masks.values()), default=1)
    # Features for given rows of one prompt, which some decoders take, cannot be shared by copies of it.
    if batch > 1 and not inputs.decoder_kwargs.keys() <= {"attention_mask", "position_ids", "cache_position"}:
        each = [{layer: mask[i % len(mask)][None] for layer, mask in layer_masks.items()} for i in range(batch)]
        logits, fired = zip(*(masked_logits(vlm, inputs, masks) for masks in each), strict=True)
        return torch.cat(logits), min(fired)
    layers = decoder_layers(vlm)
    with (
        attention_mask_hooks(vlm, layer_masks) as fired,
        layers[0].register_forward_pre_hook(partial(_repeat, batch), with_kwargs=True),
        calls_of(layers[-1:]) as calls,
    ):
        decode(vlm, inputs)
    [(*_, output)] = calls  # (B, n, d)
    return unembed(vlm, output[:, -1]), fired.total()


def _repeat(batch: int, module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """A layer's arguments with its states `batch` times."""
    if args:
        return (args[0].expand(batch, -1, -1), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": kwargs["hidden_states"].expand(batch, -1, -1)}


@contextmanager
def calls_of(modules: Iterable[torch.nn.Module]) -> Iterator[list[tuple[torch.Tensor, dict, torch.Tensor]]]:
    """Collects the calls of the modules inside the block: the states (B, n, d) that came in, what else came by name,
    and the states that went out."""
    calls = []

    def keep(module: Any, args: tuple, kwargs: dict, output: Any) -> None:
        states = args[0] if args else kwargs["hidden_states"]
        more = zip(list(inspect.signature(module.forward).parameters)[1:], args[1:], strict=False)
        calls.append((states, dict(more) | kwargs, output if torch.is_tensor(output) else output[0]))

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(keep, with_kwargs=True))
        yield calls


@contextmanager
def attention_mask_hooks(vlm: VideoLLM, layer_masks: Mapping[int, torch.Tensor]) -> Iterator[Counter]:
    """Cut edges inside the block. `layer_masks` maps 1-based layers to (B or 1, H or 1, n, n) bool, True = cut, in each
    query head or in all. Yields a Counter of how often each was applied. Raises StudyError if a layer cannot be cut."""
    check_kernel(vlm.hf)
    fired: Counter = Counter()
    with ExitStack() as hooks:
        for layer, blocked in layer_masks.items():
            module = decoder_layers(vlm)[layer - 1]
            if (attention := attention_of(module)) is not None:
                cut = partial(_cut, layer, blocked, fired)
                hooks.enter_context(attention.register_forward_pre_hook(cut, with_kwargs=True))
            elif (mixer := mixer_of(module)) is not None:
                hooks.enter_context(mixing_by(mixer, partial(_mix, layer, blocked, fired, mixer)))
            else:
                raise StudyError(f"layer {layer} moves nothing between positions, so no edge can be cut there")
        yield fired


def in_all_layers(vlm: VideoLLM, mask: torch.Tensor) -> dict[int, torch.Tensor]:
    """The mask for every layer that moves information between positions."""
    return dict.fromkeys(moving_layers(vlm), mask)


def _cut(layer: int, blocked: torch.Tensor, fired: Counter, module: Any, args: tuple, kwargs: dict) -> tuple:
    if "attention_mask" not in kwargs:
        raise StudyError(f"layer {layer} takes no attention mask, so no edge can be cut there")
    own, states = kwargs["attention_mask"], args[0] if args else kwargs["hidden_states"]
    seen = seen_under(own, states) & ~blocked.to(states.device)  # layers may lie on several devices
    fired[layer] += 1
    return args, {**kwargs, "attention_mask": in_form_of(own, seen)}


def _mix(layer: int, blocked: torch.Tensor, fired: Counter, mixer: Any, own: Callable, states: torch.Tensor, kwargs):
    """A mixer's output (B, n, d) with edges cut, in place of its own."""
    if blocked.shape[1] > 1:
        raise StudyError(f"layer {layer} ({type(mixer).__name__}) has no query heads, so none can be cut there")
    runs = [runs_of(edges, reach_of(mixer)) for edges in blocked[:, 0].cpu().numpy()]
    runs = runs * (len(states) if len(runs) == 1 else 1)  # one mask for all states, or one each
    states = states.expand(max(len(states), len(runs)), -1, -1)
    observe = partial(_probes[-1], layer) if _probes else None
    fired[layer] += 1
    return mixed(mixer, own, states, runs, kwargs, observe=observe)


def seen_under(own: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
    """(B or 1, 1, n, n) bool, which of the states (B, n, d) each may read by the model's own mask; None is causal."""
    if own is None:
        n = states.shape[1]
        return torch.ones(1, 1, n, n, dtype=torch.bool, device=states.device).tril()
    return opened(own)


def in_form_of(own: torch.Tensor | None, seen: torch.Tensor) -> torch.Tensor:
    """`seen` (…, n) bool, True = open, in the form of the model's own mask: bool, or what is added to scores.

    A bool mask gives a row without open keys the output 0. An added one would let such a row read all keys alike, the
    future too, so a cut that leaves a row without any is refused there."""
    if own is None or own.dtype == torch.bool:
        return seen
    if not seen.any(-1).all():
        found = "a position is left without any key, which attention kernel 'eager' turns into reading everything"
        raise StudyError(f"{found}; load the model with attn_implementation sdpa, where such a row outputs 0")
    return torch.zeros(seen.shape, dtype=own.dtype, device=own.device).masked_fill(~seen, torch.finfo(own.dtype).min)


@contextmanager
def measured_attention(vlm: VideoLLM, observe: Callable, layers: Collection[int] | None = None) -> Iterator[None]:
    """Call `observe` with what was `Seen` after each decoder layer's attention inside the block, or only after some
    (1-based `layers`). The model's outputs do not change. Of blocks inside each other the innermost observes."""
    numbered = enumerate(decoder_layers(vlm), start=1)
    chosen = ((i, attention_of(layer)) for i, layer in numbered if layers is None or i in layers)
    _observers.append(({id(attention): i for i, attention in chosen if attention is not None}, observe))
    try:
        with attention_through(vlm, "flow_measured", _measured_sdpa):
            yield
    finally:
        _observers.pop()


@contextmanager
def probed_mixers(observe: Callable) -> Iterator[None]:
    """Call `observe(layer, change)` for each mixer that is cut inside the block: the largest change of its cut rows
    when their sources say something else."""
    _probes.append(observe)
    try:
        yield
    finally:
        _probes.pop()


@contextmanager
def attention_through(vlm: VideoLLM, name: str, function: Callable, masks: str = "sdpa") -> Iterator[None]:
    """Inside the block the decoder calls `function`, registered under `name`, for its attention, with masks in the form
    of the kernel `masks`."""
    from transformers import AttentionInterface, AttentionMaskInterface  # heavy
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    # Both registries need the name: without a mask function of that name the model would build no mask at all.
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[masks])
    config = decoder_of(vlm.hf).config
    before = config._attn_implementation
    try:
        config._attn_implementation = name
        yield
    finally:
        config._attn_implementation = before


def _measured_sdpa(module, query, key, value, attention_mask, **kwargs):
    from transformers.integrations.sdpa_attention import sdpa_attention_forward  # heavy

    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # (B, n, heads, dh)
    layers, observe = _observers[-1]
    if id(module) not in layers:
        return output, None
    groups = query.shape[1] // key.shape[1]
    keys, values = (x.float().repeat_interleave(groups, 1) for x in (key, value))  # (B, heads, n, dh)
    scores = query.float() @ keys.mT * (kwargs.get("scaling") or query.shape[-1] ** -0.5)  # (B, heads, n, n)
    if attention_mask is None or attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~seen_under(attention_mask, query[:, 0]), -torch.inf)
    else:
        scores = scores + attention_mask.float()
    weights = scores.softmax(-1).nan_to_num(0.0)  # SDPA gives a row without open keys the output 0
    gap = ((weights @ values).transpose(1, 2) - output.float()).abs().max()
    observe(Seen(layers[id(module)], weights, float(gap)))
    return output, None
