"""The rooms of the package: one direction, no circle, and files that fit on few screens."""

import ast
import re
import subprocess
import sys

import pytest

from analysis_lib import paths

FILES = sorted((paths.ROOT / "analysis_lib").rglob("*.py"))
ROOMS = ("inputs", "models", "instrument", "study", "findings", "figures", "reports", "embedded")


def name(path):
    return str(path.relative_to(paths.ROOT / "analysis_lib"))


def contracts(folder):
    command = "from importlinter.cli import lint_imports_command as check; check(['--no-cache', '--no-logo'])"
    return subprocess.run([sys.executable, "-c", command], cwd=folder, capture_output=True, text=True)


def test_imports_go_one_way_without_a_circle():
    found = contracts(paths.ROOT)
    assert found.returncode == 0 and "4 kept, 0 broken" in found.stdout, found.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("inputs/records.py", "from analysis_lib.study import tables", "a sample goes down"),
        ("study/tables.py", "def later():\n    from analysis_lib.study import store", "no circle between files"),
        ("findings/stats.py", "def later():\n    import torch", "findings need no torch"),
        ("study/runs.py", "from analysis_lib.embedded import world", "the embedded world has one door"),
    ],
)
def test_a_step_back_is_found_also_inside_a_function(tmp_path, file, line, broken):
    for path in [*FILES, paths.ROOT / "pyproject.toml"]:
        copy = tmp_path / path.relative_to(paths.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text() + (f"\n{line}\n" if path.match(f"analysis_lib/{file}") else ""))
    found = contracts(tmp_path)
    kept = [line for line in found.stdout.splitlines() if line.endswith("KEPT")]
    assert found.returncode == 1 and not any(broken in line for line in kept), found.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_comes_in_and_goes_out(room):
    said = ast.get_docstring(ast.parse((paths.ROOT / "analysis_lib" / room / "__init__.py").read_text()))
    assert all(words in " ".join(said.split()) for words in ("In: ", "Out: ", "May import"))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 250 and "TYPE_CHECKING" not in text
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 50, node.name


def test_the_architecture_page_names_every_room_and_only_files_that_exist():
    page = (paths.ROOT / "docs" / "architecture.md").read_text()
    assert all(f"{room}/" in page for room in ROOMS)
    named = re.findall(r"`((?:analysis_lib|tests|docs|data|notebooks)/[\w./-]+\.\w+)`", page)
    assert named and all((paths.ROOT / file).exists() for file in named)
