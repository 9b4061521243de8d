"""How fragile is each finding? The same claims again, with one choice of the study made otherwise.

A verdict should not hang on what could as well have been chosen differently. So every finding is judged again on halves
of the questions, with the answer's margin in place of its probability, for each size of window that the paper tries
(G.6), and on other trainings of the same model: results of NAME-seed1 (2, 3 …) beside those of NAME. Thresholds stay as
they are. A finding that does not read what a variant changes is not judged again."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analysis_lib.findings import claims, stats
from analysis_lib.findings.analysed import Table
from analysis_lib.findings.stored import NOTHING, claims_of, seed_of, stored_tables
from analysis_lib.study.rows import SAMPLE, Rows, as_rows
from analysis_lib.study.tables import read_table

REPORTED = "as reported"
KNOCKOUTS = ("knockout", "image")


def fragility(folder: Path, image_folder: Path | None = None) -> pd.DataFrame:
    """One row per finding and variant, as `claims.table` (p-values corrected within a variant), with `variant` and
    `flips`: whether the verdict is another than the reported one."""
    reported = stored_tables(folder, image_folder)
    parts = [claims.table(claims_of(reported)).assign(variant=REPORTED)]
    for variant, tables, changed in _variants(folder, image_folder, reported):
        found = list(claims_of(tables, changed))
        if found:
            parts.append(claims.table(found).assign(variant=variant))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(flips=table["verdict"] != table["name"].map(parts[0].set_index("name")["verdict"]))


def other_trainings(folder: Path) -> dict[str, Path]:
    """The results of the same model trained from other seeds, NAME-seed1 and so on, beside those in `folder`."""
    others = sorted(folder.parents[1].glob(f"{folder.parent.name}-seed*/{folder.name}"))
    return {other.parent.name: other for other in others}


def _variants(folder: Path, image_folder: Path | None, reported: dict) -> Iterator[tuple[str, dict, tuple[str, ...]]]:
    """Each variant: its name, its tables, and which of them differ from the reported ones."""
    for name, other in other_trainings(folder).items():
        tables = stored_tables(other, image_folder)
        yield f"training {name.rpartition('-')[2]}", tables, tuple(tables)
    seed = seed_of(folder) + 1  # another split than the one by which pathways are chosen and tested
    for half, part in enumerate(("selection", "evaluation"), 1):
        halved = {name: stats.split_videos(reported[name], part, seed=seed) for name in ("baseline", "evaluation")}
        yield f"videos, half {half}", reported | halved, tuple(halved)
    margins = {name: in_margin(reported[name]) for name in KNOCKOUTS}
    yield "margin", reported | margins, KNOCKOUTS
    for size, rows in read_table(folder, "widths").groupby("window"):
        tables = reported | {"knockout": rows, "image": NOTHING}
        yield f"window {size}", tables, KNOCKOUTS


def in_margin(knockout: Table) -> Rows:
    """The rows with `relative_change` as the change of the answer's margin, in % of the mean margin of the untouched
    model on its right answers. A probability near 1 hides what a cut does; a margin does not."""
    rows, base = as_rows(knockout), [*SAMPLE, "margin_base"]
    samples = [part.drop_duplicates(SAMPLE)["margin_base"] for part in rows.parts(base)]
    margins = pd.concat(samples) if samples else pd.Series(dtype=float)
    mean, needs = margins[margins > 0].mean(), ("margin_knock", "margin_base")
    return rows.computed("relative_change", needs, lambda r: 100 * (r["margin_knock"] - r["margin_base"]) / mean)
