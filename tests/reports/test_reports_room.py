"""The room in one walk: settings come in; executed notebooks, numbers for README.md and costs go out."""

from functools import partial

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from analysis_lib import __main__ as cli
from analysis_lib.reports import profiles, readme, reproduce

PARAMETERS = """\
model: str = "tiny"  # name of a checkpoint
samples: int = 0  # a task, 0 = all
out: str = ""  # empty: the committed places
compute: bool = True  # False redraws"""


def test_settings_go_into_notebooks_and_executed_copies_come_out(tmp_path, monkeypatch, capsys):
    cells = [new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), new_code_cell("print(model, 2 * samples)")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "00_twice.ipynb")
    monkeypatch.setattr(reproduce.reproduce, "__kwdefaults__", {"folder": tmp_path, "base": tmp_path / "executed"})

    assert cli.main(["record", "--samples", "3"]) == 0  # text from the command line, an int in the notebook
    copy = nbformat.read(tmp_path / "executed" / "tiny" / "00_twice.ipynb", as_version=4)
    assert copy.cells[-1].outputs[0].text == "tiny 6\n"

    assert cli.main(["record", "--samples", "few"]) == cli.main(["reproduce", "--tasks", "x"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: 00_twice.ipynb: parameter samples takes int, not 'few'",
        "error: 00_twice.ipynb: unknown parameter tasks; it takes model, samples, out, compute",
    ]


def test_stored_costs_become_sentences_of_the_readme():
    text = readme.cost_block()
    assert text.startswith("A sweep on the embedded model:\n\n- 1 CPU thread: ")
    assert "Counted for the shape of LLaVA-NeXT-7B" in text and "holds 16 GiB at most beyond the weights" in text


def test_runs_are_timed_and_their_operations_and_memory_are_counted():
    a, b = torch.zeros(30, 40), torch.zeros(40, 50)
    product = partial(torch.matmul, a, b)
    cost = profiles.costs([(product, 1), (product, 10)], repeats=3)
    assert list(cost["gflop"] * 1e9) == pytest.approx([120_000, 1_200_000]) and (cost["seconds"] > 0).all()
    assert profiles.peak_bytes(product) == 4 * 30 * 50
