"""A sweep whose processes are killed at random moments, beside one left alone: are the results the same bytes?

`make soak` measures 200 questions with two workers. Twenty times it kills (-9) a worker in the middle of the work, and
a few samples later the driver, and calls the same command again, which ends at last. It compares every byte of the
results with those of an undisturbed sweep, and looks for processes, shared memory and temporary files left behind. Of
the samples that are not measured yet each round may take its share, so a fast machine does not finish early."""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil

from analysis_lib.errors import StudyError
from analysis_lib.study.tables import SECONDS

SWEEP = "--model embedded --benchmark embedded --measure knockout --edges video->last,cross-frame".split()
SHARED = Path("/dev/shm")
PATIENCE = 300.0  # seconds in which processes must do what is expected of them


def run(out: Path, temporary: Path, samples: int) -> subprocess.Popen:
    """Start a sweep with two workers of one thread; its temporary files go to a folder of their own."""
    given = [*SWEEP, "--keep", "all", "--device", "cpu", "--samples", str(samples), "--workers", "2", "--out", str(out)]
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(out.with_name("cache"))}  # which torch keeps among temporary files
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)} | cache
    command = [sys.executable, "-m", "analysis_lib", "sweep", *given]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def until(true: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait until something is so, or the process has ended. StudyError if neither comes."""
    limit = time.monotonic() + PATIENCE
    while not true() and (process is None or process.poll() is None):
        if time.monotonic() > limit:
            raise StudyError(f"nothing happened for {PATIENCE:.0f} seconds")
        time.sleep(0.02)


def done(out: Path) -> int:
    """How many samples are finished and not merged, since the last run began."""
    return len([*(out / "parts").glob("[!.]*.arrow")])


def stored(out: Path) -> int:
    """How many samples a sweep that ended has left."""
    file = out / "baseline.parquet"
    return done(out) + (len(pd.read_parquet(file, columns=["sample_id"])) if file.exists() else 0)


def disturbed(process: subprocess.Popen, out: Path, rng: random.Random, share: int) -> set[psutil.Process]:
    """Kill a worker of a running sweep at a random moment and, some samples later, the sweep, before it has measured
    more than about `share` samples. Returns every process that it had. StudyError if it ends before."""
    seen = set()

    def workers() -> list[psutil.Process]:
        found = []
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # one of Ray's helpers has just ended
                found += [child] if child.name().startswith("ray::Worker") else []
        return found

    def after(true: Callable[[], object], pause: float = 0.0) -> float:
        until(true, process)
        time.sleep(pause * rng.random())
        if process.poll() is not None:
            raise StudyError(f"a sweep ended before it was killed: {process.communicate()[1][-300:]}")
        seen.update(psutil.Process(process.pid).children(recursive=True))
        return time.monotonic()

    after(workers)  # it has merged what the run before left: files are new ones from now on
    begin = after(lambda: done(out))
    first = rng.randint(2, max(2, share // 2))
    pace = (after(lambda: done(out) >= first) - begin) / (first - 1)  # seconds of a sample
    after(workers, pace)  # a killed one may not be replaced yet
    rng.choice(workers()).kill()
    last = done(out) + rng.randint(1, max(1, share - share // 2 - 3))
    after(lambda: done(out) >= last, pace)
    process.kill()
    process.communicate()
    return seen


def alive(process: psutil.Process) -> bool:
    """Whether a process runs."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def mapped(file: Path) -> bool:
    """Whether a process holds this file in memory, hence another program's."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if str(file) in maps.read_text():
                return True
    return False


def files(folder: Path) -> dict[str, bytes]:
    """The bytes of every result."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != SECONDS}


def soak(folder: Path, samples: int, kills: int, seed: int = 0) -> Iterator[str]:
    """Disturb a sweep of so many samples a task `kills` times; yields what is wrong with what it leaves."""
    rng, shared, seen = random.Random(seed), set(SHARED.glob("*")), set()
    alone, out, temporary = (folder / name for name in ("alone", "out", "t"))
    temporary.mkdir()
    finished(run(alone, temporary, samples))
    whole = stored(alone)
    for kill in range(kills):
        share = (whole - stored(out)) // (kills - kill + 1)  # so that each later kill finds samples left
        begin, process = time.monotonic(), run(out, temporary, samples)
        seen |= disturbed(process, out, rng, share)
        print(f"kill {kill + 1} of a worker and of the driver, after {time.monotonic() - begin:.0f} s", flush=True)
    finished(run(out, temporary, samples))
    baseline = [pd.read_parquet(at / "baseline.parquet")["sample_id"].tolist() for at in (alone, out)]
    if baseline[0] != baseline[1] or len(set(baseline[1])) != len(baseline[1]):
        yield f"{len(baseline[1])} samples in place of {len(baseline[0])}"
    old, new = files(alone), files(out)
    yield from (f"{name} differs" for name in sorted({*old, *new}) if old.get(name) != new.get(name))
    limit = time.monotonic() + 150  # Ray's helpers look for a killed driver for a minute
    while any(map(alive, seen)) and time.monotonic() < limit:
        time.sleep(0.1)
    yield from (f"{process} lives" for process in seen if alive(process))
    yield from (f"{left} is left" for left in {*SHARED.glob("*")} - shared if not mapped(left))
    yield from (f"{left} is left" for left in temporary.glob("*"))


def finished(process: subprocess.Popen) -> None:
    """Wait for a sweep; StudyError if it failed."""
    said = process.communicate()[1]
    if process.returncode:
        raise StudyError(f"a sweep that was not disturbed failed: {said[-300:]}")


def main() -> int:
    """Soak, and say what is wrong."""
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        wrong = [*soak(Path(folder), samples=40, kills=20)]
    print("\n".join(wrong) or "the same bytes, each sample once, nothing left behind")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
