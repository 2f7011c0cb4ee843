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
from zoo.models.clip import CLIP, SigLIP, TextTower
from zoo.models.decoder import Decoder
from zoo.models.encoder import Encoder
from zoo.models.lora import LoRA, find_targets
from zoo.models.mae import MAE
from zoo.models.mixer import Mixer
from zoo.models.mlp import MLP
from zoo.models.rows import MODELS
from zoo.models.seq2seq import Seq2Seq
from zoo.models.transformer import Transformer
from zoo.models.vit import ViT

CLASSES: dict[str, type] = {
    c.__name__: c for c in (MLP, ViT, Mixer, MAE, Decoder, Encoder, Seq2Seq, Transformer)
}
CLASSES |= {c.__name__: c for c in (CLIP, SigLIP, TextTower)}
"""Class name -> class, for files that say what model they hold."""


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
    return factory(**convert_fields(fields, overrides, f"model {name!r}"))


def make_model(cls: type, fields: dict[str, Any], place: str) -> nn.Module:
    """A model of a class from values such as JSON holds.

    Raises UserError, that names `place`, on an unknown field, a wrong type, or fields that make no
    model together.
    """
    model = cls(**convert_fields(model_fields(cls), fields, place))
    try:
        param_shapes(model)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(f"{place}: these sizes make no {cls.__name__}: {line}") from None
    return model


def make_lora(base: nn.Module, settings: dict[str, Any], place: str = "model.lora") -> LoRA:
    """A model with corrections at its dense layers (`zoo/models/lora.py`) from settings such as a
    config holds: `rank`, `alpha`, `targets`, `dropout`.

    Raises UserError, that names `place`, on an unknown one, a wrong type or value, and on targets
    that match no layer.
    """
    model = LoRA(base, **check_lora(settings, place))
    find_targets(base, model.targets)
    return model


def check_lora(settings: dict[str, Any], place: str = "model.lora") -> dict[str, Any]:
    """The settings in their types, before there is a model. Raises UserError as `make_lora`."""
    fields = {name: kind for name, kind in model_fields(LoRA).items() if name != "base"}
    for key in settings:
        if key not in fields:
            raise UserError(f"{place}.{key} is unknown{nearest(key, fields)}")
    return {key: convert(value, fields[key], f"{place}.{key}") for key, value in settings.items()}


def convert_fields(fields: dict[str, Any], values: dict[str, Any], place: str) -> dict[str, Any]:
    """Values in the types of their fields. Raises UserError on an unknown or unfit one."""
    made = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"{place} has no field {key!r}{nearest(key, fields)}")
        if key in ("dtype", "param_dtype"):
            made[key] = _find_dtype(value, key)
        else:
            made[key] = convert(value, fields[key], f"model.arguments.{key}")
        if isinstance(made[key], int) and made[key] < 0:
            raise UserError(f"{place}: {key}={made[key]} should be 0 or more")
    return made


def _find_dtype(value: Any, key: str) -> Any:
    try:
        return jnp.dtype(value).type
    except TypeError:
        raise UserError(f"{key}={value!r} is no dtype (float32, bfloat16, ...)") from None


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


def max_tokens(model: Any) -> int | None:
    """The most tokens of a text that a model takes; None where its positions, relative or computed,
    have no end."""
    if isinstance(model, Seq2Seq) or (
        isinstance(model, Transformer) and model.positions == "sincos"
    ):
        return None
    if isinstance(model, Transformer):  # its specs show a shorter text
        return model.num_positions
    return model.input_specs()[-1].shape[1]


@functools.lru_cache(maxsize=4)  # tracing a deep model takes seconds, and each step asks
def param_shapes(model: nn.Module) -> dict[str, Any]:
    """The parameters' shapes and dtypes, a plain nested dict; nothing is computed."""
    return jax.eval_shape(lambda: init_params(model))
