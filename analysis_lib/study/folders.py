"""What a results folder lacks, compared with a request."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Sample
from analysis_lib.study.request import ALL_MEASURES, CUTS, FOR_ALL, Request
from analysis_lib.study.store import Store


@dataclass(frozen=True)
class Todo:
    """What a sample still lacks: edge sets to cut for each measure of CUTS, and other measures ("emergence", …).

    `frames_sha256` is the stored hash of its frames, empty for a sample without a baseline row.
    """

    edges: Mapping[str, tuple[str, ...]]
    measures: frozenset[str]
    frames_sha256: str = ""


def missing(store: Store, samples: Iterable[Sample], request: Request) -> dict[str, Todo]:
    """What each sample lacks, by sample_id, complete ones left out. StudyError if a question or clip has changed."""
    skipped = store.stored("skipped", "sample_id", "sample_sha256")
    hashes = dict(store.stored("baseline", "sample_id", "sample_sha256"))
    begun, new = lacking(store, request), Todo(request.cuts(), frozenset(request.measure) - {*CUTS})
    found = {}
    for sample in samples:
        name = sample.sample_id
        if name not in hashes:
            if (name, sample.sha256) not in skipped:  # a bad sample is tried again once its file changes
                found[name] = new
        elif hashes[name] != sample.sha256:
            raise StudyError(f"{store.folder} holds results of another question or clip {name}; use another --out")
        elif name in begun:
            found[name] = begun[name]
    return found


def lacking(store: Store, request: Request) -> dict[str, Todo]:
    """What the samples that have a baseline row lack, by sample_id."""
    cut = {measure: store.stored(measure, "sample_id", "edge_set") for measure in CUTS}
    done = {measure: store.stored(measure, "sample_id") for measure in ALL_MEASURES}
    done["pathway"] = {name for name, of in store.stored("pathway", "sample_id", "ranges") if of == request.ranges_name}
    found = {}
    for row in store.tables["baseline"].itertuples():
        kept = request.keeps(row.correct)
        lacks = {m: tuple(n for n in sets if (row.sample_id, n) not in cut[m]) for m, sets in request.cuts().items()}
        edges = {m: names for m, names in lacks.items() if kept and names}
        wanted = {m for m in request.measure if m not in CUTS and (kept or m in FOR_ALL)}
        measures = frozenset(m for m in wanted if row.sample_id not in done[m])
        if edges or measures:
            found[row.sample_id] = Todo(edges, measures, row.frames_sha256)
    return found
