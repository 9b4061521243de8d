"""Writes what is stored into README.md, CITATION.cff and docs/scale.md, between marks: findings, the cost of a sweep,
drift, the record's commit, the results store's growth, and GPU hours. Nothing is measured."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from analysis_lib import findings, paths
from analysis_lib.errors import StudyError
from analysis_lib.reports import gpu_hours
from analysis_lib.study.tables import read_manifest

FINDINGS = {  # of the paper, by the notebook that measures them: the statement, and the claims that make it up
    "01_cross_frame_interaction": ("Temporal reasoning starts with cross-frame interaction in early-to-middle layers",
        ("cross-frame early", "video training", "first half decides")),
    "02_video_language_integration": ("Then video and language meet in middle layers, on temporal words",
        ("integration in the middle", "integration before answer", "temporal words later")),
    "03_answer_emergence": ("Then the answer is ready in middle-to-late layers",
        ("answer in the second half", "answer after integration", "true option dominates")),
    "04_effective_pathways": ("Keeping only these pathways keeps the accuracy",
        ("pathway keeps accuracy", "pathway beats random", "most edges closed")),
}  # fmt: skip


MODELS = {  # the natural model first: its image-only base, and what it is for
    "smol": ("smol-image", "trained the ordinary way"),
    "smol-seed1": ("smol-image", "the same, trained again"),
    "embedded": ("embedded-image", "the positive control"),
}

STORE_USES = {  # of the results store, by the names of `bench_store`
    "one_more": "one more sample: open, add, finish",
    "one_route": "read one task and one edge set",
    "resume_check": "check a complete run for what it lacks",
    "redraw": "read all columns of one edge set",
    "redraw_curves": "curves of all eleven edge sets, with intervals and tests over 50,000 videos",
    "notebook 02": "notebook 02, redrawn whole: curves of seven edge sets, logit lens, claims by task",
    "notebook 03": "notebook 03, redrawn whole: curves of three edge sets, emergence, claims by task",
}


def findings_block() -> str:
    """Markdown: each measured model's accuracy, and a row per claim with its effect and verdict on each of them."""
    stored = findings.stored_folders("embedded")
    models = {name: MODELS[name] for name in MODELS if name in stored}
    claims = {name: _claims_of(name, image) for name, (image, _) in models.items()}
    able = (f"`{name}`: {own.loc['above chance', 'n']} questions. {own.loc['above chance', 'reason']}"
            for name, own in claims.items())  # fmt: skip
    text = f"{' '.join(able)} Intervals are 95 %, over videos.\n\n"
    heads = [f"`{name}`, {purpose}" for name, (_, purpose) in models.items()]
    text += f"| finding of the paper | claim | {' | '.join(heads)} |\n|{'---|' * (2 + len(models))}\n"
    for notebook, (statement, names) in FINDINGS.items():
        number, first = notebook[:2], next(iter(models))
        finding = f"{statement} ([{number}](notebooks/executed/{first}/{notebook}.ipynb))"
        for name in names:
            said = [_said(own, name) for own in claims.values()]
            text += f"| {finding} | {_statement(claims, name)} | {' | '.join(said)} |\n"
            finding = ""
    return text


def _claims_of(model: str, image_model: str) -> pd.DataFrame:
    folders = findings.stored_folders("embedded")
    return _claims_in(folders[model], folders.get(image_model))


@cache
def _claims_in(folder: Path, image_folder: Path | None) -> pd.DataFrame:
    return findings.table(findings.stored_claims(folder, image_folder)).set_index("name")


def _statement(claims: dict[str, pd.DataFrame], name: str) -> str:
    return next((own.loc[name, "statement"] for own in claims.values() if name in own.index), name)


def _said(own: pd.DataFrame, name: str) -> str:
    return f"**{own.loc[name, 'verdict']}**, {own.loc[name, 'brief']}" if name in own.index else "not measured"


def cost_block() -> str:
    """Markdown: seconds of one sweep on the embedded model, and operations of one in the 7B shape, by procedure."""
    table = pd.read_csv(paths.DATA / "bench" / "cpu.csv")
    costs = table.set_index(["model", "edge_sets", "procedure"]).sort_index()
    text = "A sweep on the embedded model:\n\n"
    for threads, rows in costs.loc["embedded"].groupby("threads"):
        seconds, last = rows.loc["all"]["seconds"], rows.loc["into last"]["seconds"]
        text += (
            f"- {threads} CPU thread{'s' * (threads > 1)}: {_compared(seconds, '{:.2f} s')}. Into the "
            f"last token, exact is {last['full'] / last['exact']:.0f} times faster than full. "
            f"{rows['overhead_percent'].iloc[0]:.0f} % of exact's time is outside the model's own operations.\n"
        )
    tera = costs.loc["LLaVA-NeXT-7B shape", "all"]["gflop"] / 1e3
    return text + (
        f"\nCounted for the shape of LLaVA-NeXT-7B, in 10¹² operations: {_compared(tera, '{:,.0f}')}; its exact sweep "
        f"holds {table['gpu_memory_mb'].max() / 1024:.0f} GiB at most beyond the weights.\n"
    )


def _compared(cost: pd.Series, form: str) -> str:
    """The three procedures' costs, and how many times that of `exact` the others have."""
    times = {name: f" ({cost[name] / cost['exact']:.1f} times)" for name in ("full", "published")}
    return ", ".join(f"{form.format(cost[name])} {name}{more}" for name, more in ({"exact": ""} | times).items())


def store_block() -> str:
    """Markdown: seconds and peak memory of each use of the results store at the largest size measured."""
    table = pd.read_csv(paths.DATA / "bench" / "store.csv")
    largest = table[table["samples"] == table["samples"].max()].set_index("use")
    uses = STORE_USES | {"fill": f"the driver, while it adds {largest.loc['fill', 'added']:,.0f} samples"}
    text = "| use | seconds | peak memory, MB |\n|---|---|---|\n"
    for use, said in uses.items():
        spent, peak = largest.loc[use, ["seconds", "peak_mb"]]
        text += f"| {said} | {spent:.{(spent < 10) + (spent < 1)}f} | {peak:,.0f} |\n"
    return text


def drift_block() -> str:
    """Markdown: how far numbers drifted when one thing was changed, a row each."""
    table = pd.read_csv(paths.DATA / "drift.csv")
    text = (
        "| changed | probabilities | margins | other answers | other verdicts | effects |\n|---|---|---|---|---|---|\n"
    )
    for changed, rows in table.groupby("changed", sort=False):
        rows, found = rows[rows["what"] != "findings"], rows[rows["what"] == "findings"].iloc[0]
        far = (f"{rows[f'{kind}_99'].max():.2g}, {rows[kind].max():.2g}" for kind in ("probability", "margin"))
        answers = f"{rows['answers'].sum():.0f} of {rows['rows'].sum():,.0f} rows"
        verdicts = f"{found['verdicts']:.0f} of {found['rows']:.0f}"
        moved = f"{float(f'{100 * found.effect:.2g}'):g} %"
        text += f"| {changed} | {' | '.join(far)} | {answers} | {verdicts} | {moved} |\n"
    asked = table.loc[table["what"] == "baseline", "rows"].max()
    return text + (
        f"\nAgainst one CPU thread, on {asked:.0f} questions. Probabilities and margins (logits): what 99 % of a "
        "table's rows stay within, and the furthest. Effects: the furthest, in % of half of its interval. Another "
        "seed draws other questions; the record was measured at another commit.\n"
    )


def record_block() -> str:
    """YAML for CITATION.cff: the commit that the first model's record was measured at, and what it found, in a line."""
    stored = findings.stored_folders("embedded")
    said = []
    for name, (image, _) in MODELS.items():
        if name in stored:
            verdicts = _claims_of(name, image)["verdict"].value_counts()
            said.append(f"on {name} {verdicts.get('reproduced', 0)} of {verdicts.sum()} findings are reproduced")
    first = next(name for name in MODELS if name in stored)
    commit = read_manifest(stored[first])["commit"].removesuffix("+changes")
    return f"commit: {commit}\nabstract: >-\n  Findings of the paper, as measured here: {'; '.join(said)}.\n"


BLOCKS = {"findings": findings_block, "cost": cost_block, "drift": drift_block}
FILES = {  # how a mark looks there, and the blocks
    "README.md": ("<!-- {} -->\n", BLOCKS),
    "CITATION.cff": ("# {}\n", {"record": record_block}),
    "docs/scale.md": ("<!-- {} -->\n", {"store": store_block, "hours": gpu_hours.hours_block}),
}


def write_blocks(path: Path, mark: str, blocks: Mapping[str, Callable[[], str]]) -> None:
    """Replace the blocks between the marks. StudyError if marks are not there once each."""
    text = path.read_text()
    for name, block in blocks.items():
        begin, end = mark.format(f"{name}: written by `make readme`"), mark.format(f"end of {name}")
        if text.count(begin) != 1 or text.count(end) != 1:
            raise StudyError(f"{path} must hold the marks {begin.strip()} and {end.strip()} once each")
        before, rest = text.split(begin)
        text = before + begin + block() + end + rest.split(end)[1]
    path.write_text(text)


if __name__ == "__main__":
    for name, (mark, blocks) in FILES.items():
        write_blocks(paths.ROOT / name, mark, blocks)
