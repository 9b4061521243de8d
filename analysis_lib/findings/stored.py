"""All findings on all models, from stored tables alone: no model is loaded and nothing is measured.

A model's results are the folders `<model>/<benchmark>-k<window>-<style>` that the other notebooks filled. What they did
not measure is left out, so a finding can be absent, but never guessed."""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.findings import claims, paper, stats
from analysis_lib.findings.analysed import Table
from analysis_lib.instrument.edges import ROUTES
from analysis_lib.study.request import check_request
from analysis_lib.study.rows import LONG, Rows, as_rows, stored_rows
from analysis_lib.study.tables import read_manifest, read_table

STORED = ("baseline", "controls", "knockout", "emergence", "lens", "pathway")
NOTHING = Rows(lambda columns, where: pd.DataFrame(columns=list(columns)), ())  # of a table that is not there
# Each finding: the function, the tables that it takes, and the edge sets that have to be among the knockouts.
CLAIMS: tuple[tuple[Callable[..., claims.Claim], tuple[str, ...], tuple[str, ...]], ...] = (
    (paper.above_chance, ("baseline",), ()),
    (paper.temporal_evidence, ("controls", "baseline"), ()),
    (paper.cross_frame_early, ("knockout", "baseline"), ("cross-frame",)),
    (paper.video_training, ("knockout", "image", "baseline"), ("cross-frame",)),
    (paper.early_half_accuracy, ("bottom_up", "top_down", "baseline"), ()),
    (paper.integration_in_the_middle, ("knockout", "baseline"), ("video->question",)),
    (paper.integration_before_answer, ("knockout", "baseline"), ("video->question", "question->last")),
    (paper.temporal_words_later, ("lens", "baseline"), ()),
    (paper.answer_in_second_half, ("emergence", "baseline"), ()),
    (paper.answer_after_integration, ("emergence", "knockout", "baseline"), ("video->question",)),
    (paper.true_option_dominates, ("knockout", "baseline"), paper.INTO_LAST),
    (paper.pathway_keeps_accuracy, ("pathway", "evaluation"), ()),
    (paper.pathway_beats_random, ("pathway", "evaluation"), ()),
    (paper.most_edges_closed, ("pathway", "evaluation"), ()),
)


def stored_folders(benchmark: str, *, window: str = "auto", out: str = "") -> dict[str, Path]:
    """Folder of the centred knockouts of every model measured on the benchmark; StudyError if there is none. `window`
    "auto" takes any window, and of several the last by name. Results lie below `out`; empty: the committed ones."""
    root = Path(out) / "results" if out else paths.RESULTS
    name, size = benchmark.partition(":")[0], "*" if window == "auto" else window
    files = sorted(root.glob(f"*/{name}-k{size}-center/baseline.parquet"))
    found = {file.parents[1].name: file.parent for file in files}
    if not found:
        raise StudyError(f"{root} holds no results on {name}; run python -m analysis_lib reproduce")
    return found


def seed_of(folder: Path) -> int:
    """The seed of the run whose results lie in `folder`."""
    return read_manifest(folder).get("settings", {}).get("seed", 0)


def stored_tables(
    folder: Path, image_folder: Path | None = None, *, samples: Collection[str] | None = None
) -> dict[str, Table]:
    """The tables that claims are made of, by name; those that are not stored are empty. Beside the tables of `folder`:
    `image`, the knockouts of the model's image-only base in `image_folder`; `bottom_up` and `top_down`, the one-sided
    knockouts beside `folder`; `evaluation`, the half of the baseline on which pathways are tested, and of `pathway` the
    rows whose ranges come from the other half. `samples` (None: all) limits all of them to these sample_ids."""
    where = {} if samples is None else {"sample_id": samples}
    rows = partial(stored_rows, **where)
    tables = {name: rows(folder, name) if name in LONG else read_table(folder, name, (), where) for name in STORED}
    for style in ("bottom_up", "top_down"):
        tables[style] = rows(folder.with_name(folder.name.replace("-center", f"-{style}")), "knockout")
    tables["image"] = NOTHING if image_folder in (None, folder) else rows(image_folder, "knockout")
    baseline, pathway = tables["baseline"], tables["pathway"]
    seed = seed_of(folder)  # of the halves, as notebook 04 drew them
    tables["evaluation"] = stats.split_videos(baseline, "evaluation", seed=seed)
    able = len(pathway) and baseline["correct"].any()
    if able and tables["knockout"].values("edge_set").issuperset(ROUTES.values()):
        ranges = claims.effective_ranges(tables["knockout"], stats.split_videos(baseline, "selection", seed=seed))
        name = check_request(model=folder.parent.name, ranges=ranges).ranges_name
        pathway = pathway[pathway["ranges"] == name]
    else:
        pathway = pathway.iloc[:0]  # without ranges there is nothing to say about them
    return tables | {"pathway": pathway}


def claims_of(tables: Mapping[str, Table], changed: Collection[str] = ()) -> Iterator[claims.Claim]:
    """Every finding that `tables` (see `stored_tables`) allow, in the order of the notebooks; with `changed`, names of
    tables, only the findings that read one of them."""
    stored = {name for name, table in tables.items() if len(table)}
    cut, right = as_rows(tables["knockout"]).values("edge_set"), tables["baseline"]["correct"].any()
    for claim, names, edges in CLAIMS:
        about_right = claim not in (paper.above_chance, paper.temporal_evidence)
        able = stored.issuperset(names) and cut.issuperset(edges) and (right or not about_right)
        if able and (not changed or {*names} & {*changed}):
            yield claim(*(tables[name] for name in names))


def stored_claims(
    folder: Path, image_folder: Path | None = None, *, samples: Collection[str] | None = None
) -> Iterator[claims.Claim]:
    """Every finding that the tables in `folder` (and beside it) allow. `image_folder` holds the results of the model's
    image-only base; `samples` are the sample_ids that count (None: all)."""
    return claims_of(stored_tables(folder, image_folder, samples=samples))


def across_models(benchmark: str, *, model: str, image_model: str, window: str = "auto", out: str = "") -> pd.DataFrame:
    """One row per model and claim (see `claims.table`), the p-values corrected within each model. `image_model` is the
    base with which `model` is compared; other models have no base here."""
    folders = stored_folders(benchmark, window=window, out=out)
    base = {Path(model).name: folders.get(Path(image_model).name)}
    tables = [claims.table(stored_claims(at, base.get(name))).assign(model=name) for name, at in folders.items()]
    return pd.concat(tables, ignore_index=True)
