"""Annotation files as Python values: JSON, JSON lines, CSV and parquet, chosen by the file's ending.

Strict where a reader's defaults hide mistakes: of two equal keys a plain dict would keep one, a row of a table may be
longer than its header, and a pipe in the place of a file would block for ever."""

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

from analysis_lib.errors import StudyError


def load(file: Path, fix: str) -> Any:
    """What a file holds; `fix` says what to do about one of no use (StudyError)."""
    try:
        return _parse(file)
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors and OSErrors
        kind = "parquet" if file.suffix == ".parquet" else file.suffix.lstrip(".").upper()
        raise StudyError(f"{file} cannot be read as {kind} ({error}); {fix}") from error


def _parse(file: Path) -> Any:
    if not file.is_file():
        raise OSError("not a file")
    if file.suffix == ".parquet":
        import pyarrow.parquet  # heavy

        return pyarrow.parquet.read_table(file).to_pylist()
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix == ".csv":
        return [_csv_item(row) for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)]
    if file.suffix == ".jsonl":
        return [json.loads(line, object_pairs_hook=_unique) for line in text.split("\n") if line.strip()]
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without two equal keys."""
    if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {twice[0]!r} is there twice")
    return dict(pairs)


def _csv_item(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its empty cells; options are a JSON list, or texts with | between."""
    if None in row:
        raise ValueError(f"a row has more cells than the header: {row[None]}")
    item = {key.strip(): cell.strip() for key, cell in row.items() if cell and cell.strip()}
    options = item.get("options", "")
    split = json.loads(options) if options.startswith("[") else [part.strip() for part in options.split("|")]
    return item | ({"options": split} if options else {})
