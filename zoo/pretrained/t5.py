"""T5 1.0, 1.1, Flan, mT5 and ByT5: config and keys of transformers' files."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from zoo.models.seq2seq import Seq2Seq
from zoo.pretrained.bridge import LINEAR, Row, Table, linear_rows
from zoo.pretrained.family import THEIR_ACTIVATIONS, Family, TheirConfig
from zoo.pretrained.safetensors_file import Tensors

# In a T5 config 'gated-gelu' means the tanh form, 'gelu' by itself the exact one.
GATED_GELU = "gated-gelu"
# Where the two differ: depth, heads, feed-forward width, vocabulary, activation. ByT5's files say
# that they are T5's.
DEFAULTS = {"t5": (6, 8, 2048, 32128, "relu"), "mt5": (8, 6, 1024, 250112, GATED_GELU)}


def read_config(
    config: TheirConfig, head: str, tensors: Tensors, kind: str = "t5"
) -> dict[str, Any]:
    """Fields of a Seq2Seq."""
    depth, num_heads, hidden, vocab_size, usual = DEFAULTS[kind]
    depth = config.get("num_layers", depth)
    decoder_depth = config.get("num_decoder_layers", depth)
    tied = config.get("tie_word_embeddings", True)
    scaled = config.get("scale_decoder_outputs", tied) if kind == "t5" else False
    activation, gated = _read_activation(config, usual)
    return {
        "width": config.get("d_model", 512),
        "depth": depth,
        "decoder_depth": None if decoder_depth == depth else decoder_depth,
        "num_heads": config.get("num_heads", num_heads),
        "head_dim": config.get("d_kv", 64),
        "hidden": config.get("d_ff", hidden),
        "vocab_size": config.get("vocab_size", vocab_size),
        "num_buckets": config.get("relative_attention_num_buckets", 32),
        "max_distance": config.get("relative_attention_max_distance", 128),
        "activation": activation,
        "gated": gated,
        # transformers 5 says "tied" of every T5: where the file has a head of its own, that counts.
        "tied": tied and not _has_own_head(tensors),
        "scale_logits": scaled,
        "head": head,
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-6),
        "dropout": config.get("dropout_rate", 0.1),
    }


def _read_activation(config: TheirConfig, usual: str) -> tuple[str, bool]:
    name = config.get("feed_forward_proj", usual)
    gated = name.startswith("gated-")
    name = "gelu_new" if name == GATED_GELU else name.removeprefix("gated-")
    return (
        TheirConfig({"dense_act_fn": name, **config.values}, config.place).activation(
            "dense_act_fn", name
        ),
        config.get("is_gated_act", gated),
    )


def _has_own_head(tensors: Tensors) -> bool:
    if "lm_head.weight" not in tensors or "shared.weight" not in tensors:
        return False
    return not np.array_equal(tensors.read("lm_head.weight"), tensors.read("shared.weight"))


def write_config(model: Seq2Seq) -> dict[str, Any]:
    """What `read_config` reads."""
    activation = THEIR_ACTIVATIONS[model.activation]
    name = "gelu" if model.gated and activation == "gelu_new" else activation
    config = {
        "d_model": model.width,
        "num_layers": model.depth,
        "num_decoder_layers": model.decoder_depth or model.depth,
        "num_heads": model.num_heads,
        "d_kv": model.head_dim,
        "d_ff": model.hidden,
        "vocab_size": model.vocab_size,
        "relative_attention_num_buckets": model.num_buckets,
        "relative_attention_max_distance": model.max_distance,
        "feed_forward_proj": f"gated-{name}" if model.gated else name,
        "dense_act_fn": activation,
        "tie_word_embeddings": model.tied,
        "layer_norm_epsilon": model.norm_epsilon,
        "dropout_rate": model.dropout,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
    }
    if model.scale_logits != model.tied:
        config["scale_decoder_outputs"] = model.scale_logits
    return config


def make_table(model: Seq2Seq, names: list[str] | None) -> Table:
    """The first block of each stack holds the stack's relative positions."""
    rows = [Row("shared.weight", "embed/embedding"), Row("lm_head.weight", "head/kernel", LINEAR)]
    for side in ("encoder", "decoder"):
        layer, block = side + ".block.{i}.layer.", side + "/blocks/{i}/"
        parts = [("SelfAttention", "attn", "norm1"), ("EncDecAttention", "cross", "cross_norm")]
        parts = parts if side == "decoder" else parts[:1]
        for number, (theirs, ours, norm) in enumerate(parts):
            rows += [Row(f"{layer}{number}.layer_norm.weight", f"{block}{norm}/scale")]
            for letter, name in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out")):
                rows += linear_rows(f"{layer}{number}.{theirs}.{letter}", f"{block}{ours}/{name}")
        last = f"{layer}{len(parts)}."
        rows += [Row(f"{last}layer_norm.weight", f"{block}norm2/scale")]
        fc1, gate = ("wi_1", "wi_0") if model.gated else ("wi", "wi_0")
        for theirs, ours in ((fc1, "fc1"), (gate, "gate"), ("wo", "fc2")):
            rows += linear_rows(f"{last}DenseReluDense.{theirs}", f"{block}mlp/{ours}")
        positions = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rows += [
            Row(positions, f"{side}/relative/embedding"),
            Row(f"{side}.final_layer_norm.weight", f"{side}/norm/scale"),
        ]
    copies = {f"{side}.embed_tokens.weight": "shared.weight" for side in ("encoder", "decoder")}
    if model.head == "lm" and model.tied:
        copies["lm_head.weight"] = "shared.weight"
    useless = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
    ignored = {useless: "attention to the source has no relative positions"}
    return Table(tuple(rows), copies, ignored=ignored)


def _heads(name: str) -> dict[str, str]:
    return {f"{name}ForConditionalGeneration": "lm", f"{name}Model": "none"}


T5 = Family(
    "t5",
    Seq2Seq,
    {**_heads("T5"), "T5WithLMHeadModel": "lm"},
    read_config,
    write_config,
    make_table,
)
# Comes after T5, which says the same: what is written is a T5.
MT5 = Family(
    "mt5",
    Seq2Seq,
    _heads("MT5"),
    functools.partial(read_config, kind="mt5"),
    write_config,
    make_table,
)
