"""`python -m analysis_lib check FOLDER` on checkpoints that nobody should publish: each is refused in one line, without a
traceback, and before memory for the model is asked for."""

import json
import shutil

import pytest
import tiny_families
import torch
from accelerate import utils as accelerate
from safetensors.torch import load_file, save_file
from tiny_originals import rewrite

from analysis_lib.__main__ import main
from analysis_lib.models import loading

pytestmark = pytest.mark.filterwarnings("default")  # warnings inside transformers are no errors to a user


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A function that writes a family's tiny checkpoint, once."""
    folders = {"pooled": tiny_families.GOLDEN}

    def build(family):
        if family not in folders:
            folders[family] = tiny_families.build(family, tmp_path_factory.mktemp("bad") / family)
        return folders[family]

    return build


@pytest.fixture
def refused(built, tmp_path, monkeypatch, capfd):
    """A function that breaks a copy of a family's checkpoint with `change(folder)` and returns what the command says."""

    def say(family, change, *words, loads=False):
        folder = shutil.copytree(built(family), tmp_path / "model")
        target = change(folder) or folder
        if not loads:
            monkeypatch.setattr(loading, "_load", lambda *_: pytest.fail("memory for the model was asked for"))
        capfd.readouterr()
        assert main(["check", str(target), "--device", "cpu", *words]) == 2
        shown = capfd.readouterr()
        assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1, shown
        return shown.err

    return say


def edit(folder, name, change):
    """Rewrite a JSON file of the folder."""
    stated = json.loads((folder / name).read_text())
    change(stated)
    (folder / name).write_text(json.dumps(stated))


def stated(**config):
    """A change of config.json."""
    return lambda folder: rewrite(folder, **config)


def within(part, **config):
    """A change of a part of config.json."""
    return lambda folder: edit(folder, "config.json", lambda whole: whole[part].update(config))


def processed(part, **config):
    """A change of a part of the processor's settings."""
    return lambda folder: edit(folder, "processor_config.json", lambda whole: whole[part].update(config))


def weighted(change):
    """A change of the weights."""

    def rewrite_weights(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite_weights


def emptied(folder):
    """No file at all."""
    shutil.rmtree(folder)
    folder.mkdir()


def joined_letters(folder):
    """`(A` and `(B` become one token each."""

    def merge(whole):
        vocabulary = whole["model"]["vocab"]
        whole["added_tokens"] += [
            {"id": len(vocabulary) + 50 + i, "content": f"({x}", "special": False, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False} for i, x in enumerate("AB")
        ]  # fmt: skip

    edit(folder, "tokenizer.json", merge)


def sharded(where):
    """The weights lie in another file, which an index names; `where` it lies is relative to the folder."""

    def move(folder):
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
        save_file({"one": torch.zeros(1)}, folder / "some.safetensors")
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, where)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return move


def nan(name):
    """One NaN in a weight."""
    return weighted(lambda tensors: tensors[name].view(-1)[3:4].fill_(float("nan")))


def template(text):
    """Another chat template."""

    def write(folder):
        (folder / "chat_template.jinja").write_text(text)

    return write


def without(name):
    """A file is missing."""

    def remove(folder):
        (folder / name).unlink()

    return remove


def torn(name, size):
    """A file ends after `size` bytes."""

    def cut(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return cut


def foreign(folder):
    """Code of its own, and a word to say that it would be run."""
    (folder / "modeling_theirs.py").write_text("raise SystemExit('their code ran')\n")
    auto = {"AutoConfig": "modeling_theirs.C", "AutoModel": "modeling_theirs.M", "AutoProcessor": "modeling_theirs.P"}
    rewrite(folder, model_type="theirs", architectures=["TheirVideoModel"], auto_map=auto)
    edit(folder, "processor_config.json", lambda whole: whole.update(auto_map=auto, processor_class="TheirProcessor"))


def untokened(folder):
    """The tokenizer knows no token for a video."""

    def drop(whole):
        whole["added_tokens"] = [token for token in whole["added_tokens"] if "video_pad" not in token["content"]]

    edit(folder, "tokenizer.json", drop)


def text_only(folder):
    """A language model without eyes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=300
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def text_only_and_no_processor(folder):
    """The same, without a processor beside it."""
    text_only(folder)
    for file in folder.glob("*processor*"):
        file.unlink()


def encoder_decoder(folder):
    """A model that reads in one stack and writes in another."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4, vocab_size=300)
    T5ForConditionalGeneration(config).save_pretrained(folder)


HUGE = {"num_hidden_layers": 10**9}
TOO_WIDE = {"hidden_size": 10**6, "intermediate_size": 10**6, "num_attention_heads": 4, "num_key_value_heads": 2}
LAYER = "model.layers.1.mlp.up_proj.weight"
CASES = {
    # processor and config disagree on the tokens of a frame
    "merges of patches": ("qwen2_vl", processed("video_processor", merge_size=1), "cannot take what the processor makes"),
    "patches of a frame": ("llava_next_video", within("vision_config", image_size=24), "mismatched weights|features"),
    "pooling": ("perception_lm", stated(projector_pooling_ratio=1), "64|makes .* features"),
    "frames a patch": ("qwen3_vl", processed("video_processor", temporal_patch_size=1), "cannot take what the processor makes"),
    "tokens of a frame": ("internvl", lambda f: edit(f, "processor_config.json", lambda w: w.update(image_seq_length=9)),
                          "72 video tokens .* makes 32 features|runs of"),
    "shape of a frame": ("pooled", stated(frame_shape=[3, 3]), "patches a frame, but config.json states frame_shape"),
    # what is read and written
    "letters in brackets": ("qwen2_vl", joined_letters, r"joins '\(A' to one token"),
    "letters in brackets, pooled": ("pooled", joined_letters, r"joins '\(A' to one token"),
    "no video in the template": ("qwen2_vl", template("{{ messages[0].content[1].text }}"), "must show one video"),
    "question lost": ("qwen2_vl", template("<|video_pad|>"), "must show one video"),
    "question first": ("qwen2_vl", template("{{ messages[0].content[1].text }}<|video_pad|>"), "must show one video"),
    "no valid template": ("qwen2_vl", template("{% for %}"), "chat template cannot be used"),
    "no template": ("qwen2_vl", without("chat_template.jinja"), "chat template cannot be used"),
    "no processor": ("qwen2_vl", without("processor_config.json"), "holds no preprocessor_config.json"),
    "no video token": ("qwen2_vl", untokened, "video tokens|video token|placeholder|refuses"),
    "no tokenizer": ("qwen2_vl", without("tokenizer.json"), "holds no tokenizer.json"),
    "torn tokenizer": ("qwen2_vl", torn("tokenizer.json", 100), "tokenizer or image processor cannot be read"),
    # weights
    "NaN": ("qwen2_vl", nan(LAYER), f"{LAYER} holds NaN"),
    "NaN, pooled": ("pooled", nan("language_model.model.norm.weight"), "holds NaN"),
    "no tied weights": ("qwen2_vl", lambda f: weighted(lambda t: [t.pop(n) for n in list(t) if "embed_tokens" in n or "lm_head" in n])(
        f) or stated(tie_word_embeddings=True)(f), "missing weights: .*embed_tokens"),
    "no head": ("qwen2_vl", weighted(lambda t: t.pop("lm_head.weight")), "missing weights: lm_head.weight"),
    "half of it": ("qwen2_vl", weighted(lambda t: [t.pop(n) for n in list(t) if ".layers." in n]), "missing weights|hold"),
    "shards elsewhere": ("qwen2_vl", sharded("../outside.safetensors"), "is no file of the checkpoint's folder"),
    "shards missing": ("qwen2_vl", sharded("model-00001-of-00002.safetensors"), "which model.safetensors.index.json names"),
    "no index": ("qwen2_vl", lambda f: (f / "model.safetensors.index.json").write_text("[1]") and None, "is no index"),
    "torn weights": ("qwen2_vl", torn("model.safetensors", 5000), "weights cannot be read"),
    "pointer": ("qwen2_vl", lambda f: (f / "model.safetensors").write_text("version https://git-lfs") and None, "cannot be read"),
    "no weights": ("qwen2_vl", without("model.safetensors"), "holds no weights"),
    # a config that asks for 10^12 parameters and more
    "too many layers": ("qwen2_vl", within("text_config", **HUGE), "num_hidden_layers is 1000000000, but there are"),
    "too wide": ("qwen2_vl", within("text_config", **TOO_WIDE), r"asks for \S+e\+1\d parameters, but the weights hold"),
    "too many words": ("qwen2_vl", within("text_config", vocab_size=10**11), r"asks for \S+e\+1\d parameters"),
    "too many experts": ("qwen3_vl_moe", within("text_config", num_local_experts=10**9), r"asks for \S+e\+1\d parameters"),
    "too wide, pooled": ("pooled", within("text_config", **TOO_WIDE), r"asks for \S+e\+1\d parameters"),
    # other architectures
    "no such architecture": ("qwen2_vl", stated(model_type="nowhere", architectures=["NowhereForCausalLM"]),
                             "has no class 'NowhereForCausalLM'"),
    "no architecture": ("qwen2_vl", stated(architectures=None), "has no class ''"),
    "an architecture of numbers": ("qwen2_vl", stated(architectures=[5]), "has no class 5"),
    "a function as architecture": ("qwen2_vl", stated(architectures=["pipeline"]), "has no class 'pipeline'"),
    "another architecture": ("qwen2_vl", stated(architectures=["BertModel"]), "asks for"),
    "code of its own": ("qwen2_vl", foreign, r"'TheirVideoModel'.*auto_map.*is not run"),
    "text only": ("qwen2_vl", text_only_and_no_processor, "model type 'llama' is not supported"),
    "text only beside a processor": ("qwen2_vl", text_only, "LlamaForCausalLM|llama"),
    "encoder-decoder": ("qwen2_vl", encoder_decoder, "encoder-decoder"),
    # files
    "broken config": ("qwen2_vl", torn("config.json", 50), "config.json is not valid JSON"),
    "binary config": ("qwen2_vl", lambda f: (f / "config.json").write_bytes(b"\xff\x00") and None, "not valid JSON"),
    "config of a list": ("qwen2_vl", lambda f: (f / "config.json").write_text("[]") and None, "holds no settings"),
    "parts of text": ("qwen2_vl", stated(text_config="none"), "config.json"),
    "sizes of text": ("qwen2_vl", within("text_config", hidden_size="wide"), "config.json"),
    "an empty folder": ("qwen2_vl", emptied, "holds no config.json"),
    "a file": ("qwen2_vl", lambda folder: folder / "config.json", "is a file; pass the folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_bad_checkpoint_is_one_line_and_asks_for_no_memory(refused, name):
    import re

    family, change, words = CASES[name]
    said = refused(family, change)
    print(said)
    assert re.search(words, said), said
