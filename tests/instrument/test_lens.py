"""Answer emergence, logit lens, attention maps."""

import numpy as np
import pytest
import torch

from analysis_lib.errors import StudyError
from analysis_lib.instrument.edges import blocked_edges
from analysis_lib.instrument.lens import answer_emergence, attention_maps, first_token_ids, logit_lens
from analysis_lib.instrument.passes import clean_pass
from analysis_lib.models.decoder import final_norm


@pytest.fixture(scope="module")
def clean(tiny_vlm, tiny_inputs):
    return clean_pass(tiny_vlm, tiny_inputs)


def test_emergence_has_a_row_per_layer_and_option(tiny_vlm, tiny_inputs, clean):
    frame = answer_emergence(tiny_vlm, tiny_inputs, clean)
    assert list(frame.columns) == ["layer", "option", "is_answer", "probability", "normed"] and len(frame) == 48
    assert list(frame["layer"].unique()) == list(range(1, 13)) and list(frame["option"][:4]) == list("ABCD")
    assert (frame["is_answer"] == (frame["option"] == "A")).all() and frame["normed"].all()
    assert frame["probability"].between(0, 1).all()


def test_emergence_ends_at_the_models_answer(tiny_vlm, tiny_inputs, clean):
    last = clean.logits.softmax(-1)[tiny_inputs.letter_ids].numpy()
    for normed in (True, False):
        frame = answer_emergence(tiny_vlm, tiny_inputs, clean, normed=normed)
        assert np.array_equal(frame["probability"][-4:].to_numpy(np.float32), last)


def test_emergence_without_norm_reads_raw_states(tiny_vlm, tiny_inputs, clean):
    frame = answer_emergence(tiny_vlm, tiny_inputs, clean, normed=False)
    head = tiny_vlm.hf.get_output_embeddings().weight
    wanted = (clean.last[4] @ head.T).softmax(-1)[tiny_inputs.letter_ids]
    assert torch.allclose(torch.tensor(frame["probability"][16:20].to_numpy()).float(), wanted, atol=1e-6)


def test_lens_reads_norm_and_head_of_each_layers_output(tiny_vlm, tiny_inputs, clean):
    _, top = logit_lens(tiny_vlm, clean, {})
    head, norm = tiny_vlm.hf.get_output_embeddings(), final_norm(tiny_vlm)
    with torch.no_grad():
        states = tiny_vlm.hf(inputs_embeds=tiny_inputs.embeds, output_hidden_states=True).hidden_states
        wanted = [head(norm(states[i][0, 50:82])).argmax(-1).numpy() for i in range(1, 12)]
        wanted.append(head(states[12][0, 50:82]).argmax(-1).numpy())  # this one is normed already
    assert top.shape == (12, 32) and np.array_equal(top, np.stack(wanted))


def test_keywords_are_counted_by_their_first_sub_token(tiny_vlm, tiny_inputs, clean):
    _, top = logit_lens(tiny_vlm, clean, {})
    seen = tiny_vlm.tokenizer.convert_ids_to_tokens(top[5].tolist())
    word = next(piece.lstrip("▁") for piece in seen if piece.lstrip("▁").isalpha())
    frame, _ = logit_lens(tiny_vlm, clean, {"seen": [word], "other": ["video"]})
    assert list(frame.columns) == ["layer", "keyword", "kind", "count"] and len(frame) == 24
    count = frame[(frame["keyword"] == word) & (frame["layer"] == 6)]["count"].item()
    assert count == sum(piece.lstrip("▁") == word for piece in seen) > 0


def test_first_sub_token_with_and_without_a_space(tiny_vlm):
    pieces = tiny_vlm.tokenizer.convert_ids_to_tokens(first_token_ids(tiny_vlm, " up "))
    assert "▁up" in pieces and {piece.lstrip("▁") for piece in pieces} == {"up"}
    with pytest.raises(StudyError, match="no token"):
        first_token_ids(tiny_vlm, "  ")


def test_attention_maps_are_the_weights_of_eager_attention(tiny_vlm, tiny_inputs):
    maps = attention_maps(tiny_vlm, tiny_inputs, [90, 154])
    decoder = tiny_vlm.hf.get_decoder()
    decoder.config._attn_implementation = "eager"
    try:
        with torch.no_grad():
            eager = decoder(inputs_embeds=tiny_inputs.embeds, output_attentions=True).attentions
    finally:
        decoder.config._attn_implementation = "sdpa"
    wanted = torch.stack([layer[0].mean(0)[[90, 154]][:, 50:82] for layer in eager])
    assert maps.shape == (12, 2, 32) and np.allclose(maps, wanted, atol=1e-5)


def test_attention_maps_without_edges(tiny_vlm, tiny_inputs):
    cross = blocked_edges("cross-frame", tiny_inputs.roles)
    inside = attention_maps(tiny_vlm, tiny_inputs, [70], without=cross)  # a token of frame 6
    assert inside[:, 0, :20].max() == 0 and inside[:, 0, 20].min() > 0
    plain, cut = (attention_maps(tiny_vlm, tiny_inputs, [90], without=w) for w in (None, cross))
    assert np.array_equal(plain[0], cut[0]) and not np.allclose(plain[1:], cut[1:])
