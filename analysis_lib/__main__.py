"""The command line: `python -m analysis_lib VERB …`.

What a verb needs is imported when it runs, so help and mistyped names answer at once. Bad input ends with one line on
stderr and exit code 2; an interrupted run ends with 130, and the same command goes on where it stopped."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis_lib import paths
from analysis_lib.errors import StudyError

FORMATS = "embedded, or NAME:ROOT with a folder as published or a hub id owner/name@COMMIT"
REQUIRED, FLAG = {"required": True}, {"action": "store_const", "const": True}
COMMON = {  # option: (value as help shows it, help, what else argparse must know)
    "--tasks": ("A,B", "tasks (default: all)"),
    "--samples": ("N", "questions a task, drawn with the seed (default: 0, all)"),
    "--window": ("K", "layers cut together (default: auto, the share that 9 has of 32 layers)"),
    "--device": ("DEVICE", "auto, cpu or cuda (default: auto)"),
    "--seed": ("N", "of the draw of samples, random controls and the split of the videos (default: 0)"),
}
WORKERS = ("N|auto|HOST:PORT", "spread samples over N workers, one a GPU or core, or a Ray cluster's (default: none)")
SWEEP = {
    "--model": ("PATH_OR_HUB_ID", "embedded model, checkpoint folder, or hub id owner/name", REQUIRED),
    "--benchmark": ("NAME[:ROOT]", FORMATS, REQUIRED),
    **COMMON,
    "--edges": ("all|NAME,..", "edge sets for knockouts (default: all, the paper's eleven)"),
    "--style": ("STYLE", "center, inverse, top_down or bottom_up (default: center)"),
    "--keep": ("KEEP", "samples that get knockouts: answered correct, wrong, or all (default: correct)"),
    "--measure": ("A,B", "knockout,emergence,lens,pathway (default: these), controls, widths, pairs, heads, response"),
    "--dtype": ("DTYPE", "auto, float32 or bfloat16 (default: auto)"),
    "--mode": ("MODE", "exact: recompute what a cut can change; full: a complete pass (default: exact)"),
    "--workers": WORKERS,
    "--gpus-per-model": ("N", "GPUs of each worker (default: 1)"),
    "--out": ("DIR", "results folder (default: data/results/MODEL/BENCHMARK-kWINDOW-STYLE)"),
}
NOTEBOOKS = {  # parameters of notebooks that are options of reproduce
    "--model": ("PATH_OR_HUB_ID", "embedded model, checkpoint folder, or hub id owner/name (default: embedded)"),
    "--image-model": ("PATH_OR_HUB_ID", "its image-only base, for notebook 01 (default: only embedded has one)"),
    "--benchmark": ("NAME[:ROOT]", f"{FORMATS} (default: embedded)"),
    **COMMON,
    "--workers": WORKERS,
    "--map-samples": ("N", "questions a task for maps of heads, frame pairs and window sizes (0: as --samples)"),
    "--out": ("DIR", "results, figures, executed copies and report go below it (default: build/reproduce/MODEL)"),
}
RECORD = {name: option for name, option in NOTEBOOKS.items() if name != "--out"} | {
    "--notebooks": ("NN,NN", "only these, for example 00,03 (default: all)"),
    "-p": ("NAME=VALUE", "any other notebook parameter", {"action": "append"}),
}
REPRODUCE = (
    NOTEBOOKS
    | RECORD
    | {
        "--figures-only": (None, "redraw stored results without a model (default: the record, in build/figures)", FLAG),
        "--forecast": (None, "say how long all questions would take", FLAG),
    }
)
DEFAULTS = {"model": "embedded", "image_model": "embedded-image", "benchmark": "embedded", "window": "auto"}
MERGE = {
    "--out": ("DIR", "results folder that takes all rows", REQUIRED),
    "folders": ("DIR", "results folders, which stay as they are", {"nargs": "+"}),
}
TRAIN = {
    "--model": ("NAME", "embedded, or smol (default: embedded)", {"choices": ("embedded", "smol")}),
    "--seed": ("N", "of weights and data (default: 0)", {"type": int}),
    "--device": ("DEVICE", "auto, cpu or cuda (default: auto)", {"choices": ("auto", "cpu", "cuda")}),
    "--out": ("DIR", f"where the two checkpoint folders are written (default: {paths.MODELS})", {"type": Path}),
}


CHECK = {
    "model": ("MODEL", "embedded model, checkpoint folder, or hub id owner/name"),
    "--dtype": ("DTYPE", "auto, float32 or bfloat16 (default: auto)"),
    "--device": COMMON["--device"],
    "--json": (None, "for scripts", FLAG),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> None:
        raise StudyError(f"{message}; see {self.prog} --help")


def _sweep(**given: str) -> None:
    """Measure a model on a benchmark and store the rows; only what is missing is computed."""
    from analysis_lib.study.request import check_request

    others = ("out", "workers", "gpus_per_model")
    check_request(**{name: value for name, value in given.items() if name not in others})  # before anything heavy
    from analysis_lib.study import runs as study

    found = study.sweep(**given)
    stored, right, skipped = len(found.baseline), int(found.baseline["correct"].sum()), len(found.skipped)
    print(f"{stored} samples stored, {right} answered correctly, {skipped} skipped; results in {found.dir}")
    for row in found.skipped.head(5).itertuples():
        print(f"skipped {row.sample_id}: {row.reason}")
    if skipped > 5:
        print(f"and {skipped - 5} more in {found.dir / 'skipped.parquet'}")


def _reproduce(notebooks: str = "", figures_only: bool = False, forecast: bool = False, **given: Any) -> int:
    """Measure the whole study, draw it, and say whether it agrees with the record (3: it does not)."""
    from analysis_lib.reports import agreement, reproduce

    given = _parameters(**given)
    about = [given.get(name, default) for name, default in DEFAULTS.items()]
    if forecast and not (given.get("out") and given.get("samples", "0") != "0"):
        raise StudyError("--forecast needs --samples and an --out of its own to reckon from")
    redrawn = figures_only and not given.get("out")
    if not given.get("out"):
        place = reproduce.drawing_place(about[0], about[2]) if redrawn else reproduce.own_place(about[0])
        given["out"] = place
    took = reproduce.reproduce(given | ({"compute": False} if figures_only else {}), notebooks)
    if forecast:
        print(reproduce.forecast(given, took))
    elif redrawn:
        print(reproduce.same_as_record(about[0], given["out"]))
    elif not (notebooks or figures_only):
        return agreement.report(*about, given["out"])
    return 0


def _record(notebooks: str = "", **given: Any) -> None:
    """Write the record: measure what it lacks, redraw its figures and executed notebooks."""
    from analysis_lib.reports import reproduce

    reproduce.reproduce(_parameters(**given), notebooks)


def _parameters(p: Sequence[str] = (), **given: Any) -> dict[str, Any]:
    """The notebooks' parameters by name."""
    if given.get("model", "embedded") != "embedded":
        given.setdefault("image_model", "")  # the embedded image model is not the base of another model
    for pair in p:
        name, equals, value = pair.partition("=")
        if not equals:
            raise StudyError(f"-p takes NAME=VALUE, not {pair!r}")
        given[name] = value
    return given


def _merge(out: str, folders: Sequence[str]) -> None:
    """Merge results folders that were measured with the same settings, one a task or a range of samples, say."""
    from analysis_lib.study import provenance
    from analysis_lib.study.store import Store
    from analysis_lib.study.tables import SCHEMAS, stored

    with Store(out) as whole:
        for folder in folders:
            if not (Path(folder) / "manifest.json").is_file():
                raise StudyError(f"{folder} is no results folder: it holds no manifest.json")
            with Store(folder) as part:
                whole.take(part)
        tables = [table for table in SCHEMAS if any(stored(Path(folder), table) for folder in folders)]
        whole.finish(provenance.summary, tables=tables)
    print(f"merged {len(folders)} folders into {out}")


def _train(model: str = "embedded", **given: Any) -> None:
    """Re-create the embedded models from nothing, or smol on its language model."""
    from analysis_lib.embedded.smol.train import train_smol
    from analysis_lib.embedded.train import train

    {"embedded": train, "smol": train_smol}[model](**given)


def _benchmark(out: Path = paths.BENCHMARK) -> None:
    """Render the embedded benchmark."""
    from analysis_lib.embedded import quiz

    print(f"the embedded benchmark is in {quiz.write_benchmark(out)}")


def _doctor(benchmark: str) -> int:
    """Check a download of a benchmark: counts, missing or broken videos, licences, revision."""
    from analysis_lib.embedded import door
    from analysis_lib.inputs import doctor

    door.render(benchmark)
    return doctor.main(benchmark)


def _check(json: bool = False, **given: str) -> int:
    """Try a model on a made-up clip: its checks, memory, seconds a question, and what to type next."""
    from json import dumps

    from analysis_lib.instrument import trial

    found = trial.trial(**given)
    print(dumps(found) if json else trial.report(found))
    return 0 if found["passed"] else 2


VERBS = {
    "sweep": (_sweep, SWEEP),
    "reproduce": (_reproduce, REPRODUCE),
    "record": (_record, RECORD),
    "merge": (_merge, MERGE),
    "train": (_train, TRAIN),
    "benchmark": (_benchmark, {"--out": ("DIR", f"default: {paths.BENCHMARK}", {"type": Path})}),
    "check": (_check, CHECK),
    "doctor": (_doctor, {"benchmark": ("NAME[:ROOT]", FORMATS)}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0, 1 (a notebook failed), 2 (bad input), 3 (a reproduction does not
    agree) or 130 (interrupted)."""
    verb, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help"):
        print("usage: python -m analysis_lib VERB ...\n\nverbs (each has its own --help):")
        print("\n".join(f"  {name:<10} {run.__doc__}" for name, (run, _) in VERBS.items()))
        return 0
    try:
        if verb not in VERBS:
            raise StudyError(f"unknown verb {verb!r}; known: {', '.join(VERBS)}")
        run, options = VERBS[verb]
        parser = _Parser(f"python -m analysis_lib {verb}", description=run.__doc__, allow_abbrev=False)
        for name, (shown, text, *more) in options.items():
            parser.add_argument(name, metavar=shown, help=text, default=argparse.SUPPRESS, **dict(*more))
        return run(**vars(parser.parse_args(words))) or 0
    except (StudyError, OSError) as error:  # OSError: a full disk, for one
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return error.code if isinstance(error, StudyError) else 2
    except KeyboardInterrupt:
        print("interrupted; what was measured is stored, the same command goes on from there", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
