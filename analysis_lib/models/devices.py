"""The device that a model runs on, and how it must behave there: digits that float32 promises, memory that is kept."""

import ctypes

import torch

from analysis_lib.errors import StudyError


def device_for(device: str) -> torch.device:
    """The device that auto, cpu or cuda means here; StudyError for others, and for cuda without a GPU."""
    if device not in ("auto", "cpu", "cuda"):
        raise StudyError(f"unknown device {device!r}; choose auto, cpu or cuda")
    seen = torch.cuda.is_available()
    if device == "cuda" and not seen:
        raise StudyError("device cuda asked for, but this torch sees no GPU; use --device cpu")
    return torch.device("cuda" if seen and device != "cpu" else "cpu")


def keep_digits(place: torch.device, dtype: torch.dtype) -> None:
    """On a GPU, too, float32 is 24 binary digits in every product; cuDNN's are of 11 (TF32) unless told otherwise."""
    if place.type == "cuda" and dtype == torch.float32:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def keep_freed_memory() -> None:
    """Let the C library keep up to 256 MiB that tensors free (glibc only). Else it returns them and asks for new pages
    at every layer, which costs a sweep on a CPU up to a quarter of its time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for threshold in (-1, -3) if mallopt else ():  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        mallopt(threshold, 1 << 28)
