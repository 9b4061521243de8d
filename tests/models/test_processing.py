"""Architectures that take images only are shown a clip's frames as images: prompts, frames, marks, refusals."""

import json
import shutil
from dataclasses import replace

import census
import numpy as np
import pytest
import tiny_families
import torch
from census_table import frames
from tiny_families import SAMPLE

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.instrument.checks import load_model
from analysis_lib.instrument.edges import EDGE_SETS, Window, blocked_edges
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.trial import report, trial
from analysis_lib.models.checkpoints import find
from analysis_lib.models.merging import make_inputs
from analysis_lib.models.processing import template_of
from analysis_lib.study.provenance import of_model

TOKENS = 4  # of a frame


@pytest.fixture(scope="module", params=("gemma3", "mistral3", "idefics3"))
def shown(request, tmp_path_factory):
    """A checkpoint that passed the door, and a clip merged with a question."""
    folder = census.build(request.param, tmp_path_factory.mktemp("images") / request.param)
    vlm = load_model(str(folder), device="cpu")
    vlm.num_frames = tiny_families.FRAMES
    return vlm, make_inputs(vlm, SAMPLE, frames())


def test_each_frame_is_one_image_and_its_tokens_are_its_own(shown):
    vlm, inputs = shown
    roles = inputs.roles
    assert vlm.shown == "frames as images" and vlm.processor.image_token in vlm.template
    assert inputs.frame_tokens == (TOKENS,) * tiny_families.FRAMES
    assert inputs.frame_tokens == tuple(np.bincount(roles.frame_of)[1:]) and len(roles.names) == inputs.n
    assert len({inputs.input_ids[i] for i in roles.positions("video")}) == 1
    assert roles.quote(*roles.runs("question_only")[0]).strip() == SAMPLE.question
    template, placeholder = template_of(vlm)
    assert template.count(placeholder) == 1 and placeholder.count(vlm.processor.image_token) == tiny_families.FRAMES


TILED = {  # of the image processor, and how many tokens each tile of a frame then has, the whole frame last
    "idefics3": (
        {"do_image_splitting": True, "size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 128}},
        (4, 4, 4, 4, 4),
    ),
    "lfm2_vl": ({"do_image_splitting": True, "tile_size": 64, "max_tiles": 4, "max_pixels_tolerance": 0.1}, (4, 4, 6)),
}


@pytest.mark.parametrize("kind", TILED)
def test_all_tiles_of_a_frame_are_tokens_of_that_frame(kind, tmp_path):
    """And the checks at the door, which trade and blank frames, pass with tiles."""
    settings, tiles = TILED[kind]
    folder = census.build(kind, tmp_path / kind)
    stated = json.loads((folder / "processor_config.json").read_text())
    stated["image_processor"] |= settings
    (folder / "processor_config.json").write_text(json.dumps(stated))
    vlm = load_model(str(folder), device="cpu")
    vlm.num_frames = tiny_families.FRAMES
    inputs = make_inputs(vlm, SAMPLE, frames())
    assert inputs.frame_tokens == (sum(tiles),) * tiny_families.FRAMES
    for number in range(1, tiny_families.FRAMES + 1):
        shown = frames()
        shown[number - 1] = 0
        moved = (make_inputs(vlm, SAMPLE, shown).embeds - inputs.embeds)[0].abs().sum(-1) > 0  # (n,)
        assert np.array_equal(np.flatnonzero(moved), inputs.roles.positions(f"frame {number}"))
        assert tuple(stop - first for first, stop in inputs.roles.runs(f"frame {number}")) == tiles


def test_black_frames_and_fewer_frames_are_where_they_should_be(shown):
    vlm, inputs = shown
    black = frames()
    black[2] = 0
    moved = (make_inputs(vlm, SAMPLE, black).embeds - inputs.embeds)[0].abs().sum(-1)  # (n,)
    assert set(inputs.roles.frame_of[moved.numpy() > 0]) == {3}
    twice = make_inputs(vlm, SAMPLE, frames()[:2])
    own = [twice.embeds[0, twice.roles.positions(f"frame {number}")] for number in range(1, 5)]
    assert torch.equal(own[0], own[1]) and torch.equal(own[2], own[3]) and not torch.equal(own[1], own[2])


def test_exact_equals_full(shown):
    vlm, inputs = shown
    cuts = [Window(1, 1, 1, (1,)), Window(2, 1, 3, (1, 2, 3))]
    conditions = [Condition(name, cut, blocked_edges(name, inputs.roles)) for name in EDGE_SETS for cut in cuts]
    exact, full = (knockout_logits(vlm, replace(inputs), conditions, mode=mode)[0] for mode in ("exact", "full"))
    assert (exact.softmax(-1) - full.softmax(-1)).abs().max() < 2e-6 and (exact - exact[0]).abs().max() > 0.01


def test_it_is_said_wherever_numbers_are_read(shown):
    vlm, _ = shown
    assert of_model(vlm)["shown"] == "frames as images"
    found = trial(vlm.hf.name_or_path, device="cpu")
    assert found["passed"] and f"8 frames as images make {found['video_tokens']} of" in report(found)


def test_a_question_with_an_image_in_it_is_a_bad_sample(shown):
    vlm, _ = shown
    with pytest.raises(SampleError, match="stands for a frame"):
        make_inputs(vlm, replace(SAMPLE, question=f"What is {vlm.processor.image_token}?"), frames())


def test_a_template_that_takes_one_image_is_refused(shown, tmp_path):
    vlm, _ = shown
    folder = shutil.copytree(vlm.hf.name_or_path, tmp_path / "copy")
    template, token = folder / "chat_template.jinja", vlm.processor.image_token
    template.write_text(template.read_text().replace(token, f"{{% if loop.first %}}{token}{{% endif %}}"))
    with pytest.raises(StudyError, match="does not take a clip's frames as images: it shows 1 of one and 1 of two"):
        load_model(str(folder), device="cpu")
    template.unlink()
    with pytest.raises(StudyError, match="is not supported; .* or an image processor and a chat template"):
        find(str(folder))


@pytest.mark.parametrize(("kind", "why"), [("instructblipvideo", "Q-Former"), ("mllama", "cross-attention")])
def test_what_no_cut_can_reach_is_refused_by_name(tiny_model_dir, tmp_path, kind, why):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}))
    with pytest.raises(StudyError, match=f"'{kind}' cannot be studied: .*{why}"):
        find(str(folder))
