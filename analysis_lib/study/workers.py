"""Samples spread over many workers with Ray, whose results do not depend on how many there are.

A worker is a Ray actor that holds one loaded model and turns a sample into its file (`measure.sample_part`), a pure
function; the driver hands out samples, and alone owns store, order and manifest. Ray starts the actors, restarts one
that died, here or on another node, and counts GPUs and cores. What it cannot know is decided here: each worker has one
sample in hand and one waiting; a sample whose worker died or hung is tried once more after all others, then skipped
with that reason; every worker must have the same model, software and threads; what a node lacks ends the run in a line
that names the node."""

import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Sample, Skip
from analysis_lib.instrument.checks import load_model
from analysis_lib.study import measure, provenance
from analysis_lib.study.folders import Todo
from analysis_lib.study.parts import to_part
from analysis_lib.study.request import Request

TRIES = 2  # that a sample is given before it is skipped
DESERTED = 300.0  # seconds without any worker, after which one that dies while it loads ends the run
HANGS, TIMES = 1800.0, 10  # seconds that a sample may take, or so many times the slowest before it, if that is more


class Worker:
    """What runs in each worker's process."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def load(self, request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
        """Load the model; what the manifest says of it and of the run. A StudyError names the node."""
        with _named():
            self.request, self.vlm = request, load_model(request.model, dtype=request.dtype, device=request.device)
            return provenance.of_model(self.vlm), provenance.of_run(self.vlm, request.fixed()["benchmark"])

    def measure(self, sample: Sample, todo: Todo, there: bool) -> bytes:
        """The file of one sample, whose clip is `there` for the driver."""
        with _named():
            if there and not sample.video.exists():
                fix = "the benchmark must lie under the same path on every node"
                raise StudyError(f"{sample.video} is not there; {fix}")
            return measure.sample_part(self.vlm, sample, todo, self.request)


@contextmanager
def _named() -> Iterator[None]:
    """Put the node's name in front of a StudyError."""
    try:
        yield
    except StudyError as error:
        raise StudyError(f"node {socket.gethostname()}: {error}") from None


class Crew:
    """The workers of one run, and what they have in hand."""

    def __init__(self, request: Request, make: Any, wanted: Any) -> None:
        self.request, self._make, self._wanted = request, make, wanted
        self._members: list[SimpleNamespace] = []
        self._facts: tuple[dict, dict] | None = None  # of the first worker; all others must have the same
        self._slowest, self._looked, self._seen = 0.0, 0.0, time.monotonic()

    @property
    def alive(self) -> int:
        """How many workers have their model loaded."""
        return sum(member.ready for member in self._members)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the manifest says of model and run, once a worker has loaded."""
        while not self._facts:
            self.wait()
        return self._facts

    def measured(self, samples: Sequence[Sample], todo: Mapping[str, Todo]) -> Iterator[tuple[Sample, bytes]]:
        """Every sample with its file, as they are done."""
        first, again, died = deque(samples), deque(), Counter()
        for _ in range(len(samples)):
            done = None
            while not done:
                for member in self._members:
                    while member.ready and len(member.held) < 2 and (first or again):
                        sample = (first or again).popleft()
                        there = sample.video.exists()
                        ref = member.actor.measure.remote(sample, todo[sample.sample_id], there)
                        member.began = member.began if member.held else time.monotonic()
                        member.held.append((sample, ref))
                done, lost, waiting = self.wait()
                first.extendleft(waiting)
                for sample, reason in lost:
                    died[sample.sample_id] += 1
                    if died[sample.sample_id] < TRIES:
                        again.append(sample)
                    else:
                        skip = Skip(sample.task, sample.sample_id, reason, sample.clip, sample.sha256)
                        done = sample, to_part({"skipped": [measure.skip_row(skip)]})
            yield done

    def wait(self) -> tuple[tuple[Sample, bytes] | None, list[tuple[Sample, str]], list[Sample]]:
        """Wait for one thing to happen, a second at most: a finished sample, samples whose worker died or hung with
        the reason, and those that waited behind them."""
        import ray  # heavy

        self._muster()
        self._seen = time.monotonic() if self.alive else self._seen
        refs = {m.held[0][1]: m for m in self._members if m.ready and m.held}
        refs |= {m.loading: m for m in self._members if not m.ready and m.loading}
        time.sleep(0 if refs else 1)
        for ref in ray.wait([*refs], timeout=1.0)[0] if refs else []:
            member = refs[ref]
            try:
                found = ray.get(ref)
            except StudyError as error:
                raise StudyError(str(getattr(error, "cause", error))) from None
            except ray.exceptions.RayTaskError:
                raise  # a defect: it stops a run of one process, too
            except ray.exceptions.RayError as error:
                if member.ready:
                    return None, *self._again(member, "its worker died, and so did another with it")
                self._failed(member, error)
                continue
            if member.ready:
                sample = member.held.popleft()[0]
                now = time.monotonic()
                self._slowest, member.began = max(self._slowest, now - member.began), now
                return (sample, found), [], []
            self._check(*found)
            member.ready = True
        for member in self._members:
            limit = max(HANGS, TIMES * self._slowest)
            if member.held and member.ready and time.monotonic() - member.began > limit:
                ray.kill(member.actor, no_restart=False)
                return None, *self._again(member, f"it took longer than {limit:.0f} seconds, twice")
        return None, [], []

    def _again(self, member: SimpleNamespace, reason: str) -> tuple[list[tuple[Sample, str]], list[Sample]]:
        """Let a worker that died load again. What it had in hand with the reason, and what waited."""
        running, *waiting = (sample for sample, _ in member.held)
        self._load(member)
        return [(running, reason)], waiting

    def _failed(self, member: SimpleNamespace, error: Exception) -> None:
        """A worker did not come to load: it died of it, or its node left and no other has room. It is asked again; if
        no worker is there at all, not for ever."""
        import ray  # heavy

        member.loading = None
        if not isinstance(error, ray.exceptions.ActorUnavailableError):
            member.actor = self._make()
        if time.monotonic() - self._seen > DESERTED:
            raise StudyError(f"no worker can load the model, they die of it or have no place: {one_line(error)}")

    def _load(self, member: SimpleNamespace) -> None:
        member.held, member.ready, member.began = deque(), False, 0.0
        member.loading = member.actor.load.options(max_task_retries=TRIES).remote(self.request)

    def _muster(self) -> None:
        """Start the workers that are wanted; a cluster is asked again now and then, since nodes join."""
        if time.monotonic() - self._looked > 5:
            for _ in range(self._wanted() - len(self._members)):
                self._members.append(SimpleNamespace(actor=self._make(), loading=None, ready=False))
            for member in self._members:
                if not member.loading:
                    self._load(member)
            self._looked = time.monotonic()

    def _check(self, model: dict[str, Any], run: dict[str, Any]) -> None:
        """Refuse a worker whose rows would differ from the others'."""
        first = self._facts = self._facts or (model, run)
        for name, value in (model | run).items():
            known = (first[0] | first[1])[name]
            if name not in ("commit", "date") and value != known:
                raise StudyError(f"workers differ in {name}: {known} and {value}; give all nodes the same")


def one_line(error: Exception) -> str:
    """An error's text, shortened."""
    return " ".join(str(error).split())[:300]
