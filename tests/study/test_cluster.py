"""Workers of a running Ray cluster: two nodes on one machine, of which one leaves, joins late, or lacks something."""

import os
import socket
from pathlib import Path

import pytest
from sweeps import GOLDEN, files
from test_workers import alone, bench, ended, environment, finished, start, until  # noqa: F401  fixtures

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(environment, monkeypatch):  # noqa: F811
    """A cluster of one node with one core, without a dashboard."""
    from ray.cluster_utils import Cluster

    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}
    found = Cluster(initialize_head=True, connect=False, head_node_args=head)
    yield found
    found.shutdown()


def joined(cluster, **more):
    return cluster.add_node(num_cpus=1, object_store_memory=100 << 20, **more)


def test_a_node_leaves_and_another_joins(cluster, start, alone, tmp_path):  # noqa: F811
    second = joined(cluster)
    out = tmp_path / "out"
    run = start(out, cluster.address, {"slow": 2})
    until(lambda: finished(out) >= 1, run=run)
    cluster.remove_node(second, allow_graceful=False)
    until(lambda: finished(out) >= 3, run=run)
    joined(cluster)
    assert ended(run) == (0, "") and files(out) == files(alone)


def test_what_is_wrong_with_a_cluster_is_one_line(cluster, start, tmp_path):  # noqa: F811
    code, line = ended(start(tmp_path / "a", cluster.address, {"version": "2.0.0"}))
    assert code == 2 and "Version mismatch" in line and "2.0.0" in line
    (tmp_path / "home").mkdir()
    os.symlink(GOLDEN, tmp_path / "home" / "tiny")
    token = {"RAY_AUTH_TOKEN_PATH": str(Path.home() / ".ray" / "auth_token")}  # Ray keeps it at home
    here = token | {"HOME": str(tmp_path / "home")}
    joined(cluster, env_vars=token | {"HOME": str(tmp_path)})
    code, line = ended(start(tmp_path / "b", cluster.address, model="~/tiny", more=here))
    assert code == 2 and f"node {socket.gethostname()}: unknown model '~/tiny'" in line
