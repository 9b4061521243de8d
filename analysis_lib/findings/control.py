"""Positive control: does the instrument find what the training of the embedded model built in?

The flow in a trained model is unknown, so no measurement of it can be right or wrong. The embedded model is the
exception: its training decided in which layers some things happen (`embedded/recipe.py`). Each row here is such a fact,
what follows from it for a measurement, and what was measured. What follows is written down from the training alone."""

import pandas as pd

from analysis_lib.embedded.door import DEPTH, WORD_LAYER
from analysis_lib.findings.analysed import Table
from analysis_lib.findings.claims import SMALLEST, Claim, answer_depth, decide, drops

WORDS = f"In training the answer's word was read at the last token in layer {WORD_LAYER} of {DEPTH}"
LETTERS = f"The layers above {WORD_LAYER} learned first, from text alone, to find a word's letter among the options"
QUIET = f"The layers up to {WORD_LAYER} were held to write next to nothing onto the options"
# What was taught; what follows for windows that lie in the `lower` layers (up to WORD_LAYER) or in the `upper` ones.
CUTS = (
    (WORDS, "video->last", "lower", True),
    (WORDS, "video->last", "upper", False),
    (WORDS, "video->question", "upper", False),
    (LETTERS, "true_option->last", "upper", True),
    (LETTERS, "true_option->last", "lower", False),
    (QUIET, "video->true_option", "lower", False),
)
ANSWERS = {"reproduced": "yes", "not reproduced": "no", "undecided": "undecided"}


def positive_control(knockout: Table, emergence: Table, baseline: pd.DataFrame) -> pd.DataFrame:
    """One row per fact: `taught`, what it `predicts`, what was `measured` with its interval, and whether the two
    `agree` (yes, no, or undecided: the interval holds the bound). A route carries something if cutting it lowers the
    answer's probability by more than SMALLEST %, on average over the windows meant."""
    depth, rows = answer_depth(emergence, baseline)
    late = decide("letter", "", depth, rows, "", threshold=WORD_LAYER / DEPTH, unit="of the depth")
    predicts = f"the letter becomes readable above {WORD_LAYER / DEPTH:.2f} of the depth"
    found = [_row(LETTERS, predicts, late, late.brief)]
    return pd.DataFrame(found + [_cut(knockout, baseline, *cut) for cut in CUTS])


def _cut(knockout: Table, baseline: pd.DataFrame, taught: str, route: str, where: str, carries: bool) -> dict:
    lower, upper = range(1, WORD_LAYER + 1), range(WORD_LAYER + 1, DEPTH + 1)
    windows = {"last_layer": lower} if where == "lower" else {"first_layer": upper}
    curves, rows = drops(knockout, baseline, route, **windows)
    drop, sign = curves[route].mean(axis=1), 1 if carries else -1
    claim = decide(route, "", sign * drop, rows, "", threshold=sign * SMALLEST, unit="%")
    low, high = sorted((sign * claim.low, sign * claim.high))
    layers = f"up to {WORD_LAYER}" if where == "lower" else f"above {WORD_LAYER}"
    predicts = f"{route} in layers {layers}: a drop {'above' if carries else 'below'} {SMALLEST:g} %"
    return _row(taught, predicts, claim, f"{sign * claim.effect:.1f} ({low:.1f} to {high:.1f}) %".replace("-", "−"))


def _row(taught: str, predicts: str, claim: Claim, measured: str) -> dict[str, str]:
    return {"taught": taught, "predicts": predicts, "measured": measured, "agree": ANSWERS[claim.verdict]}
