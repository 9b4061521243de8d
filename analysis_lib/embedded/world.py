"""A small world of moving shapes: clips that only time explains.

Every clip shows one to three coloured shapes before a textured scene. Something happens: a shape moves, grows, appears,
or does two short actions in a row, or the scene changes. The same functions render training clips at the model's
resolution and the larger clips of the embedded benchmark (`quiz.py`). A clip is a function of its seed alone; training
and test seeds are disjoint.

What makes an answer temporal: each event has a time-reversed twin of equal probability (grow and shrink, beach to
street and street to beach), and short actions return to the initial state. So neither text nor one frame nor the set of
frames without their order decides. Two exceptions are inherent: frames in any order still show the axis of a movement,
and that a shape moved.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

N_VIDEO_FRAMES, FPS, VIDEO_SIZE, MAX_OBJECTS = 32, 8, 96, 3
COLOURS = {
    "red": (0.85, 0.12, 0.12),
    "green": (0.15, 0.80, 0.20),
    "blue": (0.15, 0.30, 0.95),
    "yellow": (0.95, 0.85, 0.10),
    "purple": (0.75, 0.20, 0.80),
}
SHAPES = ("circle", "square", "triangle")
SCENES = {
    "beach": (0.72, 0.62, 0.45),
    "forest": (0.16, 0.32, 0.18),
    "street": (0.50, 0.50, 0.52),
    "night": (0.08, 0.08, 0.20),
    "wall": (0.48, 0.27, 0.20),
}
DIAGONALS = {
    "northwest": (-1, -1),
    "northeast": (1, -1),
    "southwest": (-1, 1),
    "southeast": (1, 1),
}
STRAIGHT = {"left": (-1, 0), "right": (1, 0), "rise": (0, -1), "fall": (0, 1)}
ANTONYMS = (("grow", "shrink"), ("appear", "disappear"), ("rise", "fall"))
ACTIONS = ("jump", "blink", "swell", "flash")  # short actions that end where they began
BASE_RADIUS, MARGIN, MIN_GAP = 0.105, 0.15, 0.27  # in frame widths


@dataclass
class Thing:
    """One shape and its path. Arrays are (T,) over the requested times; positions and radius in frame widths."""

    colour: str
    shape: str
    behaviour: str = "static"
    x: np.ndarray = field(default_factory=lambda: np.zeros(0))
    y: np.ndarray = field(default_factory=lambda: np.zeros(0))
    radius: np.ndarray = field(default_factory=lambda: np.zeros(0))
    opacity: np.ndarray = field(default_factory=lambda: np.zeros(0))
    white: np.ndarray = field(default_factory=lambda: np.zeros(0))
    events: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Colour and shape, as questions call it."""
        return f"{self.colour} {self.shape}"


@dataclass
class Scenario:
    """One clip: things, the scene before and after, and the share of the later scene at each time (T,)."""

    things: list[Thing]
    scenes: tuple[str, str]
    mix: np.ndarray
    light: float


def _ramp(times: np.ndarray, start: float, end: float) -> np.ndarray:
    return np.clip((times - start) / (end - start), 0.0, 1.0)


def _pulse(times: np.ndarray, start: float, end: float) -> np.ndarray:
    return np.clip(np.minimum(times - start, end - times) / 0.03, 0.0, 1.0)


def _displace(thing: Thing, rng: np.random.Generator, direction: tuple[int, int], times: np.ndarray) -> None:
    """Move along `direction` by 0.30 to 0.45 frame widths, with a random start, speed and place."""
    length = rng.uniform(0.30, 0.45)
    path = _ramp(times, rng.uniform(0.0, 0.22), rng.uniform(0.70, 1.0))
    for axis, sign in zip("xy", direction, strict=True):
        delta = sign * length
        origin = rng.uniform(MARGIN - min(delta, 0), 1 - MARGIN - max(delta, 0))
        setattr(thing, axis, origin + delta * path)


def _act(thing: Thing, rng: np.random.Generator, times: np.ndarray, events: tuple[str, ...]) -> None:
    """Add short actions one after the other, each inside its own share of the clip."""
    share = 1.0 / len(events)
    for i, event in enumerate(events):
        start = i * share + rng.uniform(0.04, 0.10)
        pulse = _pulse(times, start, start + rng.uniform(0.22, 0.34))
        if event == "jump":
            thing.y = thing.y - 0.17 * pulse
        elif event == "blink":
            thing.opacity = thing.opacity * (1 - pulse)
        elif event == "swell":
            thing.radius = thing.radius * (1 + 0.75 * pulse)
        else:
            thing.white = np.maximum(thing.white, pulse)
    thing.events = events


def _behave(thing: Thing, rng: np.random.Generator, times: np.ndarray) -> None:
    """Fill the arrays of one thing according to its behaviour."""
    ones = np.ones_like(times)
    thing.x, thing.y = (rng.uniform(MARGIN, 1 - MARGIN) * ones for _ in range(2))
    thing.radius, thing.opacity, thing.white = BASE_RADIUS * rng.uniform(0.92, 1.12) * ones, ones.copy(), 0 * ones
    what = thing.behaviour
    if what in STRAIGHT:
        _displace(thing, rng, STRAIGHT[what], times)
    elif what in DIAGONALS:
        _displace(thing, rng, DIAGONALS[what], times)
    elif what in ("grow", "shrink"):
        path = _ramp(times, rng.uniform(0.0, 0.22), rng.uniform(0.70, 1.0))
        thing.radius = 0.075 + 0.105 * (path if what == "grow" else 1 - path)
    elif what in ("appear", "disappear"):
        shown = _ramp(times, *(rng.uniform(0.28, 0.68) + np.array([0.0, 0.03])))
        thing.opacity = shown if what == "appear" else 1 - shown
    elif what == "sequence":
        thing.y = rng.uniform(MARGIN + 0.17, 1 - MARGIN) * ones
        _act(thing, rng, times, tuple(rng.choice(ACTIONS, 2, replace=False)))


def _apart(things: list[Thing], thing: Thing) -> bool:
    return all(np.hypot(t.x - thing.x, t.y - thing.y).min() > MIN_GAP for t in things)


def make_scenario(rng: np.random.Generator, task: str, times: np.ndarray) -> Scenario:
    """Draw one clip for `task` ("still" for image questions), evaluated at `times` (T,) in [0, 1]."""
    active = {
        "moving_direction": lambda: [rng.choice(list(DIAGONALS))],
        "action_antonym": lambda: [rng.choice(ANTONYMS[rng.integers(len(ANTONYMS))])],
        "action_sequence": lambda: ["sequence"],
        "object_count": lambda: list(rng.choice([*STRAIGHT, *DIAGONALS], rng.integers(0, 4))),
        "scene_transition": lambda: [],
        "still": lambda: [],
    }[task]()
    total = MAX_OBJECTS if task == "object_count" else rng.integers(max(1, len(active)), MAX_OBJECTS + 1)
    behaviours = [*map(str, active)] + ["static"] * (total - len(active))
    while True:  # a crowded draw is thrown away whole, so that no kind of clip is favoured
        things: list[Thing] = []
        for colour, behaviour in zip(rng.permutation(list(COLOURS))[:total], behaviours, strict=True):
            thing = Thing(str(colour), str(rng.choice(SHAPES)), behaviour)
            for _ in range(8):
                _behave(thing, rng, times)
                if _apart(things, thing):
                    things.append(thing)
                    break
        if len(things) == total:
            break
    before, after = rng.permutation(list(SCENES))[:2]
    change = rng.uniform(0.28, 0.68)
    mix = _ramp(times, change, change + 0.04) if task == "scene_transition" else np.zeros_like(times)
    return Scenario(things, (str(before), str(after)), mix, rng.uniform(0.88, 1.12))


def _textures(size: int) -> np.ndarray:
    """The scenes as pictures (S, size, size, 3): stripes, trunks, paving, stars, bricks."""
    v, u = np.meshgrid(*(np.arange(size) / size,) * 2, indexing="ij")
    stars = ((u * 12 % 1 - 0.5) ** 2 + (v * 12 % 1 - 0.5) ** 2 < 0.03) * 0.35
    bricks = ((v * 8 % 1) < 0.16) * 0.14
    stripes, trunks = 0.06 * np.sin(v * 2 * np.pi * 6), 0.07 * np.sin(u * 2 * np.pi * 7)
    paving = ((u * 6 % 1 < 0.12) | (v * 6 % 1 < 0.12)) * -0.12
    patterns = zip(SCENES.values(), (stripes, trunks, paving, stars, bricks), strict=True)
    return np.stack([np.array(colour) + pattern[..., None] for colour, pattern in patterns]).astype(np.float32)


def _outline(shape: np.ndarray, dx: np.ndarray, dy: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Signed distance to the shape's edge (negative inside), one of SHAPES per leading index."""
    circle = np.sqrt(dx * dx + dy * dy) - r
    square = np.maximum(np.abs(dx), np.abs(dy)) - 0.88 * r
    triangle = np.maximum(0.88 * np.abs(dx) + 0.48 * dy, -dy) - 0.58 * r
    return np.where(shape == 0, circle, np.where(shape == 1, square, triangle))


def render(scenarios: list[Scenario], size: int, rng: np.random.Generator, *, noise: float = 0.012) -> np.ndarray:
    """Pictures (B, T, size, size, 3) uint8 of B clips with the same number of times."""
    b, t = len(scenarios), len(scenarios[0].mix)
    tex, names = _textures(size), list(SCENES)
    first, second = (tex[[names.index(s.scenes[i]) for s in scenarios]][:, None] for i in (0, 1))  # (B, 1, H, W, 3)
    mix = np.stack([s.mix for s in scenarios]).astype(np.float32)[..., None, None, None]
    light = np.array([s.light for s in scenarios], np.float32)[:, None, None, None, None]
    image = (first + (second - first) * mix) * light  # (B, T, H, W, 3)
    grid = ((np.arange(size) + 0.5) / size).astype(np.float32)
    colours, white = np.array(list(COLOURS.values()), np.float32), np.ones(3, np.float32)
    for slot in range(MAX_OBJECTS):
        rows = [i for i, s in enumerate(scenarios) if len(s.things) > slot]
        if not rows:
            continue
        things = [scenarios[i].things[slot] for i in rows]

        def column(name: str, things: list[Thing] = things) -> np.ndarray:
            return np.stack([getattr(o, name) for o in things]).astype(np.float32)[..., None, None]  # (b, T, 1, 1)

        shape = np.array([SHAPES.index(o.shape) for o in things])[:, None, None, None]
        edge = _outline(shape, grid[None, :] - column("x"), grid[:, None] - column("y"), column("radius")) * size
        cover = (np.clip(0.5 - edge, 0, 1) * column("opacity"))[..., None]  # (b, T, H, W, 1)
        inside = np.clip(0.5 - (edge + 0.022 * size), 0, 1)[..., None]  # without the dark outline
        fill = colours[[list(COLOURS).index(o.colour) for o in things]][:, None, None, None]
        fill = fill + (white - fill) * column("white")[..., None]
        image[rows] += (fill * (0.15 + 0.85 * inside) - image[rows]) * cover
    image += rng.standard_normal((b, t, size, size, 1), np.float32) * noise
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def video_times(indices: np.ndarray | None = None) -> np.ndarray:
    """Times in [0, 1] of the given frame indices of a clip, all of them by default."""
    return (np.arange(N_VIDEO_FRAMES) if indices is None else np.asarray(indices)) / (N_VIDEO_FRAMES - 1)


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write frames (T, H, W, 3) uint8 as H.264, the same bytes each time; a half-written file never bears the name."""
    import av  # heavy

    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as container:
        # A constant quantiser: with "crf", the encoder's look-ahead gives other bytes, and pixels, from run to run.
        stream = container.add_stream("libx264", rate=FPS, options={"qp": "16", "preset": "veryfast", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    os.replace(partial, path)
