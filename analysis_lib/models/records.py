"""What the models of a study are: a loaded model, and one prompt merged with its video."""

from dataclasses import dataclass, field
from typing import Any

import torch

from analysis_lib.models.roles import Roles


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
