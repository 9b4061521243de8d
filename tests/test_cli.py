"""The command line answers at once, in one line, with the right exit code."""

import subprocess
import sys

import pytest
from clips import write_small_benchmark
from conftest import GOLDEN
from sweeps import files

from analysis_lib import __main__ as cli
from analysis_lib.study import runs as study


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_small_benchmark(tmp_path_factory.mktemp("bench"), 1)


def words(root, *more: str) -> list[str]:
    return ["sweep", "--model", str(GOLDEN), "--benchmark", f"tvbench:{root}", *more]


def one_line(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


def test_help_lists_the_verbs(capsys):
    for argv in (["--help"], []):
        assert cli.main(argv) == 0
        printed = capsys.readouterr().out
        assert all(
            f"\n  {verb} " in printed for verb in ("sweep", "reproduce", "record", "train", "benchmark", "doctor")
        )


@pytest.mark.parametrize("verb", cli.VERBS)
def test_verbs_have_help(verb, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([verb, "--help"])
    assert "usage" in capsys.readouterr().out


def test_help_and_bad_names_do_not_import_torch(root):
    script = f"""
import sys
from analysis_lib import __main__ as cli
import analysis_lib
assert "sweep" in dir(analysis_lib)
cli.main(["--help"])
assert cli.main({words(root, "--edges", "nonsense")!r}) == 2
assert not {{"torch", "transformers", "pandas"}} & set(sys.modules), "heavy"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


BAD = {
    "unknown edge set 'x'; known: cross-frame": ["--edges", "cross-frame,x"],
    "unknown measure 'x'; known: knockout": ["--measure", "x"],
    "unknown style 'x'; known: center": ["--style", "x"],
    "unknown keep 'x'; known: correct": ["--keep", "x"],
    "unknown dtype 'int8'; known: auto": ["--dtype", "int8"],
    "unknown device 'tpu'; known: auto": ["--device", "tpu"],
    "unknown mode 'x'; known: exact, full": ["--mode", "x"],
    "unknown task 'x'; known: action_antonym": ["--tasks", "x"],
    "samples is '-1'": ["--samples", "-1"],
    "samples is 'many'": ["--samples", "many"],
    "window is '0'": ["--window", "0"],
    "window is '1.5'": ["--window", "1.5"],
    "window 13 does not fit a model of 12 layers": ["--window", "13"],
    "seed is 'x'": ["--seed", "x"],
    "unrecognized arguments: --windw 3": ["--windw", "3"],
    "cannot write": ["--out", "/proc/nowhere"],
    "unknown model": ["--model", "nonsense"],
    "unknown benchmark 'x'; known: embedded, tvbench:ROOT": ["--benchmark", "x"],
    "needs its folder": ["--benchmark", "tvbench"],
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_ends_with_one_line_before_a_model_is_loaded(line, root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "_load", lambda *_: pytest.fail("a model was loaded"))
    assert cli.main(words(root, "--out", str(tmp_path / "out"), *BAD[line])) == 2
    assert line in one_line(capsys)


def test_missing_options_and_unknown_verbs(capsys):
    assert cli.main(["sweep", "--model", "x"]) == 2
    assert "required: --benchmark" in one_line(capsys)
    assert cli.main(["swep"]) == 2
    assert "unknown verb 'swep'; known: sweep" in one_line(capsys)


def test_folder_without_weights(root, tmp_path, capsys):
    (tmp_path / "config.json").write_text((GOLDEN / "config.json").read_text())
    assert cli.main(words(root, "--model", str(tmp_path))) == 2
    assert "holds no weights" in one_line(capsys)


def test_interrupt_says_that_the_command_resumes(root, monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "sweep", interrupted)
    assert cli.main(words(root)) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_sweep_says_what_it_stored(root, tmp_path, capsys):
    argv = words(root, "--keep", "all", "--tasks", "object_count", "--measure", "emergence", "--out", str(tmp_path))
    assert cli.main(argv) == 0
    printed = capsys.readouterr().out
    assert "0 of 1 samples stored, computing 1" in printed and "1 samples stored, 0 answered correctly" in printed
    assert cli.main(argv) == 0
    assert "1 of 1 samples stored, computing 0" in capsys.readouterr().out


@pytest.fixture
def reproduced(monkeypatch, tmp_path):
    """What the verbs ask for: one (given, which) a call, and ("report", …) for a comparison."""
    from analysis_lib import paths
    from analysis_lib.reports import agreement, reproduce

    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "record")
    monkeypatch.setattr(reproduce, "reproduce", lambda given, which: seen.append((given, which)) or 60.0)
    monkeypatch.setattr(agreement, "report", lambda *about: seen.append(("report", *about)) or 3)
    return seen


def test_options_of_reproduce_reach_the_notebooks_as_text(reproduced):
    assert cli.main(["reproduce", "--samples", "3", "--notebooks", "00,03", "--map-samples", "0"]) == 0
    assert reproduced == [({"samples": "3", "map_samples": "0", "out": "build/reproduce/embedded"}, "00,03")]


def test_a_reproduction_has_a_place_of_its_own_and_ends_with_the_report(reproduced):
    assert cli.main(["reproduce"]) == 3  # what the report says
    assert cli.main(["reproduce", "--model", "a/b", "--window", "5", "--benchmark", "tvbench:x", "--out", "o"]) == 3
    (given, _), report, (other, _), other_report = reproduced
    assert given == {"out": "build/reproduce/embedded"} and other["out"] == "o"
    assert report == ("report", "embedded", "embedded-image", "embedded", "auto", "build/reproduce/embedded")
    assert other_report == ("report", "a/b", "", "tvbench:x", "5", "o")


def test_figures_only_means_no_compute(reproduced):
    assert cli.main(["reproduce", "--figures-only", "--image-model", "b", "-p", "share=1", "-p", "x=a=b"]) == 0
    given = {"image_model": "b", "share": "1", "x": "a=b", "compute": False, "out": "build/reproduce/embedded"}
    assert reproduced == [(given, "")]


def test_the_record_is_redrawn_in_a_fresh_copy(reproduced, tmp_path, capsys):
    table = tmp_path / "record" / "embedded" / "embedded-k3-center" / "baseline.parquet"
    table.parent.mkdir(parents=True)
    for content in (b"one", b"two"):
        table.write_bytes(content)
        assert cli.main(["reproduce", "--figures-only"]) == 0
        copy = tmp_path / "build" / "figures" / "embedded" / "results" / table.relative_to(tmp_path / "record")
        assert copy.read_bytes() == content and reproduced[-1][0]["out"] == "build/figures/embedded"
    assert "0 of 0 figures" in capsys.readouterr().out


def test_record_writes_the_committed_places_and_takes_no_other(reproduced, capsys):
    assert cli.main(["record", "--model", "smol", "--samples", "3"]) == 0
    assert reproduced == [({"model": "smol", "samples": "3", "image_model": ""}, "")]
    assert cli.main(["record", "--out", "x"]) == 2
    assert "unrecognized arguments: --out x" in one_line(capsys)


@pytest.mark.parametrize(
    ("line", "base"),
    [("", None), ("--model embedded", None), ("--model a/b", ""), ("--model a/b --image-model c", "c")],
)
def test_another_model_is_not_compared_with_the_embedded_base(line, base, reproduced):
    assert cli.main(["reproduce", *line.split()]) == 3
    assert reproduced[0][0].get("image_model") == base


@pytest.mark.parametrize("line", [["--forecast"], ["--forecast", "--samples", "2"], ["--forecast", "--out", "x"]])
def test_forecast_needs_a_small_run_of_its_own(line, reproduced, capsys):
    assert cli.main(["reproduce", *line]) == 2
    assert "--forecast needs --samples and an --out" in one_line(capsys) and not reproduced


def test_forecast_is_said_after_the_run(reproduced, monkeypatch, capsys):
    from analysis_lib.reports import reproduce

    monkeypatch.setattr(reproduce, "forecast", lambda given, took: f"{given} {took}")
    assert cli.main(["reproduce", "--forecast", "--samples", "2", "--out", "x"]) == 0
    assert capsys.readouterr().out == "{'samples': '2', 'out': 'x'} 60.0\n"


@pytest.mark.parametrize(
    ("verb", "words", "line"),
    [
        ("reproduce", ["--windw", "3"], "unrecognized arguments: --windw 3"),
        ("reproduce", ["--sample", "3"], "unrecognized arguments: --sample 3"),  # no abbreviations
        ("reproduce", ["-p", "share"], "-p takes NAME=VALUE, not 'share'"),
        ("train", ["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
        ("benchmark", ["--uot", "x"], "unrecognized arguments: --uot x"),
        ("doctor", [], "required: NAME[:ROOT]"),
    ],
)
def test_bad_words_after_any_verb_end_with_one_line(verb, words, line, capsys):
    assert cli.main([verb, *words]) == 2
    assert line in one_line(capsys)


def test_train_gets_what_is_given(monkeypatch):
    from pathlib import Path

    from analysis_lib.embedded import train

    seen = []
    monkeypatch.setattr(train, "train", lambda **given: seen.append(given))
    assert cli.main(["train"]) == cli.main(["train", "--seed", "1", "--device", "cpu", "--out", "x"]) == 0
    assert seen == [{}, {"seed": 1, "device": "cpu", "out": Path("x")}]


def test_folders_of_single_tasks_merge_into_what_one_run_writes(tmp_path, capsys):
    root = write_small_benchmark(tmp_path / "bench", 2)
    asked = ("--keep", "all", "--measure", "emergence", "--out")
    assert cli.main(words(root, *asked, str(tmp_path / "whole"))) == 0
    folders = [str(tmp_path / task) for task in ("object_count", "action_antonym")]
    for folder in folders:
        assert cli.main(words(root, "--tasks", folder.rpartition("/")[2], *asked, folder)) == 0
    for _ in range(2):  # once more changes nothing
        assert cli.main(["merge", "--out", str(tmp_path / "merged"), *folders]) == 0
        assert files(tmp_path / "merged") == files(tmp_path / "whole")
    assert cli.main(words(root, "--seed", "1", *asked, str(tmp_path / "other"))) == 0
    capsys.readouterr()
    assert cli.main(["merge", "--out", str(tmp_path / "merged"), str(tmp_path / "other")]) == 2
    assert "holds results with seed = 0, this run asks for seed = 1" in one_line(capsys)
    assert cli.main(["merge", "--out", str(tmp_path / "merged"), str(tmp_path / "gone")]) == 2
    assert "gone is no results folder" in one_line(capsys) and not (tmp_path / "gone").exists()
