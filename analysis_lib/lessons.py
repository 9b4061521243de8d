"""What the embedded models learn from: a tokenizer, labelled frames, and clips packed with questions about them.

A batch is a pure function of its seed, so training resumes at any step with the data it would have seen. Several
questions about one clip share the clip's tokens: the row is a prefix (system text and video) and K branches of equal
length. A branch attends to the prefix and to itself, at the positions it would have alone, so packing changes the cost
and not the function. Open answers and captions come first; they teach what is seen. Bare letters come after them.
Drills are text alone: lettered options, then the options' texts in another order, each followed by its letter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from analysis_lib import world
from analysis_lib.prompts import LETTERS, build_prompt
from analysis_lib.quiz import TASKS, VERBS, Question, ask, place
from analysis_lib.videos import sample_indices

SIZE, PATCH, FRAMES, GRID = 48, 8, 8, 3  # frame side and patch side in pixels, frames, pooled tokens per side
PATCHES = SIZE // PATCH
IGNORE = -100  # no loss at this position
END = 2  # id of </s>
TIMES = world.video_times(np.array(sample_indices(world.N_VIDEO_FRAMES, FRAMES, fps=world.FPS)))


@dataclass(frozen=True)
class Branch:
    """Token ids, the target of each position (IGNORE: none), and the positions where a letter is predicted."""

    ids: list[int]
    targets: list[int]
    letters: tuple[int, ...] = ()

    def cut(self, length: int) -> Branch:
        """The first `length` positions."""
        return Branch(self.ids[:length], self.targets[:length], tuple(i for i in self.letters if i < length))


class Packer:
    """Turns clips and questions into rows of token ids."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is the embedded models' own, loaded."""
        self.tokenizer = tokenizer
        self.image = tokenizer.convert_tokens_to_ids("<image>")
        self._encode = lru_cache(maxsize=200_000)(self._encode_text)

    def _encode_text(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        out = self.tokenizer(text, return_offsets_mapping=True)
        return out["input_ids"], out["offset_mapping"]

    def prefix(self, video_tokens: int) -> list[int]:
        """Ids of the system text and the video, up to the question, with `video_tokens` placeholders."""
        ids, _ = self._split(Question("Q", ("a", "b"), 0))
        at = ids.index(self.image)
        return ids[:at] + [self.image] * video_tokens + ids[at + 1 :]

    def _split(self, question: Question) -> tuple[list[int], list[int]]:
        prompt = build_prompt(question_sample(question), "mvbench")
        ids, offsets = self._encode(prompt.text)
        start = prompt.spans["question_block"][0]
        cut = next(i for i, (a, b) in enumerate(offsets) if b > start and b > a)
        return ids[:cut], ids[cut:]

    def letter(self, question: Question) -> Branch:
        """The question in the study's protocol.

        The letter is the target at the open parenthesis. One position earlier the target is the answer's first word, so
        that the answer is at hand where the letter is looked up.
        """
        _, block = self._split(question)
        word = self._encode(question.options[question.answer])[0][1]
        letter = self.tokenizer.convert_tokens_to_ids(LETTERS[question.answer])
        return Branch(block, [IGNORE] * (len(block) - 2) + [word, letter], (len(block) - 1,))

    def open(self, question: Question) -> Branch:
        """The question without its options, answered in words after the same ending."""
        _, block = self._split(question)
        ids = self._encode(f"Question: {question.text}")[0][1:] + block[-self._ending : -1]
        return self._answered(ids, question.options[question.answer])

    def told(self, text: str) -> Branch:
        """A description of the clip."""
        return self._answered(self._encode("Describe the video. ASSISTANT:")[0][1:], text)

    def _answered(self, ids: list[int], text: str) -> Branch:
        answer = self._encode(text)[0][1:]
        return Branch([*ids, *answer], [IGNORE] * (len(ids) - 1) + [*answer, END])

    @cached_property
    def _ending(self) -> int:
        """Number of tokens from the end of the options to the open parenthesis, found by changing the last option."""
        blocks = [self._split(Question("Q", ("a", option), 0))[1] for option in ("b", "c")]
        return next(i for i, (x, y) in enumerate(zip(blocks[0][::-1], blocks[1][::-1], strict=True)) if x != y)

    def drill(self, rng: np.random.Generator) -> Branch:
        """Two to four options, then their texts in another order, each followed by its letter (some after a "(")."""
        direct, n = rng.random() < 0.5, int(rng.integers(2, 5))
        if rng.random() < 0.75:
            words = rng.permutation(self.words)
            sizes = [1 if direct else int(rng.integers(1, 3)) for _ in range(n)]
            texts = [[int(w) for w in words[3 * i : 3 * i + size]] for i, size in enumerate(sizes)]
        else:
            phrases = rng.permutation(PHRASES[rng.integers(len(PHRASES))])[:n]
            texts = [self._encode(str(phrase))[0][1:] for phrase in phrases]
        letters = [self.tokenizer.convert_tokens_to_ids(letter) for letter in LETTERS[: len(texts)]]
        newline, left, right = (self.tokenizer.convert_tokens_to_ids(c) for c in "\n()")
        ids = self._encode("Options:")[0][1:]
        for letter, text in zip(letters, texts, strict=True):
            ids = [*ids, newline, left, letter, right, *text]
        ids = [*ids, *self._encode("ASSISTANT:")[0][1:]]
        targets, asked = [IGNORE] * len(ids), []
        for i in rng.permutation(len(texts)):
            ids = [*ids, *texts[i], *([] if direct else [left])]
            targets = [*targets, *[IGNORE] * (len(ids) - len(targets) - 1), letters[i], IGNORE]
            asked.append(len(ids) - 1)
            ids = [*ids, letters[i]]
        return Branch(ids, targets, tuple(asked))

    @cached_property
    def words(self) -> np.ndarray:
        """Ids of whole words."""
        vocabulary = self.tokenizer.get_vocab().items()
        return np.array(sorted(i for word, i in vocabulary if word.startswith("▁") and len(word) > 2))


PHRASES = (
    list(VERBS.values()),
    list(world.DIAGONALS),
    list("0123"),
    list(world.COLOURS),
    [*world.SHAPES, *world.SCENES],
    [f"{a} to {b}" for a in world.SCENES for b in world.SCENES if a != b],
)


def question_sample(question: Question) -> SimpleNamespace:
    """The question with the names that `build_prompt` reads."""
    return SimpleNamespace(question=question.text, options=question.options)


def caption(clip: world.Scenario, video: bool) -> str:
    """Everything in the clip, things from left to right."""
    parts = [" to ".join(clip.scenes) if clip.mix.any() else clip.scenes[0]]
    for thing in sorted(clip.things, key=lambda thing: thing.x[0]):
        if not video:
            what = [place(thing)]
        elif thing.behaviour == "static":
            what = []
        elif thing.behaviour == "sequence":
            what = [VERBS[event] for event in thing.events]
        else:
            what = [VERBS.get(thing.behaviour, thing.behaviour)]
        parts.append(" ".join([thing.name, *what]))
    return ", ".join(parts)


def _fewer(question: Question, rng: np.random.Generator) -> Question:
    """The same question with two of its options."""
    wrong = [i for i in range(len(question.options)) if i != question.answer]
    keep = sorted([question.answer, int(rng.choice(wrong))])
    return replace(question, options=tuple(question.options[i] for i in keep), answer=keep.index(question.answer))


def _still(clip: world.Scenario, frame: int) -> world.Scenario:
    """One frame of a clip as a clip of its own."""
    for thing in clip.things:
        for name in ("x", "y", "radius", "opacity", "white"):
            setattr(thing, name, getattr(thing, name)[frame : frame + 1])
    scenes = clip.scenes[::-1] if clip.mix[frame] > 0.5 else clip.scenes
    return replace(clip, scenes=scenes, mix=np.zeros(1))


def make_drill(rng: np.random.Generator, packer: Packer, *, rows: int, length: int) -> dict[str, Any]:
    """A batch of drills: four a row behind the start token. Keys as in `make_batch`, without a video."""
    branches = [[packer.drill(rng).cut(length) for _ in range(4)] for _ in range(rows)]
    return _lay_out(branches, [1], 0, 0, length)


def make_batch(
    rng: np.random.Generator, packer: Packer, *, clips: int, video: bool, letters: bool, length: int
) -> dict:
    """One batch of packed rows: with `letters` three questions with options and one in words, else eight in words.

    Returns images (B, T, S, S, 3) uint8; ids, targets, letters (B, P + K·length); positions (1, P + K·length); mask
    (1, 1, length, P + length) additive; `at`, the position of the first video token, and `video`, their number. Stills
    show one frame, or the same frame eight times in 15 % of the batches.
    """
    repeat = FRAMES if not video and rng.random() < 0.15 else 1
    rows, scenarios = [], []
    for _ in range(clips):
        task = str(rng.choice(TASKS)) if video else "still"
        clip = world.make_scenario(rng, task if video else str(rng.choice(["still", *TASKS[3:]])), TIMES)
        clip = clip if video else _still(clip, int(rng.integers(FRAMES)))
        scenarios.append(clip)
        row = [packer.letter(_question(clip, task, rng)) for _ in range(3 if letters else 0)]
        row += [packer.open(ask(clip, task, rng)) for _ in range(0 if letters else 7)]
        told = rng.random() < 0.5 or not letters
        row.append((packer.told(caption(clip, video)) if told else packer.open(ask(clip, task, rng))).cut(length))
        rows.append(row)
    images = np.repeat(world.render(scenarios, SIZE, rng), repeat, axis=1)  # (B, T, S, S, 3)
    prefix = packer.prefix(images.shape[1] * GRID * GRID)
    laid = _lay_out(rows, prefix, prefix.index(packer.image), images.shape[1] * GRID * GRID, length)
    return {"images": images, **laid}


def _question(clip: world.Scenario, task: str, rng: np.random.Generator) -> Question:
    question = ask(clip, task, rng)
    return _fewer(question, rng) if task == "still" and rng.random() < 0.5 else question


def _lay_out(rows: list[list[Branch]], prefix: list[int], at: int, video: int, length: int) -> dict[str, Any]:
    start, count = len(prefix), len(rows[0])
    shape = (len(rows), start + count * length)
    ids, targets, letters = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64), np.zeros(shape, bool)
    ids[:, :start] = prefix
    for i, row in enumerate(rows):
        for j, branch in enumerate(row):
            first, n = start + j * length, len(branch.ids)
            if n > length:
                raise ValueError(f"a branch of {n} tokens does not fit into {length}")
            ids[i, first : first + n], targets[i, first : first + n] = branch.ids, branch.targets
            letters[i, [first + k for k in branch.letters]] = True
    own = np.triu(np.full((length, length), -1e9, np.float32), 1)
    mask = np.concatenate([np.zeros((length, start), np.float32), own], 1)[None, None]
    positions = np.concatenate([np.arange(start), *[start + np.arange(length)] * count])[None]
    arrays = {"ids": ids, "targets": targets, "letters": letters, "positions": positions, "mask": mask}
    return {**arrays, "at": at, "video": video}


# ---- labelled frames ----


def make_frames(rng: np.random.Generator, *, clips: int) -> dict[str, np.ndarray]:
    """Single frames with a label per patch.

    Returns images (B, 3, S, S, 3) uint8; colour (0 none, 6 white) and shape (0 none) (B, 3, 6, 6); centre
    (B, 3, 6, 6, 3): the shape's centre from the frame's middle in patches, and its size; scene (B, 3).
    """
    times = TIMES[rng.permutation(FRAMES)[:3]]
    scenarios = [world.make_scenario(rng, str(rng.choice(TASKS)), times) for _ in range(clips)]
    colour = np.zeros((clips, 3, PATCHES, PATCHES), np.int64)
    shape, centre = np.zeros_like(colour), np.zeros((*colour.shape, 3), np.float32)
    scene = np.zeros((clips, 3), np.int64)
    for i, clip in enumerate(scenarios):
        before, after = (list(world.SCENES).index(name) for name in clip.scenes)
        scene[i] = np.where(clip.mix > 0.5, after, before)
        for thing in clip.things:
            hit, where = _covered(thing)
            white = hit & (thing.white > 0.5)[:, None, None]
            colour[i][hit] = list(world.COLOURS).index(thing.colour) + 1
            colour[i][white] = len(world.COLOURS) + 1
            shape[i][hit] = world.SHAPES.index(thing.shape) + 1
            centre[i][hit] = where[hit]
    images = world.render(scenarios, SIZE, rng)
    return {"images": images, "colour": colour, "shape": shape, "centre": centre, "scene": scene}


def _covered(thing: world.Thing) -> tuple[np.ndarray, np.ndarray]:
    """Which patches (T, 6, 6) the thing covers, and its centre and size, the same for each (T, 6, 6, 3)."""
    middle = (np.arange(PATCHES) + 0.5) / PATCHES
    reach = thing.radius[:, None, None] + 0.035
    dx = thing.x[:, None, None] - middle[None, None, :]
    dy = thing.y[:, None, None] - middle[None, :, None]
    hit = (np.abs(dx) < reach) & (np.abs(dy) < reach) & (thing.opacity > 0.5)[:, None, None]
    where = np.stack([(thing.x - 0.5) * PATCHES, (thing.y - 0.5) * PATCHES, thing.radius * 20 - 2], -1)
    return hit, np.broadcast_to(where[:, None, None], (*hit.shape, 3))
