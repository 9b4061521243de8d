"""Does the instrument work on this model? The self-test, and the door by which a model comes in.

A model of a family that is not in the table takes the common path only after the self-test passed on a made-up clip."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from analysis_lib.errors import reason_of
from analysis_lib.inputs.records import LETTERS
from analysis_lib.instrument.edges import blocked_edges, windows
from analysis_lib.instrument.frames import misplaced_frames, traded_frames
from analysis_lib.instrument.knockout import Condition, knockout_logits
from analysis_lib.instrument.passes import attention_mask_hooks, clean_pass, in_all_layers, masked_logits
from analysis_lib.models.decoder import decoder_layers, unembed
from analysis_lib.models.families import FAMILIES
from analysis_lib.models.loading import load_checkpoint
from analysis_lib.models.merging import make_inputs, model_logits
from analysis_lib.models.records import Inputs, VideoLLM
from analysis_lib.models.skeleton import made_up_clip, unfit

TRADED = "tokens that move or stay wrongly when two frames trade places"
MEET = " (frames meet in the vision tower)"
LATER = "change of the first frame by later ones that no set cuts"
BOTH = " (frames read each other both ways)"


def load_model(model: str, *, dtype: str = "auto", device: str = "auto") -> VideoLLM:
    """`models.loading.load_checkpoint`; a model of an unknown family is tried on a made-up clip, on which also is seen
    whether frames read each other both ways. Raises StudyError if the checkpoint cannot be loaded, or if a check of
    the instrument fails."""
    vlm = load_checkpoint(model, dtype=dtype, device=device)
    if vlm.processor is not None and vlm.hf.config.model_type not in FAMILIES:
        if failed := _failed(vlm):
            raise unfit(vlm, failed)
        vlm.both_ways = make_inputs(vlm, *made_up_clip(vlm)).roles.both_ways
    return vlm


def _failed(vlm: VideoLLM) -> str:
    """What fails on a made-up clip; empty if nothing does."""
    try:
        table = door_test(vlm)
        return "; ".join(table.loc[~table["passed"], "check"])
    except Exception as error:  # whatever an unknown architecture does not share with the known ones
        return reason_of(error)


@torch.no_grad()
def door_test(vlm: VideoLLM) -> pd.DataFrame:
    """`self_test` on a made-up clip, and whether frames and cuts are where the library takes them to be."""
    question, frames = made_up_clip(vlm)
    inputs = make_inputs(vlm, question, frames)
    rounding = 1e-3 if vlm.dtype in (torch.float32, torch.float64) else 0.5
    table, leak = self_test(vlm, inputs), _around_all_cuts(vlm, inputs)
    misplaced, (traded, meet) = (of(vlm, question, frames, inputs) for of in (misplaced_frames, traded_frames))
    rows = [
        ("blanked frames that move other tokens more than theirs", misplaced, "0"),
        (TRADED + MEET * meet, traded, "0"),
        ("change of the last logits by others when all edges are cut", leak, f"< {rounding:g}"),
        (LATER + BOTH * inputs.roles.both_ways, _by_later_frames(vlm, inputs), f"< {rounding:g}"),
    ]
    more = [(name, float(value), wanted, value < (rounding if "<" in wanted else 1)) for name, value, wanted in rows]
    return pd.concat([table, pd.DataFrame(more, columns=table.columns)], ignore_index=True)


def _around_all_cuts(vlm: VideoLLM, inputs: Inputs) -> float:
    """How much the last logits change with what other positions say when nobody may read another: not at all, unless
    information takes a way that is not cut."""
    blocked = ~torch.eye(inputs.n, dtype=torch.bool, device=vlm.device)[None, None]
    other = replace(inputs, embeds=torch.cat([-inputs.embeds[:, :-1], inputs.embeds[:, -1:]], 1))
    one, two = (masked_logits(vlm, given, in_all_layers(vlm, blocked))[0] for given in (inputs, other))
    return _gap(one, two)


def _by_later_frames(vlm: VideoLLM, inputs: Inputs) -> float:
    """How much the states of the first frame change with all that comes after it, when all edges to later positions are
    cut: not at all, unless frames read later ones by a way that the masks of the decoder's call do not show. Edge sets
    hold what these open, so such reading could not be cut."""
    first = inputs.roles.positions("frame 1")
    after = int(first[-1]) + 1
    other = replace(inputs, embeds=torch.cat([inputs.embeds[:, :after], -inputs.embeds[:, after:]], 1))
    blocked = torch.from_numpy(np.triu(inputs.roles.readable, 1)).to(vlm.device)[None, None]
    with attention_mask_hooks(vlm, in_all_layers(vlm, blocked)):
        one, two = (clean_pass(vlm, given).video[:, : len(first)] for given in (inputs, other))
    return _gap(one, two)


@torch.no_grad()
def self_test(vlm: VideoLLM, inputs: Inputs) -> pd.DataFrame:
    """Checks of the instrument on one prompt, none of them raised: columns `check`, `value`, `wanted`, `passed`.

    Values are largest differences of float32 logits or states, attention weights, or counts. Where two float32
    computations of the same thing are compared, rounding is allowed for: 0.001, or 0.5 for a model in half precision.
    """
    clean, roles, untouched = clean_pass(vlm, inputs), inputs.roles, model_logits(vlm, inputs)
    all_into_last = np.zeros((inputs.n, inputs.n), bool)
    all_into_last[-1, :-1] = True
    everywhere = windows(len(decoder_layers(vlm)), 1, "top_down")[0]  # from the first layer up
    cut, receipt = knockout_logits(vlm, inputs, [Condition("all->last", everywhere, all_into_last)] * 2)
    answers = zip(LETTERS, inputs.letter_ids, strict=False)
    unreadable = sum(vlm.tokenizer(roles.text + letter)["input_ids"][-1] != token for letter, token in answers)
    exact = [
        ("change of a logit left behind by knockouts", _gap(model_logits(vlm, inputs), untouched)),
        ("largest attention weight on a cut edge", receipt.max_blocked_weight),
        ("masks planned but not applied", receipt.expected - receipt.fired),
        ("rows left without an open key", receipt.fully_blocked_rows),
        ("positions without a role", inputs.n - len(roles.names)),
        ("video tokens missing or in excess", _frame_gap(inputs)),
        ("frames missing or in excess", int(roles.frame_of.max()) - len(inputs.frame_tokens)),
        ("letters that do not follow the prompt as one token", unreadable),
    ]
    close = [
        ("clean logits against the model's own", _gap(clean.logits, untouched)),
        ("lens at the last layer against the logits", _gap(unembed(vlm, clean.last[-1]), untouched)),
        ("attention kernel against measured weights", receipt.kernel_difference),
        ("condition in a batch against alone", receipt.spot_check_difference),
    ]
    # Experts take their tokens in groups: another last token changes how the others are rounded.
    grouped = any(name.endswith(".experts") for name, _ in vlm.hf.named_modules())
    ahead = ("change of earlier states by the last token", _look_ahead(vlm, inputs))
    (close if grouped else exact).insert(4, ahead)
    # On a GPU a mask, even an open one, selects another attention kernel, which rounds differently.
    noop = ("change of a logit by all-open masks", receipt.noop_difference)
    (exact if vlm.device.type == "cpu" else close).insert(0, noop)
    effect, rounding = _gap(cut[0], clean.logits), 1e-3 if vlm.dtype == torch.float32 else 0.5
    rows = [(name, float(value), "0", value == 0) for name, value in exact]
    rows += [(name, float(value), f"< {rounding:g}", value < rounding) for name, value in close]
    rows += [("change of a logit by cutting all edges into last", effect, f"> {rounding:g}", effect > rounding)]
    return pd.DataFrame(rows, columns=["check", "value", "wanted", "passed"])


def _frame_gap(inputs: Inputs) -> int:
    """Video tokens that the processor's account and the roles count differently, summed over frames."""
    differ = Counter(inputs.roles.frame_of[inputs.roles.frame_of > 0].tolist())
    differ.subtract(dict(enumerate(inputs.frame_tokens, start=1)))
    return sum(map(abs, differ.values()))


def _gap(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).abs().max())


def _look_ahead(vlm: VideoLLM, inputs: Inputs) -> float:
    """How much the states of video tokens change with the last token, edges cut or not: not at all if causal."""
    other = replace(inputs, embeds=torch.cat([inputs.embeds[:, :-1], -inputs.embeds[:, -1:]], 1))
    blocked = torch.from_numpy(blocked_edges("cross-frame", inputs.roles)).to(vlm.device)[None, None]
    plain = _gap(clean_pass(vlm, other).video, clean_pass(vlm, inputs).video)
    with attention_mask_hooks(vlm, in_all_layers(vlm, blocked)):
        return max(plain, _gap(clean_pass(vlm, other).video, clean_pass(vlm, inputs).video))
