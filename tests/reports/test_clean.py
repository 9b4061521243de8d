"""No command but `record` (and those that say so) changes a committed file: seen by git, in a copy of the project. That
tests and the site change none is seen at the end of `.ci/run`."""

import os
import shutil
import subprocess
import sys

import pytest

from analysis_lib import paths
from analysis_lib.reports.agreement import PAGE

FEW = ["SAMPLES=2", "MAP_SAMPLES=1", "TASKS=action_antonym,object_count"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The working tree as it is, in a repository of its own with everything committed, and with the rendered clips."""
    folder = tmp_path_factory.mktemp("clone")
    listed = git(paths.ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, listed):
        if (paths.ROOT / name).is_file():  # not what is deleted but not committed, nor a link to a folder
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(paths.ROOT / name, folder / name)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "all")
    if paths.BENCHMARK.exists():
        shutil.copytree(paths.BENCHMARK, folder / paths.BENCHMARK.relative_to(paths.ROOT))
    return folder


def git(folder, *words):
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


def make(folder, *words, **environment):
    """`make` in the copy, with the interpreter of the tests; the output, and what git says afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST"))}
    kept |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"} | environment
    command = ["make", "--no-print-directory", *words, f"PY={sys.executable}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=kept)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, git(folder, "status", "--porcelain")


@pytest.mark.slow
def test_a_reproduction_measures_elsewhere_and_agrees(clone):
    out, changed = make(clone, "reproduce", *FEW)
    assert changed == "" and out.splitlines()[-1].endswith("findings agree with the record"), out
    place = clone / "build" / "reproduce" / "embedded"
    assert len(list((place / "results").rglob("*.parquet"))) > 10 and (place / PAGE).exists()
    assert len(list((place / "figures" / "embedded").glob("*.png"))) > 15
    assert len(list((place / "executed" / "embedded").glob("*.ipynb"))) == 6


@pytest.mark.slow
def test_redrawing_changes_no_committed_file(clone):
    out, changed = make(clone, "figures")
    assert changed == "" and "figures and their numbers are the record's" in out
