"""The stored tables: their columns, their types, and how they become files.

One row of `baseline` is a sample as the untouched model answers it; one row of `knockout` is a sample under one edge
set and window; `widths`, `pairs` and `heads` hold knockouts with windows of several sizes, of pairs of frames, and in
single heads, `response` knockouts on an open-ended answer; the others follow. Types are fixed, so the same rows give
the same bytes. Readers (figures, claims, notebooks) need only this module.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis_lib.errors import StudyError

SAMPLE = {"task": str, "sample_id": str}
EFFECT = {  # what a knockout does to the answer
    "p_base": float, "p_knock": float, "relative_change": float, "margin_base": float, "margin_knock": float,
    "p_answer": float, "prediction": str, "correct": bool,
}  # fmt: skip
# Types of all columns; the first KEYS[table] identify a row. Layers are 1-based, probabilities 0..1, changes percent.
SCHEMAS: dict[str, dict[str, Any]] = {
    "baseline": SAMPLE | {
        "video": str, "question": str, "options": list[str], "answer": str, "answer_text": str, "n_tokens": int,
        "n_frames": int, "frame_indices": list[int], "prediction": str, "correct": bool, "p_base": float,
        "p_answer": float, "margin_base": float, "p_options": list[float], "frames_sha256": str, "sample_sha256": str,
    },
    "knockout": SAMPLE | {
        "edge_set": str, "layer": int, "first_layer": int, "last_layer": int, "video": str, **EFFECT,
    },
    "emergence": SAMPLE | {
        "layer": int, "option": str, "video": str, "is_answer": bool, "probability": float, "normed": bool,
    },
    "lens": SAMPLE | {"layer": int, "keyword": str, "kind": str, "video": str, "count": int},
    "pathway": SAMPLE | {
        "pathway": str, "ranges": str, "video": str, "edges_kept": int, "edges_total": int, "flops_kept": float,
        "p_base": float, "p_pruned": float, "margin_base": float, "margin_pruned": float, "prediction_base": str,
        "prediction": str, "correct": bool,
    },
    "widths": SAMPLE | {
        "edge_set": str, "window": int, "layer": int, "first_layer": int, "last_layer": int, "video": str, **EFFECT,
    },
    "pairs": SAMPLE | {
        "edge_set": str, "query_frame": int, "key_frame": int, "distance": int, "first_layer": int, "last_layer": int,
        "video": str, **EFFECT,
    },
    "heads": SAMPLE | {"edge_set": str, "layer": int, "head": int, "video": str, **EFFECT},
    "response": SAMPLE | {
        "anchor": int, "edge_set": str, "layer": int, "word": str, "first_layer": int, "last_layer": int, "video": str,
        **EFFECT,
    },
    "controls": SAMPLE | {
        "control": str, "video": str, "p_answer": float, "margin": float, "prediction": str, "correct": bool,
    },
    "skipped": SAMPLE | {"video": str, "reason": str, "sample_sha256": str},
    "receipts": SAMPLE | {"measure": str, "receipt": str},
}  # fmt: skip
KEYS = {
    "baseline": 2, "knockout": 4, "emergence": 4, "lens": 5, "pathway": 4, "widths": 5, "pairs": 3, "heads": 5,
    "response": 5, "controls": 3, "skipped": 2, "receipts": 3,
}  # fmt: skip
ARROW = {
    str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(),
    list[str]: pa.list_(pa.string()), list[int]: pa.list_(pa.int64()), list[float]: pa.list_(pa.float64()),
}  # fmt: skip


def keys(table: str) -> list[str]:
    """The columns that identify a row."""
    return list(SCHEMAS[table])[: KEYS[table]]


def _schema(table: str) -> pa.Schema:
    return pa.schema([(name, ARROW[kind]) for name, kind in SCHEMAS[table].items()])


def to_bytes(table: str, frame: pd.DataFrame) -> bytes:
    """The parquet file of a table; the same rows always give the same bytes."""
    arrow = pa.Table.from_pandas(frame, schema=_schema(table), preserve_index=False).replace_schema_metadata(None)
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, compression="zstd")
    return buffer.getvalue()


def to_frame(table: str, rows: list[dict]) -> pd.DataFrame:
    """Rows as a frame with the table's columns and types."""
    return pa.Table.from_pylist(rows, schema=_schema(table)).to_pandas()


def read_table(folder: Path, table: str) -> pd.DataFrame:
    """One stored table; without its file an empty frame with its columns. Raises StudyError for a damaged file."""
    file = Path(folder) / f"{table}.parquet"
    if not file.exists():
        return to_frame(table, [])
    try:
        return pq.read_table(file, schema=_schema(table)).to_pandas()
    except (OSError, pa.ArrowException) as error:
        hint = "delete it to measure it again, or use another --out"
        raise StudyError(f"{file} cannot be read ({error}); {hint}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The stored manifest; {} if there is none."""
    file = Path(folder) / "manifest.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        hint = "use another --out, or delete the folder to start again"
        raise StudyError(f"{file} cannot be read ({error}); {hint}") from error
