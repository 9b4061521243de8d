"""What a sweep is asked for, checked before anything heavy is imported.

Names are compared with what exists, so a typing error ends in one line at once instead of after a model has loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis_lib.errors import StudyError
from analysis_lib.inputs.benchmarks import benchmark_name, is_open
from analysis_lib.instrument.edges import EDGE_SETS, STYLES, check_edge_set

MEASURES = ("knockout", "emergence", "lens", "pathway")  # measured unless told otherwise
CUTS = ("knockout", "widths", "heads")  # measures made for each edge set that is asked for
ALL_MEASURES = (*MEASURES, "controls", "widths", "pairs", "heads", "response")
KEEP = ("correct", "wrong", "all")
DTYPES = ("auto", "float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
MODES = ("exact", "full")
CHOICES = {"style": STYLES, "keep": KEEP, "dtype": DTYPES, "device": DEVICES, "mode": MODES}


@dataclass(frozen=True)
class Request:
    """A checked request. `tasks` empty: all; `samples` 0: all; `window` 0: automatic; `edges` empty: no measure of
    CUTS; `ranges` empty: the published layers of the pathway."""

    model: str
    benchmark: str
    tasks: tuple[str, ...]
    samples: int
    edges: tuple[str, ...]
    window: int
    style: str
    keep: str
    measures: tuple[str, ...]
    dtype: str
    device: str
    seed: int
    mode: str
    ranges: tuple[tuple[str, tuple[int, int]], ...]

    @property
    def ranges_name(self) -> str:
        """How rows of the pathway table name the layers that it leaves open."""
        return " ".join(f"{route} {first}-{last}" for route, (first, last) in self.ranges) or "published"

    def cuts(self) -> dict[str, tuple[str, ...]]:
        """The edge sets that each measure of CUTS needs; heads are measured on those into the last token."""
        into_last = tuple(name for name in self.edges if name.endswith("->last"))
        return {m: into_last if m == "heads" else self.edges for m in CUTS if m in self.measures}

    def fixed(self) -> dict[str, Any]:
        """The settings on which stored values depend and that are known without the model."""
        named = {name: getattr(self, name) for name in ("style", "seed", "mode")}
        return {"benchmark": benchmark_name(self.benchmark)} | named

    def command(self, out: object = None) -> str:
        """The command line that measures this."""
        words = ["python -m analysis_lib sweep", "--model", self.model, "--benchmark", self.benchmark]
        words += ["--tasks", ",".join(self.tasks)] if self.tasks else []
        words += ["--samples", str(self.samples)] if self.samples else []
        words += ["--window", str(self.window)] if self.window else []
        words += ["--out", str(out)] if out else []
        return " ".join(words)


def check_request(
    *,
    model: str,
    benchmark: str = "embedded",
    tasks: str | Sequence[str] | None = None,
    samples: int | None = None,
    edges: str | Sequence[str] = "all",
    window: int | str = "auto",
    measure: str | Sequence[str] = MEASURES,
    seed: int = 0,
    ranges: Mapping[str, tuple[int, int]] | None = None,
    **choices: str,
) -> Request:
    """Check names and numbers (StudyError lists what is possible); texts with commas become tuples, without doubles.

    `choices` are style, keep, dtype, device and mode. Whether model, benchmark and tasks exist is not looked at here.
    """
    for name, value in choices.items():
        if value not in CHOICES[name]:
            raise StudyError(f"unknown {name} {value!r}; known: {', '.join(CHOICES[name])}")
    measures = _names(measure, MEASURES)
    for name in measures:
        if name not in ALL_MEASURES:
            raise StudyError(f"unknown measure {name!r}; known: {', '.join(ALL_MEASURES)}")
    if "response" in measures and not is_open(benchmark):
        raise StudyError(f"response follows open-ended answers; {benchmark_name(benchmark)} asks for letters")
    edge_sets = _names(edges, [name for name in EDGE_SETS if not (is_open(benchmark) and "option" in name)])
    for name in edge_sets:
        check_edge_set(name)
        if "option" in name and is_open(benchmark):
            raise StudyError(f"questions of {benchmark_name(benchmark)} have no options; leave out {name!r}")
    if {*CUTS} & {*measures} and not edge_sets:
        raise StudyError(f"no edge set is named for knockouts; use all, or any of {', '.join(EDGE_SETS)}")
    if "heads" in measures and not any(name.endswith("->last") for name in edge_sets):
        raise StudyError(f"heads are measured on edges into the last token; none of {', '.join(edge_sets)} ends there")
    defaults = {"style": "center", "keep": "correct", "dtype": "auto", "device": "auto", "mode": "exact"}
    return Request(
        model=str(model),
        benchmark=benchmark,
        tasks=_names(tasks or ()),
        samples=_whole("samples", samples or 0, 0),
        edges=edge_sets if {*CUTS} & {*measures} else (),
        window=0 if window == "auto" else _whole("window", window, 1),
        measures=measures,
        seed=_whole("seed", seed, 0),
        ranges=tuple((name, (int(span[0]), int(span[1]))) for name, span in sorted((ranges or {}).items())),
        **(defaults | choices),
    )


def _names(given: str | Sequence[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    names = given.split(",") if isinstance(given, str) else list(given)
    names = [name.strip() for name in names if name.strip()]
    return tuple(known) if names == ["all"] and known else tuple(dict.fromkeys(names))


def _whole(name: str, value: int | str, least: int) -> int:
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if number < least or str(number) != str(value):
        raise StudyError(f"{name} is {value!r}; use a whole number from {least} on" + ", or auto" * (name == "window"))
    return number
