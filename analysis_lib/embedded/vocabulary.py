"""The embedded models' tokenizer: small, in the Llama format, with one token for each word of the study's prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from analysis_lib.embedded import world
from analysis_lib.embedded.quiz import TASKS, VERBS, ask
from analysis_lib.inputs.records import LETTERS, Question
from analysis_lib.models.prompts import build_prompt

SPECIALS = ("<unk>", "<s>", "</s>")


def _corpus() -> list[str]:
    """Every word that prompts and answers use, so that each becomes one token; other text falls back to characters."""
    prompt = build_prompt(Question("Q", ("0", "1", "2", "3")), "mvbench").text
    closed = [*world.COLOURS, *world.SHAPES, *world.SCENES, *world.DIAGONALS, *VERBS.values(), *"0123"]
    lines = [prompt, "Describe the video.", "top left, bottom right, first, last", " ".join(f"({x})" for x in LETTERS)]
    rng = np.random.default_rng(0)
    for task in (*TASKS, *["still"] * 20):
        question = ask(world.make_scenario(rng, task, world.video_times()), task, rng)
        lines.append(f"Question: {question.question} {' '.join(question.options)}")
    return [f"{line} {word}" for line in lines for word in ("", *closed)] + [f" {x} {x}." for x in closed] * 30


def build_tokenizer(folder: Path) -> None:
    """Write a small Llama tokenizer (byte-pair encoding with byte fallback, one `<image>` token) to `folder`."""
    from tokenizers import (  # heavy
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    def blank(model: models.Model) -> Tokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        split = pre_tokenizers.Split
        pieces = [split("▁", "merged_with_next"), split("\n", "isolated"), pre_tokenizers.Punctuation("isolated")]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)
        return tokenizer

    learner = blank(models.BPE(unk_token="<unk>", byte_fallback=True))
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=[*SPECIALS, *byte_tokens],
        min_frequency=1,
        show_progress=False,
        initial_alphabet=[chr(c) for c in range(33, 127)],
    )
    learner.train_from_iterator(_corpus(), trainer)
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = blank(models.BPE(learned["vocab"], merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in (*SPECIALS, "<image>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    config = {**names, "add_bos_token": True, "add_eos_token": False, "legacy": True, "model_max_length": 4096}
    config |= {"clean_up_tokenization_spaces": False, "tokenizer_class": "LlamaTokenizer"}
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=1))
