"""RoBERTa and XLM-R: BERT's body, positions after the padding's, and heads of their own.

GELU is exact in the masked language model's head, whatever `hidden_act` is. What we read as XLM-R
is RoBERTa in all but its vocabulary, and is written as RoBERTa.
"""

from __future__ import annotations

import functools
from typing import Any

from zoo.models.encoder import Encoder
from zoo.pretrained import bert
from zoo.pretrained.bridge import Table, linear_rows
from zoo.pretrained.family import Family, TheirConfig, find_prefix
from zoo.pretrained.safetensors_file import Tensors


def read_config(
    config: TheirConfig, head: str, tensors: Tensors, vocab_size: int = 50265
) -> dict[str, Any]:
    """Fields of an Encoder. A classifier has a layer of its own in the pooler's place."""
    if head == "masked_lm":
        config.only("hidden_act", "gelu")
    fields = bert.read_config(config, head, tensors, bert.Defaults(vocab_size=vocab_size))
    fields["padding_position"] = config.get("pad_token_id", 1)
    return {**fields, "pooler": fields["pooler"] or head == "sequence"}


def write_config(model: Encoder) -> dict[str, Any]:
    """What `read_config` reads."""
    return {**bert.write_config(model), "pad_token_id": model.padding_position}


def make_table(model: Encoder, names: list[str] | None) -> Table:
    p = find_prefix("roberta.", model.head, names)
    ignored = dict(bert.POSITION_IDS)
    rows = bert.body_rows(p)
    if model.head == "sequence":
        rows += linear_rows("classifier.dense", "pooler")
        rows += linear_rows("classifier.out_proj", "head")
        ignored[r"roberta\.pooler\.dense\.(weight|bias)"] = "the classifier does not read it"
    else:
        rows += linear_rows(f"{p}pooler.dense", "pooler")
    lm = bert.LMKeys("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias")
    return bert.add_head(model, p, rows, ignored, lm)


ROBERTA = Family(
    "roberta", Encoder, bert.make_heads("Roberta"), read_config, write_config, make_table
)
XLM_ROBERTA = Family(
    "xlm-roberta",
    Encoder,
    bert.make_heads("XLMRoberta"),
    functools.partial(read_config, vocab_size=30522),
    write_config,
    make_table,
)
