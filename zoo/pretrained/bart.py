"""BART and mBART: config and keys of transformers' files. Marian's are alike (`marian.py`)."""

from __future__ import annotations

import functools
from typing import Any

from zoo.config import UserError
from zoo.models.transformer import BART as BART_FIELDS
from zoo.models.transformer import MBART as MBART_FIELDS
from zoo.models.transformer import Transformer
from zoo.pretrained.bridge import LINEAR, Row, Table, Turn, linear_rows, norm_rows
from zoo.pretrained.family import (
    THEIR_ACTIVATIONS,
    Family,
    TheirConfig,
    find_prefix,
    make_labels,
)
from zoo.pretrained.safetensors_file import Tensors

KINDS = {"bart": BART_FIELDS, "mbart": MBART_FIELDS}
NUM_LABELS = {"bart": 3, "mbart": 2}  # where the file is silent
ROW = Turn(lambda x, model: x[0], lambda x, model: x[None])  # [1, v] as [v]


def read_config(
    config: TheirConfig, head: str, tensors: Tensors, kind: str = "bart"
) -> dict[str, Any]:
    """Fields of a Transformer."""
    pre_norm = kind == "mbart"
    # Old files say so; transformers no longer asks.
    config.only("normalize_before", pre_norm)
    config.only("add_final_layer_norm", pre_norm)
    config.only("normalize_embedding", True)
    config.only("static_position_embeddings", False)
    config.only("tie_word_embeddings", True)
    labels = len(config.get("id2label", {})) or config.get("num_labels", NUM_LABELS[kind])
    fields = {**KINDS[kind], **read_sizes(config, 50265), "head": head}
    return {**fields, "num_classes": labels}


def read_sizes(config: TheirConfig, vocab_size: int) -> dict[str, Any]:
    """What the families of this kind say alike."""
    depth = config.get("encoder_layers", 12)
    decoder_depth = config.get("decoder_layers", 12)
    return {
        "width": config.get("d_model", 1024),
        "depth": depth,
        "decoder_depth": None if decoder_depth == depth else decoder_depth,
        "num_heads": _get_same(config, "attention_heads", 16),
        "hidden": _get_same(config, "ffn_dim", 4096),
        "vocab_size": config.get("vocab_size", vocab_size),
        "num_positions": config.get("max_position_embeddings", 1024),
        "activation": config.activation("activation_function", "gelu"),
        "scale_embedding": config.get("scale_embedding", False),
        "dropout": config.get("dropout", 0.1),
        "initializer_range": config.get("init_std", 0.02),
    }


def _get_same(config: TheirConfig, name: str, default: int) -> int:
    """A size that our two stacks have in common."""
    ours, other = (config.get(f"{side}_{name}", default) for side in ("encoder", "decoder"))
    if ours != other:
        raise UserError(
            f"{config.place}: encoder_{name}={ours} and decoder_{name}={other}: "
            "only equal ones are supported"
        )
    return ours


def write_config(model: Transformer) -> dict[str, Any]:
    """What `read_config` reads."""
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    return {**write_sizes(model), **special, **make_labels(model.num_classes)}


def write_sizes(model: Transformer) -> dict[str, Any]:
    """What `read_sizes` reads."""
    return {
        "d_model": model.width,
        "encoder_layers": model.depth,
        "decoder_layers": model.decoder_depth or model.depth,
        "encoder_attention_heads": model.num_heads,
        "decoder_attention_heads": model.num_heads,
        "encoder_ffn_dim": model.hidden,
        "decoder_ffn_dim": model.hidden,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.num_positions,
        "activation_function": THEIR_ACTIVATIONS[model.activation],
        "scale_embedding": model.scale_embedding,
        "tie_word_embeddings": model.tied,
        "dropout": model.dropout,
        "attention_dropout": 0.0,
        "init_std": model.initializer_range or 0.02,
        "is_encoder_decoder": True,
    }


def make_table(model: Transformer, names: list[str] | None) -> Table:
    """Keys of the stacks begin with 'model.' where there is a head."""
    p = find_prefix("model.", model.head, names)
    rows = []
    for side in ("encoder", "decoder"):
        layer, block = p + side + ".layers.{i}.", side + "/blocks/{i}/"
        for theirs, ours, norm in (
            ("self_attn", "attn", "norm1"),
            ("encoder_attn", "cross", "cross_norm"),
        ):
            for name in ("q", "k", "v", "out"):
                rows += linear_rows(f"{layer}{theirs}.{name}_proj", f"{block}{ours}/{name}")
            rows += norm_rows(f"{layer}{theirs}_layer_norm", f"{block}{norm}")
        rows += [
            *linear_rows(f"{layer}fc1", f"{block}mlp/fc1"),
            *linear_rows(f"{layer}fc2", f"{block}mlp/fc2"),
            *norm_rows(f"{layer}final_layer_norm", f"{block}norm2"),
            Row(f"{p}{side}.embed_positions.weight", f"{side}/pos/embedding"),
            *norm_rows(f"{p}{side}.layernorm_embedding", f"{side}/embed_norm"),
            *norm_rows(f"{p}{side}.layer_norm", f"{side}/norm"),
        ]
    embeddings, copies = _embedding_rows(model, p)
    ignored = {rf"{p}(encoder|decoder)\.version": "the number of a format"}
    return Table((*rows, *embeddings, *_head_rows(model)), copies, ignored=ignored)


def _embedding_rows(model: Transformer, p: str) -> tuple[list[Row], dict[str, str]]:
    """Rows of the embedding, or of both, and their copies."""
    source, target = f"{p}encoder.embed_tokens.weight", f"{p}decoder.embed_tokens.weight"
    rows, copies = [Row(source, "embed/embedding"), Row(target, "embed_target/embedding")], {}
    if model.target_vocab_size is None:
        shared = f"{p}shared.weight"
        rows, copies = [Row(shared, "embed/embedding")], {source: shared, target: shared}
        target = shared
    if model.head == "lm" and model.tied:
        copies["lm_head.weight"] = target
    return rows, copies


def _head_rows(model: Transformer) -> list[Row]:
    if model.head == "lm":
        bias = Row("final_logits_bias", "head/bias", ROW)
        return [Row("lm_head.weight", "head/kernel", LINEAR), bias]
    if model.head == "span":
        return linear_rows("qa_outputs", "head")
    return [
        *linear_rows("classification_head.dense", "head/fc"),
        *linear_rows("classification_head.out_proj", "head/out"),
    ]


def _heads(name: str) -> dict[str, str]:
    return {
        f"{name}ForConditionalGeneration": "lm",
        f"{name}ForSequenceClassification": "sequence",
        f"{name}ForQuestionAnswering": "span",
        f"{name}Model": "none",
    }


BART = Family("bart", Transformer, _heads("Bart"), read_config, write_config, make_table)
MBART = Family(
    "mbart",
    Transformer,
    _heads("MBart"),
    functools.partial(read_config, kind="mbart"),
    write_config,
    make_table,
)
