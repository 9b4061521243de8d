"""What a sweep is asked for, checked before anything heavy is imported.

Names are compared with what exists, so a typing error ends in one line at once instead of after a model has loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis_lib.errors import StudyError
from analysis_lib.inputs.benchmarks import benchmark_name, is_open, rank
from analysis_lib.instrument.edges import EDGE_SETS, STYLES, check_edge_set

MEASURES = ("knockout", "emergence", "lens", "pathway")  # measured unless told otherwise
CUTS = ("knockout", "widths", "heads")  # measures made for each edge set that is asked for
FOR_ALL = ("pathway", "controls", "response")  # not about one right answer: made on every sample
ALL_MEASURES = (*MEASURES, "controls", "widths", "pairs", "heads", "response")
CHOICES = {
    "style": STYLES, "keep": ("correct", "wrong", "all"), "dtype": ("auto", "float32", "bfloat16"),
    "device": ("auto", "cpu", "cuda"), "mode": ("exact", "full"),
}  # fmt: skip
Names = str | Sequence[str]  # one text with commas, or names; a tuple once they are checked


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that can be asked for, with what is taken unless told. `check_request` makes one whose values are checked. Of
    measures, controls are the answer without video, from one frame and from shuffled frames; widths cut centred windows
    of `edges.window_sizes`, pairs `edges.frame_edge_sets` in all layers, heads edges into the last token in single
    heads; response follows the model's own answer to an open-ended question at its first verbs."""

    model: str  # embedded model, checkpoint folder or hub id
    benchmark: str = "embedded"  # or NAME:ROOT, with a name out of `formats.FORMATS`
    tasks: Names | None = ()  # empty for all
    samples: int | None = 0  # questions a task, drawn with `seed`; 0 for all
    edges: Names = "all"  # edge sets, or "all" for the paper's eleven; once checked, empty without a measure of CUTS
    window: int | str = "auto"  # layers cut together; "auto" (once checked 0): the share of the depth that 9 has of 32
    style: str = "center"  # how windows lie (`edges.windows`)
    keep: str = "correct"  # samples that get the measures that are not FOR_ALL: those answered so, "wrong", or "all"
    measure: Names = MEASURES  # out of ALL_MEASURES; empty for the baseline alone
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0  # of the draw of samples and of random pathways
    mode: str = "exact"  # recomputes what a cut can change; "full" makes a complete pass
    # First and last open layer (1-based) of the pathway's routes cross_frame, video_question and question_last; None
    # for the published ones, scaled to the depth.
    ranges: Mapping[str, tuple[int, int]] | None = None

    @property
    def ranges_name(self) -> str:
        """How rows of the pathway table name the layers that it leaves open."""
        return " ".join(f"{route} {first}-{last}" for route, (first, last) in self.ranges.items()) or "published"

    def keeps(self, correct: bool) -> bool:
        """Whether a sample that was answered so gets the measures that are not FOR_ALL."""
        return self.keep == "all" or bool(correct) == (self.keep == "correct")

    def rank(self, sample_id: str) -> bytes:
        """The place of a sample in its task's draw."""
        task, _, index = sample_id.rpartition("/")
        return rank(task, int(index), self.seed)

    def cuts(self) -> dict[str, tuple[str, ...]]:
        """The edge sets that each measure of CUTS needs; heads are measured on those into the last token."""
        into_last = tuple(name for name in self.edges if name.endswith("->last"))
        return {m: into_last if m == "heads" else self.edges for m in CUTS if m in self.measure}

    def fixed(self) -> dict[str, Any]:
        """The settings on which stored values depend and that are known without the model, the window if it is."""
        known = {"benchmark": benchmark_name(self.benchmark), "style": self.style, "seed": self.seed, "mode": self.mode}
        return known | {"window": self.window} if self.window else known

    def command(self, out: object = None) -> str:
        """The command line that measures this."""
        given = {"tasks": ",".join(self.tasks), "samples": self.samples, "window": self.window, "out": out}
        words = [f"--{name} {value}" for name, value in given.items() if value]
        return " ".join([f"python -m analysis_lib sweep --model {self.model} --benchmark {self.benchmark}", *words])


def check_request(**given: Any) -> Request:
    """The request with these fields. StudyError for names and numbers that are not possible, listing those that are.
    Texts with commas become tuples, without doubles. Whether model, benchmark and tasks exist is not looked at here."""
    asked = Request(**given)
    for name, known in CHOICES.items():
        if (value := getattr(asked, name)) not in known:
            raise StudyError(f"unknown {name} {value!r}; known: {', '.join(known)}")
    measures = _names(asked.measure, MEASURES)
    if unknown := [name for name in measures if name not in ALL_MEASURES]:
        raise StudyError(f"unknown measure {unknown[0]!r}; known: {', '.join(ALL_MEASURES)}")
    if "response" in measures and not is_open(asked.benchmark):
        raise StudyError(f"response follows open-ended answers; {benchmark_name(asked.benchmark)} asks for letters")
    return replace(
        asked,
        model=str(asked.model),
        tasks=_names(asked.tasks or ()),
        samples=_whole("samples", asked.samples or 0, 0),
        edges=_edge_sets(asked, measures),
        window=0 if asked.window == "auto" else _whole("window", asked.window, 1),
        measure=measures,
        seed=_whole("seed", asked.seed, 0),
        ranges={name: (int(first), int(last)) for name, (first, last) in sorted((asked.ranges or {}).items())},
    )


def _edge_sets(asked: Request, measures: Sequence[str]) -> tuple[str, ...]:
    """The edge sets asked for, checked against the benchmark and the measures."""
    lettered = not is_open(asked.benchmark)
    names = _names(asked.edges, [name for name in EDGE_SETS if lettered or "option" not in name])
    for name in names:
        check_edge_set(name)
        if "option" in name and not lettered:
            raise StudyError(f"questions of {benchmark_name(asked.benchmark)} have no options; leave out {name!r}")
    if not {*CUTS} & {*measures}:
        return ()
    if not names:
        raise StudyError(f"no edge set is named for knockouts; use all, or any of {', '.join(EDGE_SETS)}")
    if "heads" in measures and not any(name.endswith("->last") for name in names):
        raise StudyError(f"heads are measured on edges into the last token; none of {', '.join(names)} ends there")
    return names


def _names(given: Names, known: Sequence[str] = ()) -> tuple[str, ...]:
    """The names without doubles; "all" stands for the known ones."""
    names = [name.strip() for name in (given.split(",") if isinstance(given, str) else given) if name.strip()]
    return tuple(known if names == ["all"] and known else dict.fromkeys(names))


def _whole(name: str, value: int | str, least: int) -> int:
    text = str(value)
    if not text.isdecimal() or text != str(int(text)) or int(text) < least:
        raise StudyError(f"{name} is {value!r}; use a whole number from {least} on" + ", or auto" * (name == "window"))
    return int(text)
