"""Loading a checkpoint into a `VideoLLM`, through unmodified classes of transformers."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path
from typing import Any

from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import LETTERS
from analysis_lib.models import checkpoints, native, weights
from analysis_lib.models.families import check_decoder, family_of
from analysis_lib.models.records import VideoLLM
from analysis_lib.models.torchvision_ops import ensure_torchvision


def load_checkpoint(model: str, *, dtype: str = "auto", device: str = "auto") -> VideoLLM:
    """Load a model strictly, for inference, with SDPA attention.

    `dtype` auto: float32 on a CPU, the checkpoint's own on a GPU. `device` auto: cuda if there is one, and all GPUs if
    the model does not fit the first. Raises
    StudyError for names of weights that are missing, unexpected or of another shape, and for anything that
    `checkpoints.find` refuses.
    """
    place = weights.device_for(device)
    source = checkpoints.find(model)
    folder, revision = (source, None) if isinstance(source, Path) else checkpoints.fetch(source)
    ensure_torchvision()
    from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast

    config = checkpoints.read_config(folder)
    family = family_of(folder, config)
    wanted = weights.dtype_for(dtype, place, config)
    device_map = weights.spread(folder, wanted, place) if device == "auto" else None
    hf = weights.load_strict(folder, family, wanted, device_map)
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
        letter_ids=letter_ids(tokenizer, folder),
        positions=family.positions,
    )
    if chat:
        native.prepare(vlm, folder)
    _keep_freed_memory()
    return vlm


def _keep_freed_memory() -> None:
    """Let the C library keep up to 256 MiB that tensors free (glibc only). Else it returns them and asks for new pages
    at every layer, which costs a sweep on a CPU up to a quarter of its time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for threshold in (-1, -3) if mallopt else ():  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        mallopt(threshold, 1 << 28)


def letter_ids(tokenizer: Any, folder: Path) -> tuple[int, ...]:
    """Ids of A, B, … up to the first letter that is not one token."""
    vocabulary = tokenizer.get_vocab()
    ids = tuple(vocabulary[letter] for letter in itertools.takewhile(vocabulary.__contains__, LETTERS))
    if len(ids) < 2:
        raise StudyError(
            f"{folder}: the tokenizer has no single tokens for the letters A and B; answers cannot be read"
        )
    return ids
