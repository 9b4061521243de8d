"""Every notebook, cell by cell, on a tiny checkpoint of some native families and of every published format."""

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import tiny_families
import tiny_originals
from clips import item, write_task

from analysis_lib.figures.bars import PATHWAYS
from analysis_lib.figures.style import VERDICTS
from analysis_lib.reports import reproduce, runner
from analysis_lib.study import runs as study

matplotlib.use("agg")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # GLM-4V's processor
]


def ask_what_it_knows(model, root):
    """Three questions of TVBench's format below `root` whose right options are those that the model chooses."""
    options = ("It grows.", "It shrinks.")
    for answers in (options[:1] * 3, None):
        if answers is None:
            baseline = study.sweep(model=model, benchmark=f"tvbench:{root}", measure=(), out=root / "first").baseline
            answers = [options["AB".index(letter)] for letter in baseline.sort_values("sample_id")["prediction"]]
        write_task(root, "action_antonym", [item(f"{i}.mp4", answer=answer) for i, answer in enumerate(answers)])
    return f"tvbench:{root}"


def execute(notebook, given):
    """The names that a notebook's cells leave behind when its parameters are `given`."""
    given = {name: value for name, value in given.items() if name in runner.parameters_of(notebook)}
    names = {}
    for cell in nbformat.read(notebook, 4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{notebook.stem}:{cell.id}", "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= runner.check_parameters(notebook, given)
    plt.close("all")
    return names


# A hybrid, one with m-RoPE, one with text between the frames, one with an encoder of its own; the table of
# docs/families.md has them all (`make notebooks-on-families`).
SOME = ("qwen3_5", "qwen2_5_vl", "smolvlm", "video_llama_3", "llava_onevision")


@pytest.mark.parametrize("family", [*SOME, *tiny_originals.PUBLISHED])
def test_all_notebooks(family, tmp_path):
    if family in tiny_originals.PUBLISHED:
        model = tiny_originals.build(family, tmp_path / family)
    else:
        model = tiny_families.build(family, tmp_path / family, says_letters=True)
    benchmark = ask_what_it_knows(str(model), tmp_path / "bench")
    given = {"model": str(model), "image_model": "", "benchmark": benchmark, "out": str(tmp_path / "out")}
    left = {path.stem[:2]: execute(path, given) for path in reproduce.select()}
    baseline, tests = left["00"]["measured"].baseline, left["00"]["tests"]
    assert len(baseline) == 3 and baseline["correct"].all() and left["00"]["measured"].skipped.empty
    assert tests["passed"].all() and len(tests) >= 15
    cut = left["02"]["measured"].knockout
    assert np.isfinite(cut["p_knock"]).all() and cut["p_knock"].nunique() > 6  # cuts change something
    assert len(left["01"]["fine"].pairs) and len(left["02"]["heads"]) and len(left["03"]["emergence"])
    assert set(left["04"]["pruned"]["pathway"]) == PATHWAYS.keys() - {"full"}
    table = left["05"]["table"]
    assert set(table["model"]) == {family} and set(table["verdict"]) <= VERDICTS.keys() and len(table) >= 12
