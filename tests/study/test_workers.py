"""Workers of any number, that die, hang or are stopped: the same rows, each once, and nothing left behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pandas as pd
import psutil
import pytest
from clips import write_small_benchmark
from conftest import GOLDEN
from sweeps import EDGES, files, sweep

from analysis_lib.errors import StudyError
from analysis_lib.reports import soak
from analysis_lib.study import cluster, workers
from analysis_lib.study.folders import Todo
from analysis_lib.study.request import check_request

SUPPORT = Path(__file__).parents[1] / "support"
MEASURE = {"measure": "knockout,emergence", "keep": "all", "edges": list(EDGES)}
LONG = 900  # seconds; a busy machine starts Ray slowly


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return write_small_benchmark(tmp_path_factory.mktemp("bench"), 4)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One thread a worker. Ray's processes wait for seconds on a grammar that jsonschema could check links with: those
    of a cluster, too, that a test starts."""
    stub = tmp_path_factory.mktemp("stub")
    (stub / "rfc3987_syntax.py").write_text("raise ImportError")
    path = os.pathsep.join([str(stub), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def start(bench, environment):
    """Starts a sweep as a process of its own; `faults` are those of tests/support/faulty_workers.py."""

    def started(out, number="", faults=None, model=str(GOLDEN), more=None):
        given = MEASURE | {"model": model, "benchmark": f"tvbench:{bench}", "out": str(out), "workers": number}
        command = [sys.executable, str(SUPPORT / "faulty_workers.py"), json.dumps(given)]
        faults = {"FAULTS": json.dumps(faults or {})}
        return subprocess.Popen(command, env=environment | faults | (more or {}), stdout=-1, stderr=-1, text=True)

    return started


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    """The results of one process with one thread."""
    out = tmp_path_factory.mktemp("alone") / "out"
    assert ended(start(out)) == (0, "")
    return out


def ended(process) -> tuple[int, str]:
    said = process.communicate(timeout=LONG)[1].splitlines()
    return process.returncode, next((line for line in said if line.startswith("error: ")), "")


def until(true, seconds=LONG, run=None):
    """Wait for something; a `run` that ended before says why."""
    limit = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < limit
        assert run is None or run.poll() is None, run.communicate()
        time.sleep(0.1)
    return found


def family(process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def measuring(process) -> list[psutil.Process]:
    """The workers' processes."""
    return [child for child in family(process) if child.name().startswith("ray::Faulty")]


def finished(out) -> int:
    return len(list((out / "parts").glob("*.arrow")))


def nothing_left(children, out, seconds=30) -> None:
    limit = time.monotonic() + seconds
    while living := [child for child in children if soak.alive(child)]:
        assert time.monotonic() < limit, living
        time.sleep(0.1)
    assert not leftover(out).exists()


def leftover(out) -> Path:
    return Path("/tmp") / f"flow-{sha256(str(out.resolve()).encode()).hexdigest()[:12]}"


# ---- without Ray ----


def test_without_workers_nothing_of_ray_is_imported(root, tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
from sweeps import sweep
sweep({str(root)!r}, {str(tmp_path)!r}, samples=1, measure="emergence")
assert not [name for name in sys.modules if name.partition(".")[0] == "ray"]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_workers_without_ray_name_the_command(monkeypatch, tmp_path, root):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(StudyError, match=r"install it: pip install -e '.\[cluster\]'"):
        sweep(root, tmp_path, workers=2)


@pytest.mark.parametrize("workers", ["0", "-1", "many", "1.5"])
def test_a_number_that_is_none_is_refused(workers, tmp_path, root):
    with pytest.raises(StudyError, match="workers is .*use a number from 1 on, auto, or HOST:PORT"):
        sweep(root, tmp_path, workers=workers)


def test_more_workers_than_gpus_for_a_spread_model_are_refused(monkeypatch):
    monkeypatch.setattr(cluster.torch.cuda, "device_count", lambda: 4)
    request = check_request(model="x")
    assert cluster._places("auto", 2, request)[::2] == (2, 2)
    with pytest.raises(StudyError, match="3 workers need 2 GPUs each; this machine has 4"):
        cluster._places("3", 2, request)
    assert cluster._places("3", 1, check_request(model="x", device="cpu"))[2] == 0


def test_more_workers_than_gpus_share_them(monkeypatch):
    monkeypatch.setattr(cluster.torch.cuda, "device_count", lambda: 2)
    parts = {n: cluster._places(n, 1, check_request(model="x"))[2] for n in ("auto", "2", "3", "4", "14")}
    assert parts == {"auto": 1, "2": 1, "3": 0.5, "4": 0.5, "14": 0.1428} and 7 * parts["14"] <= 1


def test_cores_are_divided_unless_threads_are_set(monkeypatch):
    monkeypatch.setattr(cluster.os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    request = check_request(model="x", device="cpu")
    assert [cluster._places(n, 1, request)[:2] for n in ("auto", "2", "3", "20")] == [(8, 1), (2, 4), (3, 2), (20, 1)]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert [cluster._places(n, 1, request)[:2] for n in ("auto", "2")] == [(2, 4), (2, 4)]


def test_an_address_where_nothing_answers(tmp_path, root):
    with socket.socket() as probe:  # a port that was free a moment ago
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    begin = time.monotonic()
    with pytest.raises(StudyError, match=f"no Ray cluster answers at {address}"):
        cluster._answers(address)
    assert time.monotonic() - begin < cluster.ANSWERS + 5


def test_a_node_without_the_benchmark_is_named(make_sample, tmp_path):
    sample = type("Sample", (), {"video": tmp_path / "gone.mp4"})()
    with pytest.raises(StudyError, match=f"node {socket.gethostname()}: .*gone.mp4 is not there; .*every node"):
        workers.Worker(workers.torch.get_num_threads()).measure(sample, Todo({}, frozenset()), True)


def test_workers_that_differ_are_refused():
    crew = workers.Crew(None, None, None)
    crew._check({"dtype": "float32"}, {"threads": 1, "commit": "a"})
    crew._check({"dtype": "float32"}, {"threads": 1, "commit": "b"})
    with pytest.raises(StudyError, match="workers differ in threads: 1 and 2"):
        crew._check({"dtype": "float32"}, {"threads": 2, "commit": "a"})


def test_rays_processes_do_not_build_the_grammar_of_links(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    look = [sys.executable, "-c", "import jsonschema, sys; print('lark' in sys.modules)"]
    said = [subprocess.check_output(look, text=True)]
    with cluster.without_grammar(tmp_path / "import"):
        said.append(subprocess.check_output(look, text=True))
    assert said == ["True\n", "False\n"] and "PYTHONPATH" not in os.environ


def test_helpers_that_outlived_their_driver_are_ended(tmp_path):
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    temporary, other = tmp_path / "flow-1", tmp_path / "flow-12"
    started = []
    for folder in (temporary, other):
        with cluster.without_grammar(folder / cluster.IMPORTS):
            started.append(subprocess.Popen(sleeping))
    cluster.end_leftovers(temporary)
    assert started[0].wait(30) == -signal.SIGKILL and not temporary.exists()
    assert started[1].poll() is None and other.exists()
    started[1].kill()
    started[1].wait()


# ---- on real processes ----


@pytest.mark.slow
@pytest.mark.parametrize("number", ["1", "3"])  # two are in the tests below
def test_any_number_of_workers_writes_the_same_bytes(start, alone, tmp_path, number):
    run = start(tmp_path / "out", number)
    code, line = ended(run)
    assert (code, line) == (0, "") and files(tmp_path / "out") == files(alone)
    assert not leftover(tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_worker_and_then_a_killed_driver(start, alone, tmp_path):
    """A worker dies in the middle of a sample, then the driver; another number of workers ends the run."""
    out = tmp_path / "out"
    run = start(out, "2", {"slow": 1})
    until(lambda: finished(out) >= 1, run=run)
    measuring(run)[0].kill()
    until(lambda: finished(out) >= 4, run=run)
    children = family(run)
    run.kill()
    run.communicate()
    assert 4 <= finished(out) < 8
    assert ended(start(out, "1")) == (0, "")  # while helpers of Ray still look for the driver
    assert files(out) == files(alone)
    nothing_left(children, out, 150)  # Ray's helpers look for a killed driver for a minute


@pytest.mark.slow
def test_samples_that_kill_or_hang_their_workers_are_skipped(start, alone, tmp_path):
    faults = {"kills": "action_antonym/0001", "hangs": "object_count/0002", "limit": 20}
    assert ended(start(tmp_path / "out", "2", faults)) == (0, "")
    skipped = pd.read_parquet(tmp_path / "out" / "skipped.parquet").set_index("sample_id")["reason"]
    assert skipped[faults["kills"]] == "its worker died, and so did another with it"
    assert skipped[faults["hangs"]].endswith("seconds, twice") and len(skipped) == 2
    whole, found = (pd.read_parquet(folder / "knockout.parquet") for folder in (alone, tmp_path / "out"))
    expected = whole[~whole["sample_id"].isin(skipped.index)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.slow
def test_ctrl_c_ends_all_workers(start, tmp_path):
    out = tmp_path / "out"
    run = start(out, "2", {"slow": 2})
    until(lambda: finished(out) >= 1, run=run)
    children = family(run)
    run.send_signal(signal.SIGINT)
    assert ended(run)[0] == 130
    nothing_left(children, out)


@pytest.mark.slow
def test_a_full_disk_at_the_driver(start, alone, tmp_path):
    out = tmp_path / "out"
    code, line = ended(start(out, "2", {"full_after": 2}))
    assert code == 2 and "No space left on device" in line and not leftover(out).exists()
    shutil.rmtree(out / "examples", ignore_errors=True)
    assert ended(start(out)) == (0, "") and files(out) == files(alone)
