"""`python -m analysis_lib check FOLDER` on checkpoints that nobody should publish.

Each is refused in one line, without a traceback, and before memory for the model is asked for."""

import json
import re
import shutil

import accelerate.utils
import census
import pytest
import tiny_families
import torch
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
            make = tiny_families if family in tiny_families.FAMILIES else census
            folders[family] = make.build(family, tmp_path_factory.mktemp("bad") / family)
        return folders[family]

    return build


@pytest.fixture
def refused(built, tmp_path, monkeypatch, capfd):
    """A function that breaks a copy of a family's checkpoint with `change(folder)`, which may return another path, and
    returns what the command says. Weights may be loaded only if it `loads`."""

    def say(family, change, loads=False):
        folder = shutil.copytree(built(family), tmp_path / "model")
        target = change(folder) or folder
        if not loads:
            monkeypatch.setattr(loading, "_load", lambda *_: pytest.fail("memory for the model was asked for"))
        capfd.readouterr()
        assert main(["check", str(target), "--device", "cpu"]) == 2
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
    return lambda folder: edit(folder, "processor_config.json", lambda all: (all[part] if part else all).update(config))


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
        plain = dict.fromkeys(("special", "single_word", "lstrip", "rstrip", "normalized"), False)
        first = len(whole["model"]["vocab"]) + 50
        whole["added_tokens"] += [{"id": first + i, "content": f"({x}", **plain} for i, x in enumerate("AB")]

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


def written(name, content):
    """Another file in the place of one."""

    def write(folder):
        (folder / name).write_bytes(content)

    return write


def eyes_only(folder):
    """A model that writes no text."""
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config={**sizes, "vocab_size": 300}, vision_config=vision)).save_pretrained(folder)


def untied(folder):
    """The one table of words that is used twice is not there."""
    rewrite(folder, tie_word_embeddings=True)
    names = ("model.embed_tokens.weight", "lm_head.weight")
    weighted(lambda tensors: [tensors.pop(name, None) for name in names])(folder)


INDEX = "model.safetensors.index.json"
LAYER = "model.layers.1.mlp.up_proj.weight"
TOO_WIDE = {"hidden_size": 10**6, "intermediate_size": 10**6, "num_attention_heads": 4, "num_key_value_heads": 2}
MANY = r"asks for \S+e\+1\d parameters, but the weights hold"
QUESTION = "{{ messages[0].content[1].text }}"
UNFIT = "cannot take what the processor makes"
CASES = {  # what is broken: (family, how, what is said)
    # processor and config disagree on the tokens of a frame
    "merges of patches": ("qwen2_vl", processed("video_processor", merge_size=1), UNFIT),
    "frames a patch": ("qwen3_vl", processed("video_processor", temporal_patch_size=1), UNFIT),
    "patches of a frame": ("llava_next_video", within("vision_config", image_size=24), "mismatched weights.*position"),
    "pooling": ("perception_lm", stated(projector_pooling_ratio=1), "makes 32 video tokens .* makes 128 features"),
    "tokens of a frame": ("internvl", processed(None, image_seq_length=9), "72 video tokens .* makes 32 features"),
    "shape of a frame": ("pooled", stated(frame_shape=[3, 3]), "patches a frame, but config.json states frame_shape"),
    "tokens, unknown": ("lfm3_vl", processed("video_processor", merge_size=1), f"is no known family.*{UNFIT}"),
    # what is read and written
    "letters in brackets": ("qwen2_vl", joined_letters, r"joins '\(A' to one token"),
    "letters in brackets, pooled": ("pooled", joined_letters, r"joins '\(A' to one token"),
    "no video in the template": ("qwen2_vl", template(QUESTION), "must show one video"),
    "question lost": ("qwen2_vl", template("<|video_pad|>"), "must show one video"),
    "question first": ("qwen2_vl", template(f"{QUESTION}<|video_pad|>"), "must show one video"),
    "no valid template": ("qwen2_vl", template("{% for %}"), "chat template cannot be used"),
    "no template": ("qwen2_vl", without("chat_template.jinja"), "chat template cannot be used"),
    "no processor": ("qwen2_vl", without("processor_config.json"), "holds no preprocessor_config.json"),
    "no video token": ("qwen2_vl", untokened, "put no video tokens that the model's config names"),
    "no tokenizer": ("qwen2_vl", without("tokenizer.json"), "holds no tokenizer.json"),
    "torn tokenizer": ("qwen2_vl", torn("tokenizer.json", 100), "tokenizer or image processor cannot be read"),
    "torn tokenizer, pooled": ("pooled", torn("tokenizer.json", 100), "tokenizer or image processor cannot be read"),
    "torn image processor": ("pooled", torn("preprocessor_config.json", 30), "preprocessor_config.json is not"),
    # weights
    "NaN": ("qwen2_vl", nan(LAYER), f"{LAYER} holds NaN"),
    "NaN, pooled": ("pooled", nan("language_model.model.norm.weight"), "holds NaN"),
    "no tied weights": ("qwen2_vl", untied, "missing weights: .*embed_tokens"),
    "no head": ("qwen2_vl", weighted(lambda tensors: tensors.pop("lm_head.weight")), "missing weights: lm_head.weight"),
    "no layers": ("qwen2_vl", weighted(lambda t: [t.pop(n) for n in list(t) if ".layers." in n]), "and 33 more"),
    "shards elsewhere": ("qwen2_vl", sharded("../outside.safetensors"), "no file of the checkpoint's folder"),
    "shards anywhere": ("qwen2_vl", sharded("/etc/outside.safetensors"), "no file of the checkpoint's folder"),
    "shards missing": ("qwen2_vl", sharded("model-00001-of-00002.safetensors"), f"which {INDEX} names"),
    "no index": ("qwen2_vl", written(INDEX, b"[1]"), "is no index"),
    "torn weights": ("qwen2_vl", torn("model.safetensors", 5000), "weights cannot be read"),
    "torn at the end": ("qwen2_vl", torn("model.safetensors", -100), "weights cannot be read"),
    "pointer": ("qwen2_vl", written("model.safetensors", b"version https://git-lfs"), "weights cannot be read"),
    "no weights": ("qwen2_vl", without("model.safetensors"), "holds no weights"),
    "torn adapters": ("pooled", written("adapter_config.json", b"{"), "adapter_config.json is not valid JSON"),
    # a config that asks for 10^12 parameters and more
    "too many layers": ("qwen2_vl", within("text_config", num_hidden_layers=10**9), "is 1000000000, but there are"),
    "too wide": ("qwen2_vl", within("text_config", **TOO_WIDE), MANY),
    "too many words": ("qwen2_vl", within("text_config", vocab_size=10**11), MANY),
    "too many experts": ("qwen3_vl_moe", within("text_config", num_local_experts=10**9), MANY),
    "too wide, pooled": ("pooled", within("text_config", **TOO_WIDE), MANY),
    "too wide, unknown": ("lfm3_vl", within("text_config", vocab_size=10**11), MANY),
    # other architectures
    "no such kind": ("qwen2_vl", stated(model_type="nowhere", architectures=["NowhereForText"]), "no class 'Nowhere"),
    "no such kind, known class": ("qwen2_vl", stated(model_type="nowhere"), "'nowhere', but Qwen2VL.* is of"),
    "no kind": ("qwen2_vl", stated(model_type=None), "None, but Qwen2VL.* is of"),
    "no architecture": ("qwen2_vl", stated(architectures=None), "has no class ''"),
    "an architecture of numbers": ("qwen2_vl", stated(architectures=[5]), "has no class 5"),
    "a function as architecture": ("qwen2_vl", stated(architectures=["pipeline"]), "has no class 'pipeline'"),
    "another architecture": ("qwen2_vl", stated(architectures=["BertModel"]), "asks for 1.09e.08 parameters"),
    "no output head": ("qwen2_vl", stated(architectures=["Qwen2VLModel"]), "unexpected weights: lm_head"),
    "code of its own": ("qwen2_vl", foreign, r"'TheirVideoModel'.*auto_map.*is not run"),
    "text only": ("qwen2_vl", text_only_and_no_processor, "model type 'llama' is not supported"),
    "text only, a processor": ("qwen2_vl", text_only, "is no known family.*no video tokens that the model's config"),
    "eyes only": ("qwen2_vl", eyes_only, "CLIPModel"),
    "encoder-decoder": ("qwen2_vl", encoder_decoder, "encoder-decoder"),
    # files
    "broken config": ("qwen2_vl", torn("config.json", 50), "config.json is not valid JSON"),
    "binary config": ("qwen2_vl", written("config.json", b"\xff\x00"), "config.json is not valid JSON"),
    "config of a list": ("qwen2_vl", written("config.json", b"[]"), "holds no settings"),
    "deep config": ("qwen2_vl", written("config.json", b'{"a":' * 10**5), "config.json is not valid JSON"),
    "parts of text": ("qwen2_vl", stated(text_config="none"), "text_config is 'none', but must be an object"),
    "a list as kind": ("qwen2_vl", stated(model_type=["qwen2_vl"]), "model_type is .* but must be a text"),
    "numbers as type": ("qwen2_vl", within("text_config", dtype=16), r"text_config\.dtype is 16, but must be a text"),
    "sizes of text": ("qwen2_vl", within("text_config", hidden_size="wide"), "be made from config.json .*hidden_size"),
    "no frames": ("pooled", stated(num_frames=-8), "num_frames is -8, but must be"),
    "frames of text": ("pooled", stated(num_frames="eight"), "'eight', but must be"),
    "too many frames": ("pooled", stated(num_frames=10**9), "is 1000000000, but must be"),
    "broken processor": ("qwen2_vl", torn("processor_config.json", 50), "processor_config.json is not valid JSON"),
    "an empty folder": ("qwen2_vl", emptied, "holds no config.json"),
    "a file": ("qwen2_vl", lambda folder: folder / "config.json", "is a file; pass the folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_bad_checkpoint_is_one_line_and_asks_for_no_memory(refused, name):
    family, change, words = CASES[name]
    said = refused(family, change)
    assert re.search(words, said), said


def test_a_model_that_is_larger_than_the_memory_is_not_loaded(refused, monkeypatch):
    monkeypatch.setattr(accelerate.utils, "get_max_memory", lambda: {0: 10**15, "cpu": 10**5})
    assert "GiB in float32, and 0.0 GiB are free" in refused("qwen2_vl", lambda folder: None)


def test_what_shapes_alone_do_not_show_is_one_line_after_loading(refused):
    """The tower of SmolVLM reads the values of its mask, so features are not counted beforehand."""
    assert "tokens: 72, features: 32" in refused("smolvlm", processed(None, image_seq_len=9), loads=True)


@pytest.mark.parametrize("family", ["qwen2_vl", "pooled"])
def test_weights_that_are_tied_or_lie_in_shards_are_whole(built, tmp_path, family, capfd):
    folder = shutil.copytree(built(family), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    head = next(name for name in tensors if name.endswith("lm_head.weight"))
    del tensors[head]
    rewrite(folder, tie_word_embeddings=True)
    edit(folder, "config.json", lambda whole: whole["text_config"].update(tie_word_embeddings=True))
    (folder / "model.safetensors").unlink()
    shards = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for shard in set(shards.values()):
        held = {name: tensor for name, tensor in tensors.items() if shards[name] == shard}
        save_file(held, folder / shard, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    save_file({"other": torch.zeros(1)}, folder / "other.safetensors")  # not in the index
    assert main(["check", str(folder), "--device", "cpu"]) == 0, capfd.readouterr()
