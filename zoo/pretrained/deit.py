"""DeiT with a distillation token: a ViT of transformers' files (without one it is their ViT).

Pre-norm, exact GELU, norm epsilon 1e-12 where config.json is silent.
"""

from __future__ import annotations

from typing import Any

from zoo.models.vit import ViT
from zoo.pretrained import vit
from zoo.pretrained.bridge import Row, Table, linear_rows
from zoo.pretrained.family import Family, TheirConfig, find_prefix, head_of
from zoo.pretrained.patches import BATCHED
from zoo.pretrained.safetensors_file import Tensors


def read_config(config: TheirConfig, head: str, tensors: Tensors) -> dict[str, Any]:
    """Fields of a ViT."""
    fields = vit.read_config(config, "none" if head == "none" else "classification", tensors)
    return {**fields, "distillation": "head" if head == "distilled" else "token"}


def make_table(model: ViT, names: list[str] | None) -> Table:
    """transformers' keys."""
    head = head_of(model)
    p = find_prefix("deit.", head, names)
    rows = [
        *vit.body_rows(p),
        Row(f"{p}embeddings.distillation_token", "dist", BATCHED),
        *linear_rows(f"{p}pooler.dense", "pre_logits"),
        *linear_rows("cls_classifier" if head == "distilled" else "classifier", "head"),
        *linear_rows("distillation_classifier", "head_dist"),
    ]
    return Table(tuple(rows))


HEADS = {
    "DeiTForImageClassificationWithTeacher": "distilled",
    "DeiTForImageClassification": "classification",
    "DeiTModel": "none",
}
DEIT = Family("deit", ViT, HEADS, read_config, vit.write_config, make_table)
