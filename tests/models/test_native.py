"""Prompts and clips through a native model's own processor: roles, positions in time, refusals, a whole sweep."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny_families
import torch
from clips import write_small_benchmark
from tiny_families import SAMPLE, some_frames

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.instrument.checks import load_model
from analysis_lib.instrument.passes import clean_pass
from analysis_lib.models import families
from analysis_lib.models.capture import decoder_call
from analysis_lib.models.merging import make_inputs, model_logits
from analysis_lib.models.native import continued_positions
from analysis_lib.study import runs as study
from analysis_lib.study.provenance import of_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # GLM-4V's processor

PATCHES = dict.fromkeys(
    ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "glm4v"), 2
)  # frames that make one temporal patch


def test_roles_are_a_partition_that_decodes_to_its_source(case):
    inputs, roles = case.inputs, case.inputs.roles
    frames = tiny_families.FRAMES // PATCHES.get(case.name, 1)
    assert len(roles.names) == inputs.n == len(inputs.input_ids) == inputs.embeds.shape[1]
    assert tuple(np.bincount(roles.frame_of)[1:]) == inputs.frame_tokens and len(inputs.frame_tokens) == frames
    assert len({inputs.input_ids[i] for i in roles.positions("video")}) == 1
    assert [roles.quote(*roles.runs(f"option {x}")[0]).strip() for x in "ABC"] == [
        f"({x}) {text}" for x, text in zip("ABC", SAMPLE.options, strict=True)
    ]
    (start, stop), *more = roles.runs("question_only")
    assert roles.quote(start, stop).strip() == SAMPLE.question and not more
    assert case.vlm.tokenizer.decode(inputs.input_ids[start:stop]).strip() == SAMPLE.question
    wanted = {"internvl": "Frame3: ", "smolvlm": "Frame from 00:02:", "video_llama_3": "Time 2.0s:"}
    wanted |= {
        "qwen3_vl": "<2.5 seconds>",
        "qwen3_vl_moe": "<0.5 seconds>",
        "qwen3_5": "<0.5 seconds>",
        "glm4v": "<|end_of_image|>2",
        "llava_onevision": "<video>",
    }
    text = "".join(roles.quote(*run) for run in roles.runs("frame_text"))
    assert wanted[case.name] in text if case.name in wanted else not text


def test_compressed_video_has_as_many_tokens_as_its_mask_keeps(checkpoint):
    vlm = checkpoint("video_llama_3")
    frames = some_frames()
    frames[2], frames[3] = frames[1], frames[1]  # a still: one token is kept
    frames[3, :10] = 255 - frames[3, :10]
    inputs = make_inputs(vlm, SAMPLE, frames)
    assert inputs.frame_tokens[0] == inputs.frame_tokens[1] > inputs.frame_tokens[3] > inputs.frame_tokens[2] == 1
    assert inputs.grid is None and tuple(np.bincount(inputs.roles.frame_of)[1:]) == inputs.frame_tokens


def test_a_clip_that_the_model_refuses_is_a_bad_sample(checkpoint):
    vlm = checkpoint("internvl")
    given = make_inputs(vlm, SAMPLE, some_frames()).model_inputs
    features = given["mm_encoder_outputs"]["image"]
    fewer = {"image": type(features)(pooler_output=features.pooler_output[:3])}
    with pytest.raises(SampleError, match="the model refuses this clip"):
        decoder_call(vlm, {**given, "mm_encoder_outputs": fewer})


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl", "internvl", "llava_next_video"])
def test_fewer_frames_are_repeated_and_more_are_refused(checkpoint, family):
    vlm, frames = checkpoint(family), some_frames()
    short = make_inputs(vlm, SAMPLE, frames[:2])
    assert len(short.frame_tokens) == len(make_inputs(vlm, SAMPLE, frames).frame_tokens)
    with pytest.raises(SampleError, match="8 frames given, the model takes 4"):
        make_inputs(vlm, SAMPLE, np.concatenate([frames, frames]))


@pytest.mark.parametrize(("family", "step"), [("qwen2_vl", 1), ("qwen2_5_vl", 4)])
@pytest.mark.parametrize("count", [1, 2, 7, 16, 64])
def test_text_after_a_video_goes_on_after_its_last_moment(checkpoint, family, step, count):
    vlm, lead, trail, (h, w) = checkpoint(family), 5, 6, (4, 6)
    n_video = count * (h // 2) * (w // 2)
    kinds = torch.tensor([[0] * lead + [2] * n_video + [0] * trail])
    grid, seconds = torch.tensor([[count, h, w]]), {"second_per_grid_ts": torch.tensor([1.0])}
    more = seconds if family == "qwen2_5_vl" else {}
    own, _ = vlm.hf.model.get_rope_index(torch.zeros_like(kinds), kinds, video_grid_thw=grid, **more)
    fixed = continued_positions(own, kinds[0].numpy() == 2)
    assert torch.equal(fixed[..., : lead + n_video], own[..., : lead + n_video])
    times = [lead + step * t for t in range(count) for _ in range(n_video // count)]
    assert fixed[0, 0, lead : lead + n_video].tolist() == times
    start = 1 + max(times[-1], lead + h // 2 - 1, lead + w // 2 - 1)
    assert fixed[:, 0, lead + n_video :].tolist() == [list(range(start, start + trail))] * 3
    assert torch.equal(fixed, own) == (step * (count - 1) + 1 <= w // 2)  # the fault shows in long videos only


def test_repaired_positions_reach_the_model_and_are_recorded(checkpoint):
    vlm = checkpoint("qwen2_vl", frames=16)
    inputs = make_inputs(vlm, SAMPLE, some_frames(count=16))
    own = decoder_call(vlm, {k: v for k, v in inputs.model_inputs.items() if k != "position_ids"})[1]
    assert inputs.positions == vlm.positions == "repaired"
    assert not torch.equal(own["position_ids"], inputs.decoder_kwargs["position_ids"])
    assert torch.allclose(clean_pass(vlm, inputs).logits, model_logits(vlm, inputs), atol=1e-5)
    unrepaired = {k: v for k, v in inputs.model_inputs.items() if k != "position_ids"}
    inputs.model_inputs = unrepaired
    assert (clean_pass(vlm, inputs).logits - model_logits(vlm, inputs)).abs().max() > 1e-3
    assert of_model(vlm)["positions"] == "repaired" and "positions" not in of_model(checkpoint("glm4v"))


@pytest.mark.parametrize("family", ["qwen3_vl", "glm4v"])
def test_other_families_need_no_repair(checkpoint, family):
    vlm = checkpoint(family)
    inputs = make_inputs(vlm, SAMPLE, some_frames())
    own = inputs.decoder_kwargs["position_ids"]
    assert own.ndim == 3 and torch.equal(continued_positions(own, inputs.roles.frame_of > 0), own)


def test_an_unseen_architecture_passes_the_checks_or_is_told_which_failed(checkpoint, monkeypatch):
    checkpoint("internvl"), checkpoint("llava_onevision")
    monkeypatch.delitem(families.FAMILIES, "internvl")
    monkeypatch.delitem(families.FAMILIES, "llava_onevision")
    assert checkpoint("internvl").num_frames == tiny_families.FRAMES
    with pytest.raises(StudyError, match="'llava_onevision' .* is no known family.*runs of .33. video tokens"):
        checkpoint("llava_onevision")
    checkpoint("qwen2_vl")
    monkeypatch.delitem(families.FAMILIES, "qwen2_vl")
    with pytest.raises(StudyError, match="'qwen2_vl' .* is no known family.*inside the video's span of positions"):
        checkpoint("qwen2_vl")


def test_a_folder_without_a_chat_template_is_refused(checkpoint, tmp_path, monkeypatch):
    vlm = checkpoint("qwen2_vl")
    monkeypatch.setattr(vlm, "template", "<|video_pad|> no question")
    with pytest.raises(StudyError, match="must show one video"):
        make_inputs(vlm, SAMPLE, some_frames())
    folder = shutil.copytree(vlm.hf.name_or_path, tmp_path / "copy")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(StudyError, match="processor or its chat template cannot be used"):
        load_model(str(folder), device="cpu")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["TheirOwnCode"]}))
    with pytest.raises(StudyError, match="no class 'TheirOwnCode'"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("family", ["qwen2_vl", "llava_onevision", "smolvlm"])
def test_folders_of_older_checkpoints_load_alike(checkpoint, family, tmp_path):
    new = checkpoint(family)
    old = load_model(str(tiny_families.as_published_before(shutil.copytree(new.hf.name_or_path, tmp_path / "old"))))
    old.num_frames = new.num_frames
    one, other = (make_inputs(vlm, SAMPLE, some_frames()) for vlm in (new, old))
    assert one.input_ids == other.input_ids and torch.equal(one.embeds, other.embeds)
    (tmp_path / "old" / "video_preprocessor_config.json").unlink()
    (tmp_path / "old" / "preprocessor_config.json").unlink()
    with pytest.raises(StudyError, match="holds no preprocessor_config.json"):
        load_model(str(tmp_path / "old"))


def test_a_processor_that_tokenizes_otherwise_is_refused(checkpoint, monkeypatch):
    vlm = checkpoint("video_llava")
    monkeypatch.setattr(vlm, "tokenizer", checkpoint("glm4v").tokenizer)
    with pytest.raises(StudyError, match="otherwise than tokenizer.json"):
        make_inputs(vlm, SAMPLE, some_frames())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_small_benchmark(tmp_path_factory.mktemp("bench"), 1)


def test_a_sweep_measures_everything(case, root, tmp_path):
    """From the folder on disk to stored rows, at the family's own number of frames."""
    measures = ("knockout", "emergence", "lens", "pathway", "controls")
    request = {"edges": ("cross-frame", "video->last"), "keep": "all", "measure": measures, "out": tmp_path}
    study.sweep(model=case.vlm.hf.name_or_path, benchmark=f"tvbench:{root}", **request)
    rows = {path.stem: pd.read_parquet(path) for path in tmp_path.glob("*.parquet")}
    assert len(rows["baseline"]) == 2 and len(rows["knockout"]) == 12 and rows["skipped"].empty
    assert (rows["baseline"]["n_frames"] == 8).all() and rows["knockout"]["p_knock"].nunique() > 6
    assert {"emergence", "lens", "pathway", "controls"} <= rows.keys() and not any(
        r.empty for r in rows.values() if r is not rows["skipped"]
    )
    stated = json.loads((tmp_path / "manifest.json").read_text())["settings"]
    assert stated.get("positions", "own") == case.vlm.positions
