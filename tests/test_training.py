"""Training data and the training loop, on a few steps."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from analysis_lib import lessons, network, paths, quiz, train, vocabulary
from analysis_lib.models import load_model
from analysis_lib.prompts import build_prompt


@pytest.fixture(scope="module")
def packer(tmp_path_factory):
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary.build_tokenizer(folder)
    return lessons.Packer(PreTrainedTokenizerFast.from_pretrained(folder))


def test_every_keyword_and_letter_is_one_token(packer):
    words = [*quiz.KEYWORDS["spatial"], *quiz.KEYWORDS["temporal"]]
    assert all(len(packer.tokenizer.tokenize(word)) == 1 for word in words)
    assert packer.tokenizer.decode(packer.tokenizer("Grüße 😀")["input_ids"], skip_special_tokens=True) == "Grüße 😀"


def test_prefix_and_branch_are_the_published_prompt(packer):
    question = quiz.Question("What does the red circle do in the video?", ("grows", "shrinks"), 1)
    text = build_prompt(lessons.question_sample(question), "mvbench").text
    assert packer.prefix(1) + packer.letter(question).ids == packer.tokenizer(text)["input_ids"]


def test_targets_of_a_letter_branch(packer):
    branch = packer.letter(quiz.Question("Which?", ("grows", "shrinks"), 1))
    asked = [(i, t) for i, t in enumerate(branch.targets) if t != lessons.IGNORE]
    assert [packer.tokenizer.convert_ids_to_tokens(t) for _, t in asked] == ["▁shrinks", "B"]
    assert branch.letters == (len(branch.ids) - 1,)


def test_batches_are_a_function_of_their_seed(packer):
    def make():
        return lessons.make_batch(np.random.default_rng(3), packer, clips=2, video=True, letters=True, length=52)

    assert all(np.array_equal(a, b) for a, b in zip(make().values(), make().values(), strict=True))


def test_a_packed_row_equals_its_branches_alone(packer):
    model = network.build_model(packer.tokenizer, 0).eval()
    torch.nn.init.normal_(model.lm_head.weight)
    for layer in model.model.language_model.layers:  # a fresh model adds nothing to the residual stream
        torch.nn.init.normal_(layer.self_attn.o_proj.weight, std=0.09)
        torch.nn.init.normal_(layer.mlp.down_proj.weight, std=0.09)
    batch = lessons.make_drill(np.random.default_rng(0), packer, rows=1, length=40)
    ids, start = torch.from_numpy(batch["ids"]), 1
    decoder, embed = model.model.language_model, model.get_input_embeddings()
    mask, positions = torch.from_numpy(batch["mask"]), torch.from_numpy(batch["positions"])
    with torch.no_grad():
        packed = decoder(inputs_embeds=embed(ids), attention_mask=mask, position_ids=positions).last_hidden_state
        model.set_attn_implementation({"text_config": "sdpa"})
        for i in range(4):
            own = ids[:, start + i * 40 : start + (i + 1) * 40]
            alone = decoder(inputs_embeds=embed(torch.cat([ids[:, :1], own], 1))).last_hidden_state
            assert torch.allclose(packed[:, start + i * 40 : start + (i + 1) * 40], alone[:, 1:], atol=1e-4)


def test_rescaling_the_tower_keeps_its_function(packer):
    model = network.build_model(packer.tokenizer, 0).eval()
    images = torch.randint(0, 256, (1, 2, 48, 48, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = network.patch_features(model, images)
        network.settle(model, packer, "vision")
        assert torch.allclose(network.patch_features(model, images), before / 4, atol=1e-3)


def test_training_resumes_and_writes_loadable_checkpoints(packer, tmp_path, monkeypatch):
    small = tuple(dataclasses.replace(s, steps=2, clips=2) for s in train.STAGES)
    monkeypatch.setattr(train, "STAGES", small)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    train.train(seed=0, device="cpu", out=tmp_path / "once")
    whole = load_file(tmp_path / "once/embedded/model.safetensors")
    for path in sorted((tmp_path / "build/train-0").glob("*.pt"))[3:]:
        path.unlink()  # as if stopped after the third stage
    train.train(seed=0, device="cpu", out=tmp_path / "again")
    again = load_file(tmp_path / "again/embedded/model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    vlm = load_model(str(tmp_path / "once/embedded"))
    assert vlm.num_frames == 8 and len(vlm.hf.get_decoder().layers) == 12
