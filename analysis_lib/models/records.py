"""What the models of a study are: a loaded model, and one prompt merged with its video."""

from dataclasses import dataclass, field
from typing import Any

import torch

from analysis_lib.models.roles import Roles


@dataclass
class VideoLLM:
    """A loaded model with what is needed to ask it about a clip."""

    name: str  # the folder's or the hub repository's last part
    hf: Any
    tokenizer: Any
    image_processor: Any  # of pooled models
    protocol: str
    num_frames: int
    device: torch.device
    dtype: torch.dtype
    weights_sha256: str
    revision: str | None
    letter_ids: tuple[int, ...]  # vocabulary entry of each bare letter A, B, …
    processor: Any = None  # of native video models
    template: str = ""  # and their chat template, rendered
    positions: str = "own"  # see `families.Family`, as the next
    shown: str = "video"
    both_ways: bool = False  # frames read later frames too (`Roles.both_ways`), as seen when the model was loaded
    noops: dict[tuple[str, str], float] = field(default_factory=dict, repr=False)  # see `receipts`
    _head32: Any = field(default=None, repr=False)


@dataclass
class Inputs:
    """One prompt merged with its video."""

    input_ids: list[int]  # pooled: with the one placeholder
    embeds: torch.Tensor  # (1, n, d), what the decoder is called with
    roles: Roles
    letter_ids: list[int]
    n: int
    frame_tokens: tuple[int, ...] = ()  # of each frame, by the processor's account
    grid: tuple[int, int, int] | None = None  # their layout (T, h, w), None if frames differ (`on_grid`)
    decoder_kwargs: dict[str, Any] = field(default_factory=dict)  # what else the decoder is called with
    model_inputs: dict[str, Any] | None = None  # what the model's own forward takes; None: pooled, made from `embeds`
    positions: str = "own"
    by_columns: bool = False
    calls: Any = field(default=None, init=False, repr=False)  # the record of the clean pass, once made (`exact.record`)
