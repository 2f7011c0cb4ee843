"""MAE: config and keys of transformers' files. Pre-norm, exact GELU, norm epsilon 1e-12."""

from __future__ import annotations

from typing import Any

from zoo.models.mae import MAE
from zoo.pretrained import vit
from zoo.pretrained.bridge import Row, Table, linear_rows, norm_rows
from zoo.pretrained.family import Family, TheirConfig, find_prefix
from zoo.pretrained.patches import BATCHED
from zoo.pretrained.safetensors_file import Tensors

# Ours -> theirs, and transformers' default.
DECODER = {
    "decoder_width": ("decoder_hidden_size", 512),
    "decoder_depth": ("decoder_num_hidden_layers", 8),
    "decoder_num_heads": ("decoder_num_attention_heads", 16),
    "decoder_hidden": ("decoder_intermediate_size", 2048),
    "mask_ratio": ("mask_ratio", 0.75),
    "normed_pixels": ("norm_pix_loss", False),
}


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a MAE."""
    fields = vit.read_config(config, "none", tensors)
    for name in ("num_classes", "pre_logits"):
        del fields[name]
    own = {ours: config.get(*theirs) for ours, theirs in DECODER.items()}
    return {**fields, **own, "head": head}


def write_config(model: MAE) -> dict[str, Any]:
    """What `read_config` reads."""
    own = {theirs: getattr(model, ours) for ours, (theirs, _) in DECODER.items()}
    return {**vit.write_config(model.encoder()), **own}


def make_table(model: MAE, names: list[str] | None) -> Table:
    """transformers' keys. What transformers 5 saves has other names of the decoder's layers than
    what is published; it reads both, and so do we."""
    p = find_prefix("vit.", model.head, names)
    d, saved = "decoder.decoder_", "decoder.decoder_encoder.layer."
    layers = saved if any(name.startswith(saved) for name in names or []) else f"{d}layers."
    rows = [
        *vit.body_rows(p, "encoder/"),
        *linear_rows(f"{d}embed", "decoder/embed"),
        Row("decoder.mask_token", "decoder/mask", BATCHED),
        Row(f"{d}pos_embed", "decoder/pos", BATCHED),
        *vit.layer_rows(layers + "{i}.", "decoder/blocks/{i}/"),
        *norm_rows(f"{d}norm", "decoder/norm"),
        *linear_rows(f"{d}pred", "decoder/head"),
    ]
    return Table(tuple(rows))


HEADS = {"ViTMAEForPreTraining": "pixels", "ViTMAEModel": "none"}
VIT_MAE = Family("vit_mae", MAE, HEADS, read_config, write_config, make_table)
