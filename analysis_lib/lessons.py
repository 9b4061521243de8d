"""What the embedded models learn from: a tokenizer, labelled frames, and clips packed with questions about them.

A batch is a pure function of its seed, so training resumes at any step with the data it would have seen. Several
questions about one clip share the clip's tokens: the row is a prefix (system text and video) and K branches of equal
length. A branch attends to the prefix and to itself, at the positions it would have alone, so packing changes the cost
and not the function. There are two kinds of targets: words, to be said by a middle layer, and letters, to be said by
the last. Where a question with options ends, both are asked for: the answer's word first, then its letter. Drills teach
the second step alone, from text: lettered options, then their words in another order, each handed over at the place
where a middle layer would have found it.
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
    """Token ids; the word and the letter to be said at each position (IGNORE: none); a word added there (0: none);
    1 where the words of options stand."""

    ids: list[int]
    words: list[int]
    letters: list[int]
    added: list[int]
    options: list[int]

    def cut(self, length: int) -> Branch:
        """The first `length` positions."""
        return Branch(*(part[:length] for part in (self.ids, self.words, self.letters, self.added, self.options)))


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
        """The question in the study's protocol: at the open parenthesis the answer's first word, then its letter."""
        _, block = self._split(question)
        none = [IGNORE] * (len(block) - 1)
        word, letter = self.first_word(question.options[question.answer]), self._letters[question.answer]
        start, end = block.index(self._options), len(block) - self._ending
        options = [int(start <= i < end) for i in range(len(block))]
        return Branch(block, [*none, word], [*none, letter], [0] * len(block), options)

    def open(self, question: Question) -> Branch:
        """The question without its options, answered in words after the same ending."""
        _, block = self._split(question)
        ids = self._encode(f"Question: {question.text}")[0][1:] + block[-self._ending :]
        return self._answered(ids, question.options[question.answer])

    def told(self, text: str) -> Branch:
        """A description of the clip."""
        return self._answered(self._encode("Describe the video. ASSISTANT:")[0][1:], text)

    def _answered(self, ids: list[int], text: str) -> Branch:
        answer = self._encode(text)[0][1:]
        ids, words = [*ids, *answer], [IGNORE] * (len(ids) - 1) + [*answer, END]
        return Branch(ids, words, [IGNORE] * len(ids), [0] * len(ids), [0] * len(ids))

    def first_word(self, text: str) -> int:
        """Id of a text's first word."""
        return self._encode(text)[0][1]

    @cached_property
    def _options(self) -> int:
        return self.tokenizer.convert_tokens_to_ids("Options")

    @cached_property
    def _letters(self) -> list[int]:
        return self.tokenizer.convert_tokens_to_ids(list(LETTERS))

    @cached_property
    def _ending(self) -> int:
        """Number of tokens from the end of the options to the open parenthesis, found by changing the last option."""
        blocks = [self._split(Question("Q", ("a", option), 0))[1] for option in ("b", "c")]
        return next(i for i, (x, y) in enumerate(zip(blocks[0][::-1], blocks[1][::-1], strict=True)) if x != y)

    def drill(self, rng: np.random.Generator) -> Branch:
        """Two to four options, then four times the first word of any of them, added to a "(", and there its letter."""
        n = int(rng.integers(2, 5))
        if rng.random() < 0.25:
            texts = [[int(word)] for word in rng.permutation(self.words)[:n]]
        else:
            phrases = rng.permutation(PHRASES[rng.integers(len(PHRASES))])
            distinct = {self.first_word(str(phrase)): str(phrase) for phrase in phrases}
            texts = [self._encode(phrase)[0][1:] for phrase in [*distinct.values()][:n]]
        newline, left, right = (self.tokenizer.convert_tokens_to_ids(c) for c in "\n()")
        ids = self._encode("Options:")[0][1:]
        for letter, text in zip(self._letters, texts, strict=False):
            ids = [*ids, newline, left, letter, right, *text]
        letters, added, options = [IGNORE] * len(ids), [0] * len(ids), [1] * len(ids)
        for i in rng.integers(len(texts), size=4):  # drawn anew each time: the letters said before are no help
            ids = [*ids, left, self._letters[i]]
            letters, added = [*letters, self._letters[i], IGNORE], [*added, texts[i][0], 0]
        return Branch(ids, [IGNORE] * len(ids), letters, added, options + [0] * (len(ids) - len(options)))

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
    list(world.SHAPES),
    list(world.SCENES),
    ["left", "right", "top", "bottom"],
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
    rng: np.random.Generator,
    packer: Packer,
    *,
    clips: int,
    video: bool,
    letters: bool,
    length: int,
    shares: tuple[float, ...] | None = None,
) -> dict[str, Any]:
    """One batch of packed rows: with `letters` three or four questions with options, else in words; captions.

    Returns images (B, T, S, S, 3) uint8; ids, words, letters, added, options (B, P + K·length); positions
    (1, P + K·length); mask (1, 1, length, P + length) additive; `at`, the position of the first video token, and
    `video`, their number. Stills show one frame, or the same frame eight times in 15 % of the batches.
    """
    repeat = FRAMES if not video and rng.random() < 0.15 else 1
    rows, scenarios = [], []
    for _ in range(clips):
        task = str(rng.choice(TASKS, p=shares)) if video else "still"
        clip = world.make_scenario(rng, task if video else str(rng.choice(["still", *TASKS[3:]])), TIMES)
        clip = clip if video else _still(clip, int(rng.integers(FRAMES)))
        scenarios.append(clip)
        row = [packer.letter(_question(clip, task, rng)) for _ in range(3 if letters else 0)]
        row += [packer.open(ask(clip, task, rng)) for _ in range(0 if letters else 7)]
        told = rng.random() < 0.5 or not letters
        last = packer.told(caption(clip, video)) if told else packer.letter(_question(clip, task, rng))
        row.append(last.cut(length))
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
    laid = {name: np.full(shape, IGNORE, np.int64) for name in ("words", "letters")}
    laid |= {name: np.zeros(shape, np.int64) for name in ("ids", "added", "options")}
    laid["ids"][:, :start] = prefix
    for i, row in enumerate(rows):
        for j, branch in enumerate(row):
            first, n = start + j * length, len(branch.ids)
            if n > length:
                raise ValueError(f"a branch of {n} tokens does not fit into {length}")
            for name, values in laid.items():
                values[i, first : first + n] = getattr(branch, name)
    own = np.triu(np.full((length, length), -1e9, np.float32), 1)
    mask = np.concatenate([np.zeros((length, start), np.float32), own], 1)[None, None]
    positions = np.concatenate([np.arange(start), *[start + np.arange(length)] * count])[None]
    return {**laid, "positions": positions, "mask": mask, "at": at, "video": video}


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
