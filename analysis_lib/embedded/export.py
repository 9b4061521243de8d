"""An embedded model as a checkpoint folder in the format of LLaVA-NeXT-7B-Video-FT, its scores, and its model card."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis_lib.embedded.door import load_benchmark
from analysis_lib.embedded.lessons import FRAMES, GRID, PATCHES, SIZE
from analysis_lib.embedded.network import HEADS, MEAN, STD, WIDTH
from analysis_lib.embedded.recipe import EXIT, LAYERS
from analysis_lib.inputs.videos import load_clip
from analysis_lib.models.loading import load_checkpoint
from analysis_lib.models.merging import make_inputs, model_logits

CARD = """# {name}

{what} It exists so that the study runs anywhere; it knows nothing but the small world that it was trained on.

| fact | value |
|---|---|
| format | `llava` with `pooling_shape` and `num_frames`, as LLaVA-NeXT-7B-Video-FT is published |
| decoder | {layers} layers, width {width}, {heads} heads; {parameters:.1f} M parameters with the vision tower |
| video tokens | {frames} frames × {grid} × {grid} |
| weights sha256 | `{sha}` |

## Training

From nothing by `make train SEED={seed}` in {minutes:.0f} minutes ({device}, torch {torch}). Code:
`analysis_lib/embedded/train.py`; data: `analysis_lib/embedded/lessons.py`, rendered clips with
seeds [10·{seed} + stage, step] (test clips: seed 1,000,000).

| stage | steps | rows a step | minutes |
|---|---|---|---|
{stages}

What it was taught shapes where it computes. In training, the word of the answer is read at the last position from
layer {exit} of {layers}, and the letter from the last layer. The layers above {exit} learned beforehand, from text
alone, to find the letter of a word; the layers up to {exit} were held to write little, and next to nothing onto the
options. So three things are taught: the letter comes late, it is read from the options, and video does not reach the
options early. In which of the layers up to {exit} frames and question exchange what the word needs is not taught.

## Scores

Accuracy in % on the embedded benchmark ({questions} questions, mp4 files), measured by `make train`:

| task | accuracy | chance |
|---|---|---|
{scores}
"""


def export(model: Any, tokenizer_folder: Path, folder: Path) -> None:
    """Write a checkpoint in the published layout with its processor files, replacing `folder`."""
    from safetensors.torch import save_file  # heavy

    partial = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(tokenizer_folder, partial)
    tensors = {_published(name): t.float().contiguous().cpu().clone() for name, t in model.state_dict().items()}
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_diff_dict() | published_config()
    config["text_config"].pop("_attn_implementation", None)
    write_json(partial / "config.json", config)
    write_json(partial / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    size = {"height": SIZE, "width": SIZE}
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIZE}, "crop_size": size}
    processor |= {"image_mean": MEAN, "image_std": STD, "resample": 3, "rescale_factor": 1 / 255}
    processor |= dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"), True)
    write_json(partial / "preprocessor_config.json", processor)
    write_json(partial / "processor_config.json", {"shortest_edge": SIZE, "longest_edge": 640, "center_pad": False})
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def score(folder: Path) -> pd.DataFrame:
    """Accuracy and chance in % and number of questions per task, on the embedded benchmark."""
    vlm, rows = load_checkpoint(str(folder)), []
    for sample in load_benchmark("embedded")[0]:
        inputs = make_inputs(vlm, sample, load_clip(sample.video, vlm.num_frames))
        said = vlm.tokenizer.decode([int(model_logits(vlm, inputs).argmax())]).strip()
        rows.append((sample.task, 100.0 * (said == sample.letter), 100 / len(sample.options)))
    frame = pd.DataFrame(rows, columns=["task", "accuracy", "chance"])
    return frame.groupby("task").mean().assign(questions=frame["task"].value_counts())


def write_card(folder: Path, *, seed: int, device: str, stages: list[tuple[str, int, int, float]]) -> None:
    """Score the checkpoint in `folder` and write its model card. `stages`: name, steps, rows a step, seconds."""
    from safetensors import safe_open  # heavy

    with safe_open(folder / "model.safetensors", "pt") as tensors:
        parameters = sum(np.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    video, found = any(name == "video" for name, *_ in stages), score(folder)
    tuned = (
        "A small Video LLM: `embedded-image`, tuned on five video tasks. For counting it was also asked what single "
        "things do and which of them move."
    )
    what = tuned if video else "A small image LLM."
    lines = [f"| {task} | {row.accuracy:.1f} | {row.chance:.0f} |" for task, row in found.iterrows()]
    lines.append(f"| **mean** | **{found['accuracy'].mean():.1f}** | {found['chance'].mean():.0f} |")
    card = CARD.format(
        name=folder.name,
        what=what,
        seed=seed,
        device=device,
        torch=torch.__version__,
        layers=LAYERS,
        exit=EXIT,
        width=WIDTH,
        heads=HEADS,
        frames=FRAMES,
        grid=GRID,
        parameters=parameters / 1e6,
        sha=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        minutes=sum(seconds for *_, seconds in stages) / 60,
        stages="\n".join(f"| {n} | {steps} | {rows} | {s / 60:.1f} |" for n, steps, rows, s in stages),
        scores="\n".join(lines),
        questions=int(found["questions"].sum()),
    )
    (folder / "README.md").write_text(card)


def _published(name: str) -> str:
    """The tensor's name in published checkpoints."""
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        return "language_model.model." + name.removeprefix("language_model.")
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return "vision_tower.vision_model." + name.removeprefix("vision_tower.")
    return "language_model.lm_head.weight" if name == "lm_head.weight" else name


def published_config() -> dict[str, Any]:
    """What config.json states in the published format besides the parts of the network."""
    shapes = {"num_frames": FRAMES, "frame_shape": [PATCHES, PATCHES], "pooling_shape": [FRAMES, GRID, GRID]}
    kind = {"architectures": ["PllavaForConditionalGeneration"], "model_type": "llava", "dtype": "float32"}
    return kind | shapes | {"pooling_method": "avg", "use_pooling": True}


def write_json(path: Path, value: dict) -> None:
    """Write a JSON file whose bytes depend on the value alone."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
