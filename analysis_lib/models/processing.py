"""Prompt and frames through a model's own processor, as a video or as so many images.

The chat template is rendered once for a video; for frames as images, with as many images as there are frames. For each
sample the processor gets our decoded frames with its own sampling off, and puts its text for what stood for the clip.
Architectures whose processor takes images only are shown a clip in the second way, if their template takes several."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from analysis_lib.errors import SampleError, StudyError, reason_of
from analysis_lib.inputs.records import Clip
from analysis_lib.models.prompts import CONTENT, Span
from analysis_lib.models.records import VideoLLM


def processor_and_template(folder: Path, tokenizer: Any, shown: str = "video") -> tuple[Any, str]:
    """A checkpoint's processor and its rendered chat template, for a video or for one image, as `shown` says.
    StudyError if either is missing, or takes no videos or not several images. The processor gets the tokenizer as
    saved: its own may have been rebuilt from a class name, with other ids."""
    from transformers import AutoProcessor  # heavy

    kind = "video" if shown == "video" else "image"
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        processor.tokenizer = tokenizer
        for name in [name for name in vars(processor) if name.endswith("_token_id")]:
            token = getattr(processor, name.removesuffix("_id"), None)
            if isinstance(token, str):
                setattr(processor, name, tokenizer.convert_tokens_to_ids(token))
        template, twice = (_rendered(processor, kind, count) for count in (1, 2))
    except Exception as error:  # missing files, packages or templates surface as many kinds
        found = f"the processor or its chat template cannot be used ({reason_of(error)})"
        raise StudyError(f"{folder}: {found}") from error
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


def template_of(vlm: VideoLLM) -> tuple[str, str]:
    """The rendered chat template, and what stands in it for the clip: one placeholder, or all from the first image's to
    the last's."""
    if vlm.shown == "video":
        return vlm.template, vlm.processor.video_token
    template, token = _rendered(vlm.processor, "image", vlm.num_frames), vlm.processor.image_token
    return template, template[template.index(token) : template.rindex(token) + len(token)]


def processed(vlm: VideoLLM, text: str, clip: Clip, adds_start: bool) -> tuple[dict[str, Any], str, list[Span]]:
    """The model's inputs, the text that the processor put for what stood for the clip, and where in it the text of
    the video is, or that of each image."""
    held = len(clip.frames)
    order = np.arange(held).repeat(-(-vlm.num_frames // held))[: vlm.num_frames]  # fewer frames are each repeated
    if vlm.shown == "video":
        wanted, shown = 1, {"videos": [clip.frames[order]], **_times(clip, order)}
    else:
        wanted, shown = len(order), {"images": [Image.fromarray(frame) for frame in clip.frames[order]]}
        if text.count(token := vlm.processor.image_token) != wanted:
            raise SampleError(f"the question or an answer contains {token!r}, which stands for a frame")
    kinds = "mm_token_type_ids" in inspect.signature(vlm.hf.forward).parameters
    shown |= {"return_mm_token_type_ids": True} if kinds else {}
    name = type(vlm.processor).__name__
    with _kept_replacements(vlm.processor) as kept:
        call = partial(vlm.processor, text=[text], return_tensors="pt", add_special_tokens=adds_start)
        try:
            given = _told(call, shown)
        except (ValueError, RuntimeError) as error:
            raise SampleError(f"the model's processor refuses this clip ({reason_of(error)})") from error
    if not kept:
        raise StudyError(f"{name} does not say what text it puts for the video")
    [(expanded, *_), (replaced, *_)] = kept
    given.pop("video_metadata", None)
    if len(replaced) != wanted:
        raise StudyError(f"{name} put {len(replaced)} videos or images into the prompt instead of {wanted}")
    start, stop = replaced[0]["new_span"][0], replaced[-1]["new_span"][1]
    pieces = [(first - start, last - start) for first, last in (each["new_span"] for each in replaced)]
    return dict(given.to(vlm.device, vlm.dtype)), expanded[start:stop], pieces  # only floats change their type


def _told(call: Callable[..., Any], shown: dict[str, Any]) -> Any:
    """What the processor makes. Most take a list of facts, one entry a video; one that takes a single video only may
    look for its facts in their place (Nemotron-H Omni)."""
    try:
        return call(**shown)
    except AttributeError as error:
        if not isinstance(error.obj, list) or "video_metadata" not in shown:
            raise
        return call(**shown | {"video_metadata": shown["video_metadata"][0]})


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
