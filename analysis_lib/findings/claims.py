"""What a claim is: an effect, an interval over videos, and the verdict that follows from them alone.

A finding of the paper (see `paper.py`) becomes a number, larger if it supports the finding, and is compared with a
threshold that was fixed from the paper before any result of this study was seen. The 95 % interval above it is
"reproduced", below is "not reproduced", anything else "undecided". Layers (1-based) enter as share of the depth: the
window centred at layer l of L sits at (l - 0.5)/L. Tasks weigh the same."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis_lib.errors import StudyError
from analysis_lib.findings import stats
from analysis_lib.findings.analysed import Analysed, Table
from analysis_lib.findings.bootstrap import across_tasks, replicates, replicates_of, summed
from analysis_lib.instrument.edges import ROUTES
from analysis_lib.study.rows import as_rows
from analysis_lib.study.tables import BOTH_WAYS

SMALLEST = 2.0  # % of the answer's probability: the curves that the paper calls flat stay within it
ORDER = 0.05  # of the depth: a quarter of the smallest distance in table E(b) (13B, 19 %)
LOSS = 5.0  # points of accuracy: the paper's pathways lose at most 1
FEWEST = 10  # videos; a bootstrap over fewer says little


@dataclass(frozen=True, repr=False)
class Claim:
    """One finding with its measured effect."""

    name: str
    statement: str
    effect: float
    low: float
    high: float
    n: int  # samples
    verdict: str
    reason: str
    unit: str
    threshold: float
    n_videos: int  # the independent units
    p: float  # one-sided
    rows: Callable[[], pd.DataFrame] = field(compare=False)  # gets what it was measured on

    @property
    def title(self) -> str:
        """The statement for a figure, with the verdict in front unless it is reproduced."""
        return self.statement if self.verdict == "reproduced" else f"{self.verdict.capitalize()}: {self.statement}"

    @property
    def number(self) -> str:
        """Effect and interval with the decimals that a reader needs, for prose."""
        return self._number("{0} {3} (95 % interval {1} to {2})")

    @property
    def brief(self) -> str:
        """The same in little space."""
        return self._number("{0} ({1} to {2}) {3}")

    def _number(self, form: str) -> str:
        numbers = [f"{x:z.{2 if 'depth' in self.unit else 1}f}" for x in (self.effect, self.low, self.high)]
        said = form.format(*numbers, self.unit).replace("-", "−")
        return "no effect to locate" if np.isnan(self.effect) else said

    def __repr__(self) -> str:
        """With the digits that a reader needs: the others differ from one processor to the next."""
        return f"Claim({self.name}: {self.verdict}, {self.brief})"

    def _repr_markdown_(self) -> str:
        """One paragraph for a notebook."""
        said = f"{self.n} samples from {self.n_videos} videos; it counts if above {self.threshold:g}".replace("-", "−")
        return f"**{self.verdict.capitalize()}: {self.statement}.** Effect: {self.number}, {said}. {self.reason}"


def decide(name: str, statement: str, reps: pd.Series, rows: pd.DataFrame | Analysed, because: str, doubt: str = "",
           *, threshold: float, unit: str, span: float = 0) -> Claim:  # fmt: skip
    """The verdict on replicates of an effect measured on `rows`; `doubt` makes it undecided. `span` is the length of
    the scale of effects without spread (`stats.interval`). An effect that does not exist (NaN) is not reproduced."""
    samples = rows.samples() if isinstance(rows, Analysed) else rows
    n, n_videos = len(samples[["task", "sample_id"]].drop_duplicates()), samples["video"].nunique()
    if np.isnan(reps.iloc[0]):
        found, verdict, why, p = (np.nan, np.nan, np.nan), "not reproduced", "", 1.0
    else:
        found, draws = stats.interval(reps, n=n_videos, span=span), reps.iloc[1:].dropna()
        p = float((1 + (draws <= threshold).sum()) / (1 + len(draws)))  # bootstrap, that the effect is not above
        verdict, why = ("undecided", doubt) if doubt else _verdict(*found, threshold, n_videos)
    reason = f"{because} {why}".strip().replace(" -0.0 ", " 0.0 ")
    return Claim(name, statement, *found, n, verdict, reason, unit, threshold, n_videos, p,
                 rows.frame if isinstance(rows, Analysed) else lambda: rows)  # fmt: skip


def _verdict(effect: float, low: float, high: float, threshold: float, n_videos: int) -> tuple[str, str]:
    """Verdict and, where it is not a plain yes, the reason. An interval shrinks with the root of the videos."""
    if n_videos < FEWEST:
        return "undecided", f"An interval needs at least {FEWEST} videos."
    if low > threshold:
        return "reproduced", ""
    if high < threshold:
        return "not reproduced", "The whole interval lies below the threshold."
    distance, half = abs(effect - threshold), (high - low) / 2
    if distance <= 1e-9 or not np.isfinite(half):
        return "undecided", "The effect lies on the threshold."
    return "undecided", f"About {max(n_videos, ceil(n_videos * (half / distance) ** 2)):,} videos would decide."


def finding(name: str, statement: str, threshold: float, unit: str = "points", span: float = 0) -> Callable:
    """Make a function of tables that returns what `decide` takes (reps, rows, because, maybe doubt) return a Claim."""

    def judged(measure: Callable) -> Callable[..., Claim]:
        heading = {"threshold": threshold, "unit": unit, "span": span}
        return wraps(measure)(lambda *tables: decide(name, statement, *measure(*tables), **heading))

    return judged


def table(claims: Iterable[Claim]) -> pd.DataFrame:
    """One row per claim; `p_holm` corrects the one-sided p-values for the number of claims in the table."""
    frame = pd.DataFrame([vars(claim) | {"brief": claim.brief} for claim in claims]).drop(columns="rows")
    return frame.assign(p_holm=stats.holm(frame["p"]))


class Neighbours(NamedTuple):
    """Words for the frames that a frame reads, for those that read it, and for a pair of which one cannot be read."""

    reads: str
    readers: str
    pair: str


def neighbours(manifest: Mapping[str, Any]) -> Neighbours:
    """The words that are right for a model, by what its manifest says of how frames read each other."""
    if manifest.get("settings", {}).get("frames_read") == BOTH_WAYS:
        return Neighbours("other", "other", "one cannot read the other")
    return Neighbours("earlier", "later", "the later one cannot read the earlier one")


def summary(manifest: Mapping[str, Any], baseline: pd.DataFrame, *said: Claim | str) -> str:
    """What a notebook found, in Markdown: model, benchmark, number of questions, day and commit of the measurement, and
    a line a claim; before them, whether frames read each other both ways, which few models let them."""
    when = " on ".join(filter(None, ["measured", manifest.get("date")]))
    commit = f" at commit `{manifest['commit'][:7]}`" if manifest.get("commit") else ""
    head = f"**{manifest['model']}** on *{manifest['benchmark']}*, {len(baseline)} questions, {when}{commit}."
    if neighbours(manifest).reads == "other":
        said = ("frames read each other both ways: cross-frame edges lead to earlier and to later frames", *said)
    lines = [f"**{c.verdict.capitalize()}:** {c.statement}, {c.brief}" if isinstance(c, Claim) else c for c in said]
    return "\n".join([head, "", *(f"* {line[0].upper()}{line[1:]}." for line in lines)])


def by_task(claim: Callable[..., Claim], *tables: Table) -> pd.DataFrame:
    """The same claim on each task alone; the last table is the baseline, which decides what is analysed."""
    *measured, baseline = tables
    tasks = sorted(baseline.loc[baseline["correct"].astype(bool), "task"].unique())
    found = [claim(*measured, baseline[baseline["task"] == task]) for task in tasks]
    return table(found).assign(task=tasks).set_index("task")


def drops(knockout: Table, baseline: pd.DataFrame, *edge_sets: str,
          **where: Collection) -> tuple[pd.DataFrame, Analysed]:  # fmt: skip
    """Replicates of the mean drop of the answer's probability in % (positive when the answer suffers) per (edge_set,
    layer) on correctly answered samples, and the rows they come from: those that hold what `where` names."""
    rows = Analysed(knockout, baseline, edge_set=edge_sets, **where)
    by = ["edge_set", "task", "layer"]
    sums = summed(rows.parts(*by, "relative_change"), "relative_change", by)
    if absent := ", ".join(sorted(set(edge_sets) - set(sums.index.unique("edge_set")))):
        raise StudyError(f"no knockout of {absent} on correctly answered samples is stored; run sweep with these edges")
    return -across_tasks(replicates_of(sums, by)), rows


def _depth(curve: pd.DataFrame) -> np.ndarray:
    """Where the layers (columns) sit, as share of the depth."""
    layers = np.asarray(curve.columns, float)
    return (layers - 0.5) / layers.max()


def band(curve: pd.DataFrame, low: float, high: float, *, inside: bool = True) -> pd.Series:
    """Mean of a curve over the layers whose centre lies inside, or outside, (low, high] of the depth."""
    depth = _depth(curve)
    return curve.loc[:, ((depth > low) & (depth <= high)) == inside].mean(axis=1)


def centre(curve: pd.DataFrame) -> pd.Series:
    """Mean depth of a drop, weighted with it; NaN if it stays below `SMALLEST`: what does not happen has no place."""
    weight = curve.clip(lower=0.0)
    place = (weight * _depth(curve)).sum(axis=1) / weight.sum(axis=1).where(lambda w: w > 0)
    return place if weight.iloc[0].max() >= SMALLEST else place * np.nan


def crossing(curve: pd.DataFrame) -> pd.Series:
    """Depth at which a rising curve first reaches half of its last value, interpolated between layers."""
    values, layers = curve.to_numpy(float), np.asarray(curve.columns, float)
    goal = values[:, -1:] / 2
    first = (values >= goal).argmax(axis=1)  # the last layer always reaches the goal
    rows, before = np.arange(len(values)), np.maximum(first - 1, 0)
    rise = values[rows, first] - values[rows, before]
    step = np.where(rise > 0, (goal[:, 0] - values[rows, before]) / np.where(rise > 0, rise, 1), 1.0)
    at = layers[before] + step * (layers[first] - layers[before])
    return pd.Series(at / layers.max(), index=curve.index)


def answer_depth(emergence: Table, baseline: pd.DataFrame) -> tuple[pd.Series, Analysed]:
    """Replicates of the depth at which the true option's probability reaches half of its last value, and the rows."""
    rows = Analysed(emergence, baseline, is_answer=[True], normed=[True])
    parts = rows.parts("layer", "probability")
    return crossing(across_tasks(replicates(parts, "probability", ["task", "layer"]))), rows


def pathway_answers(pathway: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """`task, sample_id, video, pathway, correct` of the baseline's samples; the untouched model is pathway "full"."""
    samples = ["task", "sample_id"]
    full = baseline.merge(pathway[samples].drop_duplicates()).assign(pathway="full")
    return pd.concat([full, pathway.merge(full[samples])])[[*samples, "video", "pathway", "correct"]]


def effective_ranges(knockout: Table, baseline: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """First and last open layer (1-based) of each route by the paper's rule: from the first to the last bin of layers
    with a mean drop above 5 %, or the strongest. Bins are 5 of 32 layers wide, or the same share of a small depth. The
    paper takes Action Antonym alone; here tasks weigh the same."""
    curves, _ = drops(knockout, baseline, *ROUTES.values())
    n_layers, ranges = max(as_rows(knockout).values("layer")), {}
    size = 5 if n_layers >= 24 else max(1, round(5 * n_layers / 32))
    for name, route in ROUTES.items():
        bins = curves[route].iloc[0].groupby(lambda layer: (layer - 1) // size).mean()
        kept = bins.index[bins > 5] if (bins > 5).any() else [bins.idxmax()]
        ranges[name] = (kept[0] * size + 1, min((kept[-1] + 1) * size, n_layers))
    return ranges
