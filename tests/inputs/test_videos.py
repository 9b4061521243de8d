"""Frames come from a file by the published rule, and a file that cannot give them is refused with its reason."""

import av
import numpy as np
import pytest
from clips import pictures, write_clip, write_sound
from PIL import Image

from analysis_lib.errors import SampleError
from analysis_lib.inputs.videos import load_clip, sample_indices


def test_published_rule_on_known_cases():
    assert sample_indices(60, 8, fps=8) == (3, 10, 18, 25, 33, 40, 47, 55)
    assert sample_indices(300, 8, fps=30, start=2.0, end=5.0) == (65, 76, 87, 99, 110, 121, 133, 144)


def test_rule_rounds_half_to_even():
    # segment 2.5: offsets 0, 2.5, 5, 7.5 round to 0, 2, 5, 8
    assert sample_indices(11, 4, fps=1) == (1, 3, 6, 9)


@pytest.mark.parametrize("n", range(8, 200))
def test_indices_are_different_and_inside(n):
    found = sample_indices(n, 8, fps=25)
    assert len(set(found)) == 8 and min(found) >= 0 and max(found) < n


def test_exactly_enough_frames_are_used_as_they_are():
    assert sample_indices(8, 8, fps=3) == tuple(range(8))
    assert sample_indices(100, 4, fps=1, start=10, end=13) == (10, 11, 12, 13)


@pytest.mark.parametrize("bounds", [{"start": 5.0, "end": 5.5}, {"start": 500.0}, {"start": 5.0, "end": 4.0}])
def test_a_span_without_enough_frames_is_refused(bounds):
    with pytest.raises(SampleError, match="fewer than the 8"):
        sample_indices(300, 8, fps=10, **bounds)


def test_bounds_need_a_frame_rate():
    with pytest.raises(SampleError, match="no frame rate"):
        sample_indices(300, 8, fps=0.0, start=1.0)


def test_clip_holds_the_frames_at_its_indices(tmp_path):
    clip = load_clip(write_clip(tmp_path / "a.mp4", 20), 8)
    assert clip.frames.shape == (8, 48, 48, 3) and clip.frames.dtype == np.uint8
    assert clip.indices == sample_indices(20, 8, fps=8)
    assert clip.seconds == tuple(i / 8 for i in clip.indices)


@pytest.mark.parametrize("size", [16, 32, 48, 50, 72, 96, 112])
def test_frames_are_exact_at_any_width(tmp_path, size):
    path = write_clip(tmp_path / "a.mp4", 12, size=size)
    with av.open(str(path)) as file:
        every = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    clip = load_clip(path, 8)
    assert np.array_equal(clip.frames, every[list(clip.indices)])


def test_same_file_same_hash_other_frames_other_hash(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 40)
    assert load_clip(path, 8).sha256 == load_clip(path, 8).sha256
    assert load_clip(path, 8).sha256 != load_clip(path, 8, end=3.0).sha256


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_other_containers(tmp_path, suffix):
    assert len(load_clip(write_clip(tmp_path / f"a.{suffix}", 30), 8).indices) == 8


def test_folder_of_frames_in_natural_order(tmp_path):
    for i, picture in enumerate(pictures(11)):
        Image.fromarray(picture).save(tmp_path / f"frame_{i}.png")  # frame_10 must come after frame_9
    clip = load_clip(tmp_path, 11)
    assert clip.indices == tuple(range(11)) and np.array_equal(clip.frames, pictures(11))
    assert load_clip(tmp_path, 4).indices == sample_indices(11, 4, fps=3)


def test_a_picture_named_with_a_raised_digit_has_its_place(tmp_path):
    for name in ("²2.png", "²10.png"):
        Image.fromarray(pictures(1, seed=len(name))[0]).save(tmp_path / name)
    clip = load_clip(tmp_path, 2)
    assert np.array_equal(clip.frames[1], pictures(1, seed=len("²10.png"))[0])


def test_missing(tmp_path):
    with pytest.raises(SampleError, match="no such video"):
        load_clip(tmp_path / "none.mp4", 8)


def test_empty(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(SampleError, match="empty"):
        load_clip(tmp_path / "a.mp4", 8)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("share", [0.35, 0.8, 0.99])
@pytest.mark.parametrize("options", [{}, {"movflags": "+faststart"}])
def test_truncated(tmp_path, suffix, share, options):
    path = write_clip(tmp_path / f"a.{suffix}", 40, **(options if suffix == "mp4" else {}))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SampleError, match="truncated"):
        load_clip(path, 8)


def test_damaged_inside(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 40, movflags="+faststart")
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 4000] = np.random.default_rng(0).bytes(4000)
    path.write_bytes(content)
    with pytest.raises(SampleError, match="damaged"):
        load_clip(path, 8)


def test_too_short(tmp_path):
    with pytest.raises(SampleError, match="holds 5 frames, fewer than the 8"):
        load_clip(write_clip(tmp_path / "a.mp4", 5), 8)


def test_audio_only(tmp_path):
    with pytest.raises(SampleError, match="no video stream"):
        load_clip(write_sound(tmp_path / "a.mp4"), 8)


def test_not_a_video(tmp_path):
    (tmp_path / "a.mp4").write_text("hello\n" * 100)
    with pytest.raises(SampleError, match="not a video"):
        load_clip(tmp_path / "a.mp4", 8)


def test_folder_with_a_damaged_picture_or_none(tmp_path):
    with pytest.raises(SampleError, match="no pictures"):
        load_clip(tmp_path, 2)
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(SampleError, match="0.png cannot be read"):
        load_clip(tmp_path, 2)


def test_line_names_the_file(tmp_path):
    with pytest.raises(SampleError, match="a clip.mp4"):
        load_clip(tmp_path / "a clip.mp4", 8)


@pytest.mark.parametrize(("first", "expected"), [(1, (2, 3, 4, 5)), (0, (3, 4, 5, 6))])
def test_seconds_of_a_folder_of_frames_count_from_the_first_number(tmp_path, first, expected):
    for number, picture in enumerate(pictures(12), first):
        Image.fromarray(picture).save(tmp_path / f"{number:05d}.jpg")
    assert load_clip(tmp_path, 4, start=1, end=2).indices == expected  # three pictures a second


def test_git_lfs_pointer(tmp_path):
    (tmp_path / "a.mp4").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SampleError, match="run `git lfs pull`"):
        load_clip(tmp_path / "a.mp4", 8)
