"""What the study of the paper's four models costs in operations, and so in GPU hours on each benchmark.

`python -m analysis_lib.reports.gpu_hours` counts one question's exact sweep (eleven edge sets, one window a layer) in a
decoder of each model's shape, without weights, as `bench` does, into data/bench/gpu_hours.csv. Hours follow from the
questions that a benchmark publishes and from the operations a second that a GPU sustains, which is assumed: the table
says so. Nothing is timed."""

import pandas as pd
import torch

from analysis_lib import paths
from analysis_lib.inputs.formats import FORMATS
from analysis_lib.instrument.checks import load_model
from analysis_lib.instrument.edges import EDGE_SETS
from analysis_lib.models.records import VideoLLM
from analysis_lib.reports import bench
from analysis_lib.reports.profiles import costs

# Decoders as their makers publish them: width, heads, heads of keys, layers, inner width, vocabulary; and of the paper
# (Table 3), how many video tokens a side of a frame has.
SHAPES = {
    "LLaVA-NeXT-7B": (4096, 32, 32, 32, 11008, 32064, 12),
    "LLaVA-NeXT-13B": (5120, 40, 40, 40, 13824, 32064, 12),
    "Mini-InternVL-4B": (3072, 32, 32, 32, 8192, 32064, 16),
    "VideoLLaMA3-7B": (3584, 28, 4, 28, 18944, 152064, 12),
}
FRAMES, OPTIONS = 8, 4
SUSTAINED = 100  # 10^12 operations a second, assumed of one GPU
FILE = paths.DATA / "bench" / "gpu_hours.csv"


@bench.on_meta
@bench.large_batches
def counted(base: VideoLLM, name: str, shape: tuple[int, ...]) -> dict[str, str | int | float]:
    """One question's exact sweep in a decoder of this shape: 10^12 operations (`tflop`), and what there is of it. The
    vision tower, which runs once a question, is left out."""
    width, heads, keys, layers, inner, vocabulary, side = shape
    decoder = bench.sizes_of(width, heads, layers, inner) | {"num_key_value_heads": keys, "vocab_size": vocabulary}
    vlm = bench.built(base, name, torch.device("meta"), torch.bfloat16, decoder, {})
    inputs = bench.random_inputs(vlm, FRAMES, side, OPTIONS)
    gflop = costs([(bench.sweep_alone(vlm, inputs), 1)], 0)["gflop"].item()
    sizes = {"layers": layers, "positions": inputs.n, "conditions": layers * len(EDGE_SETS)}
    return {"model": name, **sizes, "tflop": gflop / 1e3}


def hours_block() -> str:
    """Markdown: GPU hours of each stored model on each benchmark of multiple choice whose size is published."""
    table = pd.read_csv(FILE)
    each = [f"{row.model}, {row.tflop:,.0f} · 10¹²" for row in table.itertuples()]
    text = f"| benchmark | questions | {' | '.join(each)} |\n|{'---|' * (2 + len(each))}\n"
    for form in FORMATS.values():
        questions = sum(form.counts.values()) or form.total
        if form.options and questions:
            hours = [f"{questions * tflop / SUSTAINED / 3600:,.1f}" for tflop in table["tflop"]]
            text += f"| {form.title} | {questions:,} | {' | '.join(hours)} |\n"
    return text


def main() -> None:
    """Count all four, store them, print the hours."""
    base = load_model("embedded")
    table = pd.DataFrame([counted(base, name, shape) for name, shape in SHAPES.items()])
    paths.write_atomic(FILE, table.round(3).to_csv(index=False).encode())
    print(table.to_string(index=False), hours_block(), sep="\n")


if __name__ == "__main__":
    main()
