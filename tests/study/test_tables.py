"""Stored tables have the columns that other tools rely on, and keep values exactly."""

import pandas as pd
import pytest

from analysis_lib import paths
from analysis_lib.study.parts import united
from analysis_lib.study.tables import SCHEMAS, keys, read_files, read_table, to_bytes

COMMITTED = sorted(file for file in paths.RESULTS.rglob("*.parquet") if file.is_file())

CONTRACT = {
    "baseline": "task sample_id video question options answer n_tokens n_frames frame_indices prediction correct "
    "p_base margin_base p_options",
    "knockout": "task sample_id edge_set layer first_layer last_layer p_base p_knock relative_change margin_base "
    "margin_knock prediction",
    "emergence": "task sample_id layer option is_answer probability normed",
    "lens": "task sample_id layer keyword kind count",
    "pathway": "task sample_id pathway edges_kept edges_total flops_kept p_base p_pruned prediction_base prediction",
}


@pytest.mark.parametrize("table", CONTRACT)
def test_columns_of_the_contract(full, table):
    stored = pd.read_parquet(full.dir / f"{table}.parquet")
    assert set(CONTRACT[table].split()) <= set(stored) and len(stored)


def test_keys_lead_every_schema():
    assert all(list(schema)[: len(keys(table))] == keys(table) for table, schema in SCHEMAS.items())
    assert keys("lens") == ["task", "sample_id", "layer", "keyword", "kind"]


def test_missing_table_reads_as_an_empty_frame_with_its_columns(tmp_path):
    found = read_table(tmp_path, "lens")
    assert isinstance(found, pd.DataFrame) and found.empty and list(found) == list(SCHEMAS["lens"])


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: "/".join(file.parts[-3:]))
def test_committed_tables_would_be_written_again_byte_for_byte(file):
    table = (file.parent if file.parent.suffix == ".parquet" else file).stem  # a part lies in its table's folder
    rows = read_files(table, [file])
    assert to_bytes(table, united(table, rows, rows)) == file.read_bytes()
