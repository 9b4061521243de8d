"""The parts of a language model that every knockout and every reading needs: decoder, layers, norm, output head.

All families are reached through the same few functions. What a decoder is called with was found when the prompt was
merged (`records.Inputs`), so nothing here knows a family. A decoder layer moves information between positions by
softmax attention, by a mixer (a recurrence or a short convolution, `families.MIXERS`), or not at all."""

import inspect
from typing import Any

import torch

from analysis_lib.errors import StudyError
from analysis_lib.models.families import MIXERS, POINTWISE, mixer_kind
from analysis_lib.models.records import Inputs, VideoLLM

KERNELS = "ALL_ATTENTION_FUNCTIONS"  # transformers' table of attention kernels
MASKABLE = ("sdpa", "eager", "flow_measured")  # attention kernels that take a mask for single edges; ours last
NORMS = ("norm", "norm_f", "embedding_norm", "final_layer_norm")  # what decoders call the norm above their last layer


def decoder_of(hf: Any) -> Any:
    """The decoder: layers between embeddings and norm. Some models wrap a language model that wraps it."""
    decoder = hf.get_decoder()
    if not hasattr(decoder, "layers") and hasattr(decoder, "get_decoder"):
        decoder = decoder.get_decoder()
    return decoder if hasattr(decoder, "layers") else getattr(decoder, "model", decoder)


def decode(vlm: VideoLLM, inputs: Inputs, **cache: Any) -> torch.Tensor:
    """The decoder's output (B, n, d), normed, called as the model itself calls it."""
    kwargs = {**inputs.decoder_kwargs, "use_cache": False, **cache}
    return decoder_of(vlm.hf)(inputs_embeds=inputs.embeds, **kwargs).last_hidden_state


def opened(mask: torch.Tensor) -> torch.Tensor:
    """A mask of a model, bool or what is added to scores, as bool: True = open."""
    return mask if mask.dtype == torch.bool else mask == 0


def decoder_layers(vlm: VideoLLM) -> torch.nn.ModuleList:
    """The decoder layers in order."""
    return decoder_of(vlm.hf).layers


def attention_of(layer: torch.nn.Module) -> torch.nn.Module | None:
    """A decoder layer's softmax attention; None if it has none. It is what calls transformers' table of attention
    kernels, whatever it is named: a linear attention may be a `self_attn` too, but cannot be cut by a mask."""
    for part in layer.children():
        convolves = any(isinstance(child, torch.nn.Conv1d) for child in part.modules())
        if KERNELS in named_in(part) and not convolves and not mixer_kind(part):
            return part
    return None


def named_in(module: torch.nn.Module) -> tuple[str, ...]:
    """Which globals and attributes a module's own forward names."""
    return inspect.unwrap(type(module).forward).__code__.co_names


def mixer_of(layer: torch.nn.Module) -> torch.nn.Module | None:
    """The recurrence or convolution by which a decoder layer moves information instead; None if it has none."""
    return next((part for part in layer.children() if mixer_kind(part)), None)


def moving_layers(vlm: VideoLLM) -> tuple[int, ...]:
    """The layers, counted from 1, that move information between positions, so that edges can be cut in them."""
    found = enumerate(decoder_layers(vlm), start=1)
    return tuple(i for i, layer in found if attention_of(layer) is not None or mixer_of(layer) is not None)


def final_norm(vlm: VideoLLM) -> torch.nn.Module:
    """The norm between the last decoder layer and the output head."""
    decoder = decoder_of(vlm.hf)
    return next(getattr(decoder, name) for name in NORMS if hasattr(decoder, name))


def output_head(vlm: VideoLLM) -> torch.nn.Linear:
    """The map from normed states to the vocabulary; some models leave it in the language model that they wrap."""
    return vlm.hf.get_output_embeddings() or vlm.hf.language_model.get_output_embeddings()


def inner_width(vlm: VideoLLM) -> int:
    """The widest feed-forward map's inner size, of a dense layer or of one token's experts."""
    config = decoder_of(vlm.hf).config
    each = getattr(config, "moe_intermediate_size", None) or 0
    experts = each * (getattr(config, "num_experts_per_tok", None) or 1) if isinstance(each, int) else 0
    return max(getattr(config, "intermediate_size", None) or 0, experts)


def check_decoder(hf: Any) -> None:
    """Raise StudyError unless edges can be cut wherever a decoder layer moves information between positions."""
    name = type(hf).__name__
    if any(config.is_encoder_decoder for config in (hf.config, hf.config.get_text_config(decoder=True))):
        found = "its text is written by a decoder that reads an encoder's output by cross-attention"
        raise StudyError(f"{name}: {found}, so no edge between video and text can be cut (encoder-decoder)")
    decoder = decoder_of(hf)
    parts = {part for layer in getattr(decoder, "layers", []) for part, _ in layer.named_children()}
    if any("hyper" in part or part.endswith("_hc") for part in parts):
        found = "its layers pass on several states a position (hyper-connections)"
        raise StudyError(f"{name}: {found}, which neither the lens nor the exact mode can read")
    if not hasattr(decoder, "layers") or not any(hasattr(decoder, norm) for norm in NORMS):
        found = f"its decoder ({type(decoder).__name__}) has no `layers` and `norm`, so its attention cannot be reached"
        raise StudyError(f"{name}: {found}; name them in models.decoder_layers and models.final_norm")
    unknown = {}  # a layer's mixer, by the layer's number
    for i, layer in enumerate(decoder.layers, 1):
        known = attention_of(layer) is not None or mixer_of(layer) is not None
        if not known and getattr(layer, "block_type", None) not in POINTWISE:
            parts = [type(part).__name__ for part in layer.children()]
            words = ("Attn", "Attention", "Mixer", "Mamba", "Conv", "Delta", "SSM", "Recurrent")
            unknown[i] = next((part for part in parts if any(word in part for word in words)), "another kind")
    if unknown:
        found = f"layers {_listed([*unknown])} move information by {next(iter(unknown.values()))}"
        why = f"which is neither softmax attention nor one of {', '.join(MIXERS)}; no edge can be cut there"
        raise StudyError(f"{name}: {found}, {why}")
    indexed = [
        i for i, layer in enumerate(decoder.layers, 1) for part in layer.modules() if "Indexer" in type(part).__name__
    ]
    if indexed:
        found = f"layers {_listed([*dict.fromkeys(indexed)])} choose the keys of each position by an indexer"
        raise StudyError(f"{name}: {found}; it reads all positions, so a cut one would still steer the choice")
    check_kernel(hf)


def _listed(layers: list[int]) -> str:
    """Layers for a reader: "2, 5", or "1 to 72" of many in a row."""
    row = len(layers) > 3 and layers[-1] - layers[0] == len(layers) - 1
    return f"{layers[0]} to {layers[-1]}" if row else ", ".join(map(str, layers))


def unembed(vlm: VideoLLM, hidden: torch.Tensor, *, norm: bool = True) -> torch.Tensor:
    """float32 logits (…, V) of residual states (…, d), through final norm (unless norm=False) and output head, on the
    device of `hidden`. Modules are called, never their raw weights, so offloaded weights work too. A head in lower
    precision is copied once to float32: half-precision logits near 20 are an eighth apart, which moves probabilities by
    several percent. A model in float64 keeps float64."""
    head = output_head(vlm)
    wide = torch.float64 if head.weight.dtype == torch.float64 else torch.float32
    states = hidden.to(wide)
    states = final_norm(vlm)(states).to(wide) if norm else states
    if head.weight.dtype != wide:
        vlm._head32 = head = vlm._head32 or _float32(head)
        states = states.to(head.weight.device)
    return _as_stated(vlm, head(states)).to(hidden.device)


def own_head(vlm: VideoLLM, normed: torch.Tensor) -> torch.Tensor:
    """Logits (…, V) of normed states in the model's own dtype."""
    return _as_stated(vlm, output_head(vlm)(normed))


def _as_stated(vlm: VideoLLM, logits: torch.Tensor) -> torch.Tensor:
    """Logits scaled and capped as the language model's config states, where it does."""
    config = decoder_of(vlm.hf).config
    scale, cap = (getattr(config, name, None) for name in ("output_multiplier", "final_logit_softcapping"))
    logits = logits if scale is None else logits * scale
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _float32(head: torch.nn.Linear) -> torch.nn.Linear:
    """A copy of the output head in float32, on the device on which it computes."""
    from accelerate.utils import align_module_device  # heavy

    with align_module_device(head):  # brings offloaded weights
        own = {name: value.float() for name, value in head.state_dict().items()}
    copied = torch.nn.Linear(head.in_features, head.out_features, "bias" in own, device="meta")
    copied.load_state_dict(own, assign=True)
    return copied.requires_grad_(False)


def check_kernel(hf: Any) -> None:
    """Raise StudyError if the decoder's attention kernel takes no mask (flash attention)."""
    kernel = decoder_of(hf).config._attn_implementation
    if kernel not in MASKABLE:
        fix = "load the model with attn_implementation sdpa"
        raise StudyError(f"{type(hf).__name__}: attention kernel {kernel!r} takes no mask for single edges; {fix}")
