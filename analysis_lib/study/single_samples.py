"""Single samples in detail, stored beside the results so that a redraw can show them without a model.

On the first question: the self-test asks whether the instrument works on this model, and the open routes say by which
ways, through which roles, video can still reach the last position when a pathway is all that is left open. On samples
for pictures: an `examples.Example` each."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from analysis_lib.embedded.door import load_benchmark
from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import Sample
from analysis_lib.instrument import lens, pathways
from analysis_lib.instrument.checks import load_model, self_test
from analysis_lib.instrument.edges import blocked_edges
from analysis_lib.models.decoder import decoder_layers
from analysis_lib.models.merging import on_grid
from analysis_lib.models.records import VideoLLM
from analysis_lib.paths import write_atomic
from analysis_lib.study.knockouts import Answer, ask
from analysis_lib.study.request import check_request

LARGEST = 336  # pixels; frames are stored no larger


def instrument_checks(folder: Path, *, compute: bool = True, **question: str) -> pd.DataFrame:
    """One row per check (`self_test`), from FOLDER/self_test.csv. `question` names model, benchmark, seed and device. A
    check is made if it is not stored and `compute` allows it. Raises StudyError otherwise, or if it fails."""
    file, model = Path(folder) / "self_test.csv", question["model"]
    found = _stored(file, lambda answer: self_test(answer.vlm, answer.inputs), compute, **question)
    if failed := "; ".join(found.loc[~found["passed"], "check"]):
        raise StudyError(f"the instrument fails on {model}: {failed}; no result of this model can be trusted")
    return found


def open_routes(
    folder: Path, ranges: Mapping[str, tuple[int, int]], *, compute: bool = True, **question: str
) -> pd.DataFrame:
    """Every route from video to the last position (`pathways.leak_report`) in the pathway of these `ranges` and in its
    strict variant, from FOLDER/routes.csv; measured as above, and anew for other ranges. Columns `route`, `pathway`,
    `named`, `open` and `arrives`."""
    file, name = Path(folder) / "routes.csv", check_request(model=question["model"], ranges=ranges).ranges_name

    def measure(answer: Answer) -> pd.DataFrame:
        roles, depth = answer.inputs.roles, len(decoder_layers(answer.vlm))
        layers = pathways.pathway_ranges(depth, given=ranges)
        loose, strict = (pathways.effective_pathway(roles, depth, layers, strict=strict) for strict in (False, True))
        ways = pathways.leak_report(roles, loose).assign(pathway="effective")
        strict_ways = pathways.leak_report(roles, strict, named=pathways.STOPS).assign(pathway="strict")
        return pd.concat([ways, strict_ways]).assign(ranges=name)

    if compute and file.exists() and not (pd.read_csv(file)["ranges"] == name).all():
        file.unlink()
    return _stored(file, measure, compute, **question).drop(columns="ranges")


def _stored(
    file: Path, measure: Callable[[Answer], pd.DataFrame], compute: bool,
    *, model: str, benchmark: str, seed: int = 0, device: str = "auto",
) -> pd.DataFrame:  # fmt: skip
    """The table in `file`, measured on the first usable question if it is not there."""
    if not file.exists():
        if not compute:
            raise StudyError(f"{file} is not stored; run its notebook with compute = True")
        vlm, samples = load_model(model, device=device), load_benchmark(benchmark, samples=3, seed=seed)[0]
        if not samples:
            raise StudyError(f"{benchmark} has no usable question to test the instrument on")
        found = measure(ask(vlm, samples[0]))
        write_atomic(file, found.to_csv(index=False, float_format="%.3g", lineterminator="\n").encode())
    return pd.read_csv(file, dtype={"wanted": str})


def write_example(vlm: VideoLLM, sample: Sample, file: Path, keywords: Mapping[str, Sequence[str]]) -> None:
    """Measure one sample for pictures and store it as an `examples.Example`. Raises SampleError for a bad sample,
    StudyError if it cannot be written."""
    answer = ask(vlm, sample)
    inputs, roles, frames = answer.inputs, answer.inputs.roles, answer.clip.frames
    if inputs.grid is None:
        raise StudyError(f"{vlm.name} shows frames with different numbers of tokens; their maps cannot be drawn")
    tool = vlm.processor and getattr(vlm.processor, f"{'video' if vlm.shown == 'video' else 'image'}_processor")
    crops = vlm.processor is None or bool(getattr(tool, "do_center_crop", False))
    queries = roles.positions("question_block")
    top = lens.logit_lens(vlm, answer.clean, {})[1]  # (L, N_v)
    spelled = {token: vlm.tokenizer.decode([token]).strip() for token in np.unique(top).tolist()}
    cut = blocked_edges("cross-frame", roles)
    maps = [lens.attention_maps(vlm, inputs, queries, without=without) for without in (None, cut)]  # (L, Q, N_v) each
    about = {"task": sample.task, "sample_id": sample.sample_id, "question": sample.question}
    about |= {"options": sample.options, "answer": sample.letter, "prediction": answer.base["prediction"]}
    about |= {"kinds": {word: kind for kind, words in keywords.items() for word in words}}
    about |= {"tokens": [roles.quote(i, i + 1) for i in queries.tolist()]}
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        about=np.array(json.dumps(about, ensure_ascii=False)),
        frames=seen_by_model(frames[:: len(frames) // inputs.grid[0]], crop=crops),
        words=on_grid(inputs, np.vectorize(spelled.__getitem__, otypes=[str])(top)),
        attention=on_grid(inputs, maps[0]).astype(np.float16),
        attention_cut=on_grid(inputs, maps[1]).astype(np.float16),
    )
    write_atomic(file, buffer.getvalue())


def seen_by_model(frames: np.ndarray, *, crop: bool) -> np.ndarray:
    """What the vision tower sees of frames (T, H, W, 3), no side over 336 pixels: the central square, or all of it."""
    height, width = frames.shape[1:3]
    if crop:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        frames, height, width = frames[:, top : top + side, left : left + side], side, side
    longest = max(height, width)
    if longest <= LARGEST:
        return frames
    size = (width * LARGEST // longest, height * LARGEST // longest)  # PIL wants (width, height)
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in frames])
