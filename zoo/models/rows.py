"""The published models by name: a class, and the fields in which each differs from its defaults."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn

from zoo.models import clip, decoder_sizes, encoder, mae, mixer, seq2seq, transformer, vit
from zoo.models.clip import CLIP, SigLIP
from zoo.models.decoder import Decoder
from zoo.models.encoder import Encoder
from zoo.models.mae import MAE
from zoo.models.mixer import Mixer
from zoo.models.mlp import MLP
from zoo.models.seq2seq import Seq2Seq
from zoo.models.transformer import Transformer
from zoo.models.vit import ViT
from zoo.registry import Registry

MODELS = Registry("model")
TOWER = ("width", "depth", "num_heads", "hidden")


def _make(cls: type, row: dict[str, Any], **fields: Any) -> nn.Module:
    return cls(**{**row, **fields})


def _add(name: str, cls: type, row: dict[str, Any]) -> None:
    MODELS.add(name, functools.partial(_make, cls, row))


def _add_table(
    cls: type, keys: Sequence[str], table: Mapping[str, Sequence[Any]], **common: Any
) -> None:
    """A row a name: its values are those of the first keys."""
    for name, values in table.items():
        _add(name, cls, {**common, **dict(zip(keys, values, strict=False))})


def _size(keys: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(keys, values, strict=True))


_values: Any  # of a row, here and below
_add("mlp", MLP, {})

# Published patch sizes are listed; any other, as in vit_s4, is made as well.
for _name, _values in vit.SIZES.items():
    for _patch in vit.PATCHES:
        _add(f"vit_{_name}{_patch}", ViT, {**_size(TOWER, _values), "patch_size": _patch})
MODELS.add_pattern(
    rf"vit_({'|'.join(vit.SIZES)})([1-9]\d*)",
    lambda size, patch, **fields: MODELS.get(f"vit_{size}16")(
        **{"patch_size": int(patch), **fields}
    ),
)
for _name, _base in vit.DEIT_SIZES.items():
    _row = {**_size(TOWER, vit.SIZES[_base]), "patch_size": 16}
    _add(f"deit_{_name}16", ViT, _row)
    _add(f"deit_{_name}16_distilled", ViT, {**_row, **vit.DEIT})
for _name, _values in vit.DINOV2_SIZES.items():
    _row = {**vit.DINOV2, **_size(TOWER, _values), "patch_size": 14}
    _row |= vit.DINOV2_GATED if _name == "g" else {}
    _add(f"dinov2_{_name}14", ViT, _row)
    _add(f"dinov2_{_name}14_reg", ViT, {**_row, "num_registers": 4})
for _name, (_base, _patch) in mae.ROWS.items():
    _add(_name, MAE, {**_size(TOWER, vit.SIZES[_base]), "patch_size": _patch})

_keys: tuple[str, ...] = ("width", "depth", "tokens_hidden", "hidden")
for _name, _values in mixer.SIZES.items():
    for _patch in mixer.PATCHES:
        _add(f"mixer_{_name}{_patch}", Mixer, {**_size(_keys, _values), "patch_size": _patch})
MODELS.add_pattern(
    rf"mixer_({'|'.join(mixer.SIZES)})([1-9]\d*)",
    lambda size, patch, **fields: MODELS.get(f"mixer_{size}16")(
        **{"patch_size": int(patch), **fields}
    ),
)

_add_table(Decoder, ("width", "depth", "num_heads", "num_positions"), decoder_sizes.SIZES)
_keys = ("width", "depth", "num_heads", "num_kv_heads", "hidden", "vocab_size")
_keys = (*_keys, "num_positions", "rotary_base", "norm_epsilon")
for _table in decoder_sizes.ROTARY_SIZES:
    for _name, _values in _table.items():
        _style, _own = decoder_sizes.STYLES[_name.split("_")[0]], decoder_sizes.OWN.get(_name, {})
        _add(_name, Decoder, {**_style, **_size(_keys, _values), **_own})


def _make_encoder(row: dict[str, Any], **fields: Any) -> Encoder:
    pooler = {"pooler": True} if fields.get("head") in encoder.POOLED else {}
    return Encoder(**{**row, **pooler, **fields})


def _make_bert(depth: str, width: str, **fields: Any) -> Encoder:
    row = {"width": int(width), "depth": int(depth), "hidden": 4 * int(width)}
    return Encoder(**{**row, "num_heads": max(int(width) // 64, 1), **fields})


for _name, _row in encoder.ROWS.items():
    MODELS.add(_name, functools.partial(_make_encoder, _row))
# The names of Turc et al. 2019, all of heads of 64: bert_l8_h256.
MODELS.add_pattern(r"bert_l([1-9]\d*)_h([1-9]\d*)", _make_bert)

_keys = ("width", "depth", "num_heads", "head_dim", "hidden", "decoder_depth", "vocab_size")
_add_table(Seq2Seq, _keys, seq2seq.T5_SIZES)
_add_table(Seq2Seq, _keys, seq2seq.V1_1_SIZES, **seq2seq.V1_1)
_add_table(Seq2Seq, _keys, seq2seq.FLAN_SIZES, **seq2seq.V1_1)
_add_table(Seq2Seq, _keys, seq2seq.MT5_SIZES, **seq2seq.V1_1)

_keys = ("width", "depth", "num_heads", "hidden", "vocab_size", "num_positions")
for _name, (*_values, _more) in transformer.SIZES.items():
    _add(_name, Transformer, {**_size(_keys, _values), **_more})

_keys = ("width", "depth", "num_heads", "patch_size", "image_size")
_keys = (*_keys, "text_width", "text_depth", "text_num_heads", "embedding_width")
for _name, _values in clip.CLIP_SIZES.items():
    _row = _size(_keys, _values)
    _row |= {"hidden": 4 * _row["width"], "text_hidden": 4 * _row["text_width"]}
    _add(_name, CLIP, {**_row, "image_size": (_row["image_size"],) * 2})
for _name, (_image, _text, _patch, _side, _words) in clip.SIGLIP_SIZES.items():
    _row = _size(TOWER, clip.SIGLIP_TOWERS[_image])
    _row |= _size([f"text_{key}" for key in TOWER], clip.SIGLIP_TOWERS[_text])
    _row |= {"patch_size": _patch, "image_size": (_side, _side), "vocab_size": _words}
    _add(_name, SigLIP, {**_row, "embedding_width": _row["width"]})
