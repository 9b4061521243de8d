"""The parts of a language model that every knockout and every reading needs: decoder, layers, norm, output head.

All families are reached through the same few functions. What a decoder is called with was found when the prompt was
merged (`records.Inputs`), so nothing here knows a family."""

from typing import Any

import torch

from analysis_lib.models.records import Inputs, VideoLLM


def decode(vlm: VideoLLM, inputs: Inputs, **cache: Any) -> torch.Tensor:
    """The decoder's output (B, n, d), normed, called as the model itself calls it."""
    kwargs = {**inputs.decoder_kwargs, "use_cache": False, **cache}
    return vlm.hf.get_decoder()(inputs_embeds=inputs.embeds, **kwargs).last_hidden_state


def decoder_layers(vlm: VideoLLM) -> torch.nn.ModuleList:
    """The decoder layers in order; each has a `self_attn`."""
    return vlm.hf.get_decoder().layers


def final_norm(vlm: VideoLLM) -> torch.nn.Module:
    """The norm between the last decoder layer and the output head."""
    return vlm.hf.get_decoder().norm


def unembed(vlm: VideoLLM, hidden: torch.Tensor, *, norm: bool = True) -> torch.Tensor:
    """float32 logits (…, V) of residual states (…, d), through final norm (unless norm=False) and output head, on the
    device of `hidden`. Modules are called, never their raw weights, so offloaded weights work too. A head in lower
    precision is copied once to float32: half-precision logits near 20 are an eighth apart, which moves probabilities by
    several percent. A model in float64 keeps float64."""
    head = vlm.hf.get_output_embeddings()
    wide = torch.float64 if head.weight.dtype == torch.float64 else torch.float32
    states = hidden.to(wide)
    states = final_norm(vlm)(states).to(wide) if norm else states
    if head.weight.dtype != wide:
        vlm._head32 = head = vlm._head32 or _float32(head)
        states = states.to(head.weight.device)
    return head(states).to(hidden.device)


def _float32(head: torch.nn.Linear) -> torch.nn.Linear:
    """A copy of the output head in float32, on the device on which it computes."""
    from accelerate.utils import align_module_device  # heavy

    with align_module_device(head):  # brings offloaded weights
        own = {name: value.float() for name, value in head.state_dict().items()}
    copied = torch.nn.Linear(head.in_features, head.out_features, "bias" in own, device="meta")
    copied.load_state_dict(own, assign=True)
    return copied.requires_grad_(False)
