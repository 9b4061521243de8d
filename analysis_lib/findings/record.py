"""A run beside the record of the same model and benchmark.

First what makes a comparison senseless is refused in one line: tables older than the code, other weights, other
settings, other questions. Then the facts of both manifests are laid side by side; by what differs follows which drift
is to be expected (`drift.BOUNDS`). A run of fewer questions is compared with the record of these questions alone, so a
small run is as good a test of a machine as a large one, only of fewer rows."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from analysis_lib.errors import StudyError
from analysis_lib.findings.drift import BOUNDS, SEEDED, disagreement, rows_drift, too_far
from analysis_lib.findings.stored import stored_claims
from analysis_lib.study.tables import SCHEMAS, lacking_columns, read_manifest, read_table

SAME = ("weights_sha256", "benchmark", "window", "style", "num_frames", "protocol", "positions")  # or nothing compares
UNKNOWN = "not recorded"
WHOLE = ["float32"] * 2  # number formats of both sides in which another kind of device is but rounding
TABLES = [name for name in SCHEMAS if name not in ("skipped", "receipts")]


@dataclass(frozen=True)
class Comparison:
    """What a run and the record have in common, and what not."""

    samples: int  # questions in both
    facts: pd.DataFrame  # a row a fact: `fact, record, here`
    kind: str  # of drift to be expected, a name in BOUNDS
    reseeded: bool  # the seeds differ
    findings: pd.DataFrame  # a row a finding: `name, statement, record, verdict, here, verdict_here, differs`
    tables: pd.DataFrame  # a row a folder and table: `folder, table, differs` and the columns of `rows_drift`


def compare(record: Path, run: Path, image_record: Path | None = None, image_run: Path | None = None) -> Comparison:
    """Two results folders of one model, and of its image-only base. StudyError, in one line, if they cannot be
    compared."""
    pairs = [(record.with_name(at.name), at) for at in sorted(run.parent.glob(run.name.replace("-center", "-*")))]
    pairs += [(image_record, image_run)] if image_record and image_run else []
    pairs = [(old, new) for old, new in pairs if (new / "baseline.parquet").exists()]
    for old, new in pairs:
        check_pair(old, new)
    sides = [read_table(at, "baseline") for at in (record, run)]
    samples = set(sides[0]["sample_id"]) & set(sides[1]["sample_id"])
    facts = facts_of(record, run, samples)
    kind, reseeded = kind_of(facts)
    bound = BOUNDS[kind]
    old, new = (
        {claim.name: claim for claim in stored_claims(at, image, samples=samples)}
        for at, image in ((record, image_record if image_run else None), (run, image_run if image_record else None))
    )
    rows = []
    for name in dict.fromkeys([*old, *new]):
        was, now = old.get(name), new.get(name)
        row = {
            "name": name,
            "statement": (was or now).statement,
            "differs": disagreement(was, now, bound, reseeded=reseeded),
        }
        row |= {"record": was.brief if was else "–", "verdict": was.verdict if was else "–"}
        rows.append(row | {"here": now.brief if now else "–", "verdict_here": now.verdict if now else "–"})
    return Comparison(len(samples), facts, kind, reseeded, pd.DataFrame(rows), _tables(pairs, samples, bound, reseeded))


def _tables(pairs: list[tuple[Path, Path]], samples: set[str], bound: dict, reseeded: bool) -> pd.DataFrame:
    """The drift of each table that either side has."""
    rows = []
    for old, new in pairs:
        for table in TABLES:
            was, now = (
                frame[frame["sample_id"].isin(samples)] for frame in (read_table(at, table) for at in (old, new))
            )
            if len(now) or len(was):
                drift = rows_drift(was, now, bound["fence"])
                drawn = reseeded and bool(SEEDED & set(now))
                wrong = "" if drawn or not (len(was) and len(now)) else too_far(drift, bound)
                rows.append({"folder": f"{new.parent.name}/{new.name}", "table": table, "differs": wrong} | drift)
    return pd.DataFrame(rows)


def check_pair(record: Path, run: Path) -> None:
    """StudyError if the results in `record` cannot be compared with those in `run`, with the reason."""
    where, old, new = f"{record.parent.name}/{record.name}", read_manifest(record), read_manifest(run)
    for table in ("manifest.json", "baseline.parquet"):
        if not (record / table).exists():
            raise StudyError(f"the record of {where} cannot be compared: it has no {table}")
    for table in TABLES:
        if lacks := ", ".join(lacking_columns(record, table)):
            raise StudyError(f"the record of {where} is older than the code: its {table}.parquet lacks {lacks}")
    was, now = (manifest.get("settings", {}) for manifest in (old, new))
    for name in SAME:
        if was.get(name) != now.get(name):
            values = f"{name} is {was.get(name)} in the record, {now.get(name)} here"
            raise StudyError(f"{where} cannot be compared with the record, it has other settings: {values}")
    sides = [read_table(at, "baseline")[["sample_id", "sample_sha256"]] for at in (record, run)]
    both = sides[0].merge(sides[1], on="sample_id")
    if both.empty:
        raise StudyError(f"{where} cannot be compared with the record: no question is in both")
    if other := both.loc[both["sample_sha256_x"] != both["sample_sha256_y"], "sample_id"].tolist():
        said = f"{len(other)} questions or clips are not the same, {other[0]} for one"
        raise StudyError(f"{where} cannot be compared with the record: {said}")


def kind_of(facts: pd.DataFrame) -> tuple[str, bool]:
    """Which drift the differences between two sides make expected (a name in BOUNDS), and whether their seeds differ.
    What one side did not record counts as different. A GPU in float32 rounds as another processor does: of `smol`, an
    H100 and a CPU were 2e-5 in probability and 1e-4 logits apart at most."""
    unsure = (facts["record"] == UNKNOWN) & facts["fact"].isin(["processor", "threads"])
    differ = set(facts.loc[(facts["record"] != facts["here"]) | unsure, "fact"])
    formats = facts.loc[facts["fact"] == "dtype", ["record", "here"]].to_numpy().ravel().tolist()
    rough = "dtype" in differ or "device" in differ and formats != WHOLE
    kind = "precision" if rough else "rounding" if differ - {"questions", "seed"} else "nothing"
    return kind, "seed" in differ


def facts_of(record: Path, run: Path, samples: set[str]) -> pd.DataFrame:
    """What both sides say about themselves, a row each: `fact, record, here`."""
    sides: list[dict[str, Any]] = []
    for at in (record, run):
        manifest, baseline = read_manifest(at), read_table(at, "baseline")
        about = {name: manifest.get(name) for name in ("model", "revision", "device", "processor", "threads", "dtype")}
        about |= manifest.get("packages", {}) | manifest.get("settings", {}) | {"commit": manifest.get("commit")}
        shared = baseline[baseline["sample_id"].isin(samples)].sort_values("sample_id")["frames_sha256"]
        frames = sha256("".join(map(str, shared)).encode()).hexdigest()[:16]
        sides.append(about | {"questions": len(baseline), "frames of the shared clips": frames})
    names = dict.fromkeys([*sides[0], *sides[1]])
    said = [[UNKNOWN if side.get(n) is None else str(side[n]) for side in sides] for n in names]
    return pd.DataFrame(said, columns=["record", "here"]).assign(fact=list(names))
