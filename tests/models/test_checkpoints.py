"""Finding a checkpoint: by name, folder or hub id; what is incomplete or of another kind is refused early."""

import shutil
import subprocess
import sys

import pytest
from tiny_originals import image_base, internvl, rewrite

from analysis_lib import paths
from analysis_lib.errors import StudyError
from analysis_lib.instrument.checks import load_model
from analysis_lib.instrument.edges import default_window
from analysis_lib.models.checkpoints import depth_of, find
from analysis_lib.models.families import INSTEAD
from analysis_lib.study.folders import look_at_model


@pytest.fixture
def copy(tiny_model_dir, tmp_path):
    """A copy of the tiny checkpoint to break."""
    return shutil.copytree(tiny_model_dir, tmp_path / "copy")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("model.safetensors", "holds no weights"),
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer.json"),
    ],
)
def test_incomplete_folder_is_refused(copy, lost, message):
    (copy / lost).unlink()
    with pytest.raises(StudyError, match=message):
        find(str(copy))


def test_other_kinds_of_checkpoint_are_refused(copy):
    rewrite(copy, model_type="bert")
    with pytest.raises(StudyError, match="'bert' is not supported; supported: llava"):
        find(str(copy))
    rewrite(copy, model_type="llava", pooling_shape=None)
    with pytest.raises(StudyError, match="does not state pooling_shape"):
        find(str(copy))


def test_names_of_models(monkeypatch, tiny_model_dir, tmp_path):
    monkeypatch.setattr(paths, "MODELS", tiny_model_dir.parent)
    assert find("tiny") == tiny_model_dir
    assert find(str(tiny_model_dir)) == tiny_model_dir
    assert find("owner/name") == "owner/name"
    for unknown in ("nope", str(tmp_path / "nope"), ""):
        with pytest.raises(StudyError, match="unknown model .*tiny"):
            find(unknown)


def test_hub_model_offline_says_to_pass_a_folder():
    with pytest.raises(StudyError, match="owner/name.*pass its folder"):
        load_model("owner/name")


def test_checking_a_name_imports_nothing_heavy():
    code = "import sys; from analysis_lib.models.checkpoints import find\ntry: find('nope')\nexcept ValueError: pass\n"
    code += "assert not {'torch', 'torchvision', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=paths.ROOT)


@pytest.mark.parametrize("kind", INSTEAD)
def test_what_works_is_named_where_code_of_a_checkpoint_is_not_run(copy, kind):
    rewrite(copy, model_type=kind)
    with pytest.raises(StudyError, match="needs code that is not run; use .*video_llama_3"):
        load_model(str(copy))
    with pytest.raises(StudyError, match="needs code that is not run"):  # before anything is loaded
        look_at_model(str(copy), 0, "center")


def test_depth_is_known_before_loading(copy, tmp_path):
    folder = internvl(tmp_path / "original", "v2")
    assert depth_of(folder) == 3 and look_at_model(str(folder), 0, "center")[0] == default_window(3)
    with pytest.raises(StudyError, match="window"):
        look_at_model(str(folder), 4, "center")
    image_base(copy)
    assert depth_of(copy) == 12 and look_at_model(str(copy), 0, "center")[0] == default_window(12)
