"""What a checkpoint's weight files hold, by their headers: names and shapes, and that the files are whole.

A safetensors file opens with a table of its tensors and is exactly as long as the table says. So a torn download, a
shard that is not there and a model that is larger than the memory are known in milliseconds, and nothing is
allocated."""

import json
import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from analysis_lib.errors import StudyError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"  # transformers takes the first of them
DEPTHS = ("num_hidden_layers", "num_layers", "depth", "encoder_layers", "decoder_layers")  # what configs call them
Shapes = dict[str, tuple[int, ...]]


def check_files(folder: Path) -> None:
    """Raise StudyError if the checkpoint in `folder` has no weights, or a weight file that is torn, missing or outside
    of the folder."""
    for name in _indexed(folder):
        if not _inside(folder, name):
            raise StudyError(f"{folder}/{INDEX} names {name!r}, which is no file of the checkpoint's folder; not read")
        if not (folder / name).is_file():
            raise StudyError(f"{folder} holds no {name}, which {INDEX} names; download the checkpoint completely")
    files = stored_files(folder)
    if not files:
        fix = "download the checkpoint completely, or save it as safetensors"
        raise StudyError(f"{folder} holds no weights (*.safetensors); {fix}")
    shapes(files)


def _inside(folder: Path, name: str) -> bool:
    """Whether an index names a file below `folder`. The file itself may be a link, as in the hub's cache; the folders
    on the way to it may not lead out."""
    path = Path(name)
    below = path.name and not path.is_absolute() and ".." not in path.parts
    return bool(below) and (folder / path).parent.resolve().is_relative_to(folder.resolve())


def stored_files(folder: Path) -> list[Path]:
    """All weight files of a checkpoint, in the order of their names: those beside config.json, and the shards that the
    index lists, which may lie in folders below."""
    return sorted({*folder.glob("*.safetensors"), *(folder / name for name in _indexed(folder))})


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers takes the weights from: one whole file, the shards of the index, or else all."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    return [folder / name for name in _indexed(folder)] or sorted(folder.glob("*.safetensors"))


def shapes(files: list[Path]) -> Shapes:
    """The shape of each tensor in safetensors files, by name. StudyError for a file that is torn."""
    found = {}
    for path in files:
        try:
            with safe_open(path, "numpy") as file:
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise StudyError(f"{path}: the weights cannot be read ({error}); download them again") from None
    return found


def parameters(found: Shapes) -> int:
    """How many numbers tensors of these shapes hold."""
    return sum(map(math.prod, found.values()))


def check_depth(folder: Path, config: dict, found: Shapes) -> None:
    """Raise StudyError if config.json asks for more layers than there are tensors: even its skeleton would not end."""
    for key, value in config.items():
        if isinstance(value, dict):
            check_depth(folder, value, found)
        elif key in DEPTHS and isinstance(value, int) and value > len(found):
            fix = "config.json and weights are not of one checkpoint"
            raise StudyError(f"{folder}/config.json: {key} is {value}, but there are {len(found)} tensors; {fix}")


def _indexed(folder: Path) -> list[str]:
    """Names of the shards that the index lists; none if there is no index."""
    try:
        stated = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        return sorted({str(name) for name in stated.values()})
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StudyError(f"{folder}/{INDEX} is no index of weights; download it again") from None
