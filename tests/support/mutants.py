"""Tiny checkpoints of unusual make-up: a family's, its config changed and its weights drawn anew.

They stand for the architecture that nobody tried: sizes that no published model has, another language model inside.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import census
import tiny_families
import torch


def build(family: str, folder: Path, change: dict[str, Any], processor: dict[str, Any] | None = None) -> Path:
    """Write the family's tiny checkpoint with some values of its config (dotted names) and of both of its processors
    changed. `text_config` may be replaced by the name of another language model, whose defaults are shrunk."""
    import transformers
    from transformers import PreTrainedTokenizerFast

    make = tiny_families if family in tiny_families.FAMILIES else census
    make.build(family, folder)
    cls = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    config = cls.config_class.from_pretrained(folder).to_dict()
    for dotted, value in change.items():
        *path, key = dotted.split(".")
        inner = config
        for name in path:
            inner = inner[name]
        inner[key] = _language_model(value, config["text_config"]) if dotted == "text_config" else value
    torch.manual_seed(0)
    model = cls(cls.config_class.from_dict(config)).eval()
    for parameter in model.parameters():  # projectors that start as zeros would show nothing
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    tied = config.get("tie_word_embeddings")
    tiny_families.enlarge(model, PreTrainedTokenizerFast.from_pretrained(folder), says_letters=not tied)
    model.save_pretrained(folder)
    if processor:
        edit(folder, "processor_config.json", lambda stated: [
            part.update(processor) for name, part in stated.items() if name.endswith("_processor")
        ])  # fmt: skip
    return folder


def edit(folder: Path, name: str, change: Callable[[dict], Any]) -> None:
    """Rewrite a JSON file of the folder."""
    stated = json.loads((folder / name).read_text())
    change(stated)
    (folder / name).write_text(json.dumps(stated))


def _language_model(kind: str, before: dict) -> dict:
    """The default config of another language model, shrunk to the sizes of the one `before`."""
    from transformers import AutoConfig

    config = census.shrunk(AutoConfig.for_model(kind).to_dict())
    config |= {name: before[name] for name in ("vocab_size", "hidden_size")} | {"model_type": kind}
    config |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    return config | ({"head_dim": 8} if config.get("head_dim") else {})
