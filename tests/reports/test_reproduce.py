"""The runner, on tiny notebooks that are made here; the study's own notebooks are in test_notebooks.py."""

import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from analysis_lib import __main__ as cli
from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.reports import reproduce, runner

PARAMETERS = """\
model: str = "tiny"  # checkpoint folder, hub id or name
samples: int = 0  # a task, 0 = all
share: float = 0.5  # of the edges
compute: bool = True  # False redraws
out: str = ""  # empty: the committed places"""


def make(folder, *sources, name="00_first.ipynb", parameters=PARAMETERS):
    cells = [new_markdown_cell("# Title"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    folder.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=[*cells, *map(new_code_cell, sources)]), folder / name)
    return folder / name


def outputs(path, stream):
    found = [o for c in nbformat.read(path, 4).cells for o in c.get("outputs", []) if o.get("name") == stream]
    return "".join(output.text for output in found)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """One notebook executed twice, by the way of the command line's function."""
    folder = tmp_path_factory.mktemp("study")
    cell = """\
import os, sys, time, matplotlib, random
from tqdm import tqdm
for _ in tqdm(range(3)): time.sleep(0.01 * random.random())
print(sys.executable, model, samples, share, compute, matplotlib.get_backend(), "IPYTHONDIR" in os.environ)"""
    make(folder / "notebooks", cell, "samples")
    given = {"samples": "3", "share": "1", "compute": "no"}
    for base in ("one", "two"):
        reproduce.reproduce(given, folder=folder / "notebooks", base=folder / base)
    return folder


def test_runs_in_this_interpreter_with_the_given_values(executed):
    text = outputs(executed / "one" / "tiny" / "00_first.ipynb", "stdout")
    assert text.strip() == f"{sys.executable} tiny 3 1.0 False module://matplotlib_inline.backend_inline True"


def test_two_runs_give_the_same_bytes(executed):
    one, two = ((executed / base / "tiny" / "00_first.ipynb").read_bytes() for base in ("one", "two"))
    assert one == two
    assert b"papermill" not in one and b"over TCP" not in one and b"it/s" not in one


def test_the_summary_stands_at_the_top(tmp_path):
    notebook = make(tmp_path, "1 + 1", "from IPython.display import Markdown\nMarkdown(f'found by {model}')")
    nb = nbformat.read(notebook, 4)
    nb.cells[-1].metadata.tags = ["summary"]
    nbformat.write(nb, notebook)
    runner.run_notebook(notebook, {}, tmp_path / "copy.ipynb")
    cells = nbformat.read(tmp_path / "copy.ipynb", 4).cells
    assert [cell.source for cell in cells[:2]] == ["# Title", "found by tiny"]
    assert cells[-1].outputs == [] and sum("found by tiny" in str(cell) for cell in cells) == 1


def test_progress_bar_is_one_line(executed):
    text = outputs(executed / "one" / "tiny" / "00_first.ipynb", "stderr")
    assert text.strip() == "100%|██████████| 3/3"


@pytest.mark.parametrize(("given", "times"), [({}, 1), ({"benchmark": "tvbench:/x"}, 0), ({"compute": False}, 0)])
def test_the_embedded_benchmark_is_rendered_before_the_notebooks(tmp_path, monkeypatch, given, times):
    rendered = []
    monkeypatch.setattr("analysis_lib.embedded.quiz.write_benchmark", rendered.append)
    monkeypatch.setattr(reproduce, "run_notebook", lambda *_: None)
    parameters = PARAMETERS + '\nbenchmark: str = "embedded"  # its name'
    make(tmp_path / "notebooks", parameters=parameters)
    reproduce.reproduce(given, folder=tmp_path / "notebooks", base=tmp_path)
    assert len(rendered) == times


def test_nothing_but_the_copies_is_written(executed):
    assert [path.name for path in (executed / "one").rglob("*") if path.is_file()] == ["00_first.ipynb"]


def test_start_up_noise_does_not_reach_the_terminal(tmp_path, capfd):
    make(tmp_path / "notebooks", "1")
    reproduce.reproduce({}, folder=tmp_path / "notebooks", base=tmp_path)
    out, err = capfd.readouterr()
    assert err == ""
    assert out.splitlines()[0].startswith("[1/1] 00_first") and out.splitlines()[0].endswith(" s")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampels": 3}, "00_first.ipynb: unknown parameter sampels; it takes model, samples, share, compute, out"),
        ({"samples": "many"}, "00_first.ipynb: parameter samples takes int, not 'many'"),
        ({"samples": 2.5}, "parameter samples takes int, not 2.5"),
        ({"samples": True}, "parameter samples takes int, not True"),
        ({"model": 7}, "parameter model takes str, not 7"),
        ({"compute": "maybe"}, "parameter compute takes bool, not 'maybe'"),
        ({"compute": 1}, "parameter compute takes bool, not 1"),
        ({"benchmark": "vcgbench:x"}, "the notebooks need options, vcgbench:x has none; docs/open_ended.md"),
    ],
)
def test_wrong_parameters_are_refused_before_a_kernel_starts(tmp_path, monkeypatch, given, message):
    make(tmp_path, "print(1)")
    monkeypatch.setattr(reproduce, "run_notebook", lambda *_: pytest.fail("a kernel was started"))
    with pytest.raises(StudyError) as error:
        reproduce.reproduce(given, folder=tmp_path, base=tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_run_notebook_checks_by_itself(tmp_path):
    with pytest.raises(StudyError, match="unknown parameter windw"):
        runner.run_notebook(make(tmp_path, "1"), {"windw": 3}, tmp_path / "copy.ipynb")


def test_parameters_are_read_with_their_defaults(tmp_path):
    found = runner.parameters_of(make(tmp_path, parameters='größe: str = "#1"  # Größe, ü\nn: int = -2'))
    assert found == {"größe": "#1", "n": -2}


@pytest.mark.parametrize("line", ["n = 3", "n: int = 2 + x", "n: int = 'a'", "n: list = []", "import os", "n: int"])
def test_parameter_cell_must_be_plain(tmp_path, line):
    with pytest.raises(StudyError, match="00_first.ipynb: .* must read `name: type = value"):
        runner.parameters_of(make(tmp_path, parameters=line))


def test_exactly_one_parameter_cell(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), tmp_path / "a.ipynb")
    with pytest.raises(StudyError, match="0 cells are tagged"):
        runner.parameters_of(tmp_path / "a.ipynb")


def test_a_parameter_goes_to_the_notebooks_that_take_it(tmp_path):
    first = make(tmp_path, "1")
    second = make(tmp_path, "1", name="01_second.ipynb", parameters='compute: bool = True\nout: str = ""')
    assert reproduce.assign([first, second], {"samples": "3"}) == [{"samples": 3}, {}]


@pytest.mark.parametrize("name", reproduce.FOR_ALL)
def test_out_and_compute_must_reach_every_notebook(tmp_path, name):
    first = make(tmp_path, "1")
    second = make(tmp_path, "1", name="01_second.ipynb", parameters="samples: int = 0")
    with pytest.raises(StudyError, match=f"01_second.ipynb: unknown parameter {name}"):
        reproduce.assign([first, second], {name: "no"})


def test_failing_notebook_is_kept_with_its_error(tmp_path, capsys):
    notebook = make(tmp_path, "a = 1", "raise KeyError('layer\\n9')", "print('after')")
    old = tmp_path / "tiny" / notebook.name
    old.parent.mkdir()
    old.write_text("old copy")
    with pytest.raises(runner.NotebookFailed) as failure:
        reproduce.reproduce({}, folder=tmp_path, base=tmp_path)
    kept = old.with_suffix(".failed.ipynb")
    assert str(failure.value) == rf"00_first.ipynb, In [3]: KeyError: 'layer\n9' (kept as {kept})"
    assert failure.value.code == 1
    assert "KeyError" in kept.read_text() and 'papermill":' not in kept.read_text()
    assert old.read_text() == "old copy"
    assert capsys.readouterr().out.endswith("stopped\n")


def test_bad_input_found_by_a_notebook_exits_with_2(tmp_path, monkeypatch, capsys):
    make(tmp_path, "from analysis_lib.errors import StudyError\nraise StudyError('unknown model x; try embedded')")
    monkeypatch.setattr(reproduce.reproduce, "__kwdefaults__", {"folder": tmp_path, "base": tmp_path})
    assert cli.main(["record"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 00_first.ipynb, In [2]: unknown model x; try embedded (kept as ")


def test_dead_kernel_is_one_line(tmp_path):
    notebook = make(tmp_path, "import os\nos._exit(1)")
    with pytest.raises(runner.NotebookFailed, match="00_first.ipynb: its kernel died"):
        runner.run_notebook(notebook, {}, tmp_path / "copy.ipynb")


def test_success_removes_the_failed_copy(tmp_path):
    (tmp_path / "copy.failed.ipynb").write_text("{}")
    runner.run_notebook(make(tmp_path, "1"), {}, tmp_path / "copy.ipynb")
    assert not (tmp_path / "copy.failed.ipynb").exists()


def test_select_keeps_the_order_and_names_the_known(tmp_path):
    for name in ("01_b.ipynb", "00_a.ipynb", "notes.ipynb"):
        make(tmp_path, name=name)
    assert [path.stem for path in reproduce.select("", tmp_path)] == ["00_a", "01_b"]
    assert [path.stem for path in reproduce.select("01", tmp_path)] == ["01_b"]
    with pytest.raises(StudyError, match="unknown notebook 07; there are 00_a, 01_b"):
        reproduce.select("07", tmp_path)


def test_output_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot write .*file.*name another folder with --out"):
        reproduce.executed_folder("org/model", str(tmp_path / "file"))


def test_the_record_is_no_place_for_a_reproduction(tmp_path, monkeypatch):
    make(tmp_path, "print(1)")
    monkeypatch.setattr(reproduce, "run_notebook", lambda *_: pytest.fail("a kernel was started"))
    for out in (paths.DATA, paths.ROOT):
        with pytest.raises(StudyError, match="holds the record, which `record` alone writes"):
            reproduce.reproduce({"out": str(out)}, folder=tmp_path)


def test_redrawn_figures_are_compared_with_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "FIGURES", tmp_path / "record")
    for root, content in ((tmp_path / "record", b"old"), (tmp_path / "new" / "figures", b"new")):
        (root / "tiny").mkdir(parents=True)
        (root / "tiny" / "a.png").write_bytes(b"same")
        (root / "tiny" / "a.csv").write_bytes(content)
    said = reproduce.same_as_record("org/tiny", str(tmp_path / "new"))
    assert said == "1 of 2 figures and their numbers are the record's, byte for byte; others: a.csv"


def test_executed_folder_is_named_after_the_model(tmp_path):
    assert reproduce.executed_folder("org/model-7b", str(tmp_path)) == tmp_path / "executed" / "model-7b"


def test_forecast_scales_what_was_spent_on_samples(tmp_path, monkeypatch):
    every = [SimpleNamespace(task=task) for task in ("a", "b") for _ in range(300)]
    monkeypatch.setattr("analysis_lib.embedded.door.load_benchmark", lambda *_, tasks: (every, []))
    for name, lines in (("a", "knockout,10,30.0\nwidths pairs,10,20.0\n"), ("b", "knockout,20,9.0\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seconds.csv").write_text(lines)
    said = reproduce.forecast({"samples": "2", "out": str(tmp_path)}, took=119.0)
    # maps are drawn of 30 questions a task: 119 + 30 * 59 + 20 * 5 + 9 * 29 = 2250 s
    assert said == "all 600 questions will take about 38 minutes on this machine"
