"""Writes the findings' numbers into README.md, between two marks, from stored results alone."""

from pathlib import Path

from analysis_lib import overview, paths
from analysis_lib.errors import StudyError

BEGIN, END = "<!-- findings: written by `make readme` -->\n", "<!-- end of findings -->\n"
# The notebook that measures each finding of the paper, its statement, and the claims (by name) that make it up.
FINDINGS = {
    "01_cross_frame_interaction": (
        "Temporal reasoning starts with cross-frame interaction in early-to-middle layers",
        ("cross-frame early", "video training", "first half decides")),
    "02_video_language_integration": (
        "Then video and language meet in middle layers, on temporal words",
        ("integration in the middle", "integration before answer", "temporal words later")),
    "03_answer_emergence": (
        "Then the answer is ready in middle-to-late layers",
        ("answer in the second half", "answer after integration", "true option dominates")),
    "04_effective_pathways": (
        "Keeping only these pathways keeps the accuracy",
        ("pathway keeps accuracy", "pathway beats random", "most edges closed")),
}  # fmt: skip


def findings_block() -> str:
    """Markdown: the embedded model's accuracy, and one row per finding with each claim's effect and verdict."""
    table = overview.across_models("embedded", model="embedded", image_model="embedded-image")
    own = table[table["model"] == "embedded"].set_index("name")
    able = own.loc["above chance"]
    text = f"On the embedded Video LLM, {able['n']} questions. {able['reason']} Intervals are 95 %, over videos.\n\n"
    text += "| finding of the paper | measured here | notebook |\n|---|---|---|\n"
    for notebook, (statement, names) in FINDINGS.items():
        measured = own.loc[[name for name in names if name in own.index]].itertuples()
        said = "<br>".join(f"{claim.statement}: {claim.brief}, **{claim.verdict}**" for claim in measured)
        text += f"| {statement} | {said} | [{notebook[:2]}](notebooks/executed/embedded/{notebook}.ipynb) |\n"
    return text


def write_readme(path: Path = paths.ROOT / "README.md") -> None:
    """Replace the block between the marks. StudyError if the marks are not there."""
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise StudyError(f"{path} must hold the marks {BEGIN.strip()} and {END.strip()} once each")
    before, rest = text.split(BEGIN)
    path.write_text(before + BEGIN + findings_block() + END + rest.split(END)[1])


if __name__ == "__main__":
    write_readme()
