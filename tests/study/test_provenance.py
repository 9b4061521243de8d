"""A manifest says what the rows depend on; other settings and other weights are refused by name."""

import json
import shutil

import pytest
from conftest import GOLDEN
from sweeps import files, sweep

from analysis_lib.errors import StudyError


def test_manifest_says_what_the_rows_depend_on(full):
    manifest = json.loads((full.dir / "manifest.json").read_text())
    assert manifest["settings"] | {"window": 3, "dtype": "float32"} == manifest["settings"]
    assert manifest["samples"]["object_count"] == {"measured": 2, "correct": 0, "skipped": 0}
    receipt = manifest["receipts"]["knockout"]
    assert receipt["max_blocked_weight"] == 0 and receipt["fired"] == receipt["expected"] > 0
    assert {"model", "revision", "weights_sha256", "benchmark_sha256", "packages", "device", "commit"} <= set(manifest)
    assert manifest["processor"] and manifest["threads"] >= 1
    assert not {"time", "seconds", "duration"} & set(manifest)


def test_receipts_of_a_run_read_like_those_of_a_redraw(full):
    stored = json.loads((full.dir / "manifest.json").read_text())
    assert json.dumps(full.manifest["receipts"]) == json.dumps(stored["receipts"])  # order counts: tables are shown


OTHER = {
    "window = 3": {"window": 5},
    "style = center": {"style": "inverse"},
    "seed = 0": {"seed": 1},
    "dtype = float32": {"dtype": "bfloat16", "measure": "controls"},
}


@pytest.mark.parametrize("setting", OTHER)
def test_other_settings_are_refused_by_name(root, copy, full, setting):
    with pytest.raises(StudyError, match=f"holds results with {setting}, this run asks for .*--out"):
        sweep(root, copy, **OTHER[setting])
    assert files(copy) == files(full.dir)


def test_other_weights_are_refused_before_they_are_loaded(root, copy, tmp_path, no_model):
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(GOLDEN, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(StudyError, match="weights_sha256"):
        sweep(root, copy, model=str(other))
