"""What a knockout sweep costs: `exact` against `full`, and against the procedure of the published code.

`make bench` times one sample's sweep (all eleven edge sets, one window per layer) on the embedded model and on larger
random ones, by class of edge set, and counts floating-point operations. *published* is the published procedure, by its
own rule: one complete multimodal forward per condition, vision tower and output head on all positions included, eager
attention; one such forward is timed and counted, and multiplied. The clean pass from which `exact` starts and the
receipt are paid once a sample and have rows of their own. "all" is one sweep of all edge sets in `exact`, that pass
included, and the sum of the classes in the other two, whose forwards share nothing."""

import copy
import platform
import resource
from collections.abc import Callable, Iterable
from dataclasses import replace
from unittest import mock

import pandas as pd
import torch
from transformers import AutoModelForImageTextToText

from analysis_lib import figures, paths
from analysis_lib.inputs.records import Question
from analysis_lib.instrument import knockout
from analysis_lib.instrument.checks import load_model
from analysis_lib.instrument.edges import EDGE_SETS, blocked_edges, default_window, windows
from analysis_lib.instrument.receipts import measure
from analysis_lib.models.decoder import decoder_layers, decoder_of
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
# Makes a function run on "meta", where positions have no numbers that this could look at.
on_meta = mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda *_: None)
large_batches = mock.patch.object(knockout, "_room", lambda vlm: knockout.MOST)  # as on a large GPU
ALT = (
    "Left: seconds for one sample's sweep (eleven edge sets, one window a layer) by frames and procedure. "
    "Right: floating-point operations of such a sweep in a model of LLaVA-NeXT-7B's shape, by class of edge sets."
)


def random_model(base: VideoLLM, width: int, heads: int, layers: int) -> VideoLLM:
    """The embedded model's vision tower and tokenizer with a random decoder of another size."""
    decoder = sizes_of(width, heads, layers, 3 * width)
    return built(base, f"random-{width}x{layers}", base.device, torch.float32, decoder, {})


def large_model(base: VideoLLM, device: torch.device) -> VideoLLM:
    """A random model of LLaVA-NeXT-7B's size with a CLIP-L tower, in bfloat16; on "meta" it has no weights."""
    decoder = sizes_of(*LARGE[:3], 11008) | {"vocab_size": 32064}
    tower = sizes_of(1024, 16, 24, 4096) | {"image_size": 336, "patch_size": 14}
    return built(base, "LLaVA-NeXT-7B shape", device, torch.bfloat16, decoder, tower)


def sizes_of(width: int, heads: int, layers: int, inner: int) -> dict[str, int]:
    """The settings of a config for a decoder or a tower of these sizes, with as many heads of keys as of queries."""
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "head_dim": width // heads}
    return sizes | {"num_attention_heads": heads, "num_key_value_heads": heads}


def built(base: VideoLLM, name: str, device: torch.device, dtype: torch.dtype, decoder: dict, tower: dict) -> VideoLLM:
    """A random model like `base` with other settings for decoder and tower; on "meta" it has no weights."""
    config = copy.deepcopy(base.hf.config)
    config.text_config.update(decoder)
    config.vision_config.update(tower)
    torch.manual_seed(0)
    with device:
        hf = AutoModelForImageTextToText.from_config(config, dtype=dtype).eval().requires_grad_(False)
    return replace(base, name=name, hf=hf, device=device, dtype=dtype, _head32=None)


def random_inputs(vlm: VideoLLM, frames: int, side: int, options: int) -> Inputs:
    """A prompt with random video tokens, `frames` × `side` × `side` of them."""
    prompt = build_prompt(Question("What does the red circle do in the video?", OPTIONS[:options]), vlm.protocol)
    encoded = vlm.tokenizer(prompt.text, return_offsets_mapping=True)
    roles = build_roles(prompt, encoded["offset_mapping"], grid=(frames, side, side), answer=0)
    n, width = len(roles.names), vlm.hf.get_input_embeddings().embedding_dim
    embeds = 0.5 * torch.randn(1, n, width, generator=torch.Generator().manual_seed(0))  # (1, n, d)
    letters = list(vlm.letter_ids[:options])
    return Inputs(list(encoded["input_ids"]), embeds.to(vlm.device, vlm.dtype), roles, letters, n)


def sweep_costs(vlm: VideoLLM, inputs: Inputs, *, repeats: int = 3) -> pd.DataFrame:
    """Rows of cost: one per class of edge set and procedure, the clean pass, and the receipt. Times are medians over
    `repeats`, taken in turns; 0 counts operations and times nothing (see `counted`)."""
    depth = len(decoder_layers(vlm))

    def receipt() -> None:
        vlm.noops.clear()  # it is kept per prompt
        mask = {depth: torch.from_numpy(blocked_edges("video->last", inputs.roles)).to(vlm.device)[None, None]}
        measure(vlm, inputs, mask, torch.zeros(1, device=vlm.device))

    # edge sets, procedure, conditions, what to run, and how often
    runs = [("clean pass", "exact", 1, sweep_alone(vlm, inputs, ()), 1)]
    for label, names in CLASSES.items():
        n = depth * len(names)
        some, times = (None, 1) if repeats else (1, n)  # complete passes compute the same, so one is enough to count
        runs += [
            (label, "exact", n, _sweep(vlm, inputs, "exact", names), 1),
            (label, "full", n, _sweep(vlm, inputs, "full", names, some), times),
            (label, "published", n, lambda: _published_forward(vlm, inputs), n),
        ]
    runs.append(("all", "exact", depth * len(EDGE_SETS), sweep_alone(vlm, inputs), 1))
    if repeats:
        runs.append(("receipt", "both", 1, receipt, 1))
    table = pd.DataFrame([run[:3] for run in runs], columns=["edge_sets", "procedure", "conditions"])
    table = table.join(costs([run[3:] for run in runs], repeats))
    complete = table.query("procedure in ['full', 'published']")  # passes that share nothing
    total = complete.groupby("procedure", as_index=False).sum(min_count=1).assign(edge_sets="all")
    shape = {"model": vlm.name, "layers": depth, "frames": int(inputs.roles.frame_of.max())}
    shape |= {"positions": inputs.n, "options": len(inputs.letter_ids), "threads": torch.get_num_threads()}
    return pd.concat([table, total], ignore_index=True).assign(**shape)[[*shape, *table]]


@on_meta
def counted(vlm: VideoLLM, inputs: Inputs) -> pd.DataFrame:
    """The same rows for a model on "meta", which has shapes but no numbers, and `gpu_memory_mb`: what an exact sweep on
    a large GPU holds beyond the weights. An upper bound: scores of attention are in it, which fused kernels avoid."""
    with large_batches:
        memory = peak_bytes(sweep_alone(vlm, inputs)) >> 20
    return sweep_costs(vlm, inputs, repeats=0).assign(gpu_memory_mb=memory)


def _published_forward(vlm: VideoLLM, inputs: Inputs) -> None:
    """Vision tower on every frame, all positions through the decoder with eager attention, all through the head."""
    size, frames = vlm.hf.config.vision_config.image_size, int(inputs.roles.frame_of.max())
    vlm.hf.get_image_features(torch.zeros(frames, 3, size, size, device=vlm.device, dtype=vlm.dtype))
    with mock.patch.object(decoder_of(vlm.hf).config, "_attn_implementation_internal", "eager"):
        vlm.hf(inputs_embeds=inputs.embeds, use_cache=False)


def sweep_alone(vlm: VideoLLM, inputs: Inputs, names: Iterable[str] = EDGE_SETS) -> Callable[[], None]:
    """An exact sweep of one sample, its clean pass included each time it is called; with no `names` only that pass."""
    run = _sweep(vlm, inputs, "exact", names)

    def afresh() -> None:
        inputs.calls = None  # no record of an earlier clean pass
        run()

    return afresh


def _sweep(vlm: VideoLLM, inputs: Inputs, mode: str, names: Iterable[str], most: int | None = None) -> Callable:
    """What runs the conditions of these edge sets, one window a layer, or only the first `most` of them."""
    depth = len(decoder_layers(vlm))
    cuts = windows(depth, default_window(depth))
    edges = {name: blocked_edges(name, inputs.roles) for name in names}
    conditions = [knockout.Condition(name, cut, blocked) for name, blocked in edges.items() for cut in cuts][:most]
    return lambda: list(knockout.MODES[mode](vlm, inputs, conditions, None))


def ratios(table: pd.DataFrame, of: str = "seconds") -> pd.DataFrame:
    """How many times more `full` and `published` cost than `exact`, per model shape and class of edge sets."""
    rows = table[table["edge_sets"].isin([*CLASSES, "all"])]
    shape = ["model", "layers", "frames", "options", "threads", "edge_sets"]
    wide = rows.pivot(index=shape, columns="procedure", values=of)
    return wide[["full", "published"]].div(wide["exact"], axis=0)


def main() -> None:
    """Measure everything, print the ratios, store data/bench/<device>.csv and the figure."""
    base, tables, threads = load_model("embedded"), [], torch.get_num_threads()
    for number in {threads, 1} if base.device.type == "cpu" else {threads}:
        print(f"{base.name}, {number} CPU threads", flush=True)
        torch.set_num_threads(number)
        inputs = random_inputs(base, base.num_frames, 3, 4)
        table = sweep_costs(base, inputs, repeats=15)
        tables.append(table.assign(overhead_percent=overhead(sweep_alone(base, inputs))))
        print(f"{tables[-1]['overhead_percent'][0]:.1f} % of an exact sweep is outside the model's operations")
    torch.set_num_threads(threads)
    for width, heads, layers, frames, side, options in SHAPES:
        vlm = random_model(base, width, heads, layers)
        print(f"{vlm.name}, {frames} frames, {options} options", flush=True)
        tables.append(sweep_costs(vlm, random_inputs(vlm, frames, side, options)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    tables.append(_large(base))
    device = torch.cuda.get_device_name() if base.device.type == "cuda" else platform.machine()
    table = pd.concat(tables).assign(device=device, torch=torch.__version__, peak_memory_mb=peak)
    paths.write_atomic(paths.DATA / "bench" / f"{base.device.type}.csv", table.round(6).to_csv(index=False).encode())
    print(ratios(table).round(1).to_string())
    print("the same in floating-point operations\n", ratios(table, "gflop").round(1).to_string(), sep="")
    print(f"{device}, torch {torch.__version__}, {peak} MiB of memory at most")
    figures.save(figures.bench(table, ratios(table))[0], "bench", table, ALT, model="bench")


def _large(base: VideoLLM) -> pd.DataFrame:
    """LLaVA-NeXT-7B's shape: timed on a GPU, with the memory beyond its weights; counted without weights elsewhere."""
    gpu = base.device.type == "cuda"
    vlm = large_model(base, base.device if gpu else torch.device("meta"))
    inputs = random_inputs(vlm, *LARGE[3:])
    print(f"{vlm.name}, {inputs.n} positions", flush=True)
    if not gpu:
        return counted(vlm, inputs)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    measured = sweep_costs(vlm, inputs, repeats=1)
    return measured.assign(gpu_memory_mb=(torch.cuda.max_memory_allocated() - before) >> 20)


if __name__ == "__main__":
    main()
