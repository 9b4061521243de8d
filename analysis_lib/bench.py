"""What a knockout sweep costs: `exact` against `full`, and against the procedure of the published code.

`make bench` times one sample's sweep (all eleven edge sets, one window per layer) on the embedded model and on larger
random ones, by class of edge set, and counts floating-point operations. *published* is the cost of the published
procedure, by its own rule: one complete multimodal forward per condition, vision tower and output head on all
positions included, eager attention; one such forward is timed and counted, and multiplied. Times are medians over
repeats; the receipt of a sweep, which every sample pays once, has a row of its own.
"""

from __future__ import annotations

import platform
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from analysis_lib import engine, paths, plots
from analysis_lib.edges import EDGE_SETS, blocked_edges, default_window, windows
from analysis_lib.engine import Condition
from analysis_lib.models import Inputs, VideoLLM, decoder_layers, load_model
from analysis_lib.prompts import build_prompt
from analysis_lib.receipts import measure
from analysis_lib.roles import build_roles

CLASSES = {
    "into last": [name for name in EDGE_SETS if name.endswith("->last")],
    "into text": [name for name in EDGE_SETS if name != "cross-frame" and not name.endswith("->last")],
    "cross-frame": ["cross-frame"],
    "all": list(EDGE_SETS),
}
OPTIONS = ("grows", "shrinks", "jumps", "blinks", "swells", "flashes", "rises", "falls")
# width, heads, layers, frames, tokens a frame side, options: one larger model, then one thing changed at a time
SHAPES = [(512, 8, 16, 8, 3, 4), *((256, 4, 12, frames, 3, 4) for frames in (8, 16, 32, 64))]
SHAPES += [(256, 4, layers, 8, 3, 4) for layers in (6, 24)] + [(256, 4, 12, 8, 3, options) for options in (2, 8)]


def random_model(base: VideoLLM, width: int, heads: int, layers: int) -> VideoLLM:
    """The embedded model's vision tower and tokenizer with a random decoder of another size."""
    import copy

    from transformers import LlavaForConditionalGeneration

    config = copy.deepcopy(base.hf.config)
    config.text_config.hidden_size, config.text_config.intermediate_size = width, 3 * width
    config.text_config.num_attention_heads = config.text_config.num_key_value_heads = heads
    config.text_config.head_dim, config.text_config.num_hidden_layers = width // heads, layers
    torch.manual_seed(0)
    hf = LlavaForConditionalGeneration(config).eval().requires_grad_(False).to(base.device)
    return VideoLLM(**{**vars(base), "name": f"random-{width}x{layers}", "hf": hf, "_head32": None})


def random_inputs(vlm: VideoLLM, frames: int, side: int, options: int) -> Inputs:
    """A prompt with random video tokens, `frames` × `side` × `side` of them."""
    from types import SimpleNamespace

    sample = SimpleNamespace(question="What does the red circle do in the video?", options=OPTIONS[:options])
    prompt = build_prompt(sample, vlm.protocol)
    encoded = vlm.tokenizer(prompt.text, return_offsets_mapping=True)
    roles = build_roles(prompt, encoded["offset_mapping"], grid=(frames, side, side), answer=0)
    n, width = len(roles.names), vlm.hf.get_input_embeddings().embedding_dim
    embeds = 0.5 * torch.randn(1, n, width, generator=torch.Generator().manual_seed(0)).to(vlm.device)
    return Inputs(list(encoded["input_ids"]), embeds, roles, list(vlm.letter_ids[:options]), n)


def sweep_costs(vlm: VideoLLM, inputs: Inputs, *, repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of cost: one per class of edge set and procedure, and the receipt."""
    depth, rows = len(decoder_layers(vlm)), []
    cuts = windows(depth, default_window(depth))
    forward = _cost(lambda: _published_forward(vlm, inputs), repeats)
    for label, names in CLASSES.items():
        blocked = {name: blocked_edges(name, inputs.roles) for name in names}
        conditions = [Condition(name, window, blocked[name]) for name in names for window in cuts]
        table, index = engine.mask_table(vlm, inputs, conditions)
        for mode, run in engine.MODES.items():
            spent = _cost(
                lambda run=run, c=conditions, t=table, i=index: list(run(vlm, inputs, c, t, i, None)), repeats
            )
            rows.append({"edge_sets": label, "procedure": mode, "conditions": len(conditions)} | spent)
        published = {name: value * len(conditions) for name, value in forward.items()}
        rows.append({"edge_sets": label, "procedure": "published", "conditions": len(conditions)} | published)
    mask = torch.from_numpy(blocked_edges("video->last", inputs.roles)).to(vlm.device)[None, None]
    receipt = _cost(lambda: measure(vlm, inputs, {depth: mask}, torch.zeros(1, device=vlm.device)), repeats)
    rows.append({"edge_sets": "receipt", "procedure": "both", "conditions": 1} | receipt)
    shape = {"model": vlm.name, "layers": depth, "frames": int(inputs.roles.frame_of.max()), "positions": inputs.n}
    return [shape | {"options": len(inputs.letter_ids)} | row for row in rows]


def _cost(run: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median seconds, and floating-point operations in 10^9."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        with torch.no_grad():
            run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return {"seconds": statistics.median(times), "gflop": counter.get_total_flops() / 1e9}


def _published_forward(vlm: VideoLLM, inputs: Inputs) -> None:
    """Vision tower on every frame, all positions through the decoder with eager attention, all through the head."""
    size, frames = vlm.hf.config.vision_config.image_size, int(inputs.roles.frame_of.max())
    pixels = torch.zeros(frames, 3, size, size, device=vlm.device, dtype=vlm.dtype)
    vlm.hf.get_image_features(pixel_values=pixels)
    config = vlm.hf.get_decoder().config
    before, config._attn_implementation = config._attn_implementation, "eager"
    try:
        vlm.hf(inputs_embeds=inputs.embeds, use_cache=False)
    finally:
        config._attn_implementation = before


def ratios(table: pd.DataFrame, of: str = "seconds") -> pd.DataFrame:
    """How many times more `full` and `published` cost than `exact`, per model shape and class of edge sets."""
    key = ["model", "layers", "frames", "options", "edge_sets"]
    wide = table[table["procedure"] != "both"].pivot(index=key, columns="procedure", values=of)
    return wide[["full", "published"]].div(wide["exact"], axis=0)


def main() -> None:
    """Measure everything, print the ratios, store data/bench/<device>.csv and the figure."""
    base = load_model("embedded")
    rows = sweep_costs(base, random_inputs(base, base.num_frames, 3, 4))
    for width, heads, layers, frames, side, options in SHAPES:
        vlm = random_model(base, width, heads, layers)
        print(f"{vlm.name}, {frames} frames, {options} options", flush=True)
        rows += sweep_costs(vlm, random_inputs(vlm, frames, side, options))
    device = torch.cuda.get_device_name() if base.device.type == "cuda" else platform.machine()
    facts = {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    facts["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    table = pd.DataFrame(rows).assign(**facts)
    folder = paths.DATA / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    table.round(6).to_csv(folder / f"{base.device.type}.csv", index=False)
    print(ratios(table).round(1).to_string())
    print(ratios(table[table["edge_sets"] == "all"], "gflop").round(1).to_string())
    _draw(table)


def _draw(table: pd.DataFrame) -> None:
    import matplotlib.pyplot as plt

    every = table[(table["edge_sets"] == "all") & (table["layers"] == 12) & (table["options"] == 4)]
    every = every[every["model"].str.startswith("random")].sort_values("frames")
    gain = ratios(every).xs("all", level="edge_sets").reset_index()
    fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for name, rows in every.groupby("procedure"):
        ax.plot(rows["frames"], rows["seconds"], marker="o", label=name)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="frames",
        ylabel="seconds for one sample's sweep",
        xticks=sorted(every["frames"].unique()),
    )
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.minorticks_off()
    low, high = gain["full"].min(), gain["full"].max()
    ax.set_title(f"An exact sweep takes {low:.1f} to {high:.1f} times less time than a full one")
    ax.legend(frameon=False)
    alt = "Seconds for one sample's sweep (eleven edge sets, one window a layer) by number of frames and procedure."
    plots.save_figure(fig, "bench", every, alt, model="bench")
    plt.close(fig)


if __name__ == "__main__":
    main()
