"""BERT and ALBERT: config and keys of transformers' files."""

from __future__ import annotations

import functools
from typing import Any

from zoo.models.encoder import Encoder
from zoo.pretrained.bridge import Row, Table, linear_rows, norm_rows
from zoo.pretrained.family import (
    THEIR_ACTIVATIONS,
    Family,
    TheirConfig,
    find_prefix,
    make_labels,
)
from zoo.pretrained.safetensors_file import Tensors

# Where the two differ: vocabulary, default activation, classifier's dropout key.
DEFAULTS = {"bert": (30522, "gelu"), "albert": (30000, "gelu_new")}
SIZES = {"bert": (768, 12, 12, 3072, 0.1), "albert": (4096, 12, 64, 16384, 0.0)}


def read_config(
    config: TheirConfig, head: str, tensors: Tensors, kind: str = "bert"
) -> dict[str, Any]:
    """Fields of an Encoder. The file's keys say whether there is a pooler."""
    config.only("position_embedding_type", "absolute")
    config.only("is_decoder", False)
    config.only("add_cross_attention", False)
    width, depth, num_heads, hidden, dropout = SIZES[kind]
    vocab_size, activation = DEFAULTS[kind]
    fields = {
        "width": config.get("hidden_size", width),
        "depth": config.get("num_hidden_layers", depth),
        "num_heads": config.get("num_attention_heads", num_heads),
        "hidden": config.get("intermediate_size", hidden),
        "vocab_size": config.get("vocab_size", vocab_size),
        "num_positions": config.get("max_position_embeddings", 512),
        "num_types": config.get("type_vocab_size", 2),
        "activation": config.activation("hidden_act", activation),
        "norm_epsilon": config.get("layer_norm_eps", 1e-12),
        "tied": config.get("tie_word_embeddings", True),
        "head": head,
        "num_classes": config.num_labels(),
        "pooler": any(".pooler." in f".{name}" for name in tensors.names()),
        "dropout": config.get("hidden_dropout_prob", dropout),
        "initializer_range": config.get("initializer_range", 0.02),
    }
    if kind == "albert":
        config.only("inner_group_num", 1)
        fields["embedding_width"] = config.get("embedding_size", 128)
        fields["num_groups"] = config.get("num_hidden_groups", 1)
    return fields


def write_config(model: Encoder, kind: str = "bert") -> dict[str, Any]:
    """What `read_config` reads."""
    config = {
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.num_heads,
        "intermediate_size": model.hidden,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.num_positions,
        "type_vocab_size": model.num_types,
        "hidden_act": THEIR_ACTIVATIONS[model.activation],
        "layer_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tied,
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": model.initializer_range,
        **make_labels(model.num_classes),
    }
    if kind == "albert":
        config["embedding_size"] = model.embedding_width or model.width
        config["num_hidden_groups"] = model.num_groups or model.depth
        config["inner_group_num"] = 1
    return config


def _embedding_rows(p: str, scale: str, bias: str) -> list[Row]:
    return [
        Row(f"{p}embeddings.word_embeddings.weight", "embed/embedding"),
        Row(f"{p}embeddings.position_embeddings.weight", "pos"),
        Row(f"{p}embeddings.token_type_embeddings.weight", "embed_types/embedding"),
        *norm_rows(f"{p}embeddings.LayerNorm", "embed_norm", scale, bias),
    ]


def make_table(model: Encoder, names: list[str] | None) -> Table:
    """The oldest files call a norm's scale and bias `gamma` and `beta`."""
    p = find_prefix("bert.", model.head, names)
    old = names is not None and any(name.endswith("LayerNorm.gamma") for name in names)
    scale, bias = ("gamma", "beta") if old else ("weight", "bias")
    layer, block = p + "encoder.layer.{i}.", "blocks/{i}/"
    rows = _embedding_rows(p, scale, bias)
    for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v")):
        rows += linear_rows(f"{layer}attention.self.{theirs}", f"{block}attn/{ours}")
    rows += [
        *linear_rows(f"{layer}attention.output.dense", f"{block}attn/out"),
        *norm_rows(f"{layer}attention.output.LayerNorm", f"{block}norm1", scale, bias),
        *linear_rows(f"{layer}intermediate.dense", f"{block}mlp/fc1"),
        *linear_rows(f"{layer}output.dense", f"{block}mlp/fc2"),
        *norm_rows(f"{layer}output.LayerNorm", f"{block}norm2", scale, bias),
        *linear_rows(f"{p}pooler.dense", "pooler"),
    ]
    head = "cls.predictions."
    transform = (f"{head}transform.dense", f"{head}transform.LayerNorm")
    more, copies, doubles = _head_rows(model, p, head, transform, scale, bias)
    ignored = {
        r".*embeddings\.position_ids": "the numbers 0, 1, 2, ...",
        r"cls\.seq_relationship\.(weight|bias)": "the head of next-sentence prediction",
    }
    return Table((*rows, *more), copies, doubles, ignored)


def make_albert_table(model: Encoder, names: list[str] | None) -> Table:
    """`albert_layer_groups.0` serves all layers."""
    p = find_prefix("albert.", model.head, names)
    layer, block = p + "encoder.albert_layer_groups.{i}.albert_layers.0.", "blocks/{i}/"
    rows = _embedding_rows(p, "weight", "bias")
    rows += linear_rows(f"{p}encoder.embedding_hidden_mapping_in", "embed_proj")
    for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v"), ("dense", "out")):
        rows += linear_rows(f"{layer}attention.{theirs}", f"{block}attn/{ours}")
    rows += [
        *norm_rows(f"{layer}attention.LayerNorm", f"{block}norm1"),
        *linear_rows(f"{layer}ffn", f"{block}mlp/fc1"),
        *linear_rows(f"{layer}ffn_output", f"{block}mlp/fc2"),
        *norm_rows(f"{layer}full_layer_layer_norm", f"{block}norm2"),
        *linear_rows(f"{p}pooler", "pooler"),
    ]
    transform = ("predictions.dense", "predictions.LayerNorm")
    more, copies, doubles = _head_rows(model, p, "predictions.", transform)
    ignored = {
        r".*embeddings\.position_ids": "the numbers 0, 1, 2, ...",
        r"sop_classifier\..*": "the head of sentence-order prediction",
    }
    return Table((*rows, *more), copies, doubles, ignored)


def _head_rows(
    model: Encoder,
    p: str,
    head: str,
    transform: tuple[str, str],
    scale: str = "weight",
    bias: str = "bias",
) -> tuple[list[Row], dict[str, str], dict[str, str]]:
    """Rows of the head, copies and doubles."""
    if model.head != "masked_lm":
        name = "qa_outputs" if model.head == "span" else "classifier"
        return linear_rows(name, "head"), {}, {}
    dense, norm = transform
    rows = [*linear_rows(dense, "head/fc"), *norm_rows(norm, "head/norm", scale, bias)]
    embedding = f"{p}embeddings.word_embeddings.weight"
    if model.tied:
        rows += [Row(f"{head}bias", "head/bias")]
        copies = {f"{head}decoder.weight": embedding, f"{head}decoder.bias": f"{head}bias"}
        return rows, copies, {}
    rows += [*linear_rows(f"{head}decoder", "head/out")[:1]]
    rows += [Row(f"{head}decoder.bias", "head/bias")]
    return rows, {}, {f"{head}bias": f"{head}decoder.bias"}


def _heads(name: str) -> dict[str, str]:
    return {
        f"{name}Model": "none",
        f"{name}ForMaskedLM": "masked_lm",
        f"{name}ForPreTraining": "masked_lm",
        f"{name}ForSequenceClassification": "sequence",
        f"{name}ForTokenClassification": "token",
        f"{name}ForQuestionAnswering": "span",
    }


BERT = Family("bert", Encoder, _heads("Bert"), read_config, write_config, make_table)
ALBERT = Family(
    "albert",
    Encoder,
    _heads("Albert"),
    functools.partial(read_config, kind="albert"),
    functools.partial(write_config, kind="albert"),
    make_albert_table,
)
