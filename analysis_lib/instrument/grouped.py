"""One decoder layer on many rows of one prompt at once: changed rows of several conditions, side by side.

Everything in a decoder layer but attention works row by row, so the rows of all conditions go through it as one long
sequence, unpadded. Attention is called by group: an attention function of ours runs the model's own kernel on each,
with the clean keys and values of the earlier rows in front. The masks come to it in place of the layer's own."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument.mixers import Run, mixed, mixing_by
from analysis_lib.instrument.passes import attention_through, in_form_of
from analysis_lib.models.decoder import attention_of, decoder_of, mixer_of, named_in
from analysis_lib.models.records import VideoLLM


@dataclass
class Call:
    """How the clean pass called one decoder layer."""

    hidden: torch.Tensor  # (1, n, d), its input
    output: torch.Tensor  # (1, n, d)
    kwargs: dict[str, Any]
    keys: torch.Tensor | None  # (1, H, n, D), like the values; None without softmax attention
    values: torch.Tensor | None
    seen: torch.Tensor  # (n, n) bool [query, key], what the model lets each position see
    added: torch.Tensor | None  # (1, n, d), what the decoder adds to the layer's output
    kernel: str  # of attention; the form of the masks depends on it
    mixed: torch.Tensor | None = None  # (1, n, d), what its mixer was called with, if it has one


class Group:
    """States that start at one row, in one layer: their mask (c, H or 1, r, n). Single rows are queries of one sequence
    instead, (1, H or 1, c, row + c), each blind to the others, so that clean keys are read once, not copied."""

    def __init__(self, row: int, mask: torch.Tensor) -> None:
        self.runs: list[list[Run]] = []  # of each state, where a layer has a mixer
        self.row, self.shape, self.packed = row, (len(mask), mask.shape[2]), mask.shape[2] == 1
        self.size = self.shape[0] * self.shape[1]
        if self.packed:
            mask = mask[:, :, 0].transpose(0, 1)  # (H or 1, c, n)
            own = torch.eye(self.size, dtype=torch.bool, device=mask.device) & mask[..., row:]  # (H or 1, c, c)
            mask = torch.cat([mask[..., :row], own], -1)[None]  # (1, H or 1, c, row + c)
        self.mask = mask

    def split(self, flat: torch.Tensor) -> torch.Tensor:
        """Queries, keys or values (H, c * r, D) as (c, H, r, D); packed, as (1, H, c, D)."""
        return flat[None] if self.packed else flat.unflatten(1, self.shape).transpose(0, 1)


@dataclass
class Cut:
    """What a decoder layer carries to its attention in place of a mask."""

    call: Call
    groups: list[Group]
    fired: list[int]  # grows by one entry when the masks reach the attention kernel
    top: bool  # the top layer


class Offsets:
    """Stands for the cache of an attention that counts its rows to know their positions (Llama 4): what is added to a
    count makes it the row's position in the prompt. Keys and values pass through."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.ahead = rows - torch.arange(len(rows), device=rows.device)

    def get_seq_length(self, *_: Any) -> torch.Tensor:
        """The offset of each row."""
        return self.ahead

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What was handed in."""
        return keys, values


def run_layer(module: Any, flat: torch.Tensor, cut: Cut) -> torch.Tensor:
    """The unmodified layer on all groups' rows, side by side (1, sum of c * r, d); attention goes group by group."""
    call, n = cut.call, len(cut.call.seen)
    positions = [np.tile(np.arange(group.row, n), group.shape[0]) for group in cut.groups]
    rows = torch.from_numpy(np.concatenate(positions)).to(flat.device)  # (sum of c * r,), positions in the prompt
    kwargs = {name: _at_rows(name, value, rows, n) for name, value in call.kwargs.items() if name != "hidden_states"}
    attention = attention_of(module)
    counts = attention is not None and "get_seq_length" in named_in(attention)
    kwargs |= {"attention_mask": cut, "past_key_values": Offsets(rows) if counts else None, "use_cache": False}
    with _last_rows_only(module, cut), _grouped_mixer(module):
        try:
            out = module(flat, **kwargs)
        except (AttributeError, TypeError) as error:
            if f"'{Cut.__name__}' object" not in str(error):
                raise
            found = f"{type(attention).__name__} does more with its mask than hand it on, which exact does not follow"
            raise StudyError(f"{found}; use --mode full") from error
    out = out if torch.is_tensor(out) else out[0]
    return out if call.added is None else out + call.added[:, rows]


def _at_rows(name: str, value: Any, rows: torch.Tensor, n: int) -> Any:
    """A layer's argument for some of its n rows."""
    if name == "position_embeddings" and value is not None:  # cosines and sines, or one complex number for both
        parts = value if isinstance(value, tuple) else (value,)
        found = tuple(part.index_select(-2, rows.to(part.device)) for part in parts)
        return found if isinstance(value, tuple) else found[0]
    if (name in ("position_ids", "cache_position") or name.endswith("token_type_ids")) and value is not None:
        return value.index_select(-1, rows.to(value.device))
    if name == "per_layer_input" and value is not None:  # (1, n, …), what a layer adds of each token
        return value.index_select(1, rows.to(value.device))
    if torch.is_tensor(value) and name != "attention_mask" and n in value.shape:
        raise StudyError(f"a decoder layer takes {name!r} per position, which exact does not slice; use --mode full")
    return value


@contextmanager
def recorded_attention(vlm: VideoLLM) -> Iterator[dict[int, tuple[torch.Tensor, torch.Tensor]]]:
    """Collects the keys and values (1, H, n, D) of each attention module of the decoder inside the block, by its id."""
    kernel, kept = decoder_of(vlm.hf).config._attn_implementation, {}

    def keep(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any):
        kept[id(module)] = key, value = key.contiguous(), value.contiguous()  # as they come from a cache
        return _kernel(module, kernel)(module, query, key, value, *args, **kwargs)

    with attention_through(vlm, "flow_recorded", keep, masks=kernel):
        yield kept


def _grouped_mixer(module: Any) -> AbstractContextManager:
    """A block in which the layer's mixer, if it has one, runs on each group's states, from where the clean rows end."""
    mixer = mixer_of(module)
    if mixer is None:
        return nullcontext()

    def run(own: Callable, states: torch.Tensor, kwargs: dict) -> torch.Tensor:
        cut, outputs = kwargs["attention_mask"], []
        call = cut.call
        kwargs = {**kwargs, "attention_mask": call.kwargs.get("attention_mask")}
        for group, part in zip(cut.groups, states[0].split([group.size for group in cut.groups]), strict=True):
            before = call.mixed[:, : group.row] if group.row else None
            outputs.append(mixed(mixer, own, part.unflatten(0, group.shape), group.runs, kwargs, before=before))
        cut.fired.append(1)
        return torch.cat([output.flatten(0, 1) for output in outputs])[None]  # (1, sum of c * r, d)

    return mixing_by(mixer, run)


def grouped_attention(vlm: VideoLLM) -> AbstractContextManager[None]:
    """A block in which the decoder's attention goes through `_grouped`."""
    return attention_through(vlm, "flow_grouped", _grouped)


def _grouped(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Cut, **kwargs):
    """The model's own kernel on each group: its queries, and clean keys and values before its own."""
    call, groups, outputs = attention_mask.call, attention_mask.groups, []
    kernel, sizes = _kernel(module, call.kernel), [group.size for group in groups]
    for group, *own in zip(groups, *(part[0].split(sizes, 1) for part in (query, key, value)), strict=True):
        queries, keys, values = (group.split(part) for part in own)
        keys, values = _after_clean(call.keys, group.row, keys), _after_clean(call.values, group.row, values)
        mask = in_form_of(call.kwargs.get("attention_mask"), group.mask)
        last_only = attention_mask.top and not group.packed  # as in `_last_rows_only`
        if last_only:
            queries, mask = queries[:, :, -1:], mask[:, :, -1:]
        output, _ = kernel(module, queries, keys, values, mask, **kwargs)  # (c, r or 1, H, D) or (1, c, H, D)
        if last_only:
            output = torch.nn.functional.pad(output, (0, 0, 0, 0, group.shape[1] - 1, 0))
        outputs.append(output.flatten(0, 1))
    attention_mask.fired.append(1)
    return torch.cat(outputs)[None], None  # (1, sum of c * r, H, D)


def _after_clean(clean: torch.Tensor, row: int, own: torch.Tensor) -> torch.Tensor:
    """Keys or values (c, H, r, D) with the clean ones of the rows before `row` in front of them."""
    return torch.cat([clean[:, :, :row].expand(len(own), -1, -1, -1), own], 2)


def _kernel(module: Any, name: str) -> Callable:
    """The attention function that the model calls itself: eager ones stand beside its layers, others are registered."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # heavy

    own = sys.modules[type(module).__module__]
    return own.eager_attention_forward if name == "eager" else ALL_ATTENTION_FUNCTIONS[name]


def _last_rows_only(module: Any, cut: Cut) -> ExitStack:
    """In the top layer only last rows are read afterwards, so its MLP, like its attention, runs on those alone in this
    block. What the others hold is then no state of the model."""
    hooks = ExitStack()
    mlp = getattr(module, "mlp", None)
    if cut.top and mlp is not None and len(inspect.signature(mlp.forward).parameters) == 1:  # else it takes more a row
        lengths = [group.shape[1] for group in cut.groups for _ in range(group.shape[0])]
        last = (np.cumsum(lengths) - 1).tolist()

        def spread(mlp: Any, args: tuple, output: torch.Tensor) -> torch.Tensor:
            whole = output.new_zeros(1, sum(lengths), output.shape[-1])
            whole[:, last] = output
            return whole

        hooks.enter_context(module.mlp.register_forward_pre_hook(lambda mlp, args: (args[0][:, last], *args[1:])))
        hooks.enter_context(module.mlp.register_forward_hook(spread))
    return hooks
