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
from zoo.models import clip, decoder_sizes, encoder, mae, mixer, seq2seq, transformer, vit
from zoo.models.clip import CLIP, SigLIP, TextTower
from zoo.models.decoder import Decoder
from zoo.models.encoder import Encoder
from zoo.models.mae import MAE
from zoo.models.mixer import Mixer
from zoo.models.mlp import MLP
from zoo.models.seq2seq import Seq2Seq
from zoo.models.transformer import Transformer
from zoo.models.vit import ViT
from zoo.registry import Registry

CLASSES: dict[str, type] = {
    c.__name__: c for c in (MLP, ViT, Mixer, MAE, Decoder, Encoder, Seq2Seq, Transformer)
}
CLASSES |= {c.__name__: c for c in (CLIP, SigLIP, TextTower)}
"""Class name -> class, for files that say what model they hold."""

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


def _make_deit(size: str, row: dict[str, Any], **fields: Any) -> ViT:
    return _make_vit(vit.DEIT_SIZES[size], "16", **{**row, **fields})


def _make_dinov2(size: str, row: dict[str, Any], **fields: Any) -> ViT:
    keys = ("width", "depth", "num_heads", "hidden")
    sizes = dict(zip(keys, vit.DINOV2_SIZES[size], strict=True))
    gated = vit.DINOV2_GATED if size == "g" else {}
    return ViT(**{**vit.DINOV2, **sizes, **gated, "patch_size": 14, **row, **fields})


for _size in vit.DEIT_SIZES:
    MODELS.add(f"deit_{_size}16", functools.partial(_make_deit, _size, {}))
    MODELS.add(f"deit_{_size}16_distilled", functools.partial(_make_deit, _size, vit.DEIT))
for _size in vit.DINOV2_SIZES:
    MODELS.add(f"dinov2_{_size}14", functools.partial(_make_dinov2, _size, {}))
    _registers = {"num_registers": 4}
    MODELS.add(f"dinov2_{_size}14_reg", functools.partial(_make_dinov2, _size, _registers))


def _make_mixer(size: str, patch: str, **fields: Any) -> Mixer:
    keys = ("width", "depth", "tokens_hidden", "hidden")
    row = dict(zip(keys, mixer.SIZES[size], strict=True))
    return Mixer(**{**row, "patch_size": int(patch), **fields})


for _size in mixer.SIZES:
    for _patch in mixer.PATCHES:
        MODELS.add(f"mixer_{_size}{_patch}", functools.partial(_make_mixer, _size, str(_patch)))
MODELS.add_pattern(rf"mixer_({'|'.join(mixer.SIZES)})([1-9]\d*)", _make_mixer)


def _make_mae(name: str, **fields: Any) -> MAE:
    return MAE(**{**mae.find_row(name), **fields})


for _name in mae.ROWS:
    MODELS.add(_name, functools.partial(_make_mae, _name))


def _make_decoder(name: str, **fields: Any) -> Decoder:
    width, depth, num_heads, num_positions = decoder_sizes.SIZES[name]
    row = {"width": width, "depth": depth, "num_heads": num_heads, "num_positions": num_positions}
    return Decoder(**{**row, **fields})


def _make_rotary_decoder(name: str, **fields: Any) -> Decoder:
    sizes = ("width", "depth", "num_heads", "num_kv_heads", "hidden", "vocab_size")
    keys = (*sizes, "num_positions", "rotary_base", "norm_epsilon")
    tables = decoder_sizes.ROTARY_SIZES
    row = dict(zip(keys, next(table[name] for table in tables if name in table), strict=True))
    style, own = decoder_sizes.STYLES[name.split("_")[0]], decoder_sizes.OWN.get(name, {})
    return Decoder(**{**style, **row, **own, **fields})


def _make_encoder(name: str, **fields: Any) -> Encoder:
    pooler = {"pooler": True} if fields.get("head") in encoder.POOLED else {}
    return Encoder(**{**encoder.ROWS[name], **pooler, **fields})


def _make_bert(depth: str, width: str, **fields: Any) -> Encoder:
    row = {"width": int(width), "depth": int(depth), "hidden": 4 * int(width)}
    return Encoder(**{**row, "num_heads": max(int(width) // 64, 1), **fields})


# The names of Turc et al. 2019, all of heads of 64: bert_l8_h256.
MODELS.add_pattern(r"bert_l([1-9]\d*)_h([1-9]\d*)", _make_bert)


def _make_seq2seq(name: str, **fields: Any) -> Seq2Seq:
    tables: dict[str, tuple[int, ...]] = {**seq2seq.T5_SIZES, **seq2seq.FLAN_SIZES}
    sizes = {**tables, **seq2seq.MT5_SIZES}[name]
    keys = ("width", "depth", "num_heads", "head_dim", "hidden", "decoder_depth", "vocab_size")
    row: dict[str, Any] = dict(zip(keys, sizes, strict=False))
    is_first = name in seq2seq.T5_SIZES and "v1_1" not in name
    return Seq2Seq(**{**row, **({} if is_first else seq2seq.V1_1), **fields})


def _make_transformer(name: str, **fields: Any) -> Transformer:
    *sizes, more = transformer.SIZES[name]
    keys = ("width", "depth", "num_heads", "hidden", "vocab_size", "num_positions")
    return Transformer(**{**dict(zip(keys, sizes, strict=True)), **more, **fields})


def _make_clip(name: str, **fields: Any) -> CLIP:
    sizes = ("width", "depth", "num_heads", "patch_size", "image_size")
    keys = (*sizes, "text_width", "text_depth", "text_num_heads", "embedding_width")
    row = dict(zip(keys, clip.CLIP_SIZES[name], strict=True))
    row |= {"hidden": 4 * row["width"], "text_hidden": 4 * row["text_width"]}
    return CLIP(**{**row, "image_size": (row["image_size"],) * 2, **fields})


def _make_siglip(name: str, **fields: Any) -> SigLIP:
    image, text, patch_size, size, vocab_size = clip.SIGLIP_SIZES[name]
    names = ("width", "depth", "num_heads", "hidden")
    row = dict(zip(names, clip.SIGLIP_TOWERS[image], strict=True))
    texts = zip(names, clip.SIGLIP_TOWERS[text], strict=True)
    row |= {f"text_{key}": value for key, value in texts}
    row |= {"patch_size": patch_size, "vocab_size": vocab_size, "embedding_width": row["width"]}
    return SigLIP(**{**row, "image_size": (size, size), **fields})


for _make, *_tables in (
    (_make_clip, clip.CLIP_SIZES),
    (_make_siglip, clip.SIGLIP_SIZES),
    (_make_decoder, decoder_sizes.SIZES),
    (_make_rotary_decoder, *decoder_sizes.ROTARY_SIZES),
    (_make_encoder, encoder.ROWS),
    (_make_seq2seq, seq2seq.T5_SIZES, seq2seq.FLAN_SIZES),
):
    for _table in _tables:
        for _name in _table:
            MODELS.add(_name, functools.partial(_make, _name))
for _name in seq2seq.MT5_SIZES:
    MODELS.add(_name, functools.partial(_make_seq2seq, _name))
for _name in transformer.SIZES:
    MODELS.add(_name, functools.partial(_make_transformer, _name))


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
    except (TypeError, ValueError, ZeroDivisionError) as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(f"{place}: these sizes make no {cls.__name__}: {line}") from None
    return model


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


@functools.lru_cache(maxsize=4)  # tracing a deep model takes seconds, and each step asks
def param_shapes(model: nn.Module) -> dict[str, Any]:
    """The parameters' shapes and dtypes, a plain nested dict; nothing is computed."""
    return jax.eval_shape(lambda: init_params(model))
