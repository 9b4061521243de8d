"""The command line: `python -m analysis_lib VERB …`.

Only what a verb needs is imported, so help and mistyped names answer at once. Bad input ends with one line on stderr
and exit code 2; an interrupted run ends with 130, and the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis_lib.errors import StudyError

OPTIONS = {  # options of sweep: (shown value, help)
    "model": ("PATH_OR_HUB_ID", "embedded model, checkpoint folder, or hub id owner/name"),
    "benchmark": ("NAME[:ROOT]", "embedded, or NAME:ROOT with a folder as published or a hub id owner/name@COMMIT"),
    "tasks": ("A,B", "tasks (default: all)"),
    "samples": ("N", "questions a task, drawn with the seed (default: 0, all)"),
    "edges": ("all|NAME,..", "edge sets for knockouts (default: all, the paper's eleven)"),
    "window": ("K", "layers cut together (default: auto, the share that 9 has of 32 layers)"),
    "style": ("STYLE", "center, inverse, top_down or bottom_up (default: center)"),
    "keep": ("KEEP", "samples that get knockouts: answered correct, wrong, or all (default: correct)"),
    "measure": (
        "A,B",
        "out of knockout,emergence,lens,pathway (default: these), controls, widths, pairs, heads, response",
    ),
    "dtype": ("DTYPE", "auto, float32 or bfloat16 (default: auto)"),
    "device": ("DEVICE", "auto, cpu or cuda (default: auto)"),
    "seed": ("N", "of the draw of samples and of random pathways (default: 0)"),
    "mode": ("MODE", "exact: recompute what a cut can change; full: a complete pass (default: exact)"),
    "out": ("DIR", "results folder (default: data/results/MODEL/BENCHMARK-kWINDOW-STYLE)"),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> None:
        raise StudyError(f"{message}; see {self.prog} --help")


def _sweep(argv: Sequence[str]) -> int:
    parser = _Parser(prog="python -m analysis_lib sweep", allow_abbrev=False, description=VERBS["sweep"][1])
    for name, (shown, text) in OPTIONS.items():
        parser.add_argument(f"--{name}", metavar=shown, help=text, required=name in ("model", "benchmark"))
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    from analysis_lib.request import check_request

    check_request(**{name: value for name, value in given.items() if name != "out"})  # before anything heavy
    from analysis_lib import study

    found = study.sweep(**given)
    right, skipped = int(found.baseline["correct"].sum()), len(found.skipped)
    counts = f"{len(found.baseline)} samples stored, {right} answered correctly, {skipped} skipped"
    print(f"{counts}; results in {found.dir}")
    for row in found.skipped.head(5).itertuples():
        print(f"skipped {row.sample_id}: {row.reason}")
    if skipped > 5:
        print(f"and {skipped - 5} more in {found.dir / 'skipped.parquet'}")
    return 0


def _reproduce(argv: Sequence[str]) -> int:
    from analysis_lib import reproduce

    return reproduce.main(argv) or 0


def _train(argv: Sequence[str]) -> int:
    from analysis_lib import train

    return train.main(argv) or 0


def _benchmark(argv: Sequence[str]) -> int:
    from analysis_lib import paths, quiz

    parser = _Parser(prog="python -m analysis_lib benchmark", allow_abbrev=False, description=VERBS["benchmark"][1])
    parser.add_argument("--out", type=Path, default=paths.BENCHMARK, metavar="DIR", help=f"default: {paths.BENCHMARK}")
    folder = parser.parse_args(argv).out
    quiz.write_benchmark(folder)
    print(f"the embedded benchmark is in {folder}")
    return 0


def _doctor(argv: Sequence[str]) -> int:
    parser = _Parser(prog="python -m analysis_lib doctor", allow_abbrev=False, description=VERBS["doctor"][1])
    parser.add_argument("benchmark", metavar=OPTIONS["benchmark"][0], help=OPTIONS["benchmark"][1])
    benchmark = parser.parse_args(argv).benchmark
    from analysis_lib import doctor

    return doctor.main(benchmark)


VERBS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "sweep": (_sweep, "Measure a model on a benchmark and store the rows; only what is missing is computed."),
    "reproduce": (_reproduce, "Execute the notebooks of the study."),
    "train": (_train, "Re-create the embedded models from nothing, or (--model smol) smol on its language model."),
    "benchmark": (_benchmark, "Render the embedded benchmark."),
    "doctor": (_doctor, "Check a download of a benchmark: counts, missing or broken videos, licences, revision."),
}


def _help() -> str:
    lines = ["usage: python -m analysis_lib VERB ...", "", "verbs (each has its own --help):"]
    return "\n".join([*lines, *(f"  {name:<10} {text}" for name, (_, text) in VERBS.items())])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0, 2 (bad input) or 130 (interrupted), or what the verb returns."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    try:
        if words[0] not in VERBS:
            raise StudyError(f"unknown verb {words[0]!r}; known: {', '.join(VERBS)}")
        return VERBS[words[0]][0](words[1:])
    except StudyError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was measured is stored, the same command goes on from there", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
