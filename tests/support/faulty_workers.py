"""Sweeps with real workers that fail as told, run as a process of its own: `python faulty_workers.py JSON`.

The JSON names the arguments of `runs.sweep` and what goes wrong: `kills` and `hangs` are samples that kill or stop the
process that measures them, `full_after` how many samples the disk takes, `version` what this process believes to be
Ray's version, `slow` how many seconds each sample takes at least."""

import json
import os
import signal
import sys
import time

from analysis_lib import __main__ as cli
from analysis_lib import paths
from analysis_lib.study import cluster, runs, workers
from analysis_lib.study.workers import Worker

FAULTS = json.loads(os.environ.get("FAULTS", "{}"))


class Faulty(Worker):
    def measure(self, sample, todo, there):
        time.sleep(FAULTS.get("slow", 0))
        if sample.sample_id == FAULTS.get("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        if sample.sample_id == FAULTS.get("hangs"):
            time.sleep(3600)
        return super().measure(sample, todo, there)


def filling(real=os.replace, taken=None):
    taken = taken if taken is not None else []

    def replace(source, target):
        if str(target).endswith(".arrow"):
            taken.append(target)
            if len(taken) > FAULTS["full_after"]:
                raise OSError(28, "No space left on device")
        real(source, target)

    return replace


def main():
    import faulty_workers  # by this name, so that a worker's process can import the class

    cluster.Worker, workers.HANGS, workers.TIMES = faulty_workers.Faulty, FAULTS.get("limit", 1800), 3
    if "full_after" in FAULTS:
        paths.os.replace = filling()
    if "version" in FAULTS:
        import ray

        ray.__version__ = FAULTS["version"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and hands that on
    given = json.loads(sys.argv[1])
    cli.VERBS["sweep"] = (lambda **_: print(len(runs.sweep(**given).baseline)), {})
    return cli.main(["sweep"])


if __name__ == "__main__":
    sys.exit(main())
