"""The explorer's page as a reader uses it: its controls are moved, and what it then shows is compared with the tables.

The comparison starts from the stored tables, not from the explorer's data: curve, interval and p by
`findings.stats.change_table` on the rows of the edge set shown, single questions from their rows."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from analysis_lib.findings import stats
from analysis_lib.reports.site import explorer
from analysis_lib.study import examples

CHOICES = ("set", "task", "edge", "window", "metric", "layer", "example", "look", "depth")
SHOWN = """() => ({
    chosen: Object.fromEntries(%s.map(id => [id, document.getElementById(id).value])),
    table: [...document.querySelectorAll('#numbers tr')].slice(1).map(row => [...row.cells].map(c => c.textContent)),
    count: document.getElementById('count').textContent,
    moved: [...document.querySelectorAll('#moved article')].map(card => card.textContent),
    frames: [...document.querySelectorAll('#frames figcaption')].map(caption => caption.textContent),
    mean: [...Bokeh.documents.at(-1).roots()[0].renderers.find(r => r.name === 'mean').data_source.data.y],
})"""
DRAWN = """() => {
    const { drawn, asked } = document.getElementById('explorer')?.dataset ?? { drawn: 1, asked: 1 };
    return drawn && drawn === asked;
}"""
Page = Any


def wait(page: Page) -> None:
    """Until the explorer has drawn what was asked for last; at once on any other page."""
    page.wait_for_function(DRAWN)


def shown(page: Page) -> dict:
    """What the page shows: the choices, the curve as table and as drawn, n, the questions, the attention to frames."""
    wait(page)
    return page.evaluate(SHOWN % list(CHOICES))


def number(text: str) -> float:
    """A number as the page writes it; NaN for none."""
    return float(text.replace("−", "-") or "nan")


def wrong_curve(now: dict, rows, baseline) -> Iterator[str]:
    """How the curve differs from that of the stored rows."""
    chosen = now["chosen"]
    table = stats.change_table(rows[rows["edge_set"] == chosen["edge"]], baseline, ["layer"], chosen["metric"])
    table = table[table["task"] == chosen["task"]].sort_values("layer")
    page = np.array([[number(text) for text in (line[0], *line[2:])] for line in now["table"]])
    stored = table[["layer", "mean", "low", "high", "p"]].to_numpy(float)
    if page.shape != stored.shape or not np.allclose(page, stored, rtol=0, atol=0.0051, equal_nan=True):
        yield "the table of numbers is not that of the stored rows"
    if not np.allclose(now["mean"], table["mean"], rtol=0, atol=1e-4):
        yield "the curve drawn is not that of the stored rows"
    n, videos = (int(table[name].max()) for name in ("n_samples", "n_videos"))
    if now["count"] != f"n = {n} questions from {videos} videos":
        yield f"{now['count']!r} instead of {n} questions from {videos} videos"


def wrong_questions(now: dict, rows) -> Iterator[str]:
    """How the questions listed differ from the stored rows."""
    chosen = now["chosen"]
    here = rows[(rows["edge_set"] == chosen["edge"]) & (rows["layer"] == int(chosen["layer"]))]
    here = here if chosen["task"] == stats.MEAN_OF_TASKS else here[here["task"] == chosen["task"]]
    here, cards = here.set_index("sample_id"), now["moved"]
    least = here[chosen["metric"]].abs().nlargest(5).min()
    if len(cards) != min(5, len(here)):
        yield f"{len(cards)} questions are listed"
    for text in cards:
        row = here.loc[re.search(r", (\S+)\. Change", text)[1]]
        said = [float(share) for share in re.search(r"([\d.]+) % before, ([\d.]+) % after", text).groups()]
        if not np.allclose(said, [100 * row["p_base"], 100 * row["p_knock"]], rtol=0, atol=0.0101):
            yield f"{row.name}: {said} are not the stored probabilities"
        if abs(row[chosen["metric"]]) < least - 0.05:
            yield f"{row.name} did not move most"


def wrong_attention(now: dict, folder: Path) -> Iterator[str]:
    """How the attention to each frame differs from that of the stored example."""
    chosen = now["chosen"]
    example = examples.read(folder / "examples" / f"{Path(chosen['example']).name}.npz")
    maps = [array[int(chosen["depth"]) - 1] for array in example.maps(chosen["look"]).values()]  # (T, h, w) each
    said = [number(text.split(": ")[1].removesuffix(" %")) for text in now["frames"]]
    step = 100 * max(array.max() for array in example.maps(chosen["look"]).values()) / 255 * maps[0][0].size / 2
    if not np.allclose(said, 100 * np.concatenate([a.sum((1, 2)) for a in maps]), rtol=0, atol=step + 0.06):
        yield f"attention of {chosen['look']!r} is not the stored one"


def others(page: Page, name: str) -> list[str]:
    """What a control offers and is not chosen."""
    return page.evaluate(f"[...document.getElementById('{name}').options].filter(o => !o.selected).map(o => o.value)")


def moves(page: Page) -> Iterator[str]:
    """Move the controls one after the other, for every set; yields what was done, each time another choice."""

    def put(name: str, values: list[str]) -> Iterator[str]:
        for value in values:
            page.select_option(f"#{name}", value)
            yield f"{value or name} is chosen"

    def press(name: str, key: str) -> str:
        page.focus(f"#{name}")
        page.keyboard.press(key)
        return f"{key} is pressed on {name}"

    for key in ("", *others(page, "set")):
        yield from put("set", [key] if key else [])
        for name in ("edge", "task", "metric"):
            yield from put(name, others(page, name)[-2:])
        for edge in others(page, "edge")[:2]:
            yield from put("edge", [edge])
            yield from put("window", others(page, "window"))
        yield from (
            press(name, key) for name, key in (("layer", "ArrowLeft"), ("metric", "ArrowUp"), ("task", "ArrowUp"))
        )
        page.locator("#curve").click(position={"x": 150, "y": 150})
        page.wait_for_timeout(500)  # a tap could become a double tap
        yield "the curve is clicked"
        for look in others(page, "look")[:2]:
            yield from put("look", [look])
            yield press("depth", "ArrowRight")


def explore(page: Page, file: Path) -> Iterator[str]:
    """Everything in which the explorer's page differs from the stored tables, or does not move with its controls."""
    page.goto(file.as_uri())
    sets, before, stored = explorer.stored_sets(), shown(page), {}
    for done in moves(page):
        now = shown(page)
        if now == before:
            yield f"explorer: nothing changes when {done}"
        key = now["chosen"]["set"]
        stored[key] = stored.get(key) or {name: (rows, base) for name, _, rows, base in explorer.tables(sets[key])}
        rows, baseline = stored[key][now["chosen"]["window"]]
        wrong = [*wrong_curve(now, rows, baseline), *wrong_questions(now, rows)]
        wrong += wrong_attention(now, sets[key][0]) if now["chosen"]["look"] else []
        yield from (f"explorer, {done} {now['chosen']}: {what}" for what in wrong)
        before = now
