"""One set of pins behind every door: pyproject.toml, requirements.lock, environment.yml, Makefile, the environment."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement

from analysis_lib import paths

PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
LINES = [line for line in (paths.ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
LOCK = dict(line.split("==") for line in LINES)
CONDA = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
MAKEFILE = (paths.ROOT / "Makefile").read_text()
README = (paths.ROOT / "README.md").read_text(encoding="utf-8")


def make(*arguments):
    command = ["make", "--no-print-directory", "-C", str(paths.ROOT), *arguments]
    # under `make test` the settings of that make would arrive through MAKEFLAGS
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda r: r.name)
def test_lock_pins_what_pyproject_allows(requirement):
    assert requirement.specifier.contains(LOCK[requirement.name])


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda r: r.name)
def test_installed_versions_are_the_locked_ones(requirement):
    installed = metadata.version(requirement.name).split("+")[0]  # torch says 2.13.0+cpu
    assert installed == LOCK[requirement.name]


def test_lock_is_a_plain_constraints_file():
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line) for line in LINES)  # no hash, host, marker or path
    assert list(LOCK) == sorted(LOCK) and len(LOCK) == len(LINES)


def test_lock_leaves_cuda_to_torch():
    assert not [line for line in LINES if re.match("nvidia|cuda|triton", line)]


def test_only_one_package_is_called_decord():
    assert "decord" not in LOCK and importlib.util.find_spec("decord")
    assert metadata.packages_distributions()["decord"] == ["decord2"]


def test_conda_door_has_the_same_pins():
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert pip == ["torch==" + LOCK["torch"], "-e .[dev]", "-c requirements.lock"]
    assert "python=3.11" in CONDA["dependencies"] and PROJECT["requires-python"] == ">=3.11,<3.12"
    assert not [entry for entry in CONDA["dependencies"] if "nvidia" in str(entry) or "cuda" in str(entry)]


def test_python_is_the_supported_one():
    assert sys.version_info[:2] == (3, 11)


def test_make_alone_prints_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE).group(1).split()
    printed = re.findall(r"^  make ([\w-]+) ", make(), re.MULTILINE)
    assert printed == phony


def test_make_installs_torch_first_and_alone():
    recipe = make("-n", "env", "VENV=/nonexistent/venv")
    assert recipe.index("grep '^torch=='") < recipe.index("-c requirements.lock")


def test_make_passes_settings_that_were_typed(monkeypatch):
    monkeypatch.setenv("MODEL", "left-over")
    assert make("-n", "reproduce", "PY=python").strip() == "python -m analysis_lib reproduce"
    line = make("-n", "reproduce", "PY=python", "MODEL=my model", "IMAGE_MODEL=b", "SAMPLES=3", "WINDOW=", "DEVICE=cpu")
    given = ["--model", "my model", "--image-model", "b", "--samples", "3", "--device", "cpu"]
    assert shlex.split(line)[-9:] == ["reproduce", *given]


ODD = [
    "it's",
    "a  b ",
    "a$b",
    "$$",
    "$(shell exit 1)",
    "${HOME}",
    "a$(b",
    "a`id`b",
    "a;b",
    'a"b',
    "a\\b\\",
    "a#b",
    "*",
    "''",
]


@pytest.mark.parametrize("value", ODD)
def test_settings_arrive_as_typed(value, tmp_path):
    shown = tmp_path / "shown"
    shown.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\n")
    shown.chmod(0o755)
    got = make("reproduce", f"PY={shown}", f"MODEL={value}", f"OUT={value}")
    assert got == f"{['-m', 'analysis_lib', 'reproduce', '--model', value, '--out', value]}\n"
    assert make("train", f"PY={shown}", f"OUT={value}") == f"{['-m', 'analysis_lib', 'train', '--out', value]}\n"


def test_smoke_run_stays_away_from_committed_results():
    words = shlex.split(make("-n", "smoke", "PY=python", "MODEL=mine", "SAMPLES=9"))
    few = ["--samples", "4", "--map-samples", "0", "--model", "mine", "--samples", "9"]  # the last holds
    assert words[-10:] == [*few, "--out", "build/smoke"]
    with pytest.raises(subprocess.CalledProcessError) as failed:
        make("smoke", "PY=python", "OUT=data")
    assert "leave OUT out" in failed.value.stderr


def test_the_record_has_its_own_places():
    assert make("-n", "record", "PY=python", "MODEL=smol-x").strip().endswith("record --model 'smol-x'")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        make("record", "PY=python", "OUT=elsewhere")
    assert "leave OUT out" in failed.value.stderr


def test_citation_names_the_study_and_the_paper():
    citation = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Kim", "Kim", "Han"]
    assert paper["identifiers"][0]["value"] == "arXiv:2510.13251"


def test_readme_names_no_target_that_make_lacks():
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE).group(1).split())
    assert set(re.findall(r"(?:^ +|`)make ([a-z]+)\b", README, re.MULTILINE)) <= phony


def test_readme_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if "://" not in link and not (paths.ROOT / link).exists()]
    assert not missing


def test_readme_settings_are_those_of_make():
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))
    assert table == set(re.findall(r"call given,([A-Z_]+),", MAKEFILE))
