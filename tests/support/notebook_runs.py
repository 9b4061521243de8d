"""Every notebook of the study on one checkpoint, cell by cell in this process, on three questions that it answers.

A kernel for each notebook would cost more than the notebooks of a tiny model do; what runs is the same code, with the
same parameters. Right answers are those that the model gives, so that there is something to cut.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import nbformat
from clips import item, write_task

from analysis_lib.errors import StudyError
from analysis_lib.reports import reproduce, runner
from analysis_lib.study import runs as study

matplotlib.use("agg")
OPTIONS = ("It grows.", "It shrinks.")


def ask_what_it_knows(model: str, root: Path) -> str:
    """Three questions of TVBench's format below `root` whose right options are those that the model chooses."""
    for answers in (OPTIONS[:1] * 3, None):
        if answers is None:
            found = study.sweep(model=model, benchmark=f"tvbench:{root}", measure=(), out=root / "first")
            if len(found.skipped):
                raise StudyError(f"a question is skipped: {found.skipped['reason'].iloc[0]}")
            letters = found.baseline.sort_values("sample_id")["prediction"]
            answers = [OPTIONS["AB".index(letter)] for letter in letters]
        write_task(root, "action_antonym", [item(f"{i}.mp4", answer=answer) for i, answer in enumerate(answers)])
    return f"tvbench:{root}"


def execute(notebook: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The names that a notebook's cells leave behind when its parameters are `given`."""
    given = {name: value for name, value in given.items() if name in runner.parameters_of(notebook)}
    names: dict[str, Any] = {}
    try:
        for cell in nbformat.read(notebook, 4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{notebook.stem}:{cell.id}", "exec"), names)
                if "parameters" in cell.metadata.get("tags", []):
                    names |= runner.check_parameters(notebook, given)
    finally:
        plt.close("all")
    return names


def execute_each(model: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each notebook's number and what it leaves behind; `folder` takes the questions and all that is written. Raises
    what a cell raises."""
    given = {"model": model, "image_model": "", "benchmark": ask_what_it_knows(model, folder / "bench")}
    given |= {"out": str(folder / "out")}
    # Fonts that every reader of PDF has: to embed ours is a third of what the notebooks of a tiny model take.
    with matplotlib.rc_context({"pdf.use14corefonts": True}):
        for path in reproduce.select():
            yield path.stem[:2], execute(path, given)
