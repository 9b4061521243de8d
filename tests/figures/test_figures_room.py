"""The room `figures`: stored tables come in, a figure and the table of its numbers go out, one function a figure."""

import nbformat
import numpy as np
import pandas as pd
import planted
import pytest

from analysis_lib import figures, findings, paths

STEMS = sorted({path.stem for name in ("embedded", "smol") for path in (paths.FIGURES / name).glob("*.png")})


@pytest.mark.parametrize("stem", STEMS)
def test_a_figure_its_function_and_its_cell_have_one_name(stem):
    number, _, name = stem.partition("_")
    (notebook,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    (cell,) = [cell.source for cell in nbformat.read(notebook, 4).cells if f'"{stem}"' in cell.source]
    assert f"figures.{name}(" in cell and f'figures.save(fig, "{stem}"' in cell
    assert callable(getattr(figures, name)) and getattr(figures, name).__name__ == name


def test_every_figure_of_the_notebooks_is_committed():
    drawn = {stem.partition("_")[2] for stem in STEMS}
    others = {
        "bench",
        "store_growth",
        "knockout_curves",
        "all_curves",
        "query_word",
        "save",
    }  # figures/bench, any knockouts, and what is no figure
    assert drawn == {name for name, value in vars(figures).items() if callable(value)} - others


def test_tables_and_a_claim_become_a_figure_and_files(tmp_path, capsys):
    baseline = planted.baseline(np.random.default_rng(0), n=12).query("task == 'object_count'")
    knockout = planted.knockout(np.random.default_rng(1), baseline, ["cross-frame"])
    claim = findings.cross_frame_early(knockout, baseline)
    fig, table = figures.cross_frame({"video model": knockout}, baseline, claim.title)
    assert claim.title in fig.legends[0].get_title().get_text().replace("\n", " ")
    figures.save(fig, "01_cross_frame", table, "What is seen.", model="tiny", out=str(tmp_path))
    written = pd.read_csv(tmp_path / "figures" / "tiny" / "01_cross_frame.csv")
    assert list(written) == list(table) and len(written) == len(table)
