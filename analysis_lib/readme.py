"""Writes the findings' numbers into README.md, between two marks, from stored results alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis_lib import overview, paths
from analysis_lib.errors import StudyError

BEGIN, END = "<!-- findings: written by `make readme` -->\n", "<!-- end of findings -->\n"
# The paper's findings, the notebook that measures each, and the claims (by name) that make it up.
FINDINGS = (
    (
        "Temporal reasoning starts with cross-frame interaction in early-to-middle layers",
        "01_cross_frame_interaction",
        ("cross-frame early", "video training", "first half decides"),
    ),
    (
        "Then video and language meet in middle layers, on temporal words",
        "02_video_language_integration",
        ("integration in the middle", "integration before answer", "temporal words later"),
    ),
    (
        "Then the answer is ready in middle-to-late layers",
        "03_answer_emergence",
        ("answer in the second half", "answer after integration", "true option dominates"),
    ),
    (
        "Keeping only these pathways keeps the accuracy",
        "04_effective_pathways",
        ("pathway keeps accuracy", "pathway beats random", "most edges closed"),
    ),
)


def findings_block(model: str = "embedded", image_model: str = "embedded-image", benchmark: str = "embedded") -> str:
    """Markdown: accuracy, and one row per finding with each claim's effect, interval and verdict."""
    table = overview.across_models(benchmark, model=model, image_model=image_model)
    own = table[table["model"] == model].set_index("name")
    able = own.loc["above chance"]
    lines = [
        f"On the embedded Video LLM, {able['n']} questions. {able['reason']} Intervals are 95 %, over videos.",
        "",
        "| finding of the paper | measured here | notebook |",
        "|---|---|---|",
    ]
    for statement, notebook, names in FINDINGS:
        said = "<br>".join(_said(own.loc[name]) for name in names if name in own.index)
        lines.append(f"| {statement} | {said} | [{notebook[:2]}](notebooks/executed/{model}/{notebook}.ipynb) |")
    return "\n".join(lines) + "\n"


def _said(claim: pd.Series) -> str:
    return f"{claim['statement']}: {claim['brief']}, **{claim['verdict']}**"


def write_readme(path: Path = paths.ROOT / "README.md") -> None:
    """Replace the block between the marks. StudyError if the marks are not there."""
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise StudyError(f"{path} must hold the marks {BEGIN.strip()} and {END.strip()} once each")
    before, rest = text.split(BEGIN)
    path.write_text(before + BEGIN + findings_block() + END + rest.split(END)[1])


if __name__ == "__main__":
    write_readme()
