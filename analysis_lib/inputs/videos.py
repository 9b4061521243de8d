"""From a video file to the frames that the model sees.

The sampling rule is part of an experiment, so it lives here and nowhere else: frame indices are computed by the
published rule of the benchmark (PLLaVA/MVBench: the middle of each of T equal segments, rounded half to even;
LongVideoBench: every n-th frame from the first), decord reads exactly these frames, and the indices, times and a hash
of the pixels travel with them. A clip that cannot give as many different frames as were asked for is refused: repeated
frames would quietly change a question about time. So is a file that is shorter than its own container announces,
because a decoder samples such a file as if it were a shorter video.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from analysis_lib.errors import SampleError
from analysis_lib.inputs.records import Clip

FOLDER_FPS = 3.0  # frame folders of MVBench hold three pictures a second
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LFS_POINTER = b"version https://git-lfs"
MP4_BOXES = frozenset(b"ftyp styp moov moof mdat mfra sidx free skip wide uuid meta udta".split())


def sample_indices(
    n_in_video: int,
    num_frames: int,
    *,
    fps: float,
    start: float | None = None,
    end: float | None = None,
    rule: str = "middle",
    first_number: int = 0,
) -> tuple[int, ...]:
    """Choose `num_frames` different frame indices (0-based) between `start` and `end` (seconds; None: the whole video).

    The published rule "middle": with first frame s, last frame e and segments of (e - s) / T, index i is
    int(s + segment / 2 + round(segment * i)). A span of exactly T frames is used as it is. `first_number` is the number
    of the first frame: MVBench's folders of pictures count from 1, and their seconds with them.

    The rule "stride" (LongVideoBench, where `end` is the duration in the annotations): 0, n, 2n and so on with
    n = int(int(end * fps) / T), so the last segment is never seen.

    Raises:
        SampleError: the span holds fewer than `num_frames` frames, or lies outside the video.
    """
    if (start is not None or end is not None) and not (math.isfinite(fps) and fps > 0):
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


def _strided(n_in_video: int, num_frames: int, fps: float, duration: float) -> tuple[int, ...]:
    if int(duration) < num_frames:  # the published rule takes at most one frame a second, and repeats the last one
        raise SampleError(f"{duration} s give {int(duration)} frames, fewer than the {num_frames} that the model takes")
    stride = int(int(duration * fps) / num_frames)
    indices = tuple(stride * i for i in range(num_frames))
    if indices[-1] >= n_in_video:
        raise SampleError(
            f"the video holds {n_in_video} frames, fewer than its annotated {duration} s at {fps} a second"
        )
    return indices


def load_clip(
    path: Path, num_frames: int, *, start: float | None = None, end: float | None = None, rule: str = "middle"
) -> Clip:
    """Read `num_frames` frames of a video file (decord) or of a folder of pictures, by the rule of `sample_indices`.

    Raises:
        SampleError: missing, empty, truncated, too short, no video stream, or undecodable; the line names the file.
    """
    path = Path(path)
    try:
        return (_from_folder if path.is_dir() else _from_file)(path, num_frames, start=start, end=end, rule=rule)
    except SampleError as error:
        raise SampleError(f"{path}: {error}") from error
    except OSError as error:
        raise SampleError(f"{path}: cannot be read ({error.strerror or error})") from error


def _clip(frames: np.ndarray, indices: tuple[int, ...], fps: float) -> Clip:
    if frames.shape[0] != len(indices) or frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise SampleError(f"the decoder returned an array {frames.shape} of {frames.dtype} for {len(indices)} frames")
    seconds = tuple(round(i / fps, 6) if fps > 0 else math.nan for i in indices)
    return Clip(frames, indices, seconds, hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()[:16])


def _from_file(path: Path, num_frames: int, **span: Any) -> Clip:
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
        frames = np.stack([_unpadded(reader[i].asnumpy()) for i in indices])  # (T, H, W, 3)
    except Exception as error:
        raise SampleError("decoding stopped before the frames needed (truncated or damaged)") from error
    return _clip(frames, indices, fps)


def _unpadded(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) from decord's (H, W, C).

    Where a padded row is a multiple of the width (at 96 pixels, say), decord takes the padding for more channels, and
    its batch call fails. The pixels are intact: 3 * W bytes at the start of each row.
    """
    height, width, channels = picture.shape
    return picture.reshape(height, width * channels)[:, : 3 * width].reshape(height, width, 3)


def _from_folder(path: Path, num_frames: int, **span: Any) -> Clip:
    from PIL import Image

    files = sorted((f for f in path.iterdir() if f.suffix.lower() in PICTURES), key=_natural)
    if not files:
        raise SampleError(f"the folder holds no pictures ({', '.join(PICTURES)})")
    number = re.search(r"(\d+)$", files[0].stem)
    first = min(1, int(number[1])) if number else 0
    indices = sample_indices(len(files), num_frames, fps=FOLDER_FPS, first_number=first, **span)
    frames = []
    for i in indices:
        try:
            frames.append(np.asarray(Image.open(files[i]).convert("RGB")))
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three for damaged pictures
            raise SampleError(f"the picture {files[i].name} cannot be read (damaged?)") from error
    if len({f.shape for f in frames}) > 1:
        raise SampleError("the pictures of this folder have different sizes")
    return _clip(np.stack(frames), indices, FOLDER_FPS)


def _natural(file: Path) -> list[int | str]:
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", file.name)]


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise SampleError("no such video file")
    size = path.stat().st_size
    if size == 0:
        raise SampleError("the video file is empty (0 bytes)")
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise SampleError("a git-lfs pointer in the place of the video; run `git lfs pull` in the download")
    announced = announced_size(path)
    if announced > size:
        raise SampleError(f"truncated: the container announces {announced} bytes, the file holds {size}")


def announced_size(path: Path) -> int:
    """How long the file must be, in bytes, by its own container (MP4/MOV, Matroska/WebM, AVI); 0 if it does not say."""
    with path.open("rb") as file:
        head = file.read(16)
        if head[4:8] in MP4_BOXES:
            return _mp4_size(file, path.stat().st_size)
        if head[:4] == b"RIFF" and len(head) >= 8:
            return 8 + int.from_bytes(head[4:8], "little")
        if head[:4] == b"\x1aE\xdf\xa3":
            return _matroska_size(file)
    return 0


def _mp4_size(file, size: int) -> int:
    """Follow the top-level boxes; the end of the last one is the length announced."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:  # 64-bit length
            length = struct.unpack(">Q", head[8:])[0]
        if kind not in MP4_BOXES or length < 8:  # something after the last box, or a box that ends with the file (0)
            break
        position += length
    return position


def _matroska_size(file) -> int:
    file.seek(4)
    header, _ = _element_size(file)
    file.seek(header, 1)
    if file.read(4) != b"\x18S\x80g":  # the Segment element, which holds everything else
        return 0
    length, unknown = _element_size(file)
    return 0 if unknown else file.tell() + length


def _element_size(file) -> tuple[int, bool]:
    """Read a Matroska length: the first byte's leading zeros say how many bytes follow; all ones mean unknown."""
    first = file.read(1)[0:1] or b"\xff"
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> more) if more < 8 else 0]) + file.read(min(more, 7)), "big")
    return value, value == (1 << 7 * (more + 1)) - 1
