"""Small real videos and benchmark folders for tests, written with PyAV."""

import json
from pathlib import Path

import av
import numpy as np

QUESTION = "What does the red circle do in the video?"


def pictures(n: int, *, size: int = 48, seed: int = 0) -> np.ndarray:
    """(n, size, size, 3) uint8: a bright bar that moves over noise."""
    frames = np.random.default_rng(seed).integers(0, 60, (n, size, size, 3), dtype=np.uint8)
    for i in range(n):
        frames[i, :, (2 * i + seed) % size] = 220
    return frames


def write_clip(path: Path, n: int = 20, *, size: int = 48, fps: int = 8, seed: int = 0, **container: str) -> Path:
    """An H.264 file with n frames; extra arguments are container options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container) as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "10", "threads": "1"})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for picture in pictures(n, size=size, seed=seed):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file with one second of silence and no picture."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def item(video: str, question: str = QUESTION, candidates=("It grows.", "It shrinks."), answer=None, **more) -> dict:
    """One entry of a task file; the first candidate is right unless told."""
    options = list(candidates)
    right = options[0] if answer is None else answer
    return {"video": video, "question": question, "candidates": options, "answer": right} | more


def write_task(root: Path, task: str, items: list[dict]) -> None:
    """The task file, and a clip for every entry whose video does not exist yet."""
    (root / "json").mkdir(parents=True, exist_ok=True)
    (root / "json" / f"{task}.json").write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    for i, entry in enumerate(items):
        if not (root / "video" / task / entry["video"]).exists():
            write_clip(root / "video" / task / entry["video"], seed=i)


def write_small_benchmark(root: Path, n: int = 3) -> Path:
    """Two tasks with n good questions each."""
    write_task(root, "action_antonym", [item(f"a{i}.mp4") for i in range(n)])
    write_task(root, "object_count", [item(f"o{i}.mp4", "How many objects move?", "0123", "2") for i in range(n)])
    return root
