"""Ray, started on this machine or joined where it runs, and ended again.

On one machine Ray lives as long as the sweep, in a temporary folder that is named after the results folder, so that the
next run removes what a killed one left. Of a cluster only the workers are the sweep's. Ray is imported when workers are
asked for, never before, and neither reports its use nor opens a dashboard. Each of its processes imports jsonschema,
which builds a grammar of links if it can, and takes longer for it than for all else in Ray; they are kept from it, for
a run that goes on after a kill waits for all of them."""

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from analysis_lib.errors import StudyError
from analysis_lib.study.request import Request
from analysis_lib.study.workers import Crew, Worker, one_line

GRAMMAR, IMPORTS = "rfc3987_syntax", "import"  # which nothing in Ray asks for; the folder that keeps it away
ANSWERS = 10.0  # seconds in which a cluster's address must answer
STORE = 200 << 20  # bytes for results under way, of about 0.1 MB each


@contextmanager
def crew(request: Request, workers: str, gpus_per_model: int, folder: Path) -> Iterator[Crew]:
    """Workers for a request: a number of them on this machine, "auto" for one a GPU (or core) here, or HOST:PORT for
    those of a running cluster. They end with the block, however it ends. Raises StudyError for a number that does not
    fit, for an address where no cluster of this version answers, and if Ray is not installed."""
    ray = _ray()
    here = ":" not in workers
    temporary = Path(tempfile.gettempdir()) / f"flow-{sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"
    try:
        if here:
            count, threads, gpus = _places(workers, gpus_per_model, request)
            end_leftovers(temporary)
            options = {"num_cpus": count * threads, "object_store_memory": STORE, "_temp_dir": str(temporary)}
            with without_grammar(temporary / IMPORTS):
                _connect(ray, address="local", include_dashboard=False, **options)
        else:
            _answers(workers)
            _connect(ray, address=workers)
            gpus = gpus_per_model if request.device != "cpu" and ray.cluster_resources().get("GPU") else 0
            threads = int(os.environ.get("OMP_NUM_THREADS", 1))
            if not ray.cluster_resources().get("CPU", 0) // threads:
                raise StudyError(f"the cluster at {workers} has no node with {threads} cores for a worker")

        def wanted() -> int:
            have = ray.cluster_resources()
            return count if here else int(have.get("GPU", 0) // gpus if gpus else have.get("CPU", 0) // threads)

        start = {"num_cpus": threads, "num_gpus": gpus, "max_restarts": -1}
        environment = {"env_vars": {"OMP_NUM_THREADS": str(threads)}}
        remote = ray.remote(Worker).options(**start, runtime_env=environment)
        yield Crew(request, lambda: remote.remote(threads), wanted)
    finally:
        with suppress(KeyboardInterrupt):
            ray.shutdown()
        if here:
            shutil.rmtree(temporary, ignore_errors=True)


def end_leftovers(temporary: Path) -> None:
    """Remove what a killed driver left. Ray's helpers outlive it by a minute, in which they look for what died with it;
    all that Ray started there has the folder of `without_grammar` on its path."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # has just ended, or is another user's
            if os.fsencode(temporary / IMPORTS) in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def without_grammar(folder: Path) -> Iterator[None]:
    """Processes that are started in the block find no grammar to import, which jsonschema can do without. `folder` has
    to stay while they live."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{GRAMMAR}.py").write_text("raise ImportError", encoding="utf-8")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), before]))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def _ray() -> Any:
    """Ray, which neither reports its use nor prints what its workers print."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
    loaded = sys.modules.setdefault(GRAMMAR, None)  # None: importing it fails at once
    try:
        import ray  # heavy
    except ImportError:
        raise StudyError("workers need Ray; install it: pip install -e '.[cluster]' -c requirements.lock") from None
    finally:
        if loaded is None:
            del sys.modules[GRAMMAR]
    return ray


def _places(workers: str, gpus_per_model: int, request: Request) -> tuple[int, int, float]:
    """How many workers on this machine, the threads of each, and its GPUs: part of one if there are more workers."""
    cores, visible = len(os.sched_getaffinity(0)), torch.cuda.device_count() if request.device != "cpu" else 0
    set_threads = int(os.environ.get("OMP_NUM_THREADS", 0))
    most = visible // gpus_per_model if visible else cores // (set_threads or 1)
    if workers != "auto" and (not workers.isdecimal() or not int(workers)):
        raise StudyError(f"workers is {workers!r}; use a number from 1 on, auto, or HOST:PORT of a Ray cluster")
    count = most if workers == "auto" else int(workers)
    if count > most and visible and gpus_per_model > 1 or not count:
        raise StudyError(f"{workers} workers need {gpus_per_model} GPUs each; this machine has {visible}")
    threads = set_threads or max(1, cores // count)
    if count <= most or not visible:
        return count, threads, gpus_per_model if visible else 0
    sharing = -(-count // visible)  # workers of one GPU
    return count, threads, 10_000 // sharing / 10_000  # Ray counts in such parts


def _answers(address: str) -> None:
    """Refuse an address where nothing answers."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWERS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise StudyError(f"no Ray cluster answers at {address} ({error}); start one with ray start --head") from None


def _connect(ray: Any, **options: Any) -> None:
    try:
        ray.init(log_to_driver=False, logging_level="error", **options)
    except Exception as error:  # of many kinds: a version that differs, a raylet that did not come up
        raise StudyError(f"Ray could not be started or joined: {one_line(error)}") from None
