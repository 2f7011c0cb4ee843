"""Llama 1, 2, 3 and SmolLM2, which shares its layout: config and keys of transformers' files.

The families that differ by little (Mistral, Qwen, Gemma) read and write what is common by
`read_body` and `write_body`, and share the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zoo.config import UserError
from zoo.models.decoder import Decoder
from zoo.models.decoder_sizes import LLAMA as STYLE
from zoo.pretrained.bridge import LINEAR, Row, Table, linear_rows
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

KINDS = {"sliding_attention": "local", "full_attention": "global"}  # of `layer_types`


def read_body(config: TheirConfig, head: str, usual: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Decoder that all these families have; `usual` holds the defaults of the
    family's keys, where they are not Llama's."""
    config = TheirConfig({**usual, **config.values}, config.place)
    heads = config.get("num_attention_heads", 32)
    width = config.get("hidden_size", 4096)
    head_dim = config.get("head_dim", None, int)
    kv_heads = config.get("num_key_value_heads", heads)
    length = config.get("max_position_embeddings", 2048)
    fields = {
        "width": width,
        "depth": config.get("num_hidden_layers", 32),
        "num_heads": heads,
        "num_kv_heads": None if kv_heads == heads else kv_heads,
        "head_dim": None if head_dim == width // heads else head_dim,
        "hidden": config.get("intermediate_size", 11008),
        "vocab_size": config.get("vocab_size", 32000),
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "tied": config.get("tie_word_embeddings", False),
        "head": head,
        "num_classes": config.num_labels(),
        "initializer_range": config.get("initializer_range", 0.02),
    }
    return {**STYLE, **fields, **read_rotary(config, length)}


def write_body(model: Decoder) -> dict[str, Any]:
    """What `read_body` reads."""
    return {
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads or model.num_heads,
        "head_dim": model.head_dim or model.width // model.num_heads,
        "intermediate_size": model.hidden or 4 * model.width,
        "vocab_size": model.vocab_size,
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tied,
        "initializer_range": model.initializer_range,
        **write_rotary(model),
        **make_labels(model.num_classes),
    }


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a Decoder."""
    return {
        **read_body(config, head, {}),
        "activation": config.activation("hidden_act", "silu"),
        "attention_bias": config.get("attention_bias", False),
        "mlp_bias": config.get("mlp_bias", False),
    }


def write_config(model: Decoder) -> dict[str, Any]:
    """What `read_config` reads."""
    return {
        **write_body(model),
        "hidden_act": THEIR_ACTIVATIONS[model.activation],
        "attention_bias": model.attention_bias,
        "mlp_bias": model.mlp_bias,
    }


def read_layers(config: TheirConfig, depth: int, usual: Callable[[int], bool]) -> tuple[str, ...]:
    """The shortest `layer_pattern` that tells which layers are local: by `layer_types`, or where
    the file has none, by `usual` of the layer's number. Raises UserError on another kind."""
    usual_types = ["sliding_attention" if usual(i) else "full_attention" for i in range(depth)]
    types = config.get("layer_types", usual_types)
    if len(types) != depth or not set(types) <= set(KINDS):
        raise UserError(
            f"{config.place}: layer_types should name one of {', '.join(KINDS)} for each layer"
        )
    kinds = tuple(KINDS[kind] for kind in types)
    repeats = (
        n for n in range(1, depth + 1) if all(kinds[i] == kinds[i % n] for i in range(depth))
    )
    return kinds[: next(repeats)]


def write_layers(model: Decoder) -> list[str]:
    """`layer_types` of a model."""
    names = {ours: theirs for theirs, ours in KINDS.items()}
    return [names[kind] for kind in model.layer_kinds()]


def make_table(model: Decoder, names: list[str] | None) -> Table:
    """`gate_proj` is the gate, `up_proj` what it lets through. With norms after the branches
    (Gemma 2) `post_attention_layernorm` is one of them."""
    p = find_prefix("model.", model.head, names)
    layer, block = p + "layers.{i}.", "blocks/{i}/"
    norm2 = "pre_feedforward" if model.post_norms else "post_attention"
    rows = [
        Row(f"{p}embed_tokens.weight", "embed/embedding"),
        Row(f"{layer}input_layernorm.weight", f"{block}norm1/scale"),
        Row(f"{layer}{norm2}_layernorm.weight", f"{block}norm2/scale"),
        Row(f"{layer}post_attention_layernorm.weight", f"{block}end1/scale"),
        Row(f"{layer}post_feedforward_layernorm.weight", f"{block}end2/scale"),
        Row(f"{layer}self_attn.q_norm.weight", f"{block}attn/q_norm/scale"),
        Row(f"{layer}self_attn.k_norm.weight", f"{block}attn/k_norm/scale"),
        Row(f"{p}norm.weight", "norm/scale"),
    ]
    for theirs, ours in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out")):
        rows += linear_rows(f"{layer}self_attn.{theirs}_proj", f"{block}attn/{ours}")
    for theirs, ours in (("w1", "gate"), ("w3", "fc1"), ("w2", "fc2")):  # Mixtral's
        theirs = f"{layer}block_sparse_moe.experts.{{e}}.{theirs}.weight"
        rows.append(Row(theirs, f"{block}mlp/experts/{ours}/kernel", LINEAR))
    rows += linear_rows(f"{layer}block_sparse_moe.gate", f"{block}mlp/router")
    for theirs, ours in (("gate", "gate"), ("up", "fc1"), ("down", "fc2")):
        rows += linear_rows(f"{layer}mlp.{theirs}_proj", f"{block}mlp/{ours}")
    head, copies = decoder_head(model, f"{p}embed_tokens.weight")
    ignored = {r".*rotary_emb\.inv_freq": "rotary rates, computed"}
    return Table((*rows, head), copies, ignored=ignored)


def make_family(
    name: str,
    prefix: str,
    read: Callable[..., dict[str, Any]],
    write: Callable[..., dict[str, Any]],
    body: str = "Model",
    classifier: str = "ForSequenceClassification",
) -> Family:
    """A family of this layout; `prefix` begins the names of transformers' classes."""
    heads = {
        f"{prefix}ForCausalLM": "lm",
        f"{prefix}{body}": "none",
        f"{prefix}{classifier}": "sequence",
    }
    return Family(name, Decoder, heads, read, write, make_table)


LLAMA = make_family("llama", "Llama", read_config, write_config)
