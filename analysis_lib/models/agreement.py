"""What a model and a question must agree on: the frames that are shown, and the tokens that stand for the answers."""

from __future__ import annotations

import numpy as np

from analysis_lib.errors import SampleError
from analysis_lib.inputs.records import Question
from analysis_lib.models.records import VideoLLM


def check_frames(vlm: VideoLLM, frames: np.ndarray) -> None:
    """Raise SampleError unless frames are (T, H, W, 3) uint8, at least one, and no more than the model is shown."""
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise SampleError(f"frames must be (T, H, W, 3) uint8 with T >= 1, not {frames.shape} {frames.dtype}")
    if len(frames) > vlm.num_frames:
        raise SampleError(f"{len(frames)} frames given, the model takes {vlm.num_frames}; sample them first")


def answer_ids(vlm: VideoLLM, sample: Question, text: str) -> list[int]:
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
