"""Llama 1, 2, 3 and what shares its layout: config and keys of transformers' files."""

from __future__ import annotations

from typing import Any

from zoo.models.decoder import Decoder
from zoo.models.decoder_sizes import LLAMA as STYLE
from zoo.pretrained.bridge import Row, Table, linear_rows
from zoo.pretrained.family import (
    THEIR_ACTIVATIONS,
    Family,
    TheirConfig,
    decoder_head,
    find_prefix,
    make_labels,
)
from zoo.pretrained.rotary import read_rotary, write_rotary
from zoo.pretrained.safetensors_file import Tensors


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Decoder."""
    heads = config.get("num_attention_heads", 32)
    width = config.get("hidden_size", 4096)
    head_dim = config.get("head_dim", None, int)
    kv_heads = config.get("num_key_value_heads", heads)
    fields = {
        "width": width,
        "depth": config.get("num_hidden_layers", 32),
        "num_heads": heads,
        "num_kv_heads": None if kv_heads == heads else kv_heads,
        "head_dim": None if head_dim == width // heads else head_dim,
        "hidden": config.get("intermediate_size", 11008),
        "vocab_size": config.get("vocab_size", 32000),
        "activation": config.activation("hidden_act", "silu"),
        "attention_bias": config.get("attention_bias", False),
        "mlp_bias": config.get("mlp_bias", False),
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "tied": config.get("tie_word_embeddings", False),
        "head": head,
        "num_classes": config.num_labels(),
        "initializer_range": config.get("initializer_range", 0.02),
    }
    length = config.get("max_position_embeddings", 2048)
    return {**STYLE, **fields, **read_rotary(config, length)}


def write_config(model: Decoder) -> dict[str, Any]:
    """What `read_config` reads."""
    return {
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads or model.num_heads,
        "head_dim": model.head_dim or model.width // model.num_heads,
        "intermediate_size": model.hidden or 4 * model.width,
        "vocab_size": model.vocab_size,
        "hidden_act": THEIR_ACTIVATIONS[model.activation],
        "attention_bias": model.attention_bias,
        "mlp_bias": model.mlp_bias,
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tied,
        "initializer_range": model.initializer_range,
        **write_rotary(model),
        **make_labels(model.num_classes),
    }


def make_table(model: Decoder, names: list[str] | None) -> Table:
    """`gate_proj` is the gate, `up_proj` what it lets through."""
    p = find_prefix("model.", model.head, names)
    layer, block = p + "layers.{i}.", "blocks/{i}/"
    rows = [
        Row(f"{p}embed_tokens.weight", "embed/embedding"),
        Row(f"{layer}input_layernorm.weight", f"{block}norm1/scale"),
        Row(f"{layer}post_attention_layernorm.weight", f"{block}norm2/scale"),
        Row(f"{p}norm.weight", "norm/scale"),
    ]
    for theirs, ours in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out")):
        rows += linear_rows(f"{layer}self_attn.{theirs}_proj", f"{block}attn/{ours}")
    for theirs, ours in (("gate", "gate"), ("up", "fc1"), ("down", "fc2")):
        rows += linear_rows(f"{layer}mlp.{theirs}_proj", f"{block}mlp/{ours}")
    head, copies = decoder_head(model, f"{p}embed_tokens.weight")
    ignored = {r".*rotary_emb\.inv_freq": "rotary rates, computed"}
    return Table((*rows, head), copies, ignored=ignored)


LLAMA = Family(
    "llama",
    Decoder,
    {
        "LlamaForCausalLM": "lm",
        "LlamaModel": "none",
        "LlamaForSequenceClassification": "sequence",
    },
    read_config,
    write_config,
    make_table,
)
