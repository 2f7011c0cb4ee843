"""ELECTRA: BERT's body, an embedding of its own width, and heads of its own.

GELU is exact in the generator's head and before the last layer of a classifier, whatever
`hidden_act` is.
"""

from __future__ import annotations

from typing import Any

from zoo.models.encoder import POOLED, Encoder
from zoo.pretrained import bert
from zoo.pretrained.bridge import Table, linear_rows
from zoo.pretrained.family import Family, TheirConfig, find_prefix
from zoo.pretrained.safetensors_file import Tensors

DEFAULTS = bert.Defaults(256, 12, 4, 1024)


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of an Encoder."""
    if head == "masked_lm":
        config.only("hidden_act", "gelu")
    if head == "multiple_choice":
        config.only("summary_type", "first")
        config.only("summary_use_proj", True)
        config.only("summary_activation", "gelu")
    return {
        **bert.read_config(config, head, tensors, DEFAULTS),
        "embedding_width": config.get("embedding_size", 128),
        "pooler": head in POOLED,
        "pooler_activation": "gelu",
    }


def write_config(model: Encoder) -> dict[str, Any]:
    """What `read_config` reads."""
    return {**bert.write_config(model), "embedding_size": model.embedding_width or model.width}


def make_table(model: Encoder, names: list[str] | None) -> Table:
    p = find_prefix("electra.", model.head, names)
    rows = [*bert.body_rows(p), *linear_rows(f"{p}embeddings_project", "embed_proj")]
    if model.head == "sequence":
        rows += linear_rows("classifier.dense", "pooler")
        rows += linear_rows("classifier.out_proj", "head")
    if model.head == "multiple_choice":
        rows += linear_rows("sequence_summary.summary", "pooler")
    if model.head == "replaced_token":
        rows += linear_rows("discriminator_predictions.dense", "head/fc")
        rows += linear_rows("discriminator_predictions.dense_prediction", "head/out")
    lm = bert.LMKeys(
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head",
        "generator_lm_head.bias",
    )
    return bert.add_head(model, p, rows, bert.POSITION_IDS, lm)


HEADS = {**bert.make_heads("Electra"), "ElectraForPreTraining": "replaced_token"}
ELECTRA = Family("electra", Encoder, HEADS, read_config, write_config, make_table)
