"""GPT-2: config and keys of transformers' files. Its kernels lie as ours do, [in, out]."""

from __future__ import annotations

from typing import Any

from zoo.models.decoder import Decoder
from zoo.pretrained.bridge import Row, Table, norm_rows
from zoo.pretrained.family import (
    THEIR_ACTIVATIONS,
    Family,
    TheirConfig,
    decoder_head,
    find_prefix,
    make_labels,
)
from zoo.pretrained.safetensors_file import Tensors


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Decoder."""
    config.only("scale_attn_weights", True)
    config.only("scale_attn_by_inverse_layer_idx", False)
    config.only("add_cross_attention", False)
    return {
        "width": config.get("n_embd", 768),
        "depth": config.get("n_layer", 12),
        "num_heads": config.get("n_head", 12),
        "hidden": config.get("n_inner", None, int),
        "vocab_size": config.get("vocab_size", 50257),
        "num_positions": config.get("n_positions", 1024),
        "activation": config.activation("activation_function", "gelu_new"),
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-5),
        "tied": config.get("tie_word_embeddings", True),
        "head": head,
        "num_classes": config.num_labels(),
        "dropout": config.get("resid_pdrop", 0.1),
        "initializer_range": config.get("initializer_range", 0.02),
    }


def write_config(model: Decoder) -> dict[str, Any]:
    """What `read_config` reads."""
    return {
        "n_embd": model.width,
        "n_layer": model.depth,
        "n_head": model.num_heads,
        "n_inner": model.hidden,
        "vocab_size": model.vocab_size,
        "n_positions": model.num_positions,
        "n_ctx": model.num_positions,
        "activation_function": THEIR_ACTIVATIONS[model.activation],
        "layer_norm_epsilon": model.norm_epsilon,
        "tie_word_embeddings": model.tied,
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.dropout,
        "attn_pdrop": 0.0,
        "initializer_range": model.initializer_range,
        **make_labels(model.num_classes),
    }


def make_table(model: Decoder, names: list[str] | None) -> Table:
    """`h.0.attn.c_attn` holds queries, keys and values side by side."""
    p = find_prefix("transformer.", model.head, names)
    layer, block = p + "h.{i}.", "blocks/{i}/"
    rows = [Row(f"{p}wte.weight", "embed/embedding"), Row(f"{p}wpe.weight", "pos")]
    for theirs, ours in ((f"{layer}ln_1", "norm1"), (f"{layer}ln_2", "norm2")):
        rows += norm_rows(theirs, block + ours)
    rows += norm_rows(f"{p}ln_f", "norm")
    for part, axis in (("weight", 1), ("bias", 0)):
        our = "kernel" if part == "weight" else "bias"
        qkv = tuple(f"{block}attn/{name}/{our}" for name in "qkv")
        rows += [
            Row(f"{layer}attn.c_attn.{part}", qkv, axis=axis),
            Row(f"{layer}attn.c_proj.{part}", f"{block}attn/out/{our}"),
            Row(f"{layer}mlp.c_fc.{part}", f"{block}mlp/fc1/{our}"),
            Row(f"{layer}mlp.c_proj.{part}", f"{block}mlp/fc2/{our}"),
        ]
    head, copies = decoder_head(model, f"{p}wte.weight")
    ignored = {r".*h\.\d+\.attn\.(bias|masked_bias)": "a causal mask"}
    return Table((*rows, head), copies, ignored=ignored)


GPT2 = Family(
    "gpt2",
    Decoder,
    {
        "GPT2LMHeadModel": "lm",
        "GPT2Model": "none",
        "GPT2ForSequenceClassification": "sequence",
    },
    read_config,
    write_config,
    make_table,
)
