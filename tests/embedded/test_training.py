"""Training data and the training loop, on a few steps."""

import dataclasses
import hashlib
import json
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from analysis_lib import paths
from analysis_lib.embedded import export, lessons, network, quiz, train, vocabulary
from analysis_lib.embedded.packer import IGNORE, Packer
from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Question
from analysis_lib.instrument.checks import load_model
from analysis_lib.models.prompts import build_prompt


@pytest.fixture(scope="module")
def packer(tmp_path_factory):
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    vocabulary.build_tokenizer(folder)
    return Packer(PreTrainedTokenizerFast.from_pretrained(folder))


def test_every_keyword_and_letter_is_one_token(packer):
    words = [*quiz.KEYWORDS["spatial"], *quiz.KEYWORDS["temporal"]]
    assert all(len(packer.tokenizer.tokenize(word)) == 1 for word in words)
    assert packer.tokenizer.decode(packer.tokenizer("Grüße 😀")["input_ids"], skip_special_tokens=True) == "Grüße 😀"


def test_prefix_and_branch_are_the_published_prompt(packer):
    question = Question("What does the red circle do in the video?", ("grows", "shrinks"), 1)
    text = build_prompt(question, "mvbench").text
    assert packer.prefix(1) + packer.letter(question).ids == packer.tokenizer(text)["input_ids"]


def names(packer, ids):
    return [packer.tokenizer.convert_ids_to_tokens(i) for i in ids if i not in (IGNORE, 0)]


def test_a_question_asks_for_the_word_and_the_letter_where_it_ends(packer):
    branch = packer.letter(Question("Which?", ("grows", "shrinks"), 1))
    assert names(packer, branch.words) == ["▁shrinks"] and names(packer, branch.letters) == ["B"]
    assert branch.words[-1] != IGNORE and branch.letters[-1] != IGNORE and not any(branch.added)


def test_an_open_question_ends_like_one_with_options(packer):
    question = Question("What does the red circle do in the video?", ("grows", "shrinks"), 1)
    branch, closed = packer.open(question), packer.letter(question)
    start = next(i for i, word in enumerate(branch.words) if word != IGNORE)
    assert branch.ids[start - 8 : start + 1] == closed.ids[-9:]
    assert names(packer, branch.words) == ["▁shrinks", "</s>"] and names(packer, branch.letters) == []


def test_a_drill_hands_over_first_words_and_asks_for_their_letters(packer):
    rng = np.random.default_rng(0)
    for branch in [packer.drill(rng) for _ in range(50)]:
        tokens = packer.tokenizer.convert_ids_to_tokens(branch.ids)
        asked = [i for i, letter in enumerate(branch.letters) if letter != IGNORE]
        assert len(asked) == 4 and all(tokens[i] == "(" for i in asked) and len(branch.ids) <= 40
        options = {tokens[i - 2]: branch.ids[i] for i in range(3, asked[0]) if tokens[i - 1] == ")"}
        for i in asked:
            letter = packer.tokenizer.convert_ids_to_tokens(branch.letters[i])
            assert branch.added[i] == options[letter] and tokens[i + 1] == letter


def test_in_clips_for_counting_single_things_are_asked_about_too():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(50):
        clip = lessons.world.make_scenario(rng, "object_count", lessons.TIMES)
        first, second, third = (lessons._open_question(clip, "object_count", rng, number) for number in range(3))
        assert first.question == "How many objects move in the video?" and len(first.options) == 4
        thing = next(thing for thing in clip.things if thing.name in second.question)
        assert (second.options == ("stays",)) == (thing.behaviour == "static")
        seen.add(second.options[second.answer])
        moving = {thing.name for thing in clip.things if thing.behaviour != "static"}
        assert "Which objects move" in third.question and third.options[0] in (moving or {"0"})
    assert {"stays", "rises", "falls", "left", "right", *lessons.world.DIAGONALS} == seen
    clip = lessons.world.make_scenario(rng, "moving_direction", lessons.TIMES)
    assert "In which direction" in lessons._open_question(clip, "moving_direction", rng, 1).question


def test_batches_are_a_function_of_their_seed(packer):
    def make():
        return lessons.make_batch(
            np.random.default_rng(3), packer, clips=2, video=True, letters=True, questions=3, length=52
        )

    assert all(np.array_equal(a, b) for a, b in zip(make().values(), make().values(), strict=True))


def test_a_packed_row_equals_its_branches_alone(packer):
    model = network.build_model(packer.tokenizer, 0).eval()
    for layer in model.model.language_model.layers:  # a fresh model adds nothing to the residual stream
        torch.nn.init.normal_(layer.self_attn.o_proj.weight, std=0.09)
        torch.nn.init.normal_(layer.mlp.down_proj.weight, std=0.09)
    batch = lessons.make_drill(np.random.default_rng(0), packer, rows=1, length=40)
    batch = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in batch.items()}
    batch["added"][:] = 0
    decoder, embed, ids = model.model.language_model, model.get_input_embeddings(), batch["ids"]
    with torch.no_grad():
        packed = network.decode(model, batch, slice(None))[network.LAYERS]
        model.set_attn_implementation({"text_config": "sdpa"})
        for i in range(4):
            own = ids[:, 1 + i * 40 : 1 + (i + 1) * 40]
            alone = decoder(inputs_embeds=embed(torch.cat([ids[:, :1], own], 1))).last_hidden_state
            again = decoder.norm(packed[:, 1 + i * 40 : 1 + (i + 1) * 40])
            assert torch.allclose(again, alone[:, 1:], atol=5e-3)  # masks are bfloat16


def test_words_are_read_from_the_middle_and_letters_from_the_end(packer):
    model = network.build_model(packer.tokenizer, 0)
    made = lessons.make_batch(
        np.random.default_rng(0), packer, clips=2, video=True, letters=True, questions=3, length=52
    )
    batch = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in made.items()}
    assert set(network.language_loss(model, batch, slice(network.EXIT))[1]) == {"written", "onto options", "words"}
    assert set(network.language_loss(model, batch, slice(None))[1]) == {"written", "onto options", "words", "letters"}
    assert set(network.language_loss(model, batch, slice(network.EXIT, None))[1]) == {"letters"}


def test_rescaling_the_tower_keeps_its_function(packer):
    model = network.build_model(packer.tokenizer, 0).eval()
    images = torch.randint(0, 256, (1, 2, 48, 48, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = network.patch_features(model, images)
        network.settle(model, "vision")
        assert torch.allclose(network.patch_features(model, images), before / 4, atol=1e-3)


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Two steps a stage, not compiled, and a benchmark of two questions a task."""
    small = tuple(dataclasses.replace(s, steps=2, clips=2, goal=None) for s in train.STAGES)
    monkeypatch.setattr(train, "STAGES", small)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "BENCHMARK", tmp_path / "benchmark")
    monkeypatch.setattr(quiz, "write_benchmark", partial(quiz.write_benchmark, questions_per_task=2))


@pytest.mark.slow
def test_training_resumes_and_writes_loadable_checkpoints(quick, tmp_path):
    train.train(seed=0, device="cpu", out=tmp_path / "once")
    whole = load_file(tmp_path / "once/embedded/model.safetensors")
    for path in sorted((tmp_path / "build/train-0").glob("*.pt"))[3:]:
        path.unlink()  # as if stopped after the third stage
    train.train(seed=0, device="cpu", out=tmp_path / "again")
    again = load_file(tmp_path / "again/embedded/model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    vlm = load_model(str(tmp_path / "once/embedded"))
    assert vlm.num_frames == 8 and len(vlm.hf.get_decoder().layers) == 12


@pytest.mark.slow
def test_a_stage_goes_on_until_its_goal_is_reached(quick, tmp_path, monkeypatch):
    stage, calls, loss = train.STAGES[1], [], train._loss

    def counted(*args):
        calls.append(args)
        return loss(*args)[0], {"letters": float(len(calls) > 2)}  # running means 0, 0, 0.05, 0.0975

    def run(share):
        monkeypatch.setattr(train, "STAGES", (dataclasses.replace(stage, goal=("letters", share)),))
        train.train(seed=0, device="cpu", out=tmp_path)

    monkeypatch.setattr(train, "_loss", counted)
    with pytest.raises(StudyError, match="stage drill ends with 0.26 of its letters right, 0.5 are needed"):
        run(0.5)
    assert len(calls) == 2 * train.ROUNDS
    (tmp_path / "build/train-0/state.pt").unlink()
    calls.clear()
    run(0.09)
    assert len(calls) == 4 and json.loads((tmp_path / "build/train-0/seconds.json").read_text())["drill"][1] == 4


@pytest.mark.slow
def test_card_states_scores_steps_and_hash(quick, tmp_path):
    train.train(seed=0, device="cpu", out=tmp_path)
    card = (tmp_path / "embedded/README.md").read_text()
    found = export.score(tmp_path / "embedded")
    assert found["questions"].tolist() == [2] * 5 and f"**{found['accuracy'].mean():.1f}**" in card
    assert all(f"| {stage.name} | 2 | 2 |" in card for stage in train.STAGES) and "make train SEED=0" in card
    assert hashlib.sha256((tmp_path / "embedded/model.safetensors").read_bytes()).hexdigest() in card
    assert "| video |" not in (tmp_path / "embedded-image/README.md").read_text()


def test_each_stage_moves_its_own_part(packer):
    model = network.build_model(packer.tokenizer, 0)
    heads = torch.nn.ModuleDict({"scene": torch.nn.Linear(2, 2)})
    moved = {s.name: {n.split(".")[0] for n, _ in train._trained(model, heads, s)} for s in train.STAGES}
    assert moved["vision"] == {"tower", "heads"} and moved["align"] == {"projector"}
    assert moved["image words"] == moved["video words"] == {"embed", "norm", "layers", "projector"}
    upper = {id(p) for p in model.model.language_model.layers[network.EXIT :].parameters()}
    for stage in train.STAGES:
        if stage.name in ("image", "video"):
            assert {id(p) for _, p in train._trained(model, heads, stage)} == upper
