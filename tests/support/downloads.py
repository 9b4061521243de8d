"""The benchmarks of `published` as they are downloaded: packed in their archives, and as the hub's copies in parquet.

Members of an archive are named as the published ones, so `unpack` puts files where a user's `unzip` and `tar` would put
them. Columns and their types are those of the dataset cards, where a card states them (docs/benchmarks.md)."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
from published import (
    LINES,
    write_egoschema,
    write_longvideobench,
    write_mvbench,
    write_nextqa,
    write_perceptiontest,
    write_tempcompass,
    write_tomato,
    write_tvbench,
    write_vcgbench,
    write_videomme,
)

TEXT, NUMBER, TEXTS = pyarrow.string(), pyarrow.int64(), pyarrow.list_(pyarrow.string())


def pack(archive: Path, *places: Path, below: Path | None = None) -> None:
    """Move files and folders into a zip beside them; members are named from the archive's folder, or from `below`."""
    files = [f for place in places for f in (sorted(place.rglob("*")) if place.is_dir() else [place]) if f.is_file()]
    with zipfile.ZipFile(archive, "w") as packed:
        for file in files:
            packed.write(file, file.relative_to(below or archive.parent))
    for place in places:
        shutil.rmtree(place) if place.is_dir() else place.unlink()


def unpack(root: Path) -> Path:
    """Every archive below ROOT into its own folder, parts joined before; the archives stay, as they do."""
    if parts := sorted(root.glob("*.tar.part.*")):
        joined = root / parts[0].name.partition(".part.")[0]
        joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    for archive in sorted(root.rglob("*.tar")):
        with tarfile.open(archive) as packed:
            packed.extractall(archive.parent, filter="data")
    for archive in sorted(root.rglob("*.zip")):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(archive.parent)
    return root


def table(file: Path, types: dict[str, pyarrow.DataType], rows: list[dict]) -> None:
    """A parquet file with the published column types."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(types)), file)


def tvbench(root: Path) -> Path:
    """A zip a task, and a folder of zips for Egocentric Sequence; no videos of Action Antonym."""
    write_tvbench(root, without="action_antonym")
    json = root / "json/egocentric_sequence.json"
    json.write_text(json.read_text().replace("egocentric_sequence.mp4", "1.1/first.mp4"))
    nested = root / "video/egocentric_sequence"
    (nested / "1.1").mkdir()
    (nested / "egocentric_sequence.mp4").rename(nested / "1.1/first.mp4")
    pack(nested / "1.1.zip", nested / "1.1")
    for folder in (f for f in sorted((root / "video").iterdir()) if f != nested):
        pack(folder.with_suffix(".zip"), folder)
    return root


def mvbench(root: Path) -> Path:
    """A zip a source, the clips that were added later in data0613.zip, and no videos of NTU RGB+D."""
    write_mvbench(root)
    video = root / "video"
    shutil.rmtree(video / "nturgbd")
    for folder in ("star/Charades_v1_480", "clevrer/video_validation"):
        (video / "data0613" / folder).parent.mkdir(parents=True)
        shutil.move(video / folder, video / "data0613" / folder)
    for folder in [f for f in sorted(video.iterdir()) if f.name not in ("star", "clevrer")]:
        pack(folder.with_suffix(".zip"), folder)
    return root


def tomato(root: Path) -> Path:
    """The hub's copy: one parquet file a task, whose name differs from the repository's in two tasks."""
    write_tomato(root)
    changes = ("composite", "counterfactual", "first_person", "zoom")
    types = {"question": TEXT, "demonstration_type": TEXT, "variation": pyarrow.struct(dict.fromkeys(changes, NUMBER))}
    types |= {"motion_type": TEXT, "answer": NUMBER, "note": TEXT, "key": TEXT, "options": TEXTS}
    for i, file in enumerate(sorted((root / "data").glob("*.json"))):
        row = {"question": "Which?", "options": ["x", "y", "z"], "answer": i % 3, "key": f"{i:04d}-00", "note": ""}
        row |= {"demonstration_type": ("human", "object", "simulated")[i % 3], "motion_type": file.stem}
        row |= {"variation": dict.fromkeys(changes, 0), "video_source_url": ""}
        name = f"{file.stem.replace('&', '_')}-00000-of-00001-b1a5fcd07825dea8.parquet"
        table(file.with_name(name), types | {"video_source_url": TEXT}, [row])
        file.unlink()
    return root


def longvideobench(root: Path) -> Path:
    """One tar of videos, cut into parts, and one of subtitles."""
    write_longvideobench(root)
    (root / "subtitles").mkdir()
    (root / "subtitles/v.json").write_text("[]")
    for name in ("videos", "subtitles"):
        with tarfile.open(root / f"{name}.tar", "w") as packed:
            packed.add(root / name, name)
        shutil.rmtree(root / name)
    content = (root / "videos.tar").read_bytes()
    (root / "videos.tar").unlink()
    half = len(content) // 2
    for part, piece in (("aa", content[:half]), ("ab", content[half:])):
        (root / f"videos.tar.part.{part}").write_bytes(piece)
    return root


def videomme(root: Path) -> Path:
    """Chunks of videos, a zip of subtitles, and the columns of the card; one file ends in capitals."""
    write_videomme(root)
    file = root / "videomme/test-00000-of-00001.parquet"
    rows = pyarrow.parquet.read_table(file).to_pylist()
    rows = [row | {"video_id": f"{i:03d}", "videoID": f"abcdefghij{i}"} for i, row in enumerate(rows)]
    rows[1]["url"] = "https://youtu.be/abcdefghij1"  # says nothing to the paper's code
    names = "video_id duration domain sub_category url videoID question_id task_type question options answer".split()
    table(file, dict.fromkeys(names, TEXT) | {"options": TEXTS}, rows)
    (root / "data/abcdefghij2.mp4").rename(root / "data/abcdefghij2.MP4")
    (root / "subtitle").mkdir()
    (root / "subtitle/abcdefghij0.srt").write_text("1\n")
    pack(root / "subtitle.zip", root / "subtitle")
    pack(root / "videos_chunked_01.zip", root / "data/abcdefghij0.mp4", root / "data/abcdefghij1.mkv")
    pack(root / "videos_chunked_02.zip", root / "data")
    return root


def vcgbench(root: Path) -> Path:
    """The hub's copy: a folder a task; each wording of a consistency question is a row."""
    write_vcgbench(root)
    shutil.rmtree(root / "Benchmarking_QA")
    row = {"video_name": "v1", "answer": "A cat."}
    types = dict.fromkeys(("video_name", "question", "answer"), TEXT)
    for task in ("Generic", "Temporal"):
        table(root / task / "test-00000-of-00001.parquet", types, [row | {"question": "What?"}])
    rows = [row | {"question_1": "What is it?", "question_2": "None"}]
    rows += [row | {"question_1": "None", "question_2": "Which is it?"}]
    types = dict.fromkeys(("video_name", "question_1", "question_2", "answer"), TEXT)
    table(root / "Consistency/test-00000-of-00001.parquet", types, rows)
    pack(root / "videos.zip", root / "Test_Videos")
    return root


def tempcompass(root: Path) -> Path:
    """The hub's copy: a row a question, other kinds of questions beside them."""
    write_tempcompass(root)
    shutil.rmtree(root / "questions")
    asked = [("7", "order", "B. right"), ("7", "direction", "B. right"), ("7_reverse", "direction", "A. left")]
    rows = [{"video_id": video, "dim": dim, "answer": answer, "question": LINES} for video, dim, answer in asked]
    types = dict.fromkeys(("video_id", "question", "answer", "dim"), TEXT)
    table(root / "multi-choice/test-00000-of-00001.parquet", types, rows)
    table(root / "yes_no/test-00000-of-00001.parquet", types, [rows[0] | {"answer": "yes"}])
    pack(root / "tempcompass_videos.zip", root / "videos")
    return root


def perceptiontest(root: Path) -> Path:
    """The authors' zips of annotations and videos."""
    write_perceptiontest(root)
    pack(root / "mc_question_valid_annotations.zip", root / "mc_question_valid.json")
    pack(root / "valid_videos.zip", root / "videos")
    return root


def perceptiontest_hub(root: Path) -> Path:
    """The hub's copy: a row a question, whose answer is a number written as text."""
    write_perceptiontest(root)
    (root / "mc_question_valid.json").unlink()
    names = "video_name question question_id answer_id area reasoning".split()
    row = {"question": "What next?", "options": ["one", "two", "three"], "reasoning": "Predictive", "tag": ["motion"]}
    asked = [("video_1", "0", "2", "Physics"), ("video_1", "1", "0", "Memory"), ("video_2", "0", "2", "Physics")]
    rows = [row | dict(zip(("video_name", "question_id", "answer_id", "area"), facts, strict=True)) for facts in asked]
    types = dict.fromkeys(names, TEXT) | {"options": TEXTS, "tag": TEXTS}
    table(root / "mc_question_val/validation-00000-of-00001.parquet", types, rows)
    pack(root / "videos_chunked_01.zip", root / "videos")
    return root


def nextqa(root: Path) -> Path:
    """The hub's copy: the table's columns, videos in one folder."""
    write_nextqa(root)
    for file in sorted((root / "NExTVideo").rglob("*.mp4")):
        file.rename(root / "NExTVideo" / file.name)
        file.parent.rmdir()
    shutil.rmtree(root / "dataset")
    row = {
        "question": "why did the boy run",
        "a0": "one",
        "a1": "two",
        "a2": "three, or so",
        "a3": "four",
        "a4": "five",
    }
    rows = [row | {"video": f"40{i}", "answer": i, "qid": i, "type": kind} for i, kind in enumerate(("CW", "TP", "TN"))]
    types = dict.fromkeys(("video", "question", "type", "a0", "a1", "a2", "a3", "a4"), TEXT)
    table(root / "MC/test-00000-of-00001.parquet", types | dict.fromkeys(("answer", "qid"), pyarrow.int32()), rows)
    pack(root / "videos.zip", root / "NExTVideo")
    return root


def egoschema(root: Path) -> Path:
    """The hub's copy: the questions with a public answer, letters before the options."""
    write_egoschema(root)
    (root / "questions.json").unlink()
    (root / "subset_answers.json").unlink()
    options = [f"{letter}. C does {i}." for i, letter in enumerate("ABCDE")]
    rows = [{"video_idx": f"u-{i}", "answer": answer, "option": options} for i, answer in ((0, "1"), (2, "4"))]
    rows = [row | {"question": "What is C doing?", "question_idx": str(i)} for i, row in enumerate(rows)]
    types = dict.fromkeys(("question_idx", "question", "video_idx", "answer"), TEXT) | {"option": TEXTS}
    table(root / "Subset/test-00000-of-00001.parquet", types, rows)
    pack(root / "videos_chunked_01.zip", root / "videos")
    return root


DOWNLOADS = {  # each with the benchmark's name
    "tvbench": tvbench,
    "mvbench": mvbench,
    "tomato": tomato,
    "longvideobench": longvideobench,
    "videomme": videomme,
    "vcgbench": vcgbench,
    "tempcompass": tempcompass,
    "perceptiontest": perceptiontest,
    "perceptiontest hub": perceptiontest_hub,
    "nextqa": nextqa,
    "egoschema": egoschema,
}
