"""What the embedded models learn, in which order: the stages of the training.

The recipe follows real Video LLMs in small. *vision*: the tower learns dense labels of single frames (which colour and
shape covers each patch, and where) and is frozen afterwards, as in the paper's training (appendix H). *drill*: the
upper layers learn, from text alone, to find a word among lettered options. *align*: the projector learns to turn each
patch into the sum of the embeddings of the words that describe it. *image words*: the lower layers learn to answer
questions about stills in words. *image*: the upper layers, on top of them, find the letter of the answer's word; that
is `embedded-image`. *video words*, *video hard words*, *video letters*, *video hard letters*, *video*: the same with
the five video tasks, where those that take longest come more often for a while; that is `embedded`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis_lib.embedded.lessons import make_batch, make_drill, make_frames
from analysis_lib.embedded.packer import Packer

LAYERS, EXIT = 12, 7  # of the decoder; words are learned in the layers up to EXIT, the look-up of their letter above


@dataclass(frozen=True)
class Stage:
    """One stage: steps, clips a step, tokens a branch, and the peak learning rates of Muon and AdamW.

    `questions` are asked about each clip, in words and with options. From step `since` on, the clips' tasks are drawn
    with `shares` (of TASKS; None: all alike). When a model begins to see what a stage is about depends on the seed: if
    the running share of right `words` or `letters` that `goal` names is not reached by the last step, the stage goes on
    for another round of as many steps, ROUNDS at most.
    """

    name: str
    steps: int
    clips: int
    length: int = 0
    muon: float = 0.02
    adam: float = 3e-3
    since: int = 0
    shares: tuple[float, ...] | None = None
    questions: tuple[int, int] = (7, 3)
    goal: tuple[str, float] | None = None


STAGES = (
    Stage("vision", 700, 80, adam=2e-3),
    Stage("drill", 1000, 10, 40, adam=5e-3, goal=("letters", 0.94)),
    Stage("align", 350, 48),
    Stage("image words", 300, 32, 50, goal=("words", 0.9)),
    Stage("image", 150, 32, 50, goal=("letters", 0.8)),
    # A video task asks one thing about a clip: more clips teach more than more questions.
    Stage("video words", 1050, 54, 52, since=400, shares=(0.1, 0.2, 0.1, 0.5, 0.1), questions=(2, 1)),
    Stage("video hard words", 450, 48, 52, 0.01, 1.5e-3, shares=(0.1, 0.15, 0.1, 0.55, 0.1), questions=(3, 1)),
    Stage("video letters", 250, 32, 52),
    Stage("video hard letters", 250, 32, 52, shares=(0.1, 0.1, 0.4, 0.3, 0.1)),
    Stage("video", 200, 32, 52, shares=(0.3, 0.1, 0.25, 0.25, 0.1)),
)
OPEN = 30  # tokens of a question without options, with its answer
WORDS = tuple(stage.name for stage in STAGES if stage.name.endswith("words"))  # train the layers up to EXIT
FINISHES = {"image": "embedded-image", "video": "embedded"}  # stage that completes a checkpoint


def batches_of(stage: Stage, packer: Packer) -> Callable[[np.random.Generator, int], dict[str, Any]]:
    """The stage's batches as a function of a random generator and the step."""

    def lesson(rng: np.random.Generator, step: int) -> dict[str, Any]:
        if stage.name in ("vision", "align"):
            return make_frames(rng, clips=stage.clips)
        if stage.name == "drill":
            return make_drill(rng, packer, rows=stage.clips, length=stage.length)
        opened = stage.name.endswith("words") and rng.random() < 0.5
        return make_batch(
            rng,
            packer,
            clips=stage.clips,
            video=stage.name.startswith("video"),
            letters=not opened,
            questions=stage.questions[not opened],
            length=OPEN if opened else stage.length,
            shares=stage.shares if step >= stage.since else None,
        )

    return lesson
