"""DistilBERT: config and keys of transformers' files.

The LayerNorm epsilon is 1e-12. Positions that began as sines and cosines are in the file as learned
ones are.
"""

from __future__ import annotations

from typing import Any

from zoo.models.encoder import POOLED, Encoder
from zoo.pretrained import bert
from zoo.pretrained.bridge import Table, linear_rows, norm_rows
from zoo.pretrained.family import (
    THEIR_ACTIVATIONS,
    Family,
    TheirConfig,
    find_prefix,
    make_labels,
)
from zoo.pretrained.safetensors_file import Tensors


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of an Encoder."""
    return {
        "width": config.get("dim", 768),
        "depth": config.get("n_layers", 6),
        "num_heads": config.get("n_heads", 12),
        "hidden": config.get("hidden_dim", 3072),
        "vocab_size": config.get("vocab_size", 30522),
        "num_positions": config.get("max_position_embeddings", 512),
        "num_types": 0,
        "activation": config.activation("activation", "gelu"),
        "tied": config.get("tie_word_embeddings", True),
        "head": head,
        "num_classes": config.num_labels(),
        "pooler": head in POOLED,
        "pooler_activation": "relu",
        "dropout": config.get("dropout", 0.1),
        "initializer_range": config.get("initializer_range", 0.02),
    }


def write_config(model: Encoder) -> dict[str, Any]:
    """What `read_config` reads."""
    return {
        "dim": model.width,
        "n_layers": model.depth,
        "n_heads": model.num_heads,
        "hidden_dim": model.hidden,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.num_positions,
        "activation": THEIR_ACTIVATIONS[model.activation],
        "tie_word_embeddings": model.tied,
        "dropout": model.dropout,
        "attention_dropout": 0.0,
        "initializer_range": model.initializer_range,
        **make_labels(2 if model.head == "span" else model.num_classes),
    }


def make_table(model: Encoder, names: list[str] | None) -> Table:
    p = find_prefix("distilbert.", model.head, names)
    layer, block = p + "transformer.layer.{i}.", "blocks/{i}/"
    rows = bert.embedding_rows(p)
    for name in ("q", "k", "v", "out"):
        rows += linear_rows(f"{layer}attention.{name}_lin", f"{block}attn/{name}")
    rows += [
        *norm_rows(f"{layer}sa_layer_norm", f"{block}norm1"),
        *linear_rows(f"{layer}ffn.lin1", f"{block}mlp/fc1"),
        *linear_rows(f"{layer}ffn.lin2", f"{block}mlp/fc2"),
        *norm_rows(f"{layer}output_layer_norm", f"{block}norm2"),
        *linear_rows("pre_classifier", "pooler"),
    ]
    lm = bert.LMKeys(
        "vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias"
    )
    return bert.add_head(model, p, rows, bert.POSITION_IDS, lm)


DISTILBERT = Family(
    "distilbert", Encoder, bert.make_heads("DistilBert"), read_config, write_config, make_table
)
