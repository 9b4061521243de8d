"""Files come out the same twice, and titles come from the numbers."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from analysis_lib import figures
from analysis_lib.errors import StudyError
from analysis_lib.figures.style import strongest

TABLE = pd.DataFrame({"task": "t", "layer": [1, 2], "mean": [-1.0, -9.0], "p": [0.5, 0.01]})


def drawn():
    fig, ax = plt.subplots()
    ax.plot(TABLE["layer"], TABLE["mean"])
    return fig


def test_saved_files_are_the_same_twice(tmp_path, capsys):
    for folder in ("a", "b"):
        figures.save(drawn(), "01_x", TABLE, "What is seen.", model="models/tiny", out=str(tmp_path / folder))
    files = sorted(p.name for p in (tmp_path / "a/figures/tiny").iterdir())
    assert files == ["01_x.csv", "01_x.pdf", "01_x.png"]
    for name in files:
        assert (tmp_path / "a/figures/tiny" / name).read_bytes() == (tmp_path / "b/figures/tiny" / name).read_bytes()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(StudyError, match="name another folder with --out"):
        figures.save(drawn(), "x", TABLE, "alt", model="m", out=str(tmp_path))


def test_a_title_names_the_strongest_cell_only_if_it_is_sure():
    assert strongest(TABLE, "layer", "layer {layer}").startswith("The layer that matters most: layer 2 (drop of 9.0")
    assert strongest(TABLE.assign(p=0.5), "layer", "layer {layer}").startswith("No layer alone costs the answer 2")
    assert "the largest drop is 0.0" in strongest(TABLE.assign(mean=[1.0, 2.0]), "layer", "{layer}")
