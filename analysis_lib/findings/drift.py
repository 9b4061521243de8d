"""Two measurements of the same thing: how far rows, effects and verdicts moved, and whether they agree.

The record is what was published, a run is what somebody measured later. A finding of the run agrees with the record if
three things hold. Its verdict is the same. Its effect and both ends of its interval moved by no more than a small part
of half of the record's interval. And the rows that it is computed from moved no further than rows do between machines
that differ as these two do (`BOUNDS`; `data/drift.csv` has what was measured). An answer may change only where its
question sat on the fence, with a margin between letters that rounding can turn. So a curve that is shifted as a whole
is found, though a difference of its halves stays as it was, and so is one flipped answer, which a mean hardly feels."""

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

import numpy as np
import pandas as pd

from analysis_lib.findings.claims import Claim
from analysis_lib.study.tables import TABLES, keys

IDENTIFY = {column for table in TABLES for column in keys(table)} | {"layers", "normed"}
NUMBERS = {"probability": ("p_", "probability"), "margin": ("margin",), "change": ("relative_change",)}  # by beginning
MARGINS = ("margin_knock", "margin_pruned", "margin", "margin_base")  # the first that a row has belongs to its answer
COUNTS = ("count", "edges_kept", "edges_total")
SEEDED = {"pathway", "control"}  # columns that only rows made with random draws have
# What two machines may differ by, and what is expected at most where they do: for 99 % of the rows, probabilities
# (0 to 1), margins (logits) and relative changes (%); the share of rows whose counts differ; the margin up to which an
# answer may change; and the part of half of the record's interval by which an effect may move.
BOUNDS = {
    "nothing": {"probability": 0, "margin": 0, "change": 0, "counts": 0, "fence": 0, "effect": 0},
    "rounding": {"probability": 1e-4, "margin": 2e-3, "change": 0.05, "counts": 0.01, "fence": 0.05, "effect": 0.05},
    # in bfloat16 single rows move too far to say anything; effects and verdicts are what is compared
    "precision": dict.fromkeys(("probability", "margin", "change", "counts", "fence"), inf) | {"effect": 1.0},
}
FAR = 100  # times what is expected for 99 % of the rows: no row at all moves further
ALONE = (
    0.05  # of the rows may be on one side only: an answer that changed takes its question's rows out of the analysis
)
TINY = 1e-9  # sums of equal rows in another order


def rows_drift(old: pd.DataFrame, new: pd.DataFrame, fence: float = 0.0) -> dict[str, Any]:
    """How far rows with the same keys lie apart. `rows` were compared, `alone` stand on one side only. For each kind of
    NUMBERS: the largest difference, and as `…_99` the one that 99 % do not exceed (0 without numbers, infinite where
    one side has none). `answers` changed; of those, `firm` ones have a margin above `fence` on both sides, and
    `example` is one of them. `counts`: the share of rows whose counts differ."""
    by = [column for column in new if column in IDENTIFY and column in old]
    both = old.merge(new, on=by, suffixes=("", " new"))
    shared = [column for column in new if column in old and column not in by]
    found: dict[str, Any] = {"rows": len(both), "alone": len(old) + len(new) - 2 * len(both)}
    for kind, beginnings in NUMBERS.items():
        columns = [c for c in shared if c.startswith(beginnings) and pd.api.types.is_float_dtype(both[c])]
        was, now = (both[names].to_numpy(float).ravel() for names in (columns, [f"{c} new" for c in columns]))
        moved = np.where(np.isnan(was) != np.isnan(now), np.inf, np.abs(now - was))
        moved = np.append(0.0, moved[~np.isnan(moved)])
        found |= {kind: moved.max(), f"{kind}_99": np.quantile(moved, 0.99, method="higher")}
    changed = _differ(both, [c for c in shared if c.startswith("prediction") or c == "correct"])
    firm = changed & (_margin(both, shared) > fence)
    found |= {"answers": int(changed.sum()), "firm": int(firm.sum()), "example": ""}
    if changed.any():
        row = both[firm if firm.any() else changed].iloc[0]
        found["example"] = " ".join(str(row[column]) for column in by if column != "task")
    return found | {"counts": float(_differ(both, [c for c in shared if c in COUNTS]).mean()) if len(both) else 0.0}


def _differ(both: pd.DataFrame, columns: Iterable[str]) -> pd.Series:
    """The rows in which one of the columns differs between the two sides; both without a value are the same."""
    found = pd.Series(False, both.index)
    for was, now in ((both[column], both[f"{column} new"]) for column in columns):
        found |= (was != now) & ~(was.isna() & now.isna())
    return found


def _margin(both: pd.DataFrame, shared: Iterable[str]) -> pd.Series:
    """The smaller of the two margins that belong to each row's answer; 0 where none is known."""
    known = [column for column in MARGINS if column in shared]
    sides = [both[[c + side for c in known]].astype(float).abs() for side in ("", " new")]
    return pd.concat([side.bfill(axis=1).iloc[:, :1].max(axis=1) for side in sides], axis=1).min(axis=1).fillna(0)


def too_far(drift: Mapping[str, Any], bound: Mapping[str, float]) -> str:
    """What of `rows_drift` is more than the bounds expect, in words; empty if nothing is."""
    said = []
    for kind, unit in (("probability", ""), ("margin", " logits"), ("change", " %")):
        limit, most = bound[kind] + TINY, FAR * bound[kind] + TINY
        if drift[f"{kind}_99"] > limit or drift[kind] > most:
            moved = f"by {drift[f'{kind}_99']:.2g}{unit} (99 % of the rows) and {drift[kind]:.2g} (all)"
            said.append(f"{kind} moved {moved}, expected {bound[kind]:g} and {FAR * bound[kind]:g}")
    if drift["firm"]:
        said.append(f"{drift['firm']} answers changed that were not on the fence ({drift['example']})")
    if drift["counts"] > bound["counts"] + TINY:
        said.append(f"{100 * drift['counts']:.1f} % of the counts differ, expected {100 * bound['counts']:g} %")
    return ", ".join(said)


def disagreement(old: Claim | None, new: Claim | None, bound: Mapping[str, float], *, reseeded: bool = False) -> str:
    """Why a finding of the run (`new`) does not agree with the record (`old`), in words; empty if it does. With another
    seed (`reseeded`), rows that it draws are not compared, and effects from them may move within the interval."""
    if old is None or new is None:
        return "not in the record" if old is None else "not measured here"
    here = new.rows()
    drawn = reseeded and bool(SEEDED & set(here))
    said = [] if old.verdict == new.verdict else [f"{old.verdict} in the record, {new.verdict} here"]
    allowed = (1.0 if drawn else bound["effect"]) * (old.high - old.low) / 2 + TINY * max(1.0, abs(old.effect))
    moved = max(abs(a - b) for a, b in ((old.effect, new.effect), (old.low, new.low), (old.high, new.high)))
    if moved > allowed or np.isnan(old.effect) != np.isnan(new.effect):
        said.append(f"effect or interval moved by {moved:.2g}, expected {allowed:.2g} at most ({old.unit})")
    if not drawn:
        drift = rows_drift(old.rows(), here, bound["fence"])
        said.append(too_far(drift, bound))
        if drift["alone"] > ALONE * drift["rows"]:
            said.append(f"{drift['alone']} rows are on one side only")
    return ", ".join(filter(None, said))
