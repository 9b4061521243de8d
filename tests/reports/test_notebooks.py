"""The notebooks as files: sources without outputs, thin cells, plain parameter cells, executed copies that match."""

import ast

import nbformat
import pytest

from analysis_lib import __main__ as cli
from analysis_lib import paths
from analysis_lib.reports.runner import parameters_of

SOURCES = sorted(paths.NOTEBOOKS.glob("[0-9]*.ipynb"))
OPTIONS = {option.strip("-").replace("-", "_") for option in cli.NOTEBOOKS}
EXECUTED = sorted(paths.EXECUTED.glob("*/*.ipynb"))
FINDINGS = ["00_baseline_and_checks", "01_cross_frame_interaction", "02_video_language_integration"]
FINDINGS += ["03_answer_emergence", "04_effective_pathways", "05_across_models"]


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def name(path):
    return "/".join(path.parts[-2:])


def test_one_notebook_a_finding():
    assert [path.stem for path in SOURCES] == FINDINGS


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_source_is_valid_and_carries_no_outputs(path):
    nbformat.validate(nbformat.read(path, nbformat.NO_CONVERT))
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(path))
    assert all(set(cell.metadata) <= {"tags"} for cell in code_cells(path))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_source_defines_nothing_and_imports_no_runner(path):
    for cell in code_cells(path):
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert not any(isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.While) for n in nodes)
        assert "papermill" not in cell.source


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_source_opens_with_a_title(path):
    first = nbformat.read(path, 4).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_parameters_are_typed_and_commented(path):
    defaults = parameters_of(path)
    (cell,) = (cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", []))
    assert all(line.split("  # ")[1].strip() for line in cell.source.splitlines())
    assert {"model", "compute", "out"} <= set(defaults)
    assert defaults["compute"] is True and defaults["out"] == ""


def test_every_option_reaches_a_notebook():
    taken = {name for path in SOURCES for name in parameters_of(path)}
    assert OPTIONS <= taken


def test_defaults_agree_between_notebooks():
    for option in OPTIONS:
        found = {parameters_of(path)[option] for path in SOURCES if option in parameters_of(path)}
        assert len(found) == 1, option


@pytest.mark.parametrize("path", EXECUTED, ids=name)
def test_executed_copy_has_the_code_of_its_source(path):
    source = [cell.source for cell in code_cells(paths.NOTEBOOKS / path.name)]
    copy = [cell.source for cell in code_cells(path) if "injected-parameters" not in cell.metadata.get("tags", [])]
    assert copy == source, f"run `make record` again: {path.name} changed after it was executed"


@pytest.mark.parametrize("path", EXECUTED, ids=name)
def test_executed_copy_ran_to_the_end_without_noise(path):
    cells = code_cells(path)
    assert all(cell.execution_count for cell in cells if cell.source)
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert "Warning:" not in path.read_text() and str(paths.ROOT) not in path.read_text()


@pytest.mark.parametrize("path", EXECUTED, ids=name)
def test_executed_copy_opens_with_what_it_found(path):
    title, summary = nbformat.read(path, 4).cells[:2]
    assert title.source.startswith("# ") and summary.cell_type == "markdown"
    assert summary.source.startswith(f"**{path.parent.name}** on *") and summary.source.count("\n* ") >= 2


@pytest.mark.parametrize("path", EXECUTED, ids=name)
def test_executed_copy_is_small_enough_to_be_read_on_a_code_host(path):
    assert path.stat().st_size <= 1_000_000
