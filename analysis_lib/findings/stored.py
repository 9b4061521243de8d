"""All findings on all models, from stored tables alone: no model is loaded and nothing is measured.

A model's results are the folders `<model>/<benchmark>-k<window>-<style>` that the other notebooks filled. What they did
not measure is left out, so a finding can be absent, but never guessed."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.findings import claims, paper, stats
from analysis_lib.instrument.edges import ROUTES
from analysis_lib.study.request import check_request
from analysis_lib.study.tables import read_table


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


def stored_claims(folder: Path, image_folder: Path | None = None) -> Iterator[claims.Claim]:
    """Every finding that the tables in `folder` (and beside it) allow, in the order of the notebooks. `image_folder`
    holds the results of the model's image-only base."""
    baseline, controls, knockout = (read_table(folder, name) for name in ("baseline", "controls", "knockout"))
    emergence, lens, pathway = (read_table(folder, name) for name in ("emergence", "lens", "pathway"))
    cut = set(knockout["edge_set"])
    yield paper.above_chance(baseline)
    if len(controls):
        yield paper.temporal_evidence(controls, baseline)
    if not baseline["correct"].any():
        return  # everything below is about right answers
    if "cross-frame" in cut:
        yield paper.cross_frame_early(knockout, baseline)
        if image_folder not in (None, folder):
            yield paper.video_training(knockout, read_table(image_folder, "knockout"), baseline)
    halves = [folder.with_name(folder.name.replace("-center", style)) for style in ("-bottom_up", "-top_down")]
    if all((half / "knockout.parquet").exists() for half in halves):
        yield paper.early_half_accuracy(*(read_table(half, "knockout") for half in halves), baseline)
    if {"video->question", "question->last"} <= cut:
        yield paper.integration_in_the_middle(knockout, baseline)
        yield paper.integration_before_answer(knockout, baseline)
    if len(lens):
        yield paper.temporal_words_later(lens, baseline)
    if len(emergence):
        yield paper.answer_in_second_half(emergence, baseline)
        if "video->question" in cut:
            yield paper.answer_after_integration(emergence, knockout, baseline)
    if "true_option->last" in cut:
        yield paper.true_option_dominates(knockout, baseline)
    if cut.issuperset(ROUTES.values()):  # the pathway's ranges come from half of the videos, its test from the others
        ranges = claims.effective_ranges(knockout, stats.split_videos(baseline, "selection"))
        measured = pathway[pathway["ranges"] == check_request(model=folder.parent.name, ranges=ranges).ranges_name]
        if len(measured):
            for claim in (paper.pathway_keeps_accuracy, paper.pathway_beats_random, paper.most_edges_closed):
                yield claim(measured, stats.split_videos(baseline, "evaluation"))


def across_models(benchmark: str, *, model: str, image_model: str, window: str = "auto", out: str = "") -> pd.DataFrame:
    """One row per model and claim (see `claims.table`), the p-values corrected within each model. `image_model` is the
    base with which `model` is compared; other models have no base here."""
    folders = stored_folders(benchmark, window=window, out=out)
    base = {Path(model).name: folders.get(Path(image_model).name)}
    tables = [claims.table(stored_claims(at, base.get(name))).assign(model=name) for name, at in folders.items()]
    return pd.concat(tables, ignore_index=True)
