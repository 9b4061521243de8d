"""The base under a checkpoint of adapters: when it is needed, where it is looked for, and that it is hashed."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from analysis_lib.errors import StudyError
from analysis_lib.models import bases, checkpoints


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkpoint that holds a projector and adapters, and names a base."""
    monkeypatch.setattr(bases, "BASES", tmp_path / "base")
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / bases.ADAPTER).write_text(json.dumps({"base_model_name_or_path": "somebody/small"}))
    save_file({"projector.weight": np.ones(2, np.float32)}, tmp_path / "checkpoint" / "model.safetensors")
    return tmp_path / "checkpoint"


def write_base(value):
    (bases.BASES / "small").mkdir(parents=True, exist_ok=True)
    save_file({"w": np.full(2, value, np.float32)}, bases.BASES / "small" / "model.safetensors")


def test_a_base_that_is_not_there_is_named(folder):
    with pytest.raises(StudyError, match="the language model 'small' under this checkpoint is not in"):
        bases.base_of(folder)


def test_another_base_is_another_hash(folder):
    hashes = []
    for value in (1, 2, 1):
        write_base(value)
        hashes.append(checkpoints.weights_sha256(folder))
    assert hashes[0] == hashes[2] != hashes[1]


def test_whole_weights_stand_on_nothing(folder):
    save_file({"model.embed_tokens.weight": np.ones(2, np.float32)}, folder / "more.safetensors")
    assert bases.base_of(folder) is None
    (folder / bases.ADAPTER).unlink()
    (folder / "more.safetensors").unlink()
    assert bases.base_of(folder) is None
