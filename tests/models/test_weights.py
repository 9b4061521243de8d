"""Weights by their headers: which files count, what they hold, and what is refused without reading a tensor."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from analysis_lib.errors import StudyError
from analysis_lib.models import weights


@pytest.fixture
def shards(tmp_path):
    """Two shards with an index, and a file that is not in it."""
    for name, shape in (("one", (2, 3)), ("two", (4,)), ("other", (100,))):
        save_file({name: np.zeros(shape, np.float16)}, tmp_path / f"{name}.safetensors")
    listed = {"weight_map": {"one": "one.safetensors", "two": "two.safetensors"}}
    (tmp_path / weights.INDEX).write_text(json.dumps(listed))
    return tmp_path


def test_the_index_says_which_files_count_and_one_whole_file_comes_first(shards):
    weights.check_files(shards)
    found = weights.shapes(weights.weight_files(shards))
    assert found == {"one": (2, 3), "two": (4,)} and weights.parameters(found) == 10
    (shards / weights.INDEX).unlink()
    assert weights.parameters(weights.shapes(weights.weight_files(shards))) == 110
    save_file({"all": np.zeros(7)}, shards / weights.WHOLE)
    assert weights.weight_files(shards) == [shards / weights.WHOLE]


@pytest.mark.parametrize(
    "name", ["../one.safetensors", "/one.safetensors", "inner/../../one.safetensors", "out/one.safetensors", "..", ""]
)
def test_only_files_of_the_folder_are_read(shards, tmp_path_factory, name):
    outside = tmp_path_factory.mktemp("outside")
    save_file({"one": np.zeros(2)}, outside / "one.safetensors")
    (shards / "out").symlink_to(outside)
    (shards / weights.INDEX).write_text(json.dumps({"weight_map": {"one": name}}))
    with pytest.raises(StudyError, match="no file of the checkpoint's folder"):
        weights.check_files(shards)


def test_shards_may_lie_in_folders_below_and_be_links(shards):
    (shards / "inner").mkdir()
    (shards / "two.safetensors").rename(shards / "blob")
    (shards / "inner" / "two.safetensors").symlink_to(shards / "blob")
    listed = {"weight_map": {"one": "one.safetensors", "two": "inner/two.safetensors"}}
    (shards / weights.INDEX).write_text(json.dumps(listed))
    weights.check_files(shards)
    assert weights.shapes(weights.weight_files(shards)) == {"one": (2, 3), "two": (4,)}
    stored = [str(path.relative_to(shards)) for path in weights.stored_files(shards)]
    assert stored == ["inner/two.safetensors", "one.safetensors", "other.safetensors"]
    (shards / "inner" / "two.safetensors").unlink()
    with pytest.raises(StudyError, match="holds no inner/two.safetensors"):
        weights.check_files(shards)


def test_more_layers_than_tensors_are_refused_however_deep_they_are_stated(shards):
    found = weights.shapes(weights.weight_files(shards))
    for layers in (2, None, "3"):
        weights.check_depth(shards, {"a": {"b": {"depth": layers}}}, found)
    with pytest.raises(StudyError, match="depth is 3, but there are 2 tensors"):
        weights.check_depth(shards, {"a": {"b": {"depth": 3}}}, found)
