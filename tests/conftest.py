"""Shared fixtures: a tiny random checkpoint in the published format, its frames, and its reference numbers."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_families

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the hub client is imported: no test waits for a network

GOLDEN = Path(__file__).parent / "goldens" / "pllava_tiny"


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory) -> Path:
    """A copy of the tiny checkpoint (12 layers, 8 frames of 2x2 tokens), free to be read or copied on."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(GOLDEN, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_vlm(tiny_model_dir):
    """The tiny checkpoint, loaded. Shared: a test that changes it must change it back."""
    from analysis_lib.instrument.checks import load_model

    return load_model(str(tiny_model_dir), device="cpu")


@pytest.fixture(scope="session")
def tiny_frames() -> np.ndarray:
    """Eight frames (8, 48, 64, 3) uint8."""
    from PIL import Image

    return np.stack([np.asarray(Image.open(GOLDEN / f"frame_{i:02d}.png").convert("RGB")) for i in range(8)])


@pytest.fixture(scope="session")
def golden() -> dict:
    """What the published code computed on the tiny checkpoint."""
    return json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def make_sample():
    """A function that makes a stand-in for a benchmark sample."""

    from analysis_lib.inputs.records import Question

    def make(question="What moves?", options=("a cat", "a dog"), answer=0):
        return Question(question=question, options=tuple(options), answer=answer)

    return make


@pytest.fixture(scope="session")
def tiny_inputs(tiny_vlm, tiny_frames, golden, make_sample):
    """The first golden sample, merged (155 positions, four options)."""
    from analysis_lib.models.merging import make_inputs

    first = golden["samples"][0]
    sample = make_sample(first["question"], first["candidates"], first["candidates"].index(first["answer"]))
    return make_inputs(tiny_vlm, sample, tiny_frames)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A function that writes a native family's tiny checkpoint, once, and loads it, to be shown `frames` frames."""
    from analysis_lib.instrument.checks import load_model
    from analysis_lib.models.torchvision_ops import ensure_torchvision

    folders = {}

    def load(family, frames=tiny_families.FRAMES):
        if family not in folders:
            folders[family] = tiny_families.build(family, tmp_path_factory.mktemp("families") / family)
        vlm = load_model(str(folders[family]), device="cpu")
        vlm.num_frames = frames
        return vlm

    ensure_torchvision()
    return load


@pytest.fixture(scope="module", params=tiny_families.FAMILIES)
def case(request, checkpoint):
    """One native family: its name, the loaded model, one merged prompt."""
    from analysis_lib.models.merging import make_inputs

    vlm = checkpoint(request.param)
    inputs = make_inputs(vlm, tiny_families.SAMPLE, tiny_families.some_frames())
    return SimpleNamespace(name=request.param, vlm=vlm, inputs=inputs)


# ---- sweeps of the tiny checkpoint (tests/support/sweeps.py) ----


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """A benchmark of two tasks with two questions each. Shared: copy it to change it."""
    from clips import write_small_benchmark

    return write_small_benchmark(tmp_path_factory.mktemp("bench"), 2)


@pytest.fixture(scope="session")
def full(root, tmp_path_factory):
    """The results of `sweeps.sweep` on it. Shared, as its folder is."""
    from sweeps import sweep

    return sweep(root, tmp_path_factory.mktemp("full"))


@pytest.fixture
def copy(full, tmp_path) -> Path:
    """A copy of the full results' folder, free to be extended or damaged."""
    return shutil.copytree(full.dir, tmp_path / "copy")


@pytest.fixture
def measured(monkeypatch) -> list:
    """The (sample_id, todo) pairs that are measured during the test."""
    from analysis_lib.study import measure

    seen, real = [], measure.measure_sample

    def counting(vlm, sample, todo, request):
        seen.append((sample.sample_id, todo))
        return real(vlm, sample, todo, request)

    monkeypatch.setattr(measure, "measure_sample", counting)
    return seen


@pytest.fixture
def no_model(monkeypatch):
    """The test fails if a sweep loads a model."""
    from analysis_lib.study import runs

    monkeypatch.setattr(runs, "_load", lambda *_: pytest.fail("a model was loaded"))
