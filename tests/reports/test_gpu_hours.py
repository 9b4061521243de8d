"""GPU hours: operations counted without weights are those of a model with weights, and the document states what is
stored."""

import pandas as pd
import pytest

from analysis_lib import paths
from analysis_lib.instrument.checks import load_model
from analysis_lib.reports import bench, gpu_hours
from analysis_lib.reports.profiles import costs


def test_operations_are_those_of_a_model_with_weights(tiny_vlm):
    words = tiny_vlm.hf.get_input_embeddings().num_embeddings
    found = gpu_hours.counted(tiny_vlm, "small", (64, 2, 2, 4, 192, words, 3))
    vlm = bench.random_model(tiny_vlm, 64, 2, 4)
    inputs = bench.random_inputs(vlm, gpu_hours.FRAMES, 3, gpu_hours.OPTIONS)
    with bench.large_batches:
        [gflop] = costs([(bench.sweep_alone(vlm, inputs), 1)], 0)["gflop"]
    assert found["tflop"] == gflop / 1e3 > 0
    assert (found["layers"], found["positions"], found["conditions"]) == (4, inputs.n, 4 * 11)
    fewer = gpu_hours.counted(tiny_vlm, "small", (64, 2, 1, 4, 192, words, 3))  # one head of keys for two of queries
    assert fewer["tflop"] < found["tflop"]


def test_the_stored_counts_are_what_is_counted():
    stored = pd.read_csv(gpu_hours.FILE).set_index("model")
    assert list(stored.index) == list(gpu_hours.SHAPES)
    name = "VideoLLaMA3-7B"
    found = gpu_hours.counted(load_model("embedded"), name, gpu_hours.SHAPES[name])
    assert {key: found[key] for key in stored} == {
        key: pytest.approx(stored.loc[name, key], abs=1e-3) for key in stored
    }


def test_the_document_states_the_stored_hours():
    block = gpu_hours.hours_block()
    assert block in (paths.ROOT / "docs" / "scale.md").read_text()
    tflop = pd.read_csv(gpu_hours.FILE).set_index("model")["tflop"]["LLaVA-NeXT-7B"]
    assert f"| MVBench | 4,000 | {4000 * tflop / 100 / 3600:.1f} |" in block and "open-ended" not in block
