"""Two frames trade places: exactly their tokens move; a wrong map, a text or a position that moves is seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis_lib.instrument import checks
from analysis_lib.instrument.frames import traded_frames
from analysis_lib.models import merging
from analysis_lib.models.roles import Roles

BLANKED = "blanked frames that move other tokens more than theirs"


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # GLM-4V's processor


@pytest.fixture
def changed(monkeypatch):
    """A function that has `change(inputs, clip)` applied to every prompt that is merged from now on."""

    def use(change):
        real = merging.make_native_inputs
        monkeypatch.setattr(
            merging, "make_native_inputs", lambda vlm, sample, clip: change(real(vlm, sample, clip), clip)
        )

    return use


def relabelled(inputs, frame_of):
    """The prompt with another map from frames to tokens."""
    old = inputs.roles
    names = tuple(
        f"frame {k}" if k else "frame_text" if o else n
        for k, o, n in zip(frame_of, old.frame_of, old.names, strict=True)
    )
    counts = tuple(np.bincount(frame_of, minlength=len(inputs.frame_tokens) + 1)[1:].tolist())
    return replace(inputs, roles=Roles(names, old.spans, old.text, old.sentence, old.answer), frame_tokens=counts)


def traded(vlm):
    question, clip = checks.made_up_clip(vlm)
    with torch.no_grad():
        return traded_frames(vlm, question, clip, merging.make_inputs(vlm, question, clip))


def test_exactly_the_tokens_of_traded_frames_move(case):
    for frames in (1, 2, 4, 8):  # a qwen model makes one temporal patch of two
        if frames > 1 or "qwen" not in case.name and "glm" not in case.name:
            case.vlm.num_frames = frames
            assert traded(case.vlm) == (0, False)
    case.vlm.num_frames = 4


@pytest.mark.parametrize(("family", "frames"), [("llava_next_video", 8), ("qwen2_vl", 8), ("qwen3_vl", 8)])
def test_a_map_that_is_one_token_off_is_seen_here_alone(checkpoint, changed, family, frames):
    vlm = checkpoint(family, frames=frames)

    def first_of_the_third_goes_to_the_second(inputs, clip):
        frame_of = inputs.roles.frame_of.copy()
        frame_of[np.flatnonzero(frame_of == 3)[0]] = 2
        return relabelled(inputs, frame_of)

    changed(first_of_the_third_goes_to_the_second)
    table = checks.door_test(vlm).set_index("check")
    assert (
        table.loc[BLANKED, "passed"]
        and table.loc[checks.TRADED, "value"] == 2
        and not table.loc[checks.TRADED, "passed"]
    )


def test_frames_in_another_order_and_tokens_between_the_wrong_frames_are_seen(checkpoint, changed):
    vlm = checkpoint("internvl", frames=8)
    each = len(merging.make_inputs(vlm, *checks.made_up_clip(vlm)).roles.positions("frame 1"))
    changed(lambda inputs, clip: relabelled(inputs, np.where(inputs.roles.frame_of, 9 - inputs.roles.frame_of, 0)))
    assert traded(vlm) == (8 * each, False)  # the other four frames move, both times
    interleaved = np.tile(np.arange(1, 9), each)

    def mixed(inputs, clip):
        frame_of = inputs.roles.frame_of.copy()
        frame_of[frame_of > 0] = interleaved
        return relabelled(inputs, frame_of)

    changed(mixed)
    assert traded(vlm)[0] > 0


def test_where_frames_meet_their_tokens_must_move_and_text_may_not(checkpoint, changed):
    vlm = checkpoint("internvl", frames=8)

    def meet(inputs, clip):  # every token sees the clip's order of frames
        felt = float((clip.frames.astype(float).mean((1, 2, 3)) * np.arange(1, 9)).sum())
        inputs.embeds[:, inputs.roles.frame_of > 0] += felt
        return inputs

    changed(meet)
    assert traded(vlm) == (0, True)
    table = checks.door_test(vlm).set_index("check")
    assert table.loc[checks.TRADED + checks.MEET, "passed"]

    def also_a_text(inputs, clip):
        inputs.embeds[0, -1] += clip.frames[0].mean()
        return inputs

    changed(also_a_text)
    assert traded(vlm) == (1, True)  # the first trade changes the first frame


def test_features_for_later_layers_count_and_positions_may_not_move(checkpoint, changed):
    vlm = checkpoint("qwen3_vl", frames=16)

    def into_the_last(inputs, clip):
        later = inputs.decoder_kwargs["deepstack_visual_embeds"]
        later[0][len(later[0]) - 1] += clip.frames[0].mean()
        return inputs

    changed(into_the_last)
    assert traded(vlm) == (1, False)

    def in_time(inputs, clip):
        inputs.decoder_kwargs["position_ids"] = inputs.decoder_kwargs["position_ids"] + int(clip.frames[0, 0, 0, 0])
        return inputs

    changed(in_time)
    assert traded(vlm)[0] > len(merging.make_inputs(vlm, *checks.made_up_clip(vlm)).roles.positions("text"))


def test_the_mark_at_the_end_of_a_row_cannot_be_seen_to_move(checkpoint, changed):
    vlm = checkpoint("llava_next_video", frames=4)

    def marked(inputs, clip):
        ends = [np.flatnonzero(inputs.roles.frame_of == frame)[-1] for frame in range(1, 5)]
        inputs.embeds[0, ends] = 1.0
        return inputs

    changed(marked)
    assert traded(vlm) == (0, False)


def test_a_token_that_does_not_follow_its_picture_is_seen(checkpoint, changed):
    vlm = checkpoint("llava_next_video", frames=4)

    def stuck(inputs, clip):
        ends = [np.flatnonzero(inputs.roles.frame_of == frame)[-1] for frame in range(1, 5)]
        inputs.embeds[0, ends[:1]] = 1.0
        return inputs

    changed(stuck)
    assert traded(vlm) == (1, False)
