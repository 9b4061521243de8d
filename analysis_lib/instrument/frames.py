"""Do tokens follow the frames that they are said to stand for?

Two changes of a clip show it without any pass through the decoder: a frame that is black moves its own tokens most, and
two frames that trade places move exactly their tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from analysis_lib.inputs.records import Question
from analysis_lib.models.merging import make_inputs
from analysis_lib.models.records import Inputs, VideoLLM


def misplaced_frames(vlm: VideoLLM, question: Question, frames: np.ndarray, inputs: Inputs) -> int:
    """Of the first and the last frame (or temporal patch), how many move other tokens more than their own when they are
    shown black. All text that such a clip moves counts as one more."""
    count, wrong, frame_of = len(inputs.frame_tokens), 0, inputs.roles.frame_of
    each = len(frames) // count
    for number in (1, count):
        shown = frames.copy()
        shown[(number - 1) * each : number * each] = 0
        black = make_inputs(vlm, question, shown)
        if black.input_ids != inputs.input_ids:  # a family that drops tokens which do not change
            continue
        moved = (black.embeds - inputs.embeds)[0].abs().sum(-1).float().cpu().numpy()  # (n,)
        means = [moved[frame_of == frame].mean() if (frame_of == frame).any() else 0 for frame in range(1, count + 1)]
        wrong += int(np.argmax(means)) + 1 != number or means[number - 1] == 0 or moved[frame_of == 0].any()
    return wrong


def traded_frames(vlm: VideoLLM, question: Question, frames: np.ndarray, inputs: Inputs) -> tuple[int, bool]:
    """Tokens that move or stay wrongly when frames 1 and 2 trade places, and again when 3 and 4 do; and whether frames
    meet in the vision tower. A frame is a temporal patch where the model merges frames; patches trade as wholes.

    What must move follows from how the tower works, and this is the one place that says it:

    - It encodes each frame by itself: all tokens of the two frames move and nothing else does, but for those that are
      alike in both (the mark at a row's end, say). A tower that adds a frame's place in time, or gathers neighbours
      into one temporal patch, is of this kind.
    - Frames meet in it (attention or a convolution over time): any video token may move. Those of the two must, and
      no text may. Frames that are pooled over time unevenly meet too; there nothing can trade as a whole.

    Which kind it is must not hang on the map from frames to tokens, which is what is checked: frames meet if a token
    is moved by both trades. With fewer than four frames there is one trade, and the first kind is asked for. The places
    in a prompt keep their positions in time and their timestamps, whatever is shown there. So any other change of the
    decoder's inputs, and another prompt, counts as all tokens."""
    count, frame_of = len(inputs.frame_tokens), inputs.roles.frame_of
    if len(frames) % count:
        return 0, True
    order, pairs = np.arange(len(frames)).reshape(count, -1), [(1, 2), (3, 4)][: count // 2]
    moved = []
    for one, other in pairs:
        traded = order.copy()
        traded[[one - 1, other - 1]] = order[[other - 1, one - 1]]
        moved.append(_moved(inputs, make_inputs(vlm, question, frames[traded.ravel()])))
    meet = len(moved) == 2 and bool((moved[0] & moved[1] & (frame_of > 0)).any())
    theirs = [np.isin(frame_of, pair) for pair in pairs]
    wanted = [at & ~_alike(inputs, *pair) for at, pair in zip(theirs, pairs, strict=True)]
    allowed = [frame_of > 0 if meet else at for at in theirs]
    wrong = (at & ~may | ~at & must for at, may, must in zip(moved, allowed, wanted, strict=True))
    return sum(int(at.sum()) for at in wrong), meet


def _alike(inputs: Inputs, one: int, other: int) -> np.ndarray:
    """(n,) bool: tokens of two frames whose embedding the token at the same place in the other frame has, too."""
    alike, places = np.zeros(inputs.n, bool), [np.flatnonzero(inputs.roles.frame_of == frame) for frame in (one, other)]
    if len(places[0]) == len(places[1]):
        first, second = (inputs.embeds[0, torch.from_numpy(at)] for at in places)  # (tokens of a frame, d)
        alike[np.stack(places)] = (first == second).all(-1).cpu().numpy()
    return alike


def _moved(one: Inputs, other: Inputs) -> np.ndarray:
    """(n,) bool: whose embedding, or features that the decoder adds later, differ; all, if anything else differs."""
    moved, video = np.zeros(one.n, bool), one.roles.positions("video")
    pairs = [list(_tensors([inputs.embeds, inputs.decoder_kwargs])) for inputs in (one, other)]
    if one.input_ids != other.input_ids or len({len(tensors) for tensors in pairs}) > 1:
        return ~moved
    for a, b in zip(*pairs, strict=True):
        if a.shape == b.shape and torch.equal(a, b):
            continue
        axis = next((i for i, size in enumerate(a.shape) if size in (one.n, len(video))), None)
        if axis is None or a.shape != b.shape or not a.is_floating_point():  # positions and masks, for example
            return ~moved
        at = (a != b).movedim(axis, 0).flatten(1).any(1).cpu().numpy()  # (n,) or (N_v,)
        moved[video if len(at) == len(video) else slice(None)] |= at
    return moved


def _tensors(held: Any) -> Iterator[torch.Tensor]:
    """All tensors in what a decoder is called with, in order."""
    if isinstance(held, torch.Tensor):
        yield held
    elif isinstance(held, Mapping | list | tuple):
        for part in held.values() if isinstance(held, Mapping) else held:
            yield from _tensors(part)
