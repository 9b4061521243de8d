"""The paper's numbers beside those of a run, for models whose own numbers nobody published here.

"Map the Flow" (arXiv 2510.13251) prints two tables that another model can be held against: table E(b), how much each
route matters in each part of the depth, on Action Antonym, and table 3, what the effective pathway keeps. Sizes
depend on model and benchmark. What must be the same, if findings are general, is the direction, and a route's place."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis_lib.findings.claims import ORDER, SMALLEST, Claim, centre, drops
from analysis_lib.instrument.edges import ROUTES
from analysis_lib.study.rows import stored_rows
from analysis_lib.study.tables import read_table

# Layers, and the mean change in % per bin of five window centres: cross-frame, video->question, question->last.
TABLE_E = {
    "LLaVA-NeXT-7B-Video-FT": (32, [-4.2, -11.1, -6.3, -0.2, 0, -0.2, -0.2], [-3.9, -15.1, -21.5, -5.6, -0.2, 0, 0],
                               [-0.3, -1.2, -4.5, -19.3, -15.1, 0.7, 1.1]),
    "LLaVA-NeXT-13B-Video-FT": (40, [-0.7, -11.2, -11.1, -2.1, -0.2, -0.2, -0.2, -0.3],
                                [-1.2, -16.7, -29.1, -9.2, -0.3, -0.2, -0.2, -0.2],
                                [-1.8, -2.0, -4.6, -21.7, -28.4, -5.7, -0.1, -1.9]),
    "Mini-InternVL-4B-Video-FT": (32, [-2.3, -11.1, -11.5, -3.3, 0, 0.2, 0],
                                  [-2.4, -24.4, -35.0, -15.9, -1.3, -0.3, -0.2],
                                  [0, -1.3, -5.9, -30.8, -46.8, -14.1, -3.2]),
    "VideoLLaMA3-7B": (28, [-65.1, -61.4, -14.9, -5.0, 0, 0.2], [-4.3, -7.2, -18.5, -16.3, -2.2, 0],
                       [2.0, 3.7, 1.9, -2.7, -16.2, -19.1]),
}  # fmt: skip
# Accuracy on TVBench in % with full attention, the effective pathway and as many random edges; edges kept in %.
TABLE_3 = {
    "LLaVA-NeXT-7B-Video-FT": (51.5, 51.2, 40.1, 42), "LLaVA-NeXT-13B-Video-FT": (55.1, 54.6, 41.5, 37),
    "Mini-InternVL-4B-Video-FT": (56.0, 56.0, 41.0, 40), "VideoLLaMA3-7B": (55.2, 57.2, 22.2, 58),
}  # fmt: skip
CLAIMS = {  # of table 3: the claim, and its effect from a row
    "pathway keeps accuracy": lambda full, effective, random, kept: effective - full,
    "pathway beats random": lambda full, effective, random, kept: effective - random,
    "most edges closed": lambda full, effective, random, kept: 100 - kept,
}


def beside_paper(folder: Path, claims: Mapping[str, Claim]) -> pd.DataFrame:
    """One row per published number that the run in `folder` has too: `what, paper, here, says, table`. The paper's
    side is its row for this model, or the range over its four models. `claims` are the run's findings by name."""
    model = folder.parent.name
    rows = _routes(folder, [model] if model in TABLE_E else list(TABLE_E))
    for name, effect in CLAIMS.items():
        if name in claims:
            published = [effect(*row) for of, row in TABLE_3.items() if of == model or model not in TABLE_3]
            here, unit = claims[name].effect, claims[name].unit
            says = "same direction" if here > claims[name].threshold else "another direction"
            row = {"what": name, "paper": f"{_range(published)} {unit}", "here": claims[name].brief}
            rows.append(row | {"says": says, "source": "3, TVBench"})
    return pd.DataFrame(rows, columns=["what", "paper", "here", "says", "source"]).rename(columns={"source": "table"})


def _routes(folder: Path, models: list[str]) -> list[dict[str, str]]:
    """A row for each route that was cut: how large the drop is at most, and where its centre lies."""
    knockout, baseline, rows = stored_rows(folder, "knockout"), read_table(folder, "baseline"), []
    own = baseline[baseline["task"] == "action_antonym"]
    own, cut = own if own["correct"].any() else baseline, knockout.values("edge_set")
    for number, route in enumerate(ROUTES.values(), start=1):
        if route not in cut or not own["correct"].any():
            continue
        curve = drops(knockout, own, route)[0][route].iloc[:1]
        published = [-np.repeat(TABLE_E[model][number], 5)[: TABLE_E[model][0]] for model in models]
        curves = [pd.DataFrame([values], columns=range(1, len(values) + 1)) for values in published]
        sizes, places = zip(*((c.to_numpy().max(), 100 * centre(c).iloc[0]) for c in curves), strict=True)
        size, place = curve.to_numpy().max(), 100 * centre(curve).iloc[0]
        here = f"drop {size:.1f} %, at {place:.0f} % of the depth"
        says, room = "same direction, same place", 100 * ORDER
        if size < SMALLEST:
            here, says = f"drop {size:.1f} %, no place", "no effect"
        elif not min(places) - room <= place <= max(places) + room:
            says = f"same direction, {'deeper' if place > max(places) else 'less deep'}"
        paper = f"drop {_range(sizes)} %, at {_range(places, 0)} % of the depth"
        task = "Action Antonym" if own is not baseline else "all tasks here"
        rows.append({"what": route, "paper": paper, "here": here, "says": says, "source": f"E(b), {task}"})
    return rows


def _range(values: list[float], decimals: int = 1) -> str:
    """The smallest and the largest, or the only one."""
    ends = [f"{value:.{decimals}f}".replace("-", "−") for value in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
