"""Marian, the translation models of OPUS-MT: config and keys of transformers' files."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.models.transformer import MARIAN as FIELDS
from zoo.models.transformer import Transformer, sinusoids
from zoo.pretrained import bart
from zoo.pretrained.bridge import Table
from zoo.pretrained.family import Family, TheirConfig
from zoo.pretrained.safetensors_file import Tensors

HALF_PRECISION = 1e-3  # of numbers up to 1


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Transformer. Raises UserError on positions that are not sines and cosines."""
    # Old files say so; transformers no longer asks.
    config.only("normalize_before", False)
    config.only("add_final_layer_norm", False)
    config.only("normalize_embedding", False)
    config.only("static_position_embeddings", True)
    sizes = bart.read_sizes(config, 58101)
    shared = config.get("share_encoder_decoder_embeddings", True)
    if shared:
        config.only("tie_word_embeddings", True)
        config.only("decoder_vocab_size", sizes["vocab_size"], None)
    for name in tensors.names():
        if name.endswith("embed_positions.weight"):
            _check_positions(tensors, name)
    own = None if shared else config.get("decoder_vocab_size", sizes["vocab_size"])
    tied = config.get("tie_word_embeddings", True)
    return {**FIELDS, **sizes, "target_vocab_size": own, "tied": tied, "head": head}


def _check_positions(tensors: Tensors, name: str) -> None:
    found = tensors.read(name).astype(np.float32)
    if np.abs(found - sinusoids(*found.shape)).max() > HALF_PRECISION:
        raise UserError(f"{tensors.place}: {name} are not the sines and cosines of Marian")


def write_config(model: Transformer) -> dict[str, Any]:
    """What `read_config` reads. The padding, which begins a target too, ends the vocabulary (of
    two, the smaller: transformers has one number for both)."""
    padding = min(model.vocab_size, model.target_vocab_size or model.vocab_size) - 1
    return {
        **bart.write_sizes(model),
        "decoder_vocab_size": model.target_vocab_size or model.vocab_size,
        "share_encoder_decoder_embeddings": model.target_vocab_size is None,
        "eos_token_id": 0,
        "forced_eos_token_id": 0,
        "pad_token_id": padding,
        "decoder_start_token_id": padding,
    }


def make_table(model: Transformer, names: list[str] | None) -> Table:
    """As BART's; old files hold the fixed positions too."""
    table = bart.make_table(model, names)
    fixed = {r".*coder\.embed_positions\.weight": "the sines and cosines of places"}
    return dataclasses.replace(table, ignored={**table.ignored, **fixed})


# Not MarianModel: transformers wants the fixed positions in its file, and in no other.
MARIAN = Family(
    "marian", Transformer, {"MarianMTModel": "lm"}, read_config, write_config, make_table
)
