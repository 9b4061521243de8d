"""From a video file to the frames that the model sees.

The sampling rule is part of an experiment, so it lives here alone: frame indices are computed by the published rule of
the benchmark (PLLaVA/MVBench: the middle of each of T equal segments, rounded half to even; LongVideoBench: every n-th
frame from the first), decord reads exactly these frames, and indices, times and a hash of the pixels travel with them.
A clip without as many different frames as were asked for is refused: repeated frames would quietly change a question
about time. So is a file shorter than its own container announces: a decoder samples it as if it were a shorter video.
"""

import hashlib
import math
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from analysis_lib.errors import SampleError
from analysis_lib.inputs.records import Clip

FOLDER_FPS = 3.0  # frame folders of MVBench hold three pictures a second
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LFS_POINTER = b"version https://git-lfs"
EBML = b"\x1aE\xdf\xa3"  # begins Matroska and WebM
MP4_BOXES = frozenset(b"ftyp styp moov moof mdat mfra sidx free skip wide uuid meta udta".split())


def sample_indices(
    n_in_video: int, num_frames: int, *, fps: float, start: float | None = None, end: float | None = None,
    rule: str = "middle", first_number: int = 0,
) -> tuple[int, ...]:  # fmt: skip
    """Choose T = `num_frames` different frame indices (0-based) between `start` and `end` (seconds; None: no bound).
    "middle": with first frame s, last frame e and segments of (e - s) / T, index i is int(s + segment / 2 +
    round(segment * i)). A span of exactly T frames is used as it is. `first_number` is the number of the first frame:
    MVBench's folders of pictures count from 1, and their seconds with them. "stride" (`end` is the duration in the
    annotations): 0, n, 2n and so on with n = int(int(end * fps) / T), so the last segment is never seen.
    Raises SampleError if the span holds fewer than T frames, or lies outside the video."""
    if (rule == "stride" or start is not None or end is not None) and not 0 < fps < math.inf:
        raise SampleError("the video states no frame rate, so its start and end in seconds cannot be found")
    if rule == "stride":
        return _strided(n_in_video, num_frames, fps, n_in_video / fps if end is None else end)
    last = n_in_video - 1
    first = 0 if start is None else max(0, round(start * fps) - first_number)
    stop = last if end is None else min(round(end * fps) - first_number, last)
    held = max(0, stop - first + 1)
    if held < num_frames:
        where = "the video" if start is None and end is None else f"the span from {start} s to {end} s"
        raise SampleError(f"{where} holds {held} frames, fewer than the {num_frames} that the model takes")
    if held == num_frames:
        return tuple(range(first, stop + 1))
    segment = (stop - first) / num_frames
    return tuple(int(first + segment / 2 + round(segment * i)) for i in range(num_frames))


def _strided(n: int, num_frames: int, fps: float, duration: float) -> tuple[int, ...]:
    if int(duration) < num_frames:  # the published rule takes at most one frame a second, and repeats the last one
        raise SampleError(f"{duration} s give {int(duration)} frames, fewer than the {num_frames} that the model takes")
    stride = int(int(duration * fps) / num_frames)
    if stride * (num_frames - 1) >= n:
        raise SampleError(f"the video holds {n} frames, fewer than its annotated {duration} s at {fps} a second")
    return tuple(stride * i for i in range(num_frames))


def load_clip(
    path: Path, num_frames: int, *, start: float | None = None, end: float | None = None, rule: str = "middle"
) -> Clip:
    """Read `num_frames` frames of a video file (decord) or of a folder of pictures, by the rule of `sample_indices`.
    Raises SampleError: missing, empty, truncated, too short, no video stream, or undecodable; it names the file."""
    try:
        read = _from_folder if path.is_dir() else _from_file
        frames, indices, fps = read(path, num_frames, start=start, end=end, rule=rule)
        if frames.shape != (num_frames, *frames.shape[1:3], 3) or frames.dtype != np.uint8:
            raise SampleError(f"the decoder returned an array {frames.shape} of {frames.dtype} for {num_frames} frames")
    except SampleError as error:
        raise SampleError(f"{path}: {error}") from error
    except OSError as error:
        raise SampleError(f"{path}: cannot be read ({error.strerror or error})") from error
    seconds = tuple(round(i / fps, 6) if fps > 0 else math.nan for i in indices)
    return Clip(frames, indices, seconds, hashlib.sha256(frames.tobytes()).hexdigest()[:16])


def _from_file(path: Path, num_frames: int, **span: Any) -> tuple[np.ndarray, tuple[int, ...], float]:
    _check_file(path)
    import decord  # heavy, and pointless for a file that fails the checks above

    decord.logging.set_level(decord.logging.QUIET)  # ffmpeg's own lines would drown the one that matters
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        count, fps = len(reader), float(reader.get_avg_fps())
    except Exception as error:  # decord raises RuntimeError, DECORDError and others for the same defects
        if "cannot find video stream" in str(error):
            raise SampleError("no video stream in this file (audio only?)") from error
        raise SampleError("not a video that decord can open (damaged, or another kind of file)") from error
    indices = sample_indices(count, num_frames, fps=fps, **span)
    try:
        return np.stack([_unpadded(reader[i].asnumpy()) for i in indices]), indices, fps  # frames (T, H, W, 3)
    except Exception as error:
        raise SampleError("decoding stopped before the frames needed (truncated or damaged)") from error


def _unpadded(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) from decord's (H, W, C), where the padding of a row (at 96 pixels, say) may pass for more channels.
    Its batch call fails then, but the pixels are intact: 3 * W bytes at the start of each row."""
    height, width, channels = picture.shape
    return picture.reshape(height, width * channels)[:, : 3 * width].reshape(height, width, 3)


def _from_folder(path: Path, num_frames: int, **span: Any) -> tuple[np.ndarray, tuple[int, ...], float]:
    files = [f for f in path.iterdir() if f.suffix.lower() in PICTURES]
    files.sort(key=lambda f: [int(s) if s.isdecimal() else s for s in re.split(r"(\d+)", f.name)])  # 10.png after 9.png
    if not files:
        raise SampleError(f"the folder holds no pictures ({', '.join(PICTURES)})")
    first = min(1, int(re.search(r"\d*$", files[0].stem)[0] or 0))  # of frame_00.png or 00001.jpg
    indices = sample_indices(len(files), num_frames, fps=FOLDER_FPS, first_number=first, **span)
    frames = []
    for file in (files[i] for i in indices):
        try:
            if not file.is_file():  # a pipe would block for ever
                raise OSError("not a file")
            frames.append(np.asarray(Image.open(file).convert("RGB")))
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for damaged pictures
            raise SampleError(f"the picture {file.name} cannot be read (damaged?)") from error
    if len({f.shape for f in frames}) > 1:
        raise SampleError("the pictures of this folder have different sizes")
    return np.stack(frames), indices, FOLDER_FPS


def _check_file(path: Path) -> None:
    """Refuse what a decoder should not see; a pipe among it, on which it would wait for ever."""
    if not path.is_file():
        raise SampleError("no such video file")
    size, announced = path.stat().st_size, 0
    if size == 0:
        raise SampleError("the video file is empty (0 bytes)")
    with path.open("rb") as file:
        head = file.read(len(LFS_POINTER))
        if head == LFS_POINTER:
            raise SampleError("a git-lfs pointer in the place of the video; run `git lfs pull` in the download")
        if head[4:8] in MP4_BOXES:
            announced = _mp4_size(file, size)
        elif head[:4] == b"RIFF":  # AVI
            announced = 8 + int.from_bytes(head[4:8], "little")
        elif head[:4] == EBML:
            announced = _matroska_size(file)
    if announced > size:
        raise SampleError(f"truncated: the container announces {announced} bytes, the file holds {size}")


def _mp4_size(file: BinaryIO, size: int) -> int:
    """The length announced: the end of the last top-level box."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:  # 64-bit length
            length = int.from_bytes(head[8:], "big")
        if head[4:8] not in MP4_BOXES or length < 8:  # something after the last box, or a box that ends with the file
            break
        end += length
    return end


def _matroska_size(file: BinaryIO) -> int:
    """The length announced: the end of the Segment, which holds everything after the header; 0 if unknown."""
    end = length = unknown = 0
    for name in (EBML, b"\x18S\x80g"):
        file.seek(end)
        if file.read(4) != name:
            return 0
        first = file.read(1) or b"\xff"
        more = 8 - first[0].bit_length()  # leading zeros of a length say how many bytes follow
        unknown = (1 << 7 * (more + 1)) - 1
        length = int.from_bytes(first + file.read(min(more, 7)), "big") & unknown
        end = file.tell() + length
    return end if length != unknown else 0
