"""With what a model's own forward calls its decoder, found without running the decoder or the vision tower twice.

The forward is started on the processor's output and stopped by a hook on the decoder. What stands in the call is all
that later passes need: merged embeddings, positions, masks, features that the decoder adds between its layers. The
vision features are kept too, so that the untouched model can be run again, for comparison, without its tower."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import torch

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.models.decoder import decoder_of, opened
from analysis_lib.models.records import VideoLLM

NOT_OURS = ("inputs_embeds", "input_ids", "use_cache", "past_key_values", "return_dict", "logits_to_keep")


class _Stop(Exception):
    """Ends the model's own forward at its decoder."""


@torch.no_grad()
def decoder_call(vlm: VideoLLM, given: Mapping[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
    """With what the model's own forward calls its decoder for the inputs `given`: embeddings (1, n, d), the rest."""
    found = {}

    def stop(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        found.update(zip(inspect.signature(module.forward).parameters, args, strict=False))
        found.update(kwargs)
        raise _Stop

    try:
        with decoder_of(vlm.hf).register_forward_pre_hook(stop, with_kwargs=True), suppress(_Stop):
            vlm.hf(**given, use_cache=False, logits_to_keep=1)
    except ValueError as error:  # as many features as placeholders, for example
        raise SampleError(f"the model refuses this clip ({str(error).splitlines()[0]})") from error
    if found.get("inputs_embeds") is None:
        raise StudyError(f"{type(vlm.hf).__name__} does not call its decoder with embeddings; see models.decode")
    return found["inputs_embeds"], {k: v for k, v in found.items() if k not in NOT_OURS and v is not None}


def encode_once(vlm: VideoLLM, given: Mapping[str, Any]) -> tuple[torch.Tensor, dict[str, Any], dict[str, Any]]:
    """`decoder_call`, and inputs for the model's own forward that hold vision features in place of pixels; a model that
    does not take features gets its pixels again: the same, only slower."""
    with kept_features(vlm) as features:
        embeds, kwargs = decoder_call(vlm, given)
    encoded = {name: value for name, value in given.items() if not name.startswith("pixel")}
    found = next(iter(features.values()), None)
    for modality in dict.fromkeys((*features, "video")):  # some models encode videos as images and file them as videos
        encoded["mm_encoder_outputs"] = {modality: found}
        with suppress(SampleError, TypeError):
            if torch.equal(decoder_call(vlm, encoded)[0], embeds):
                return embeds, kwargs, encoded
    return embeds, kwargs, dict(given)


def reads_ahead(kwargs: Mapping[str, Any]) -> np.ndarray | bool:
    """(n, n) bool [query, key > query], the later positions that each may read in some layer, by the masks in a
    decoder's call: one, or one for each kind of layer. False if there are none: the model is causal."""
    masks = kwargs.get("attention_mask")
    masks = masks.values() if isinstance(masks, Mapping) else [masks]
    seen = [opened(mask)[0, 0] for mask in masks if mask is not None and mask.ndim == 4]
    ahead = torch.stack(seen).any(0).triu(1) if seen else torch.zeros(1)
    return ahead.cpu().numpy() if ahead.any() else False


@contextmanager
def kept_features(vlm: VideoLLM) -> Iterator[dict[str, Any]]:
    """What the model's `get_video_features` and `get_image_features` return inside the block, by modality."""
    owner, kept = vlm.hf.base_model, {}

    def keep(modality: str, encode: Callable, /, *args: Any, **kwargs: Any) -> Any:
        found = encode(*args, **kwargs)
        kept.clear()  # encoding a video may go through the image's encoder: what ends last is the model's own call
        kept[modality] = found
        return found

    names = {m: f"get_{m}_features" for m in ("video", "image") if hasattr(owner, f"get_{m}_features")}
    try:
        for modality, name in names.items():
            setattr(owner, name, partial(keep, modality, getattr(owner, name)))
        yield kept
    finally:
        for name in names.values():
            owner.__dict__.pop(name, None)
