"""Which model a file is of, and which file a model becomes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError, nearest
from zoo.models import CLASSES, make_lora, make_model, model_fields
from zoo.models.lora import LoRA
from zoo.pretrained.bart import BART, MBART
from zoo.pretrained.bert import ALBERT, BERT
from zoo.pretrained.bridge import plan
from zoo.pretrained.clip import CLIP_FAMILY, CLIP_TEXT, CLIP_VISION
from zoo.pretrained.deit import DEIT
from zoo.pretrained.dinov2 import DINOV2, DINOV2_REGISTERS
from zoo.pretrained.distilbert import DISTILBERT
from zoo.pretrained.electra import ELECTRA
from zoo.pretrained.family import Family, TheirConfig, head_of
from zoo.pretrained.gemma import GEMMA, GEMMA2, GEMMA3
from zoo.pretrained.gpt2 import GPT2
from zoo.pretrained.llama import LLAMA
from zoo.pretrained.mae import VIT_MAE
from zoo.pretrained.marian import MARIAN
from zoo.pretrained.mistral import MISTRAL, MIXTRAL
from zoo.pretrained.mixer import NPZ as MIXER_NPZ
from zoo.pretrained.mixer import TIMM as MIXER_TIMM
from zoo.pretrained.qwen import QWEN2, QWEN3
from zoo.pretrained.roberta import ROBERTA, XLM_ROBERTA
from zoo.pretrained.siglip import SIGLIP, SIGLIP_TEXT, SIGLIP_VISION
from zoo.pretrained.sources import Source
from zoo.pretrained.t5 import MT5, T5
from zoo.pretrained.tensors import MemoryTensors
from zoo.pretrained.vit import NPZ, TIMM, VIT

# `model_type` in config.json -> family. What comes first is tried first when a model is written.
FAMILIES: dict[str, Family] = {f.name: f for f in (VIT, GPT2, LLAMA, BERT, ALBERT)}
FAMILIES |= {f.name: f for f in (MISTRAL, MIXTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3)}
FAMILIES |= {f.name: f for f in (ELECTRA, ROBERTA, XLM_ROBERTA, DISTILBERT)}
FAMILIES |= {f.name: f for f in (T5, MT5, MARIAN, BART, MBART)}
FAMILIES |= {f.name: f for f in (DEIT, DINOV2, DINOV2_REGISTERS, VIT_MAE)}
TOWERS = (CLIP_FAMILY, CLIP_VISION, CLIP_TEXT, SIGLIP, SIGLIP_VISION, SIGLIP_TEXT)
FAMILIES |= {f.name: f for f in TOWERS}
# Files that say themselves what they are: layout -> a key that tells the family; '' is in any file.
BARE: dict[str, dict[str, Family]] = {
    "timm": {"stem.proj.weight": MIXER_TIMM, "": TIMM},
    "npz": {"stem/kernel": MIXER_NPZ, "": NPZ},
}

# Fields that say how a model runs or trains, not what it computes.
RUNNING = ("scan_layers", "remat", "attend", "dtype", "param_dtype")
TRAINING = ("dropout", "attention_dropout", "stochastic_depth", "initializer_range")
# What a field that is None stands for.
MEANT = {
    "num_kv_heads": lambda m: m.num_heads,
    "head_dim": lambda m: m.width // m.num_heads,
    "hidden": lambda m: 4 * m.width,
    "embedding_width": lambda m: m.width,
    "out_bias": lambda m: m.attention_bias,
    "score_width": lambda m: m.head_dim or m.width // m.num_heads,
    "num_groups": lambda m: m.depth,
    "decoder_depth": lambda m: m.depth,
}

# The heads without classes.
UNCLASSED = ("lm", "masked_lm", "replaced_token", "span", "multiple_choice", "none")


def family_of(source: Source) -> Family:
    """The family of a file. Raises UserError on one we do not have."""
    if source.layout in BARE:
        names = source.tensors.names()
        return next(f for key, f in BARE[source.layout].items() if not key or key in names)
    name = source.config.get("model_type")
    family = FAMILIES.get(str(name))
    if family is None:
        known = ", ".join(FAMILIES)
        raise UserError(f"{source.place}/config.json: model_type={name!r} is none of {known}")
    return family


def find_heads(family: Family, source: Source, asked: str | None = None) -> list[str]:
    """The heads that a file may have, the likeliest first. Raises UserError on one we lack."""
    if source.layout in BARE:
        return [""]
    return family.find_heads(TheirConfig(source.config, f"{source.place}/config.json"), asked)


def choose_fields(family: Family, source: Source, head: str) -> dict[str, Any]:
    """Fields of our class for a file. Raises UserError on a config we cannot follow."""
    config = TheirConfig(source.config, f"{source.place}/config.json")
    return family.read_config(config, head, source.tensors)


def family_for(source: Source, model: nn.Module) -> Family:
    """The family by whose names transformers knows a model of a source: the file's own, or where
    the file is none of transformers', the first that can say all that the model is."""
    return family_of(source) if source.layout == "hf" else architecture_of(model)[0]


def architecture_of(model: nn.Module) -> tuple[Family, dict[str, Any]]:
    """The family that can say all that a model is, and its config.json.

    Raises UserError that names the fields in the way of the family that comes nearest.
    """
    families = [f for f in FAMILIES.values() if type(model) is f.model_class]
    candidates = [f for f in families if head_of(model) in f.heads.values()]
    if not candidates:
        raise UserError(f"transformers has no class for a {type(model).__name__} of ours")
    tried = []
    for family in candidates:
        config, wrong = _try_family(family, model)
        if not wrong:
            return family, config
        tried.append((len(wrong), family.name, wrong))
    _, name, wrong = min(tried)
    raise UserError(f"no layout of transformers fits the model: {name} has no {', '.join(wrong)}")


def layouts_of(model: nn.Module) -> list[str]:
    """The files that can hold a model: `model_type`s of transformers, and BARE's layouts."""
    named = [f for f in FAMILIES.values() if type(model) is f.model_class]
    fitting = [f.name for f in named if not _try_family(f, model)[1]]
    bare = [name for name, rows in BARE.items() if any(_covers(f, model) for f in rows.values())]
    return fitting + bare


def _covers(family: Family, model: nn.Module) -> bool:
    """Has the family's table a place for every leaf of the model?"""
    if type(model) is not family.model_class:
        return False
    try:
        plan(family.make_table(model, None), model)
    except UserError:
        return False
    return True


def _try_family(family: Family, model: Any) -> tuple[dict[str, Any], list[str]]:
    """A config.json, and what is lost when it is read again."""
    if head_of(model) not in family.heads.values():
        return {}, [f"head={head_of(model)!r}"]
    architecture = family.architecture(model)
    config = {
        "architectures": [architecture],
        "model_type": family.name,
        **family.write_config(model),
    }
    head = family.heads[architecture]
    names = {"a.pooler.": np.zeros(0)} if _has(model, "pooler") or _has(model, "pre_logits") else {}
    try:
        fields = family.read_config(TheirConfig(config, family.name), head, MemoryTensors(names))
    except UserError as error:  # a value that this family does not take
        return config, [str(error).removeprefix(f"{family.name}: ")]
    again = family.model_class(**fields)
    wanted, got = find_meaning(model), find_meaning(again)
    return config, [f"{k}={wanted[k]!r}" for k in wanted if wanted[k] != got[k]]


def _has(model: Any, field: str) -> bool:
    return bool(getattr(model, field, False))


def find_meaning(model: Any) -> dict[str, Any]:
    """The fields that say what a model computes, None replaced by what it stands for."""
    values = {
        name: getattr(model, name)
        for name in model_fields(type(model))
        if name not in RUNNING + TRAINING
    }
    for name, meant in MEANT.items():
        if name in values and values[name] is None:
            values[name] = meant(model)
    if "layer_pattern" in values:
        values["layer_pattern"] = model.layer_kinds() if model.window else ()
    if "patch_size" in values and isinstance(values["patch_size"], int):
        values["patch_size"] = (values["patch_size"],) * 2
    if values.get("head") in UNCLASSED:
        values["num_classes"] = 0
    if values.get("distillation") == "head" and not values["num_classes"]:
        values["distillation"] = "token"
    return values


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Class and fields of a model of ours as JSON, `zoo.json`; with LoRA those of its base, and
    `lora`. Raises UserError on another's."""
    if isinstance(model, LoRA):
        settings = {k: getattr(model, k) for k in model_fields(LoRA) if k != "base"}
        return {**describe_model(model.base), "lora": settings}
    name = type(model).__name__
    if CLASSES.get(name) is not type(model):
        raise UserError(f"{name} is no class of zoo's own: it cannot be written by name")
    fields = {k: getattr(model, k) for k in model_fields(type(model)) if k != "attend"}
    for key in ("dtype", "param_dtype"):
        if key in fields:
            fields[key] = jnp.dtype(fields[key]).name
    if fields.get("rotary_scaling") is not None:
        fields["rotary_scaling"] = asdict(fields["rotary_scaling"])
    return {"format": 1, "class": name, "fields": fields}


def model_of(values: dict[str, Any], place: str) -> nn.Module:
    """The inverse of `describe_model`. Raises UserError on what it did not write."""
    if values.get("format") != 1:
        raise UserError(f"{place}: format {values.get('format')!r} is not 1")
    name, fields = values.get("class"), values.get("fields")
    if not isinstance(name, str) or name not in CLASSES:
        raise UserError(f"{place}: no class {name!r}{nearest(str(name), CLASSES)}")
    if not isinstance(fields, dict):
        raise UserError(f"{place}: 'fields' is no table")
    model = make_model(CLASSES[name], fields, place=place)
    if "lora" not in values:
        return model
    if not isinstance(values["lora"], dict):
        raise UserError(f"{place}: 'lora' is no table")
    return make_lora(model, values["lora"], f"{place}: lora")
