"""How far stored numbers drift when something about the machine changes: `make drift` writes data/drift.csv.

The same small sweep is made again with one thing changed: the number of threads, the number format, the seed. Each is
compared with the first (`findings.drift`), and the first with the record, which another commit measured on another day.
Every sweep is a process of its own, since threads are counted when it starts. They lie in build/drift, so a second
call only compares."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.findings.drift import rows_drift
from analysis_lib.findings.stored import stored_claims
from analysis_lib.study.tables import read_manifest, read_table

FILE = paths.DATA / "drift.csv"
SAMPLES = 6  # questions a task
MEASURES = ("knockout", "emergence", "lens", "pathway", "controls")
FIRST = "1 thread"
SWEEPS = {  # what changes: the number of threads, and options of the sweep
    FIRST: (1, []), "2 threads": (2, []), "bfloat16": (1, ["--dtype", "bfloat16"]), "another seed": (1, ["--seed", "1"])
}  # fmt: skip


def sweep(name: str) -> Path:
    """The results folder of one of SWEEPS; what it lacks is measured."""
    threads, options = SWEEPS[name]
    folder = paths.BUILD / "drift" / name.replace(" ", "-") / "embedded" / "embedded-k3-center"
    words = ["sweep", "--model", "embedded", "--benchmark", "embedded", "--samples", str(SAMPLES), "--keep", "all"]
    words += ["--measure", ",".join(MEASURES), "--device", "cpu", "--out", str(folder), *options]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-m", "analysis_lib", *words], cwd=paths.ROOT, env=environment)
    if done.returncode:
        raise StudyError(f"the sweep with {name} ended with exit code {done.returncode}")
    return folder


def drift_of(name: str, first: Path, other: Path) -> pd.DataFrame:
    """One row a measure, and one for the findings: how far `other` lies from `first`, on the questions of `first`."""
    rows = []
    for table in ("baseline", *MEASURES):
        old, new = (read_table(folder, table) for folder in (first, other))
        rows.append({"what": table} | rows_drift(old, new[new["sample_id"].isin(old["sample_id"])]))
    rows = [row for row in rows if row["rows"]]  # the record's pathways keep other layers open
    # another seed draws other questions: then findings are those of each draw
    samples = None if name == "another seed" else set(read_table(first, "baseline")["sample_id"])
    old, new = ({c.name: c for c in stored_claims(folder, samples=samples)} for folder in (first, other))
    both = [(old[n], new[n]) for n in old if n in new]
    moved = [abs(now.effect - was.effect) / ((was.high - was.low) / 2) for was, now in both if was.high > was.low]
    findings = {"what": "findings", "rows": len(both), "effect": np.nanmax(moved)}
    findings["verdicts"] = sum(was.verdict != now.verdict for was, now in both)
    return pd.DataFrame([*rows, findings]).drop(columns=["alone", "firm", "example"]).assign(changed=name)


def main() -> None:
    """Measure, compare, and write FILE."""
    first, *others = (sweep(name) for name in SWEEPS)
    record = paths.RESULTS / first.parent.name / first.name
    pairs = [*zip(list(SWEEPS)[1:], others, strict=True), ("the record", record)]
    table = pd.concat([drift_of(name, first, other) for name, other in pairs], ignore_index=True)
    about = read_manifest(first)
    table = table.assign(processor=about["processor"], torch=about["packages"]["torch"])
    table.insert(0, "changed", table.pop("changed"))
    paths.write_atomic(FILE, table.to_csv(index=False, float_format="%.3g", lineterminator="\n").encode())
    print(table.drop(columns=["processor", "torch"]).to_string(index=False), f"written to {FILE}", sep="\n")


if __name__ == "__main__":
    main()
