"""The network of the embedded models while they learn: its parts, how it starts, and the losses of each stage.

It is transformers' own `llava` model with a CLIP tower, a two-layer projector and a Llama decoder. Only the attention
function differs during training: rows are packed (`packer.py`), and each branch must see the prefix and itself alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import functional

from analysis_lib.embedded import world
from analysis_lib.embedded.lessons import GRID, PATCH, PATCHES, SIZE
from analysis_lib.embedded.packer import IGNORE, Packer
from analysis_lib.embedded.recipe import EXIT, LAYERS
from analysis_lib.models.torchvision_ops import ensure_torchvision

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
WIDTH, HEADS = 128, 2
QUIET, STILL = 0.02, 0.5  # weights of the mean square of what the layers up to EXIT write, anywhere and onto options
VISION_HEADS = {"colour": 7, "shape": 4, "centre": 3, "scene": 5}  # numbers of labels; `centre` is a regression


def build_model(tokenizer: Any, seed: int) -> Any:
    """A `llava` model with random weights: CLIP tower, two-layer projector, 12-layer Llama decoder."""
    ensure_torchvision()
    from transformers import (  # heavy
        AttentionInterface,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    AttentionInterface.register("packed", packed_attention)
    torch.manual_seed(seed)
    common = dict(hidden_size=WIDTH, num_attention_heads=HEADS, initializer_range=0.09)
    vision = CLIPVisionConfig(
        **common, intermediate_size=2 * WIDTH, num_hidden_layers=3, image_size=SIZE, patch_size=PATCH
    )
    text = LlamaConfig(
        **common,
        vocab_size=len(tokenizer),
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_key_value_heads=HEADS,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        rms_norm_eps=1e-5,
    )
    image = tokenizer.convert_tokens_to_ids("<image>")
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=image,
            vision_feature_layer=-1,
            projector_hidden_act="gelu",
        )
    )
    model.set_attn_implementation({"text_config": "packed"})
    _initialise(model)
    return model


@torch.no_grad()
def _initialise(model: Any) -> None:
    """Start where attention can match words: without this the letters stay at chance for hours.

    Each layer adds nothing at first (output projections are zero), so words stay readable in the residual stream, and
    equal queries and keys make a word attend to its earlier copies.
    """
    for layer in model.model.language_model.layers:
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    model.get_input_embeddings().weight.normal_(0, 0.7)
    model.lm_head.weight = model.get_input_embeddings().weight  # a predicted word is read like a word in the text
    model.model.language_model.norm.weight.fill_(0.1)
    for linear in (model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2):
        linear.weight.normal_(0, 0.09)


def packed_attention(module: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, **_: Any):
    """Attention of rows made by `lessons.make_batch`: a causal prefix, and branches that see the prefix and themselves.

    q, k, v: (B, H, P + K·n, D); mask: (1, 1, n, P + n). Returns (B, P + K·n, H, D) and None, as transformers expects.
    """
    batch, heads, total, size = q.shape
    n = mask.shape[2]
    start = mask.shape[3] - n
    branches = (total - start) // n

    def own(x: torch.Tensor) -> torch.Tensor:
        return x[:, :, start:].reshape(batch, heads, branches, n, size).transpose(1, 2)  # (B, K, H, n, D)

    def seen(x: torch.Tensor) -> torch.Tensor:
        prefix = x[:, None, :, :start].expand(batch, branches, heads, start, size)
        return torch.cat([prefix, own(x)], 3).flatten(0, 1)  # (B·K, H, P + n, D)

    attend = functional.scaled_dot_product_attention
    first = attend(q[:, :, :start], k[:, :, :start], v[:, :, :start], is_causal=True)
    second = attend(own(q).flatten(0, 1), seen(k), seen(v), attn_mask=mask.to(q.dtype))  # (B·K, H, n, D)
    second = second.reshape(batch, branches, heads, n, size).transpose(1, 2).flatten(2, 3)  # (B, H, K·n, D)
    return torch.cat([first, second], 2).transpose(1, 2).contiguous(), None


def patch_features(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Vision tower states (B·T, 36, d) of images (B, T, S, S, 3) uint8."""
    pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(x, device=pixels.device).view(3, 1, 1) for x in (MEAN, STD))
    out = model.model.vision_tower(pixel_values=(pixels - mean) / std, output_hidden_states=True)
    return out.hidden_states[-1][:, 1:]


# ---- losses ----


def vision_loss(model: Any, heads: torch.nn.ModuleDict, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict]:
    """Loss over patch labels, and accuracies on covered patches."""
    states = patch_features(model, batch["images"]).float()  # (B·T, 36, d)
    flat = states.flatten(0, 1)
    covered = batch["colour"].flatten() > 0
    loss, report = torch.zeros((), device=flat.device), {}
    for name in ("colour", "shape"):
        logits = heads[name](flat)
        weight = torch.ones(logits.shape[-1], device=flat.device)
        weight[0] = 0.3  # most patches are empty
        loss = loss + functional.cross_entropy(logits, batch[name].flatten(), weight=weight)
        report[name] = (logits.argmax(-1) == batch[name].flatten())[covered].float().mean()
    centre = functional.smooth_l1_loss(heads["centre"](flat)[covered], batch["centre"].flatten(0, -2)[covered])
    scene = batch["scene"].flatten()
    scene_loss = functional.cross_entropy(heads["scene"](states.mean(1)), scene)
    scene_loss = scene_loss + functional.cross_entropy(heads["scene"](flat), scene.repeat_interleave(PATCHES**2))
    return loss + 2 * centre + 0.5 * scene_loss, report


def described(model: Any, packer: Packer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What each patch should become (B·T, 36, d): embeddings of its colour, shape and scene, and where it is."""
    embedding = model.get_input_embeddings().weight.detach().float()
    generator = torch.Generator().manual_seed(0)
    extra = (torch.randn(4, WIDTH, generator=generator) * 0.7).to(
        embedding.device
    )  # white, and three directions of place

    def words(names: Iterable[str]) -> torch.Tensor:
        return embedding[[packer.tokenizer.convert_tokens_to_ids(f"▁{name}") for name in names]]

    nothing = torch.zeros(1, WIDTH, device=embedding.device)
    colour = torch.cat([nothing, words(world.COLOURS), extra[:1]])[batch["colour"].flatten(0, 1).flatten(1)]
    shape = torch.cat([nothing, words(world.SHAPES)])[batch["shape"].flatten(0, 1).flatten(1)]
    centre = batch["centre"].flatten(0, 1).flatten(1, 2) @ (0.5 * extra[1:])  # zero on empty patches
    return 2 * (colour + shape) + centre + 0.5 * words(world.SCENES)[batch["scene"].flatten()][:, None]


def align_loss(model: Any, packer: Packer, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict]:
    """Squared error of the projected patches, and the share of variance explained."""
    with torch.no_grad():
        states = patch_features(model, batch["images"]).float()
        wanted = described(model, packer, batch)
    loss = functional.mse_loss(model.model.multi_modal_projector(states).float(), wanted)
    return loss, {"explained": 1 - loss.detach() / wanted.var()}


def _merged(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Embeddings (B, N, d) of a batch, the video's features in the place of their placeholders."""
    words, at, n = model.get_input_embeddings()(batch["ids"]), batch["at"], batch["video"]
    if n == 0:
        return words
    with torch.no_grad():
        states = patch_features(model, batch["images"])
    projected = model.model.multi_modal_projector(states)  # (B·T, 36, d)
    half = PATCHES // GRID
    cells = projected.view(-1, GRID, half, GRID, half, projected.shape[-1]).mean((2, 4))  # pooled after the projector
    video = cells.reshape(len(words), n, -1).to(words.dtype)  # (B, T·9, d)
    return torch.cat([words[:, :at], video, words[:, at + n :]], 1)


def decode(model: Any, batch: dict[str, Any], layers: slice) -> dict[int, torch.Tensor]:
    """Residual stream (B, N, d) before the first layer, after layer EXIT and after the last, by layer, of those that
    `layers` holds.
    """
    decoder, hidden = model.model.language_model, _merged(model, batch)
    states = {0: hidden}
    rotary, mask = decoder.rotary_emb(hidden, batch["positions"]), batch["mask"]
    for number in range(LAYERS)[layers]:
        if number == EXIT and batch["video"] == 0:  # a drill: words are handed over as if layers below had written them
            hidden = hidden + 2 * model.get_input_embeddings()(batch["added"]) * (batch["added"] > 0)[..., None]
        hidden = decoder.layers[number](hidden, attention_mask=mask, position_embeddings=rotary)
        if number + 1 in (EXIT, LAYERS):
            states[number + 1] = hidden
    return states


def language_loss(model: Any, batch: dict[str, Any], layers: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Mean loss of the words, read after layer EXIT, plus mean loss of the letters, read after the last; accuracies.

    The layers up to EXIT are held to write little, and next to nothing onto the options: with Muon the states grow to
    seventy times the embeddings otherwise, and the options' words, which the layers above look for, drown in them.
    """
    states, report = decode(model, batch, layers), {}
    total = torch.zeros((), device=batch["ids"].device)
    if EXIT in states:
        written = (states[EXIT] - states[0]).float().square().mean(-1)  # (B, N)
        options = written[batch["options"] > 0].mean().nan_to_num()
        total = QUIET * written.mean() + STILL * options
        report = {"written": written.mean().detach(), "onto options": options.detach()}
    for name, layer in (("words", EXIT), ("letters", LAYERS)):
        wanted = batch[name] != IGNORE
        if layer in states and wanted.any():
            logits = model.lm_head(model.model.language_model.norm(states[layer][wanted])).float()
            total = total + functional.cross_entropy(logits, batch[name][wanted])
            report[name] = (logits.argmax(-1) == batch[name][wanted]).float().mean()
    return total, report


@torch.no_grad()
def settle(model: Any, stage: str) -> None:
    """Adjust scales between stages, so that the next one starts from a network whose parts fit together."""
    if stage == "vision":  # a quarter of the residual stream: an exact rescaling, its layers normalise their input
        for name, parameter in model.model.vision_tower.named_parameters():
            if any(part in name for part in ("pre_layrnorm", "out_proj", "fc2")):
                parameter.div_(4)
