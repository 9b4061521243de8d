"""The model without its weights: what can be known of checkpoint, prompt and features before anything is allocated.

transformers builds the model on the meta device, where a tensor has a shape and no memory, and compares it with the
names and shapes in the files. On this skeleton one prompt is made as for any sample. Whole numbers, such as token ids
and grids of patches, are computed as usual; what a weight or a pixel that met one would give is followed by its shape
alone. So a processor that makes another number of video tokens than the model makes features is seen here already."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from analysis_lib.errors import StudyError, reason_of
from analysis_lib.inputs.records import Question
from analysis_lib.models import weights
from analysis_lib.models.capture import decoder_call, kept_features
from analysis_lib.models.families import FAMILIES
from analysis_lib.models.merging import make_inputs
from analysis_lib.models.records import VideoLLM

PLACES = [f"{kind}_token_{what}" for kind in ("video", "image") for what in ("id", "index")]  # of configs


class _ByShape(TorchDispatchMode):
    """Inside the block, what meets a tensor without memory has none either."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(leaf, torch.Tensor) and leaf.is_meta for leaf in tree_leaves((args, kwargs))):
            args, kwargs = tree_map(lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x, (args, kwargs))
        return func(*args, **kwargs)


class _Prompted(Exception):
    """Ends the making of a prompt where the model is called."""


def skeleton(folder: Path, cls: Any, given: dict[str, Any], stored: weights.Shapes, how: dict[str, Any]) -> Any:
    """The model on the meta device, and transformers' report on the weights in the files: their shapes `stored`, or a
    translated checkpoint's tensors, `given` as `originals.translated` gives them. `how` is passed on to transformers.
    Raises StudyError for a config.json that describes no such model, or one of another size than the files."""
    try:
        config = given.get("config") or cls.config_class.from_pretrained(folder)
        with torch.device("meta"):
            tensors = given.get("state_dict") or {name: torch.empty(shape) for name, shape in stored.items()}
        found = {**given, "config": config, "state_dict": dict(tensors), "device_map": "meta"}
        hf, report = cls.from_pretrained(None, **found, **how)
    except Exception as error:  # a config may be wrong in many ways
        if "torch.nn.functional.scaled_dot_product_attention" in str(error):
            lack = f"transformers has no SDPA attention for {cls.__name__}"
            raise StudyError(f"{folder}: {lack}; no edge can be cut") from error
        raise StudyError(f"{folder}: no {cls.__name__} can be made from config.json ({reason_of(error)})") from error
    wanted, held = sum(p.numel() for p in hf.parameters()), sum(tensor.numel() for tensor in tensors.values())
    if wanted > 2 * held:  # weights that are tied, or stored once for several layers, cannot explain it
        asked = f"config.json asks for {wanted:.3g} parameters, but the weights hold {held:.3g}"
        raise StudyError(f"{folder}: {asked}; download it completely, from one checkpoint")
    return hf.eval(), report


def made_up_clip(vlm: VideoLLM) -> tuple[Question, np.ndarray]:
    """A question, and noise to ask it about: (T, 96, 128, 3) uint8."""
    frames = np.random.default_rng(0).integers(0, 255, (vlm.num_frames, 96, 128, 3), dtype=np.uint8)
    return Question("What moves?", ("a cat", "a dog")), frames


def unfit(vlm: VideoLLM, failed: str) -> StudyError:
    """What to raise where a made-up clip shows that the model does not take the common path."""
    kind, name = vlm.hf.config.model_type, type(vlm.hf).__name__
    if kind in FAMILIES:
        return StudyError(f"{name} fails on a made-up clip: {failed}")
    fix = "State what differs in families.FAMILIES; if its decoder is reached another way, in models/decoder.py"
    return StudyError(f"{kind!r} ({name}) is no known family, and on a made-up clip it fails: {failed}. {fix}")


@torch.no_grad()
def check_prompt(vlm: VideoLLM) -> None:
    """Make one prompt with a skeleton in place of the model. Raises StudyError if prompt, processor and config do not
    fit together. What cannot be followed without weights is left to the checks after loading."""
    called: dict[str, Any] = {}

    def stop(module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        called.update(kwargs)
        raise _Prompted

    try:
        with vlm.hf.register_forward_pre_hook(stop, with_kwargs=True), _ByShape():
            make_inputs(vlm, *made_up_clip(vlm))
    except _Prompted:
        pass
    except StudyError as error:
        raise unfit(vlm, str(error)) from error
    except Exception:  # code that asks for values
        return
    if not called:  # a pooled model: features have been counted
        return
    given = {name: value for name, value in called.items() if name not in ("use_cache", "logits_to_keep")}
    failed: Exception | None = None
    with _ByShape(), kept_features(vlm) as features:
        try:
            decoder_call(vlm, given)
        except Exception as error:
            failed = error
    fix = "take processor and config.json from one checkpoint"
    if not features:
        asks_for_values = isinstance(failed, NotImplementedError) or "meta" in str(failed)
        if isinstance(failed, RuntimeError | StudyError) and not asks_for_values:
            raise unfit(vlm, f"the model cannot take what the processor makes ({reason_of(failed)}); {fix}")
        return
    known = {getattr(vlm.hf.config, field, None) for field in PLACES}
    places = sum(token in known for token in given["input_ids"][0].tolist())
    made = [getattr(found, "pooler_output", found) for found in features.values()]
    rows = sum(tensor.shape[:-1].numel() for tensor in tree_leaves(made))
    if rows != places:
        found = f"{type(vlm.processor).__name__} makes {places} video tokens of {vlm.num_frames} frames"
        raise unfit(vlm, f"{found}, but by config.json the model makes {rows} features of them; {fix}")
