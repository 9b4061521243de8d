"""Pictures for the explorer: each question's frames as one strip, and the stored examples layer by layer.

A strip is the frames side by side, as WebP under the hash that the baseline stores of the frames, so that models share
it. Clips are decoded anew and must have this hash; where a benchmark is not at hand the explorer says so. Examples are
taken as stored: the words on video tokens, and where each word of the question looks, in 255 steps up to its largest
value in either condition."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from analysis_lib.embedded import door
from analysis_lib.errors import StudyError
from analysis_lib.figures.pictures import WORDS
from analysis_lib.inputs.videos import load_clip
from analysis_lib.reports.site.explorer import packed, script
from analysis_lib.study import examples
from analysis_lib.study.examples import Example
from analysis_lib.study.tables import read_manifest, read_table

HEIGHT = 72  # pixels of a frame in a strip


def strip(frames: np.ndarray) -> bytes:
    """Frames (T, H, W, 3) side by side, none higher than HEIGHT."""
    side_by_side = Image.fromarray(np.concatenate(list(frames), axis=1))
    side_by_side.thumbnail((side_by_side.width, HEIGHT))
    file = io.BytesIO()
    side_by_side.save(file, "WEBP", quality=40, method=4)
    return file.getvalue()


def strips(sets: dict[str, list[Path]]) -> Iterator[tuple[str, bytes]]:
    """The strip of every question whose clip is at hand and unchanged, as (path, content)."""
    done, absent = set(), {}
    for key, folders in sets.items():
        benchmark = read_manifest(folders[0])["settings"]["benchmark"]
        try:
            samples = {sample.sample_id: sample for sample in door.load_benchmark(benchmark)[0]}
        except StudyError:
            samples = {}
        baseline = read_table(folders[0], "baseline")
        for row in baseline[~baseline["frames_sha256"].isin(done)].itertuples():
            try:
                sample = samples[row.sample_id]
                span = {"start": sample.start, "end": sample.end, "rule": sample.rule}
                clip = load_clip(sample.video, len(row.frame_indices), **span)
            except (KeyError, StudyError):
                clip = None
            if clip is None or clip.sha256 != row.frames_sha256:
                absent[key] = absent.get(key, 0) + 1
                continue
            done.add(clip.sha256)
            yield f"frames/{clip.sha256}.webp", strip(clip.frames)
    for key, count in absent.items():
        print(f"explorer: {count} questions of {key} go without frames, their clips are not at hand or have changed")


def looked(example: Example) -> dict[str, dict]:
    """For each word its largest attention to one token, and both conditions (L, T, h, w) in steps of 1/255 of it."""
    found = {}
    for word in dict.fromkeys(re.findall(r"\w+", " ".join([example.question, *example.options]).lower())):
        try:
            maps = example.maps(word)
        except StudyError:
            continue  # the tokenizer breaks it otherwise
        top = max(float(array.max()) for array in maps.values())
        steps = {name: packed(255 * array / (top or 1), np.uint8) for name, array in maps.items()}
        found[word] = {"top": round(top, 4), "maps": steps}
    return found


def pictures(sets: dict[str, list[Path]]) -> Iterator[tuple[str, bytes]]:
    """The examples of each set, a script and a strip each, with a list of them, as (path, content)."""
    for key, folders in sets.items():
        listed = []
        for file in sorted((folders[0] / "examples").glob("*.npz")):
            example, name = examples.read(file), f"{key}/examples/{file.stem}"
            vocabulary, places = np.unique(example.words, return_inverse=True)
            shown = {name: getattr(example, name) for name in ("question", "options", "answer", "prediction")}
            kinds = [example.kinds.get(word.strip(), "") for word in vocabulary]
            shown |= {"shape": example.words.shape, "vocabulary": vocabulary.tolist(), "kinds": kinds}
            shown |= {"colours": WORDS, "words": packed(places, np.uint16), "looks": looked(example)}
            listed.append({"name": name, "question": f"{example.question} ({example.sample_id})"})
            yield f"{name}.js", script(name, shown)
            yield f"{name}.webp", strip(example.frames)
        yield f"{key}/examples.js", script(f"{key}/examples", listed)
