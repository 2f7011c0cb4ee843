"""Models by name: `create_model('vit_b16', num_classes=10)`, `list_models('vit*')`."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.config import UserError, nearest
from zoo.config.parse import convert
from zoo.models import decoder, vit
from zoo.models.decoder import Decoder
from zoo.models.mlp import MLP
from zoo.models.vit import ViT
from zoo.registry import Registry

MODELS = Registry("model")
MODELS.add("mlp", MLP)


def _make_vit(size: str, patch: str, **fields: Any) -> ViT:
    width, depth, num_heads, hidden = vit.SIZES[size]
    row = {"width": width, "depth": depth, "num_heads": num_heads, "hidden": hidden}
    return ViT(**{**row, "patch_size": int(patch), **fields})


# Published patch sizes are listed; any other, as in vit_s4, is made as well.
for _size in vit.SIZES:
    for _patch in vit.PATCHES:
        MODELS.add(
            f"vit_{_size}{_patch}",
            lambda size=_size, patch=str(_patch), **fields: _make_vit(size, patch, **fields),
        )
MODELS.add_pattern(rf"vit_({'|'.join(vit.SIZES)})([1-9]\d*)", _make_vit)


def _make_decoder(name: str, **fields: Any) -> Decoder:
    width, depth, num_heads, num_positions = decoder.SIZES[name]
    row = {"width": width, "depth": depth, "num_heads": num_heads, "num_positions": num_positions}
    return Decoder(**{**row, **fields})


for _name in decoder.SIZES:
    MODELS.add(_name, functools.partial(_make_decoder, _name))


def list_models(glob: str = "*") -> list[str]:
    """Names of the models that match a shell pattern, sorted."""
    return MODELS.names(glob)


def create_model(name: str, **overrides: Any) -> nn.Module:
    """Makes a model: a row of the table with some fields changed.

    `name` is one of `list_models()`, a pattern of a family (`vit_s4`) or `my_module:MyModel`.
    `dtype` and `param_dtype` may be names such as 'bfloat16'.
    Raises UserError on an unknown name or field, or a value of a wrong type.
    """
    factory = MODELS.get(name)
    fields = model_fields(factory if isinstance(factory, type) else type(factory()))
    for key, value in overrides.items():
        if key not in fields:
            raise UserError(f"model {name!r} has no field {key!r}{nearest(key, fields)}")
        if key in ("dtype", "param_dtype"):
            overrides[key] = jnp.dtype(value).type
        else:
            overrides[key] = convert(value, fields[key], f"model.arguments.{key}")
    return factory(**overrides)


def model_fields(cls: type) -> dict[str, Any]:
    """Field name -> type of a model class, without Linen's own."""
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls) if f.init and f.name not in ("parent", "name")]
    return {name: hints.get(name, Any) for name in names}


def init_params(model: nn.Module, seed: int | jax.Array = 0) -> dict[str, Any]:
    """Fresh parameters, a plain nested dict. `seed` is an int or a JAX key.

    Under `jax.eval_shape` it gives shapes without memory or arithmetic.
    """
    key = jax.random.key(seed) if isinstance(seed, int) else seed
    inputs = [jnp.zeros(spec.shape, spec.dtype) for spec in model.input_specs()]  # type: ignore[attr-defined]
    return model.init(key, *inputs)["params"]
