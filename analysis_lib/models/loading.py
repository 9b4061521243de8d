"""Video LLMs through unmodified transformers classes: loading them, asking about a clip, and the parts of the network.

Two paths lead from a clip and a question to a merged prompt. Native video models bring their own processor
(`native.py`). The published study's image models are shown a clip frame by frame (`pooled.py`). What differs between
families is one table (`families.py`). From there on there is one path: the decoder, its layers, norm and output head.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from analysis_lib.errors import SampleError
from analysis_lib.models import checkpoints
from analysis_lib.models.families import FAMILIES, check_decoder, family_of
from analysis_lib.models.roles import Roles
from analysis_lib.models.torchvision_ops import ensure_torchvision

if TYPE_CHECKING:
    from analysis_lib.inputs.benchmarks import Sample


@dataclass
class VideoLLM:
    """A loaded model with what is needed to ask it about a clip.

    `name` is the folder's or the hub repository's last part. Native video models have a `processor` and the rendered
    chat `template`, pooled ones an `image_processor`. `positions`: see `families.Family`. `noops` holds what all-open
    masks changed, by attention kernel and prompt (`receipts`).
    """

    name: str
    hf: Any
    tokenizer: Any
    image_processor: Any
    protocol: str
    num_frames: int
    device: torch.device
    dtype: torch.dtype
    weights_sha256: str
    revision: str | None
    letter_ids: tuple[int, ...]  # vocabulary entry of each bare letter A, B, …
    processor: Any = None
    template: str = ""
    positions: str = "own"
    noops: dict[tuple[str, str], float] = field(default_factory=dict, repr=False)
    _head32: Any = field(default=None, repr=False)


@dataclass
class Inputs:
    """One prompt merged with its video.

    `embeds` (1, n, d) and `decoder_kwargs` are what the decoder is called with, `model_inputs` what the model's own
    forward is (None: pooled, built from `embeds`; there `input_ids` keeps the one placeholder). `frame_tokens` are the
    tokens of each frame by the processor's account, `grid` (T, h, w) their layout, None if frames differ (`on_grid`).
    `calls` is the record of the clean pass, once one was made (`exact.record`).
    """

    input_ids: list[int]
    embeds: torch.Tensor
    roles: Roles
    letter_ids: list[int]
    n: int
    frame_tokens: tuple[int, ...] = ()
    grid: tuple[int, int, int] | None = None
    decoder_kwargs: dict[str, Any] = field(default_factory=dict)
    model_inputs: dict[str, Any] | None = None
    positions: str = "own"
    by_columns: bool = False
    calls: Any = field(default=None, init=False, repr=False)


def check_model(model: str) -> Path | str:
    """Resolve a model's name before it is loaded: a folder that looks complete, or a hub id (returned as it is).

    Accepts the name of an embedded model (a folder in data/models), a folder, or `owner/name`. Raises StudyError with
    the fix.
    """
    return checkpoints.find(model)


def load_model(model: str, *, dtype: str = "auto", device: str = "auto") -> VideoLLM:
    """Load a model strictly, for inference, with SDPA attention.

    `dtype` auto: float32 on a CPU, the checkpoint's own on a GPU. `device` auto: cuda if there is one, and all GPUs if
    the model does not fit the first. Raises
    StudyError for names of weights that are missing, unexpected or of another shape, and for anything `check_model`
    refuses.
    """
    place = checkpoints.device_for(device)
    source = check_model(model)
    folder, revision = (source, None) if isinstance(source, Path) else checkpoints.fetch(source)
    ensure_torchvision()
    from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast

    config = checkpoints.read_config(folder)
    family = family_of(folder, config)
    wanted = checkpoints.dtype_for(dtype, place, config)
    device_map = checkpoints.spread(folder, wanted, place) if device == "auto" else None
    hf = checkpoints.load_strict(folder, family, wanted, device_map)
    check_decoder(hf)
    # As saved in the folder: AutoTokenizer may rebuild a tokenizer from its class name, with other ids.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    chat = family.protocol == "chat"
    vlm = VideoLLM(
        name=folder.name if revision is None else model.split("/")[1],
        hf=(hf.to(place) if device_map is None else hf).eval().requires_grad_(False),
        tokenizer=tokenizer,
        image_processor=None if chat else CLIPImageProcessorPil.from_pretrained(folder),
        protocol=family.protocol,
        num_frames=family.num_frames if chat else hf.config.num_frames,
        device=place,
        dtype=hf.dtype,
        weights_sha256=checkpoints.weights_sha256(folder),
        revision=revision,
        letter_ids=checkpoints.letter_ids(tokenizer, folder),
        positions=family.positions,
    )
    if chat:
        from analysis_lib.models import native

        native.prepare(vlm, folder)
        if config["model_type"] not in FAMILIES:
            native.verify(vlm)
    _keep_freed_memory()
    return vlm


def _keep_freed_memory() -> None:
    """Let the C library keep up to 256 MiB that tensors free (glibc only). Else it returns them and asks for new pages
    at every layer, which costs a sweep on a CPU up to a quarter of its time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for threshold in (-1, -3) if mallopt else ():  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        mallopt(threshold, 1 << 28)


# ---- one sample ----


def check_frames(vlm: VideoLLM, frames: np.ndarray) -> None:
    """Raise SampleError unless frames are (T, H, W, 3) uint8, at least one, and no more than the model is shown."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise SampleError(f"frames must be (T, H, W, 3) uint8 with T >= 1, not {frames.shape} {frames.dtype}")
    if len(frames) > vlm.num_frames:
        raise SampleError(f"{len(frames)} frames given, the model takes {vlm.num_frames}; sample them first")


@torch.no_grad()
def make_inputs(vlm: VideoLLM, sample: Sample, clip: Any) -> Inputs:
    """Prompt and clip merged.

    `clip` is a Clip or its frames (T, H, W, 3) uint8. Raises SampleError for a bad sample.
    """
    if len(sample.options) > len(vlm.letter_ids):
        raise SampleError(f"{len(sample.options)} options, but the tokenizer has only {len(vlm.letter_ids)} letters")
    if vlm.processor is not None:
        from analysis_lib.models.native import make_native_inputs

        return make_native_inputs(vlm, sample, clip)
    from analysis_lib.models.pooled import make_pooled_inputs

    return make_pooled_inputs(vlm, sample, getattr(clip, "frames", clip))


def answer_ids(vlm: VideoLLM, sample: Sample, text: str) -> list[int]:
    """Vocabulary entries of the options' letters; of an open-ended question the one with which its answer goes on after
    the prompt `text` (its published answer's first token, a space before it where the prompt ends in a word).
    """
    if sample.options:
        return list(vlm.letter_ids[: len(sample.options)])
    line = text[text.rfind("\n") + 1 :]
    gap = "" if not line or line[-1] in " (" else " "
    encoded = vlm.tokenizer(line + gap + sample.reference, add_special_tokens=False, return_offsets_mapping=True)
    after = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    found = [token for token, (_, stop) in after if stop > len(line + gap)]
    if not found:
        raise SampleError(f"the answer {sample.reference!r} has no token of its own")
    return found[:1]


def on_grid(inputs: Inputs, values: np.ndarray) -> np.ndarray:
    """Values (…, N_v) of video tokens as (…, T, h, w), the frame's rows from top to bottom."""
    frames, height, width = inputs.grid
    if inputs.by_columns:
        return values.reshape(*values.shape[:-1], frames, width, height).swapaxes(-1, -2)
    return values.reshape(*values.shape[:-1], frames, height, width)


# ---- parts of the network ----


def model_logits(vlm: VideoLLM, inputs: Inputs) -> torch.Tensor:
    """Last-position logits (V,) in the model's dtype, from its own forward: placeholders in the ids, no hooks."""
    return own_logits(vlm, inputs)[-1]


def own_logits(vlm: VideoLLM, inputs: Inputs) -> torch.Tensor:
    """Logits (rows, V) of the model's own forward, asked for the last row; some models return all rows all the same."""
    given = inputs.model_inputs
    if given is None:
        from analysis_lib.models.pooled import model_inputs

        given = model_inputs(vlm, inputs)
    return vlm.hf(**given, use_cache=False, logits_to_keep=1).logits[0]


def decode(vlm: VideoLLM, inputs: Inputs, **cache: Any) -> torch.Tensor:
    """The decoder's output (B, n, d), normed, called as the model itself calls it."""
    kwargs = {**inputs.decoder_kwargs, "use_cache": False, **cache}
    return vlm.hf.get_decoder()(inputs_embeds=inputs.embeds, **kwargs).last_hidden_state


def decoder_layers(vlm: VideoLLM) -> torch.nn.ModuleList:
    """The decoder layers in order; each has a `self_attn`."""
    return vlm.hf.get_decoder().layers


def final_norm(vlm: VideoLLM) -> torch.nn.Module:
    """The norm between the last decoder layer and the output head."""
    return vlm.hf.get_decoder().norm


def unembed(vlm: VideoLLM, hidden: torch.Tensor, *, norm: bool = True) -> torch.Tensor:
    """float32 logits (…, V) of residual states (…, d), through final norm (unless norm=False) and output head.

    Modules are called, never their raw weights, so offloaded weights work too. A head in lower precision is copied
    once to float32: half-precision logits near 20 are an eighth apart, which moves probabilities by several percent.
    A model in float64 keeps float64. Logits are where `hidden` is.
    """
    head = vlm.hf.get_output_embeddings()
    wide = torch.float64 if head.weight.dtype == torch.float64 else torch.float32
    states = hidden.to(wide)
    states = final_norm(vlm)(states).to(wide) if norm else states
    if head.weight.dtype != wide:
        vlm._head32 = head = vlm._head32 or _float32(head)
        states = states.to(head.weight.device)
    return head(states).to(hidden.device)


def _float32(head: torch.nn.Linear) -> torch.nn.Linear:
    """A copy of the output head in float32, on the device on which it computes."""
    from accelerate.utils import align_module_device

    with align_module_device(head):  # brings offloaded weights
        own = {name: value.float() for name, value in head.state_dict().items()}
    copied = torch.nn.Linear(head.in_features, head.out_features, "bias" in own, device="meta")
    copied.load_state_dict(own, assign=True)
    return copied.requires_grad_(False)
