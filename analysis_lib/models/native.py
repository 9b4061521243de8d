"""One prompt merged with its clip by a native model itself, for every family of transformers in the same way.

The model's own processor (`processing.py`) puts text for the clip: video tokens, and in many families timestamps and
separators. Which token belongs to which frame follows from the processor's own quantities and must agree with the runs
of placeholder tokens; of frames shown as images, from the text that it put for each. Then the model's own forward says
with what it calls its decoder (`capture.py`), and every later pass calls it with the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Clip, Question
from analysis_lib.models.capture import decoder_call, encode_once, reads_ahead
from analysis_lib.models.families import Family, facts_of
from analysis_lib.models.processing import processed, template_of
from analysis_lib.models.prompts import Span, build_chat_prompt
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.models.roles import expanded_roles


def make_native_inputs(vlm: VideoLLM, sample: Question, clip: Clip) -> Inputs:
    """Prompt and clip merged by the model itself, but for the letters. Raises SampleError for a bad sample, StudyError
    if the processor's output does not add up."""
    family = facts_of(vlm.hf.config.model_type)
    template, placeholder = template_of(vlm)
    start = vlm.tokenizer.bos_token
    adds_start = not (start and template.startswith(start))  # the tokenizer, where the chat template does not
    given, grown, pieces = processed(vlm, build_chat_prompt(sample, template, placeholder).text, clip, adds_start)
    prompt = build_chat_prompt(sample, template.replace(placeholder, grown), grown)
    encoded = vlm.tokenizer(prompt.text, return_offsets_mapping=True, add_special_tokens=adds_start)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    name = type(vlm.processor).__name__
    if ids != given["input_ids"][0].tolist():
        raise StudyError(f"{name} tokenizes otherwise than tokenizer.json; roles cannot be assigned")
    # What the model fills with video features: its config names the token, some families use the image's for that.
    fields = [f"{kind}_token_{what}" for kind in ("video", "image") for what in ("id", "index")]
    known, span = {getattr(vlm.hf.config, field, None) for field in fields}, prompt.spans["image"]
    places = np.array([i for i, at in enumerate(offsets) if ids[i] in known and span[0] <= at[0] < span[1]])
    if len({ids[i] for i in places}) != 1:
        raise StudyError(f"{name} put no video tokens that the model's config names")
    if vlm.shown == "video":
        counts, grid = _frame_counts(vlm, given, places, family.trailing)
    else:
        counts, grid = _image_counts(name, [offsets[i][0] - span[0] for i in places], pieces)
    frame_of = np.zeros(len(ids), int)
    frame_of[places[: sum(counts)]] = np.repeat(np.arange(1, len(counts) + 1), counts)
    roles = expanded_roles(prompt, offsets, frame_of, answer=sample.answer)
    if family.encode is not None:
        features = {"mm_encoder_outputs": {"video": family.encode(vlm.hf.base_model, given)}}
        given = {key: value for key, value in given.items() if not key.startswith("pixel")} | features
    embeds, kwargs, given = encode_once(vlm, given)
    if embeds.shape[1] != len(ids):
        found = f"{type(vlm.hf).__name__} makes {embeds.shape[1]} positions of a prompt of {len(ids)} tokens"
        raise StudyError(f"{found}; one that drops tokens by what the video shows cannot be compared, so turn it off")
    roles = replace(roles, ahead=reads_ahead(kwargs))
    return _repaired(vlm, Inputs(ids, embeds, roles, [], len(ids), counts, grid, kwargs, given), family)


def _image_counts(
    name: str, starts: Sequence[int], pieces: Sequence[Span]
) -> tuple[tuple[int, ...], tuple[int, int, int] | None]:
    """Tokens of each frame shown as an image, and their layout (T, h, w) or None if frames differ: those that start
    inside the image's text. StudyError if one starts in none, or a frame has none."""
    counts = tuple(sum(first <= at < last for at in starts) for first, last in pieces)
    if sum(counts) != len(starts) or not all(counts):
        raise StudyError(f"{name} made {len(starts)} image tokens, of which frames have {counts}")
    side = math.isqrt(counts[0])
    h, w = (side, side) if side**2 == counts[0] else (1, counts[0])
    return counts, (len(counts), h, w) if len(set(counts)) == 1 else None


def _frame_counts(
    vlm: VideoLLM, given: Mapping[str, torch.Tensor], places: np.ndarray, trailing: int
) -> tuple[tuple[int, ...], tuple[int, int, int] | None]:
    """Tokens of each frame, and their layout (T, h, w) or None if frames differ, by the processor's own quantities:
    which patches it kept, the patch grid, or the number of frames. A frame is a temporal patch where the model merges
    frames. Raises StudyError if the account does not fit the frames given or the placeholder tokens at `places`, of
    which `trailing` follow the last frame."""
    merged = 1  # frames in a temporal patch
    runs = [len(run) for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)]
    pixels = given["pixel_values_videos" if "pixel_values_videos" in given else "pixel_values"]
    if "video_grid_thw" in given:
        t = int(given["video_grid_thw"][:, 0].sum())  # some cut a clip into chunks, one row each
        h, w = given["video_grid_thw"][0, 1:].tolist()
        tool = vlm.processor.video_processor
        merged, h, w = getattr(tool, "temporal_patch_size", 1), h // tool.merge_size, w // tool.merge_size
        t = t // merged if t == vlm.num_frames else t  # a grid of frames, which are merged later
    elif pixels.ndim < 5 and len(runs) > 1:  # packed patches: a run of placeholder tokens is a frame
        t, merged = len(runs), vlm.num_frames // len(runs)
        h, w = 1, runs[0]
    else:
        t = pixels.shape[-4]  # (…, T, 3, H, W)
        each = (len(places) - trailing) // t
        side = math.isqrt(each)
        h, w = (side, side) if side**2 == each else (1, each)
    if t * merged != vlm.num_frames and t * merged - vlm.num_frames in range(merged):  # filled up with copies
        found = f"{type(vlm.processor).__name__} merges {merged} frames into a patch"
        raise StudyError(
            f"{found}, of which {vlm.num_frames} frames are no whole number; set num_frames in families.TRIED"
        )
    counts = (h * w,) * t
    if "video_compression_mask" in given:
        counts = tuple(given["video_compression_mask"].view(t, -1).sum(1).tolist())
    if t * merged != vlm.num_frames or runs not in ([sum(counts) + trailing], [n for n in counts if n]):

        def short(numbers: Sequence[int]) -> str:
            return str(numbers) if len(numbers) < 17 else f"{numbers[:3]} and {len(numbers) - 3} more"

        made = f"{type(vlm.processor).__name__} made runs of {short(runs)} video tokens of {vlm.num_frames} frames"
        wanted = f"{t} x {merged} frames with {short(counts)} tokens were expected"
        raise StudyError(f"{made}, where {wanted}; state what differs in families.FAMILIES")
    return counts, (t, h, w) if len(set(counts)) == 1 else None


def _repaired(vlm: VideoLLM, inputs: Inputs, family: Family) -> Inputs:
    """The inputs with text after the video where it belongs in time; as they are, if it is there."""
    own = inputs.decoder_kwargs.get("position_ids")
    if own is None or own.ndim != 3:  # positions in one dimension: nothing to go wrong
        return inputs
    fixed = continued_positions(own, inputs.roles.frame_of > 0)
    if torch.equal(fixed, own):
        return inputs
    if family.positions != "repaired":
        found = f"{type(vlm.hf).__name__} puts the text after the video inside the video's span of positions"
        fix = "if its authors' code does not, set positions='repaired' for it in families.FAMILIES"
        raise StudyError(f"{found}; {fix}")
    given = {**inputs.model_inputs, "position_ids": fixed}
    embeds, kwargs = decoder_call(vlm, given)
    if not torch.equal(kwargs["position_ids"], fixed):
        raise StudyError(f"{type(vlm.hf).__name__} did not take the repaired positions")
    return replace(inputs, embeds=embeds, decoder_kwargs=kwargs, model_inputs=given, positions="repaired")


def continued_positions(positions: torch.Tensor, video: np.ndarray) -> torch.Tensor:
    """m-RoPE positions (3 or 4, 1, n) in which text after a video goes on one after its largest position. So the models
    were trained; transformers 5.3 to 5.23 goes on after the larger side of the video's grid instead, inside the video's
    span of time if it is longer. A first of four rows counts plain text and stays."""
    fixed = positions.clone()
    axes = fixed[-3:, 0]  # (3, n)
    for stop in np.flatnonzero(video[:-1] & ~video[1:]) + 1:
        axes[:, stop:] += axes[:, :stop].max() + 1 - axes[:, stop].max()
    return fixed
