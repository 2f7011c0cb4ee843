"""BERT and ALBERT: config and keys of transformers' files.

What the files of RoBERTa, ELECTRA and DistilBERT have in common with BERT's is here too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


class Defaults(NamedTuple):
    """transformers' own values of the keys in which the families differ."""

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    hidden: int = 3072
    vocab_size: int = 30522
    activation: str = "gelu"
    dropout: float = 0.1


BERT_DEFAULTS = Defaults()
ALBERT_DEFAULTS = Defaults(4096, 12, 64, 16384, 30000, "gelu_new", 0.0)


def read_config(
    config: TheirConfig, head: str, tensors: Tensors, defaults: Defaults = BERT_DEFAULTS
) -> dict[str, Any]:
    """Fields of an Encoder. The file's keys say whether there is a pooler."""
    config.only("position_embedding_type", "absolute")
    config.only("is_decoder", False)
    config.only("add_cross_attention", False)
    return {
        "width": config.get("hidden_size", defaults.width),
        "depth": config.get("num_hidden_layers", defaults.depth),
        "num_heads": config.get("num_attention_heads", defaults.num_heads),
        "hidden": config.get("intermediate_size", defaults.hidden),
        "vocab_size": config.get("vocab_size", defaults.vocab_size),
        "num_positions": config.get("max_position_embeddings", 512),
        "num_types": config.get("type_vocab_size", 2),
        "activation": config.activation("hidden_act", defaults.activation),
        "norm_epsilon": config.get("layer_norm_eps", 1e-12),
        "tied": config.get("tie_word_embeddings", True),
        "head": head,
        "num_classes": config.num_labels(),
        "pooler": any(".pooler." in f".{name}" for name in tensors.names()),
        "dropout": config.get("hidden_dropout_prob", defaults.dropout),
        "initializer_range": config.get("initializer_range", 0.02),
    }


def read_albert_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of an Encoder whose layers share parameters."""
    config.only("inner_group_num", 1)
    return {
        **read_config(config, head, tensors, ALBERT_DEFAULTS),
        "embedding_width": config.get("embedding_size", 128),
        "num_groups": config.get("num_hidden_groups", 1),
    }


def write_config(model: Encoder) -> dict[str, Any]:
    """What `read_config` reads."""
    return {
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
        # The width of 'span' too, which is 2.
        **make_labels(2 if model.head == "span" else model.num_classes),
    }


def write_albert_config(model: Encoder) -> dict[str, Any]:
    """What `read_albert_config` reads."""
    return {
        **write_config(model),
        "embedding_size": model.embedding_width or model.width,
        "num_hidden_groups": model.num_groups or model.depth,
        "inner_group_num": 1,
    }


class LMKeys(NamedTuple):
    """What the parts of a masked language model's head are called."""

    dense: str
    norm: str
    out: str
    bias: str  # the output's, which has a second name at `out` where this one is another


POSITION_IDS = {r".*embeddings\.position_ids": "the numbers 0, 1, 2, ..."}


def embedding_rows(p: str, scale: str = "weight", bias: str = "bias") -> list[Row]:
    """Tokens, positions and types; `p` is what the keys of the body begin with."""
    return [
        Row(f"{p}embeddings.word_embeddings.weight", "embed/embedding"),
        Row(f"{p}embeddings.position_embeddings.weight", "pos"),
        Row(f"{p}embeddings.token_type_embeddings.weight", "embed_types/embedding"),
        *norm_rows(f"{p}embeddings.LayerNorm", "embed_norm", scale, bias),
    ]


def body_rows(p: str, scale: str = "weight", bias: str = "bias") -> list[Row]:
    """Embedding and layers; of RoBERTa and ELECTRA too."""
    layer, block = p + "encoder.layer.{i}.", "blocks/{i}/"
    rows = embedding_rows(p, scale, bias)
    for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v")):
        rows += linear_rows(f"{layer}attention.self.{theirs}", f"{block}attn/{ours}")
    return [
        *rows,
        *linear_rows(f"{layer}attention.output.dense", f"{block}attn/out"),
        *norm_rows(f"{layer}attention.output.LayerNorm", f"{block}norm1", scale, bias),
        *linear_rows(f"{layer}intermediate.dense", f"{block}mlp/fc1"),
        *linear_rows(f"{layer}output.dense", f"{block}mlp/fc2"),
        *norm_rows(f"{layer}output.LayerNorm", f"{block}norm2", scale, bias),
    ]


def make_table(model: Encoder, names: list[str] | None) -> Table:
    """The oldest files call a norm's scale and bias `gamma` and `beta`."""
    p = find_prefix("bert.", model.head, names)
    old = names is not None and any(name.endswith("LayerNorm.gamma") for name in names)
    affine = ("gamma", "beta") if old else ("weight", "bias")
    head = "cls.predictions."
    lm = LMKeys(
        f"{head}transform.dense", f"{head}transform.LayerNorm", f"{head}decoder", f"{head}bias"
    )
    ignored = {
        **POSITION_IDS,
        r"cls\.seq_relationship\.(weight|bias)": "the head of next-sentence prediction",
    }
    rows = [*body_rows(p, *affine), *linear_rows(f"{p}pooler.dense", "pooler")]
    return add_head(model, p, rows, ignored, lm, *affine)


def make_albert_table(model: Encoder, names: list[str] | None) -> Table:
    """`albert_layer_groups.0` serves all layers."""
    p = find_prefix("albert.", model.head, names)
    layer, block = p + "encoder.albert_layer_groups.{i}.albert_layers.0.", "blocks/{i}/"
    rows = embedding_rows(p)
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
    lm = LMKeys(
        "predictions.dense", "predictions.LayerNorm", "predictions.decoder", "predictions.bias"
    )
    ignored = {**POSITION_IDS, r"sop_classifier\..*": "the head of sentence-order prediction"}
    return add_head(model, p, rows, ignored, lm)


def add_head(
    model: Encoder,
    p: str,
    rows: list[Row],
    ignored: dict[str, str],
    lm: LMKeys,
    scale: str = "weight",
    bias: str = "bias",
) -> Table:
    """The table of a body's rows and the model's head.

    A head that is one layer is called `qa_outputs` or `classifier`; rows that come before say where
    it is called otherwise.
    """
    if model.head != "masked_lm":
        if not any(row.paths[0].startswith("head/") for row in rows):
            name = "qa_outputs" if model.head == "span" else "classifier"
            rows = [*rows, *linear_rows(name, "head")]
        return Table(tuple(rows), ignored=ignored)
    rows = [*rows, *linear_rows(lm.dense, "head/fc"), *norm_rows(lm.norm, "head/norm", scale, bias)]
    own = {} if lm.bias == f"{lm.out}.bias" else {f"{lm.out}.bias": lm.bias}
    if model.tied:
        rows.append(Row(lm.bias, "head/bias"))
        embedding = f"{p}embeddings.word_embeddings.weight"
        return Table(tuple(rows), {f"{lm.out}.weight": embedding, **own}, {}, ignored)
    rows += [linear_rows(lm.out, "head/out")[0], Row(f"{lm.out}.bias", "head/bias")]
    return Table(tuple(rows), {}, {theirs: ours for ours, theirs in own.items()}, ignored)


def make_heads(name: str) -> dict[str, str]:
    """`architectures` -> our head."""
    return {
        f"{name}Model": "none",
        f"{name}ForMaskedLM": "masked_lm",
        f"{name}ForSequenceClassification": "sequence",
        f"{name}ForTokenClassification": "token",
        f"{name}ForQuestionAnswering": "span",
        f"{name}ForMultipleChoice": "multiple_choice",
    }


BERT = Family(
    "bert",
    Encoder,
    {**make_heads("Bert"), "BertForPreTraining": "masked_lm"},
    read_config,
    write_config,
    make_table,
)
ALBERT = Family(
    "albert",
    Encoder,
    {**make_heads("Albert"), "AlbertForPreTraining": "masked_lm"},
    read_albert_config,
    write_albert_config,
    make_albert_table,
)
