"""Reading the residual stream: answer emergence, logit lens on video tokens, attention maps.

A state after some layer is passed through the final norm and the output head, as if the network ended there. At the
last position this shows at which depth the answer's letter becomes the likely next token (paper, section 3.4); at
video positions, which word each patch of each frame is closest to (section 3.3). States are residual states, so the
norm is applied exactly once at every layer. Attention maps show how much a token reads from each video token, with and
without an edge set."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis_lib.errors import StudyError
from analysis_lib.inputs.records import LETTERS
from analysis_lib.instrument.passes import Clean, Seen, in_all_layers, masked_logits, measured_attention
from analysis_lib.models.decoder import unembed
from analysis_lib.models.records import Inputs, VideoLLM

SPACE = "▁Ġ "  # the marks that tokenizers put for a space


@torch.no_grad()
def answer_emergence(vlm: VideoLLM, inputs: Inputs, clean: Clean, *, normed: bool = True) -> pd.DataFrame:
    """Probability of each option's letter (of an open-ended question: of its answer's first token, `option` empty) at
    each layer: `layer` (1-based), `option`, `is_answer`, `probability` (0..1), `normed`.

    Softmax over the whole vocabulary, in float32. `normed=False` leaves the final norm out below the last layer, as
    the paper's released script does for some models; such curves start lower and are not comparable between models."""
    logits = unembed(vlm, clean.last, norm=normed)  # (L, V)
    logits[-1] = clean.logits
    probability = logits.softmax(-1)[:, inputs.letter_ids].cpu().numpy()  # (L, options)
    letters, answer = LETTERS if len(inputs.roles.positions("options")) else [""], inputs.roles.answer
    rows = [(n + 1, letters[i], i == answer, float(p), normed) for (n, i), p in np.ndenumerate(probability)]
    return pd.DataFrame(rows, columns=["layer", "option", "is_answer", "probability", "normed"])


@torch.no_grad()
def logit_lens(vlm: VideoLLM, clean: Clean, keywords: Mapping[str, Sequence[str]]) -> tuple[pd.DataFrame, np.ndarray]:
    """Words nearest to video tokens: counts of keywords per layer, and the top-1 token ids (L, N_v).

    `keywords` maps a kind ("spatial", …) to words. The frame has `layer` (1-based), `keyword`, `kind`, `count`: for
    how many of the N_v video tokens the nearest token spells the word's first sub-token, with or without a space
    before it. Words that begin with the same sub-token have the same counts."""
    # One layer at a time: (N_v, V) logits are the largest tensor here.
    top = np.stack([unembed(vlm, states).argmax(-1).cpu().numpy() for states in clean.video])  # (L, N_v)
    words = [(word, kind) for kind, some in keywords.items() for word in some]
    counts = [np.isin(top, first_token_ids(vlm, word)).sum(1).tolist() for word, _ in words]  # (L,) each
    rows = [(layer, *word, n) for word, own in zip(words, counts, strict=True) for layer, n in enumerate(own, start=1)]
    return pd.DataFrame(rows, columns=["layer", "keyword", "kind", "count"]), top


def is_one_token(vlm: VideoLLM, word: str) -> bool:
    """Whether the vocabulary has the word, inside a sentence, as one token."""
    lead = len(vlm.tokenizer("a")["input_ids"])
    ids = vlm.tokenizer(f"a {word}")["input_ids"][lead:]
    return len(ids) == 1 and ids[0] != vlm.tokenizer.unk_token_id


def first_token_ids(vlm: VideoLLM, word: str) -> list[int]:
    """Ids of all tokens that spell the first sub-token of a word inside a sentence; StudyError if the word is empty."""
    lead = len(vlm.tokenizer("a")["input_ids"])
    pieces = vlm.tokenizer.convert_ids_to_tokens(vlm.tokenizer(f"a {word.strip()}")["input_ids"][lead:])
    spelled = [text for piece in pieces if (text := piece.lstrip(SPACE))]
    if not spelled:
        raise StudyError(f"keyword {word!r} has no token of its own; choose another word")
    return _ids_by_spelling(vlm.tokenizer)[spelled[0]]


@lru_cache(maxsize=4)
def _ids_by_spelling(tokenizer: Any) -> dict[str, list[int]]:
    ids: dict[str, list[int]] = {}
    for piece, token in tokenizer.get_vocab().items():
        ids.setdefault(piece.lstrip(SPACE), []).append(token)
    return ids


@torch.no_grad()
def attention_maps(
    vlm: VideoLLM, inputs: Inputs, queries: Sequence[int], *, without: np.ndarray | None = None
) -> np.ndarray:
    """Attention (L, Q, N_v) of query positions onto video tokens, mean over heads, float32. `without` (n, n) bool
    [query, key] are edges cut in every layer, for example cross-frame edges."""
    rows = np.ix_(list(queries), inputs.roles.positions("video"))
    maps: list[np.ndarray] = []  # one a layer

    def observe(seen: Seen) -> None:
        maps.append(seen.weights[0].mean(0)[rows].cpu().numpy())

    masks = {} if without is None else in_all_layers(vlm, torch.from_numpy(without).to(vlm.device)[None, None])
    with measured_attention(vlm, observe):
        masked_logits(vlm, inputs, masks)
    return np.stack(maps)
