"""What a reproduction ends with: does it agree with the record? On the terminal in a screen, and as a page.

The comparison is made by `findings.record`; what "agree" means stands in `findings.drift`. A model without a record is
held against the paper's published numbers instead. The page, OUT/report.md, says all that the terminal says, with the
statements in full, every table of every folder, and all versions and settings of both sides."""

from pathlib import Path

import pandas as pd

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.findings.drift import BOUNDS, FAR
from analysis_lib.findings.published import beside_paper
from analysis_lib.findings.record import Comparison, compare
from analysis_lib.findings.stored import stored_claims, stored_folders

DISAGREES = 3  # the exit code
PAGE = "report.md"
EXPECTED = {  # the drift that the README names, by what differs (`drift.BOUNDS`)
    "nothing": "nothing differs but the questions asked, so no row may move at all",
    "rounding": "another processor, a GPU, another number of threads, commit or package: rounding moves",
    "precision": "another number format, or a GPU in a short one: probabilities move in the second or third digit",
}
NUMBERS = ["probability", "margin", "change"]


def report(model: str, image_model: str, benchmark: str, window: str, out: str) -> int:
    """Compare the run below `out` with the record, print that, and write the page. Returns 0 if all agrees or there is
    no record, else DISAGREES. Raises StudyError if there is a record that cannot be compared."""
    folders, names = (
        stored_folders(benchmark, window=window, out=out),
        [Path(name).name for name in (model, image_model)],
    )
    if names[0] not in folders:
        raise StudyError(f"{out} holds no results of {names[0]} to report on")
    run, image = folders[names[0]], folders.get(names[1])
    record = paths.RESULTS / names[0] / run.name
    code, last, head = 0, "there is no record to agree with", f"# {names[0]} on {benchmark}"
    if record.exists():
        try:
            based = image and (paths.RESULTS / names[1] / image.name)  # without a record, the base is not compared
            found = compare(record, run, *((based, image) if based and based.exists() else ()))
        except StudyError as error:
            raise StudyError(f"{error}; the run is kept in {out}") from None
        short, long, last = _short(found), _long(found), _last_line(found)
        code = DISAGREES if _misses(found) else 0
        asked = found.facts.set_index("fact").loc["questions", "record"]
        head += f": the record beside this run, on {found.samples} of its {asked} questions"
    else:
        short = long = _without_record(run, image)
        head += f": this run; {paths.RESULTS.relative_to(paths.ROOT)} holds no record of {run.parent.name}/{run.name}"
    page = Path(out) / PAGE
    text = "\n\n".join(part if isinstance(part, str) else _markdown(part) for part in [head, *long, f"**{last}**"])
    paths.write_atomic(page, f"{text}\n".encode())
    shown = [part if isinstance(part, str) else part.to_string(index=False) for part in short]
    print("\n" + "\n\n".join([head.removeprefix("# "), *shown, f"all of it: {page}\n{last}"]), flush=True)
    return code


Part = str | pd.DataFrame  # of a report: a paragraph or a table


def _misses(found: Comparison) -> list[str]:
    """Every finding and table that does not agree, with the reason. What the record lacks is not counted."""
    wrong = found.findings[(found.findings["differs"] != "") & (found.findings["record"] != "–")]
    said = [f"{name}: {why}" for name, why in zip(wrong["name"], wrong["differs"], strict=True)]
    wrong = found.tables[found.tables["differs"] != ""]
    return said + [f"{row.folder}, {row.table}: {row.differs}" for row in wrong.itertuples()]


def _last_line(found: Comparison) -> str:
    own, wrong = found.findings[found.findings["record"] != "–"], _misses(found)
    line = f"{(own['differs'] == '').sum()} of {len(own)} findings agree with the record"
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        line += f"; not {'; not '.join(wrong[:3])}{more}. What differs: {_expected(found)}"
    return line


def _expected(found: Comparison) -> str:
    seed = (
        "; another seed: random edges, shuffled frames and halves of the videos are drawn anew, so rows of these are "
    )
    return EXPECTED[found.kind] + (
        f"{seed}not compared, and their effects may move within the interval" * found.reseeded
    )


def _short(found: Comparison) -> list[Part]:
    """For a terminal."""
    table = found.findings.assign(agrees=(found.findings["differs"] == "").map({True: "yes", False: "NO"}))
    table.loc[table["record"] == "–", "agrees"] = "no record"
    both = table["verdict"] + ", here " + table["verdict_here"]
    table["verdict"] = table["verdict"].where(table["verdict"] == table["verdict_here"], both)
    rows = found.tables.groupby("table", sort=False).agg(
        {"rows": "sum", "alone": "sum", **{f"{n}{p}": "max" for n in NUMBERS for p in ("_99", "")}, "answers": "sum"}
    )
    facts = found.facts[found.facts["record"] != found.facts["here"]]
    differ = [f"  {row.fact}: {row.record} | {row.here}" for row in facts.itertuples()]
    return [
        table[["name", "record", "here", "verdict", "agrees"]].rename(columns={"name": "finding"}),
        _drift(rows.reset_index()),
        "\n".join(["differs, record | here:" if differ else "no version, setting or machine differs", *differ]),
        f"expected: {_expected(found)}",
    ]  # fmt: skip


def _long(found: Comparison) -> list[Part]:
    """For the page."""
    table = found.findings.assign(agrees=found.findings["differs"].replace("", "yes"))
    columns = ["statement", "record", "verdict", "here", "verdict_here", "agrees"]
    bound = ", ".join(f"{name} {BOUNDS[found.kind][name]:g}" for name in NUMBERS)
    marked = (found.facts["record"] != found.facts["here"]).map({True: "differs", False: ""})
    tables = found.tables.assign(table=found.tables["folder"] + ", " + found.tables["table"])
    return [
        "## Findings", table[columns].rename(columns={"verdict_here": "verdict here"}),
        "## Rows", "How far rows with the same keys lie apart: 99 % of them, and the furthest. Margins are in logits, "
        "changes in %. An answer that changed without having been on the fence is *firm*.", _drift(tables),
        "## Versions, machine and settings", found.facts[["fact", "record", "here"]].assign(**{"": marked}),
        f"Expected: {_expected(found)}. 99 % of the rows stay within {bound}, all within {FAR} times that; an effect "
        f"and its interval move by {100 * BOUNDS[found.kind]['effect']:g} % of half of the interval at most.",
    ]  # fmt: skip


def _drift(tables: pd.DataFrame) -> pd.DataFrame:
    """Rows of drift, for a reader."""
    shown = tables.rename(columns={"alone": "one side"} | {name: f"{name}, all" for name in NUMBERS})
    shown = shown.rename(columns={f"{name}_99": f"{name}, 99 %" for name in NUMBERS})
    numbers = [f"{name}, {share}" for name in NUMBERS for share in ("99 %", "all")]
    shown[numbers] = shown[numbers].map("{:.2g}".format)
    return shown[["table", "rows", "one side", *numbers, "answers", *(["firm"] if "firm" in shown else [])]]


def _without_record(run: Path, image: Path | None) -> list[Part]:
    """A run that nothing was published of here: its findings, beside the paper's numbers."""
    found = {claim.name: claim for claim in stored_claims(run, image)}
    own = pd.DataFrame(
        [(c.statement, c.brief, c.verdict) for c in found.values()], columns=["finding", "here", "verdict"]
    )
    beside = beside_paper(run, found)
    note = "Beside the numbers that the paper (arXiv 2510.13251) prints for its models:"
    return [own, note, beside] if len(beside) else [own, "The run measured nothing that the paper prints numbers of."]


def _markdown(table: pd.DataFrame) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.astype(str).itertuples(index=False)]
    return "\n".join(f"| {' | '.join(map(str, line))} |".replace("->", "→") for line in lines)
