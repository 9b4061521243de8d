"""What a knockout sweep costs: `exact` against `full`, and against the procedure of the published code.

`make bench` times one sample's sweep (all eleven edge sets, one window per layer) on the embedded model and on larger
random ones, by class of edge set, and counts floating-point operations. *published* is the cost of the published
procedure, by its own rule: one complete multimodal forward per condition, vision tower and output head on all
positions included, eager attention; one such forward is timed and counted, and multiplied. The clean pass from which
`exact` starts and the receipt are paid once a sample and have rows of their own. "all" is one sweep of all edge sets in
`exact`, that pass included, and the sum of the classes in the other two, whose forwards share nothing.
Times are medians over repeats, taken in turns. LLaVA-NeXT-7B's shape is counted without weights, and timed where there
is a GPU.
"""

from __future__ import annotations

import copy
import platform
import resource
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import pandas as pd
import torch

from analysis_lib import paths
from analysis_lib.figures import bars as charts
from analysis_lib.figures import style as plots
from analysis_lib.inputs.records import Question
from analysis_lib.instrument import exact, knockout
from analysis_lib.instrument.checks import load_model
from analysis_lib.instrument.edges import EDGE_SETS, blocked_edges, default_window, windows
from analysis_lib.instrument.knockout import Condition
from analysis_lib.instrument.receipts import measure
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.prompts import build_prompt
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.models.roles import build_roles
from analysis_lib.reports.profiles import costs, overhead, peak_bytes

CLASSES = {
    "into last": [name for name in EDGE_SETS if name.endswith("->last")],
    "into text": [name for name in EDGE_SETS if name != "cross-frame" and not name.endswith("->last")],
    "cross-frame": ["cross-frame"],
}
OPTIONS = ("grows", "shrinks", "jumps", "blinks", "swells", "flashes", "rises", "falls")
# width, heads, layers, frames, tokens a frame side, options: one larger model, then one thing changed at a time
SHAPES = [(512, 8, 16, 8, 3, 4), *((256, 4, 12, frames, 3, 4) for frames in (8, 16, 32, 64))]
SHAPES += [(256, 4, layers, 8, 3, 4) for layers in (6, 24)] + [(256, 4, 12, 8, 3, options) for options in (2, 8)]
LARGE = (4096, 32, 32, 8, 12, 4)  # LLaVA-NeXT-7B: 1152 video tokens
KEY = ["model", "layers", "frames", "options", "threads", "edge_sets"]


def random_model(base: VideoLLM, width: int, heads: int, layers: int) -> VideoLLM:
    """The embedded model's vision tower and tokenizer with a random decoder of another size."""
    config = copy.deepcopy(base.hf.config)
    _resize(config.text_config, width, heads, layers, 3 * width)
    return _built(base, config, f"random-{width}x{layers}", base.device)


def large_model(base: VideoLLM, device: torch.device) -> VideoLLM:
    """A random model of LLaVA-NeXT-7B's size with a CLIP-L tower, in bfloat16; on "meta" it has no weights."""
    config = copy.deepcopy(base.hf.config)
    _resize(config.text_config, *LARGE[:3], 11008)
    config.text_config.vocab_size = 32064
    _resize(config.vision_config, 1024, 16, 24, 4096)
    config.vision_config.image_size, config.vision_config.patch_size = 336, 14
    return _built(base, config, "LLaVA-NeXT-7B shape", device, torch.bfloat16)


def _resize(config: Any, width: int, heads: int, layers: int, inner: int) -> None:
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = width, inner, layers
    config.num_attention_heads = config.num_key_value_heads = heads
    config.head_dim = width // heads


def _built(base: VideoLLM, config: Any, name: str, device: torch.device, dtype: Any = torch.float32) -> VideoLLM:
    from transformers import LlavaForConditionalGeneration

    for part in (config, config.text_config, config.vision_config):
        part.dtype = dtype
    torch.manual_seed(0)
    with device:
        hf = LlavaForConditionalGeneration(config).to(dtype).eval().requires_grad_(False)
    return VideoLLM(**{**vars(base), "name": name, "hf": hf, "device": device, "dtype": dtype, "_head32": None})


def random_inputs(vlm: VideoLLM, frames: int, side: int, options: int) -> Inputs:
    """A prompt with random video tokens, `frames` × `side` × `side` of them."""
    sample = Question("What does the red circle do in the video?", OPTIONS[:options])
    prompt = build_prompt(sample, vlm.protocol)
    encoded = vlm.tokenizer(prompt.text, return_offsets_mapping=True)
    roles = build_roles(prompt, encoded["offset_mapping"], grid=(frames, side, side), answer=0)
    n, width = len(roles.names), vlm.hf.get_input_embeddings().embedding_dim
    embeds = 0.5 * torch.randn(1, n, width, generator=torch.Generator().manual_seed(0))
    embeds = embeds.to(vlm.device, vlm.dtype)  # (1, n, d)
    return Inputs(list(encoded["input_ids"]), embeds, roles, list(vlm.letter_ids[:options]), n)


def sweep_costs(vlm: VideoLLM, inputs: Inputs, *, repeats: int = 3) -> list[dict[str, Any]]:
    """Rows of cost: one per class of edge set and procedure, the clean pass, and the receipt.

    `repeats` 0 counts operations and times nothing (see `count_operations`).
    """
    depth, rows, runs = len(decoder_layers(vlm)), [], []

    def add(label: str, procedure: str, n: int, run: Callable[[], Any], times: int = 1) -> None:
        rows.append({"edge_sets": label, "procedure": procedure, "conditions": n})
        runs.append((run, times))

    def clean() -> None:
        inputs.calls = None
        exact.record(vlm, inputs)

    def receipt() -> None:
        vlm.noops.clear()  # it is kept per prompt
        mask = {depth: torch.from_numpy(blocked_edges("video->last", inputs.roles)).to(vlm.device)[None, None]}
        measure(vlm, inputs, mask, torch.zeros(1, device=vlm.device))

    add("clean pass", "exact", 1, clean)
    for label, names in CLASSES.items():
        conditions = _conditions(vlm, inputs, names)
        n = len(conditions)
        add(label, "exact", n, _sweep(vlm, inputs, "exact", conditions))
        # Complete passes do not differ in what they compute, so one is enough to count.
        some, times = (conditions, 1) if repeats else (conditions[:1], n)
        add(label, "full", n, _sweep(vlm, inputs, "full", some), times)
        add(label, "published", n, lambda: _published_forward(vlm, inputs), n)
    add("all", "exact", len(EDGE_SETS) * depth, sweep_alone(vlm, inputs))
    if repeats:
        add("receipt", "both", 1, receipt)
    rows = [row | cost for row, cost in zip(rows, costs(runs, repeats), strict=True)]
    complete = pd.DataFrame(rows).query("procedure in ['full', 'published']")  # passes that share nothing
    rows += complete.groupby("procedure").sum(min_count=1).assign(edge_sets="all").reset_index().to_dict("records")
    shape = {"model": vlm.name, "layers": depth, "frames": int(inputs.roles.frame_of.max())}
    shape |= {"positions": inputs.n, "options": len(inputs.letter_ids), "threads": torch.get_num_threads()}
    return [shape | row for row in rows]


def count_operations(vlm: VideoLLM, inputs: Inputs) -> list[dict[str, Any]]:
    """The same rows for a model on "meta", which has shapes but no numbers."""
    with _without_numbers():
        return sweep_costs(vlm, inputs, repeats=0)


def count_memory(vlm: VideoLLM, inputs: Inputs) -> int:
    """MiB that an exact sweep on a large GPU holds beyond the weights, counted from the sizes of its tensors.

    An upper bound: attention scores are among them, which fused kernels never store.
    """
    with _without_numbers(), mock.patch.object(knockout, "_room", lambda vlm: knockout.MOST):
        return peak_bytes(sweep_alone(vlm, inputs)) >> 20


def _without_numbers() -> Any:
    """In this block transformers does not look at numbers: it searches the positions for packed sequences."""
    return mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda *_: None)


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


def sweep_alone(vlm: VideoLLM, inputs: Inputs) -> Callable[[], Any]:
    """An exact sweep of one sample, all edge sets, its clean pass included each time it is called."""
    run = _sweep(vlm, inputs, "exact", _conditions(vlm, inputs, EDGE_SETS))

    def afresh() -> None:
        inputs.calls = None
        run()

    return afresh


def _conditions(vlm: VideoLLM, inputs: Inputs, names: Sequence[str]) -> list[Condition]:
    depth = len(decoder_layers(vlm))
    blocked = {name: blocked_edges(name, inputs.roles) for name in names}
    return [Condition(name, cut, blocked[name]) for name in names for cut in windows(depth, default_window(depth))]


def _sweep(vlm: VideoLLM, inputs: Inputs, mode: str, conditions: list[Condition]) -> Callable[[], Any]:
    return lambda: list(knockout.MODES[mode](vlm, inputs, conditions, None))


def ratios(table: pd.DataFrame, of: str = "seconds") -> pd.DataFrame:
    """How many times more `full` and `published` cost than `exact`, per model shape and class of edge sets."""
    rows = table[table["edge_sets"].isin([*CLASSES, "all"])]
    wide = rows.pivot(index=KEY, columns="procedure", values=of)
    return wide[["full", "published"]].div(wide["exact"], axis=0)


def main() -> None:
    """Measure everything, print the ratios, store data/bench/<device>.csv and the figure."""
    base, rows = load_model("embedded"), []
    threads = torch.get_num_threads()
    for number in {threads, 1} if base.device.type == "cpu" else {threads}:
        print(f"{base.name}, {number} CPU threads", flush=True)
        torch.set_num_threads(number)
        rows += _embedded(base)
    torch.set_num_threads(threads)
    for width, heads, layers, frames, side, options in SHAPES:
        vlm = random_model(base, width, heads, layers)
        print(f"{vlm.name}, {frames} frames, {options} options", flush=True)
        rows += sweep_costs(vlm, random_inputs(vlm, frames, side, options))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    rows += _large(base)
    device = torch.cuda.get_device_name() if base.device.type == "cuda" else platform.machine()
    facts = {"device": device, "torch": torch.__version__, "peak_memory_mb": peak}
    table = pd.DataFrame(rows).assign(**facts)
    (paths.DATA / "bench").mkdir(parents=True, exist_ok=True)
    table.round(6).to_csv(paths.DATA / "bench" / f"{base.device.type}.csv", index=False)
    print(ratios(table).round(1).to_string())
    print("the same in floating-point operations\n", ratios(table, "gflop").round(1).to_string(), sep="")
    print(pd.Series(facts).to_string())
    alt = (
        "Left: seconds for one sample's sweep (eleven edge sets, one window a layer) by frames and procedure. "
        "Right: floating-point operations of such a sweep in a model of LLaVA-NeXT-7B's shape, by class of edge sets."
    )
    plots.save_figure(charts.cost_figure(table, ratios(table)), "bench", table, alt, model="bench")


def _embedded(vlm: VideoLLM) -> list[dict[str, Any]]:
    """The embedded model's rows, with the part of an exact sweep that is not the model's own work."""
    inputs = random_inputs(vlm, vlm.num_frames, 3, 4)
    rows = sweep_costs(vlm, inputs, repeats=15)
    part = overhead(sweep_alone(vlm, inputs))
    print(f"{part:.1f} % of an exact sweep is outside the model's operations")
    return [row | {"overhead_percent": part} for row in rows]


def _large(base: VideoLLM) -> list[dict[str, Any]]:
    """LLaVA-NeXT-7B's shape: timed on a GPU, with the memory beyond its weights; counted without weights elsewhere."""
    gpu = base.device.type == "cuda"
    vlm = large_model(base, base.device if gpu else torch.device("meta"))
    inputs = random_inputs(vlm, *LARGE[3:])
    print(f"{vlm.name}, {inputs.n} positions", flush=True)
    if not gpu:
        memory = count_memory(vlm, inputs)
        return [row | {"gpu_memory_mb": memory} for row in count_operations(vlm, inputs)]
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    rows = sweep_costs(vlm, inputs, repeats=1)
    return [row | {"gpu_memory_mb": (torch.cuda.max_memory_allocated() - before) >> 20} for row in rows]


if __name__ == "__main__":
    main()
