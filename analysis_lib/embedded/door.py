"""The one door between the study and the embedded world: its benchmark, which is rendered when it is first asked for,
its words, and what the training of its model decided."""

from collections.abc import Mapping, Sequence

from analysis_lib import paths
from analysis_lib.embedded import quiz
from analysis_lib.embedded.recipe import EXIT, LAYERS
from analysis_lib.inputs import benchmarks
from analysis_lib.inputs.records import Sample, Skip

DESIGNED = "embedded"  # the model in whose training layers were chosen
WORD_LAYER, DEPTH = EXIT, LAYERS  # where its training read the answer's word, of so many layers


def render(spec: str) -> None:
    """Render the embedded benchmark if `spec` names it and it is not there. StudyError if it cannot be written."""
    if spec == "embedded":
        quiz.write_benchmark(paths.BENCHMARK)


def load_benchmark(spec: str, **draw: Sequence[str] | int | None) -> tuple[list[Sample], list[Skip]]:
    """`inputs.benchmarks.load_benchmark` of any benchmark, the embedded one rendered before."""
    render(spec)
    return benchmarks.load_benchmark(spec, **draw)


def keywords(spec: str) -> Mapping[str, Sequence[str]] | None:
    """The embedded world's own words for the lens, by kind; None for another benchmark."""
    return quiz.KEYWORDS if spec == "embedded" else None


def natural_keywords(spec: str) -> Mapping[str, Sequence[str]]:
    """Other words for the same, by kind, for a vocabulary that knows them whole; none for another benchmark."""
    return quiz.NATURAL if spec == "embedded" else {}
