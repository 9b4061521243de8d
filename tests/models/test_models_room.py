"""The room `models` in one walk: a checkpoint's folder, a question and a clip go in, one merged prompt comes out."""

import torch

from analysis_lib.inputs.records import Clip, Question
from analysis_lib.models.checkpoints import depth_of, find
from analysis_lib.models.decoder import decode, decoder_layers, unembed
from analysis_lib.models.loading import load_checkpoint
from analysis_lib.models.merging import make_inputs, model_logits, on_grid


def test_from_a_folder_to_a_merged_prompt(tiny_model_dir, tiny_frames):
    # A name is checked, and the depth read, before anything is loaded.
    folder = find(str(tiny_model_dir))
    assert depth_of(folder) == 12

    vlm = load_checkpoint(str(folder), device="cpu")
    assert vlm.num_frames == 8 and vlm.protocol == "mvbench" and len(decoder_layers(vlm)) == 12

    # Prompt and video tokens are merged; the letters of the options are entries of the vocabulary.
    question = Question("What moves?", ("a cat", "a dog"), answer=1)
    clip = Clip(tiny_frames, indices=tuple(range(8)), seconds=tuple(map(float, range(8))), sha256="")
    inputs = make_inputs(vlm, question, clip)
    assert inputs.embeds.shape == (1, inputs.n, 64)
    assert vlm.tokenizer.convert_ids_to_tokens(inputs.letter_ids) == ["A", "B"]

    # Every position has one role, and a role quotes the text that it stands for.
    roles = inputs.roles
    assert len(roles.names) == inputs.n and roles.names[-1] == "last"
    assert roles.quote(*roles.runs("true_option")[0]).strip() == "(B) a dog"
    assert list(roles.positions("video")) == [i for i, frame in enumerate(roles.frame_of) if frame]

    # Eight frames of 2 x 2 tokens: values of video tokens can be laid out as the picture is.
    assert inputs.grid == (8, 2, 2) and inputs.frame_tokens == (4,) * 8
    assert on_grid(inputs, roles.frame_of[roles.positions("video")])[2].tolist() == [[3, 3], [3, 3]]

    # The decoder, called with the merged prompt, says what the untouched model says.
    with torch.no_grad():
        states = decode(vlm, inputs)  # (1, n, d), after the final norm
        logits = unembed(vlm, states[0, -1], norm=False)
        assert torch.allclose(logits, model_logits(vlm, inputs), atol=1e-5)
