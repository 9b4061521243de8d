"""One prompt through a native video model's own processor, for every family of transformers in the same way.

The chat template is rendered once. For each sample the processor gets our decoded frames with its own sampling off, and
puts text for the one placeholder: video tokens, and in many families timestamps and separators. Which token belongs to
which frame follows from the processor's own quantities and must agree with the runs of placeholder tokens. Then the
model's own forward says with what it calls its decoder (`capture.py`), and every later pass calls it with the same."""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.inputs.records import Clip, Question
from analysis_lib.models.capture import decoder_call, encode_once
from analysis_lib.models.families import Family, facts_of
from analysis_lib.models.prompts import CONTENT, Span, build_chat_prompt
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.models.roles import expanded_roles


def processor_and_template(folder: Path, tokenizer: Any, shown: str = "video") -> tuple[Any, str]:
    """A checkpoint's processor and its rendered chat template, for a video or for one image, as `shown` says. StudyError
    if either is missing or takes no videos, or not several images. The processor gets the tokenizer as saved: its own
    may have been rebuilt from a class name, with other ids."""
    from transformers import AutoProcessor  # heavy

    kind = "video" if shown == "video" else "image"
    try:
        processor = AutoProcessor.from_pretrained(folder)
        processor.tokenizer = tokenizer
        for name in [name for name in vars(processor) if name.endswith("_token_id")]:
            token = getattr(processor, name.removesuffix("_id"), None)
            if isinstance(token, str):
                setattr(processor, name, tokenizer.convert_tokens_to_ids(token))
        template, twice = (_rendered(processor, kind, count) for count in (1, 2))
    except Exception as error:  # missing files, packages or templates surface as many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StudyError(f"{folder}: the processor or its chat template cannot be used ({reason})") from error
    token = getattr(processor, f"{kind}_token", None)
    if not isinstance(token, str):
        raise StudyError(f"{folder}: {type(processor).__name__} takes no {kind}s")
    if kind == "image" and (template.count(token), twice.count(token)) != (1, 2):
        found = f"it shows {template.count(token)} of one and {twice.count(token)} of two"
        raise StudyError(f"{folder}: the chat template does not take a clip's frames as images: {found} ({token})")
    return processor, template


def _rendered(processor: Any, kind: str, count: int) -> str:
    """The chat template with so many videos or images, and then the question."""
    turn = {"role": "user", "content": [*[{"type": kind}] * count, {"type": "text", "text": CONTENT}]}
    return processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)


def make_native_inputs(vlm: VideoLLM, sample: Question, clip: Clip) -> Inputs:
    """Prompt and clip merged by the model itself, but for the letters. Raises SampleError for a bad sample, StudyError
    if the processor's output does not add up."""
    family = facts_of(vlm.hf.config.model_type)
    template, placeholder = _template(vlm)
    start = vlm.tokenizer.bos_token
    adds_start = not (start and template.startswith(start))  # the tokenizer, where the chat template does not
    given, grown, pieces = _process(vlm, build_chat_prompt(sample, template, placeholder).text, clip, adds_start)
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
    return _repaired(vlm, Inputs(ids, embeds, roles, [], len(ids), counts, grid, kwargs, given), family)


def _template(vlm: VideoLLM) -> tuple[str, str]:
    """The rendered chat template, and what stands in it for the clip: one placeholder, or all from the first image's to
    the last's."""
    if vlm.shown == "video":
        return vlm.template, vlm.processor.video_token
    template, token = _rendered(vlm.processor, "image", vlm.num_frames), vlm.processor.image_token
    return template, template[template.index(token) : template.rindex(token) + len(token)]


def _process(vlm: VideoLLM, text: str, clip: Clip, adds_start: bool) -> tuple[dict[str, Any], str, list[Span]]:
    """The model's inputs, the text that the processor put for what stood for the clip, and where in it the text of
    the video is, or that of each image."""
    held = len(clip.frames)
    order = np.arange(held).repeat(-(-vlm.num_frames // held))[: vlm.num_frames]  # fewer frames are each repeated
    if vlm.shown == "video":
        wanted, shown = 1, {"videos": [clip.frames[order]], **_times(clip, order)}
    else:
        wanted, shown = len(order), {"images": [Image.fromarray(frame) for frame in clip.frames[order]]}
        if text.count(vlm.processor.image_token) != wanted:
            raise SampleError(f"the question or an answer contains {vlm.processor.image_token!r}, which stands for a frame")
    kinds = "mm_token_type_ids" in inspect.signature(vlm.hf.forward).parameters
    shown |= {"return_mm_token_type_ids": True} if kinds else {}
    name = type(vlm.processor).__name__
    with _kept_replacements(vlm.processor) as kept:
        try:
            given = vlm.processor(text=[text], return_tensors="pt", add_special_tokens=adds_start, **shown)
        except (ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise SampleError(f"the model's processor refuses this clip ({reason})") from error
    if not kept:
        raise StudyError(f"{name} does not say what text it puts for the video")
    [(expanded, *_), (replaced, *_)] = kept
    given.pop("video_metadata", None)
    if len(replaced) != wanted:
        raise StudyError(f"{name} put {len(replaced)} videos or images into the prompt instead of {wanted}")
    start, stop = replaced[0]["new_span"][0], replaced[-1]["new_span"][1]
    pieces = [(first - start, last - start) for first, last in (each["new_span"] for each in replaced)]
    return dict(given.to(vlm.device, vlm.dtype)), expanded[start:stop], pieces  # only floats change their type


def _times(clip: Clip, order: np.ndarray) -> dict[str, Any]:
    """What a processor is told of the frames `order` of a clip; SampleError if the clip states no times."""
    from transformers.video_utils import VideoMetadata  # heavy

    if not np.isfinite(clip.seconds).all():
        raise SampleError("the video states no frame rate, but this model's prompt states times")
    fps = next((i / at for i, at in zip(clip.indices[::-1], clip.seconds[::-1], strict=True) if at > 0), 1.0)
    height, width = clip.frames.shape[1:3]
    total = clip.indices[-1] + 1
    metadata = VideoMetadata(
        total_num_frames=total, fps=fps, width=width, height=height, duration=total / fps,
        frames_indices=[int(clip.indices[i]) for i in order],
    )  # fmt: skip
    return {"video_metadata": [metadata], "do_sample_frames": False, "return_metadata": True}


@contextmanager
def _kept_replacements(processor: Any) -> Iterator[list]:
    """What the processor's own replacement of placeholders returns inside the block: texts, and what was replaced."""
    kept, replace_all = [], processor.get_text_with_replacements

    def keep(*args: Any, **kwargs: Any) -> tuple:
        kept[:] = found = replace_all(*args, **kwargs)
        return found

    processor.get_text_with_replacements = keep
    try:
        yield kept
    finally:
        del processor.get_text_with_replacements


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
