"""Knockouts on a model's own open-ended answer, at its first verbs (paper, B.2).

The model answers in full, token by token. At each of its first three verbs the answer is cut off just before the verb:
what was said so far becomes part of the prompt, the verb is the token to be predicted, and the token before it is the
last position. Then video, question and the response so far are cut from each other. The later the verb, the more the
model can read from its own words. The published code looks for verbs among the strings of one or two tokens; here a
tagger reads the whole text, and a verb's first token is the anchor. No curve is dropped for its sign."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch

from analysis_lib.errors import SampleError, StudyError
from analysis_lib.instrument.edges import windows
from analysis_lib.models.capture import decoder_call, reads_ahead
from analysis_lib.models.decoder import decode, decoder_layers, unembed
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.study.knockouts import Answer, Rows, cut_rows, joined, layers_of
from analysis_lib.study.request import Request

EDGE_SETS = ("video->question", "video->response", "video->last", "question->last", "response->last")
ANCHORS, LONGEST = 3, 256  # verbs followed, tokens of an answer
BE = frozenset("be am is are was were been being 's 're 'm".split())
HELPING = frozenset("have has had having do does did".split())


def response_knockouts(answer: Answer, request: Request) -> Rows:
    """One row per verb, edge set and window. `anchor` counts verbs from 1, `word` is the verb's first token. Raises
    SampleError for an answer with fewer than three verbs that two tokens were said before."""
    vlm, said = answer.vlm, generate(answer.vlm, answer.inputs, LONGEST)
    verbs = [at for at in verb_tokens(vlm.tokenizer, said) if at > 1]
    if len(verbs) < ANCHORS:
        raise SampleError(f"the model's answer has {len(verbs)} verbs to follow; {ANCHORS} are needed")
    cut_at, parts = windows(len(decoder_layers(vlm)), request.window, request.style), []
    for number, at in enumerate(verbs[:ANCHORS], start=1):
        cut_off = _cut_off(answer, said, at, follows_verb=at - 2 in verbs)
        own = {"anchor": number, "word": vlm.tokenizer.decode([said[at]])}
        cuts = [(own | {"edge_set": name} | layers_of(w), w) for name in EDGE_SETS for w in cut_at]
        parts.append(cut_rows(cut_off, f"response {number}", cuts, request))
    return joined(parts)


def _cut_off(answer: Answer, said: Sequence[int], at: int, *, follows_verb: bool) -> Answer:
    """The sample with its answer up to token `at`, which is to be predicted. As published, the token just before the
    last one stays open to it (role `open_response`), unless it is a verb."""
    inputs = continued(answer.vlm, answer.inputs, said[:at])
    if not follows_verb and at > 2:
        inputs.roles = replace(inputs.roles, names=(*inputs.roles.names[:-2], "open_response", "last"))
    inputs.letter_ids = [said[at]]
    found = Answer(answer.vlm, answer.sample, answer.clip, inputs)
    if found.token != said[at]:
        raise SampleError("the model says something else when its answer is put into the prompt")
    return found


def continued(vlm: VideoLLM, inputs: Inputs, said: Sequence[int]) -> Inputs:
    """The prompt with the tokens of an answer appended, as they were said: nothing is encoded again. Raises StudyError
    for a model that takes an argument per position whose continuation is not known."""
    tokens = torch.tensor([list(said)], device=inputs.embeds.device)  # (1, k)
    embeds = vlm.hf.get_input_embeddings()(tokens).to(inputs.embeds.dtype)  # (1, k, d)
    texts = [vlm.tokenizer.decode([token]) for token in said]
    roles = replace(
        inputs.roles,
        names=(*inputs.roles.names[:-1], "tail", *["response"] * (len(said) - 1), "last"),
        spans=(*inputs.roles.spans, *pairwise(accumulate(map(len, texts), initial=len(inputs.roles.text)))),
        text=inputs.roles.text + "".join(texts),
    )
    grow = partial(_grown, inputs.n, tokens)
    model_inputs = inputs.model_inputs and {name: grow(name, value) for name, value in inputs.model_inputs.items()}
    mask = inputs.decoder_kwargs.get("attention_mask")
    if isinstance(mask, Mapping) or mask is not None and mask.ndim > 2:  # the model's own, for the prompt alone
        decoder_kwargs = decoder_call(vlm, model_inputs)[1]
        roles = replace(roles, ahead=reads_ahead(decoder_kwargs))
    else:
        decoder_kwargs = {name: grow(name, value) for name, value in inputs.decoder_kwargs.items()}
    return replace(
        inputs,
        input_ids=[*inputs.input_ids, *said], n=inputs.n + len(said), roles=roles,
        embeds=torch.cat([inputs.embeds, embeds], 1),  # (1, n + k, d)
        decoder_kwargs=decoder_kwargs, model_inputs=model_inputs,
    )  # fmt: skip


def _grown(n: int, tokens: torch.Tensor, name: str, value: Any) -> Any:
    """An argument of a model, or of its decoder, for k more positions of text."""
    if not torch.is_tensor(value) or not value.ndim or value.shape[-1] != n:
        return value
    if name == "input_ids":
        more = tokens
    elif name == "position_ids":
        more = value[..., -1:] + torch.arange(1, tokens.shape[1] + 1, device=value.device)  # (..., 1, k)
    elif value.ndim == 2 and (name in ("attention_mask", "visual_pos_masks") or name.endswith("token_type_ids")):
        more = torch.full_like(value[:, :1], name == "attention_mask").expand(-1, tokens.shape[1])  # (1, k)
    else:
        raise StudyError(f"it is not known how {name!r} goes on after the prompt, so open-ended answers cannot be cut")
    return torch.cat([value, more.to(value.dtype)], -1)


@torch.no_grad()
def generate(vlm: VideoLLM, inputs: Inputs, longest: int) -> list[int]:
    """The tokens of the model's greedy answer, no more than `longest`, without the one that ends it."""
    from transformers import DynamicCache  # slow to import, and only open-ended answers need it

    ends = getattr(vlm.hf.generation_config, "eos_token_id", None)
    ends = vlm.tokenizer.eos_token_id if ends is None else ends
    ends = ends if isinstance(ends, list) else [ends]
    cache = DynamicCache(config=vlm.hf.config.get_text_config(decoder=True))  # with states where layers are recurrent
    said, given = [], inputs
    positions = inputs.decoder_kwargs.get("position_ids")  # (..., 1, n), of models that do not simply count
    while len(said) < longest:
        hidden = decode(vlm, given, past_key_values=cache, use_cache=True)  # (1, n, d), then (1, 1, d)
        token = int(unembed(vlm, hidden[:, -1], norm=False).argmax())
        if token in ends:
            break
        said.append(token)
        embeds = vlm.hf.get_input_embeddings()(torch.tensor([[token]], device=vlm.device))  # (1, 1, d)
        where = {} if positions is None else {"position_ids": positions[..., -1:] + len(said)}
        given = replace(inputs, embeds=embeds, decoder_kwargs=where)
    return said


def verb_tokens(tokenizer: Any, said: Sequence[int]) -> list[int]:
    """Indices of the tokens with which verbs of an English answer begin, in order, by TextBlob's tagger; forms of have
    and do that help another verb, and all forms of be, do not count."""
    from textblob.en import tag  # likewise

    text = tokenizer.decode(said)
    ends = [len(tokenizer.decode(said[: i + 1])) for i in range(len(said))]
    with warnings.catch_warnings():  # it leaves its lexicon's file open
        warnings.simplefilter("ignore", ResourceWarning)
        tagged = tag(text)
    found, at = [], 0
    for i, (word, kind) in enumerate(tagged):
        start = text.find(word, at)
        if start < 0:  # the tagger writes some signs in its own way
            continue
        at = start + len(word)
        before_verb = any(later.startswith("VB") for _, later in tagged[i + 1 : i + 3])
        helps = word.lower() in BE or (word.lower() in HELPING and before_verb)
        if kind.startswith("VB") and not helps:
            found.append(next(token for token, end in enumerate(ends) if end > start))
    return list(dict.fromkeys(found))
