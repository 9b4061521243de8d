"""Made-up results of any number of questions, stored through the very calls of a sweep's driver.

No model answered them: numbers are random, along curves that look like those of a study, so that every finding and
figure has something to compute. A sample has 352 knockouts (eleven edge sets, 32 layers), what a logit lens sees in
each layer, and controls; the samples that a seed draws first also have knockouts of single heads."""

import io
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from analysis_lib.instrument.edges import EDGE_SETS, windows
from analysis_lib.paths import write_atomic
from analysis_lib.study import examples, provenance
from analysis_lib.study.parts import SAMPLE, to_file
from analysis_lib.study.request import Request, check_request
from analysis_lib.study.store import Store
from analysis_lib.study.tables import TABLES, TYPES

TASKS, LAYERS, HEADS, WINDOW = 20, 32, 2, 9
MODEL, DIR = "made/up", Path("results") / "up" / f"embedded-k{WINDOW}-center"
FACTS = {"model": MODEL, "benchmark": "embedded", "commit": "", "revision": "", "weights_sha256": "", "device": "",
         "dtype": "", "packages": {}}  # fmt: skip
RECEIPT = '{"conditions": 352, "expected": 120, "fired": 120, "kernel_difference": %.17g, "measured": 11}'
WORDS = {"box": "spatial", "floor": "spatial", "open": "temporal", "take": "temporal"}
CUTS = [(name, window) for name in EDGE_SETS for window in windows(LAYERS, WINDOW)]
INTO_LAST = [name for name in EDGE_SETS if name.endswith("->last")]
DEPTH = np.arange(1, LAYERS + 1) / LAYERS


def request(**more: object) -> Request:
    """What the rows answer."""
    return check_request(**{"model": MODEL, "window": WINDOW, "measure": "knockout", "keep": "all"} | more)


def sample_ids(count: int) -> list[str]:
    """The samples, the tasks in turn."""
    return [f"task_{i % TASKS:02d}/{i // TASKS:04d}" for i in range(count)]


def drawn_first(count: int) -> set[str]:
    """Of each task the sample that is drawn first from the first `count`, and those that would be from fewer."""
    best, found = {}, set()
    for name in sample_ids(count):
        task, place = name.partition("/")[0], request().rank(name)
        if place < best.get(task, b"\xff" * len(place)):
            best[task] = place
            found.add(name)
    return found


def sample_file(sample_id: str, *, heads: bool = False) -> bytes:
    """The file of one finished sample; `heads`: with knockouts of single heads."""
    task, _, index = sample_id.rpartition("/")
    rng = np.random.default_rng([*sample_id.encode()])
    p_base, margin = rng.random(2).tolist()
    base = {"task": task, "sample_id": sample_id, "video": f"{task}/video_{int(index) // 2:05d}.mp4"}
    base |= {"p_base": p_base, "margin_base": margin, "correct": True, "prediction": "A", "normed": True}
    asked = {"question": f"What happens in the video number {index}?", "options": ["it grows", "it jumps"]}
    asked |= {"answer": "A", "answer_text": "it grows", "n_tokens": 1300, "n_frames": 8, "frame_indices": [*range(8)]}
    asked |= {"p_answer": p_base, "p_options": [p_base, 1 - p_base], "frames_sha256": "f" * 16, "sample_sha256": "s"}
    receipt = base | {"measure": f"knockout {','.join(EDGE_SETS)}", "receipt": RECEIPT % (p_base * 1e-6)}
    base |= {"answer": "A"}
    found = {"baseline": _list("baseline", 1, base | asked), "receipts": _list("receipts", 1, receipt)}
    for table, places in _places().items():
        if heads or table != "heads":
            count = len(next(iter(places.values())))
            found[table] = _list(table, count, base | places | _numbers(table, count, base, rng))
    columns = [found.get(field.name, pa.array([None], field.type)).cast(field.type) for field in SAMPLE]
    return to_file(pa.table(columns, SAMPLE))


def _numbers(table: str, count: int, base: dict[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What was measured in each of `count` rows of a table."""
    noise = rng.random(count)
    if table in ("knockout", "heads"):
        lost = _lost(table) * noise
        numbers = {"p_knock": base["p_base"] * (1 - lost), "p_answer": base["p_base"] * (1 - lost)}
        return numbers | {"relative_change": -100 * lost, "margin_knock": base["margin_base"] * (1 - 2 * lost)}
    if table == "emergence":
        rise = np.repeat(1 / (1 + np.exp(-20 * (DEPTH - 0.8))), 2)
        return {"probability": base["p_base"] * rise * (1 + noise) / 2}
    if table == "lens":
        return {"count": (4 * noise).astype(np.int64)}
    return {"p_answer": noise, "margin": noise, "correct": noise < 0.5}


@cache
def _lost(table: str) -> np.ndarray:
    """The largest share of the probability that a cut takes: each edge set has its place in the depth."""
    if table == "heads":
        return np.full(len(INTO_LAST) * LAYERS * HEADS, 0.01)
    centres = (1 + np.arange(len(EDGE_SETS))[:, None]) / (1 + len(EDGE_SETS))
    return 0.6 * np.exp(-(((DEPTH - centres) / 0.15) ** 2)).ravel()


@cache
def _places() -> dict[str, dict[str, pa.Array]]:
    """The columns that say what a row is about, by table; they are the same in every sample."""
    layers = [*range(1, LAYERS + 1)]
    cuts = {"edge_set": [name for name, _ in CUTS], "layer": [window.layer for _, window in CUTS]}
    cuts |= {f"{end}_layer": [getattr(window, end) for _, window in CUTS] for end in ("first", "last")}
    heads = [(name, layer, head) for name in INTO_LAST for layer in layers for head in range(1, HEADS + 1)]
    options = [(layer, option, option == "A") for layer in layers for option in "AB"]
    words = [(layer, word, kind) for layer in layers for word, kind in WORDS.items()]
    places = {
        "knockout": cuts,
        "heads": dict(zip(("edge_set", "layer", "head"), zip(*heads, strict=True), strict=True)),
        "emergence": dict(zip(("layer", "option", "is_answer"), zip(*options, strict=True), strict=True)),
        "lens": dict(zip(("layer", "keyword", "kind"), zip(*words, strict=True), strict=True)),
        "controls": {"control": ["text only", "single frame", "shuffled frames"]},
    }  # fmt: skip
    return {of: {name: pa.array(c, TYPES[name]) for name, c in columns.items()} for of, columns in places.items()}


def _list(table: str, count: int, values: dict[str, Any]) -> pa.ListArray:
    """Rows of one sample; a value that is no array stands in all of them."""
    names, columns = [name for name in TABLES[table].split() if name != "|"], []
    for name in names:
        value = values.get(name)
        many = isinstance(value, np.ndarray | pa.Array)
        columns.append(pa.array(value, TYPES[name]) if many else pa.array([value] * count, TYPES[name]))
    return pa.ListArray.from_arrays([0, count], pa.StructArray.from_arrays(columns, names))


def fill(folder: Path, first: int, last: int) -> dict[str, float]:
    """Add the samples from number `first` to `last`; the seconds of the store alone, and of making the files."""
    spent, pictured = {"making": 0.0, "storing": 0.0}, drawn_first(last)
    with Store(folder) as store:
        store.begin(request().fixed(), FACTS)
        for name in sorted(sample_ids(last)[first:]):  # task by task, as a sweep goes
            begin = time.perf_counter()
            part = sample_file(name, heads=name in pictured)
            spent["making"] += time.perf_counter() - begin
            begin = time.perf_counter()
            store.add(name, part)
            spent["storing"] += time.perf_counter() - begin
        begin = time.perf_counter()
        store.finish(provenance.summary, tables=["knockout"])
        spent["storing"] += time.perf_counter() - begin
    _for_notebooks(folder, sample_ids(1)[0])
    return spent


def _for_notebooks(folder: Path, name: str) -> None:
    """What notebooks show beside tables: checks of the instrument, and one sample for pictures."""
    write_atomic(folder / "self_test.csv", b"check,value,wanted,passed\nmade up,0,0,True\n")
    question = {"task": name.partition("/")[0], "sample_id": name, "question": "What happens?", "kinds": WORDS}
    about = question | {"options": ["it grows"], "answer": "A", "prediction": "A", "tokens": ["What", " happens", "?"]}
    frames, maps = np.full((4, 28, 28, 3), 128, np.uint8), np.full((LAYERS, 3, 4, 2, 2), 0.01, np.float16)
    words, buffer = np.full((LAYERS, 4, 2, 2), "box"), io.BytesIO()
    np.savez_compressed(
        buffer, about=np.array(json.dumps(about)), frames=frames, words=words, attention=maps, attention_cut=maps
    )
    write_atomic(examples.file_of(folder, name), buffer.getvalue())
