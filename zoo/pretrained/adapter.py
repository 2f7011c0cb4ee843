"""An adapter in peft's layout, seen as corrections of a model of ours.

The names of its modules are those of transformers, and so of the families' key tables; where
one module of theirs is several layers of ours (GPT-2's `c_attn`), they share `lora_A`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from zoo.config import UserError
from zoo.models.mae import MAE
from zoo.models.vit import ViT
from zoo.pretrained.adapter_config import AdapterConfig
from zoo.pretrained.bridge import LINEAR, SAME, Piece, our_leaves, places, plan
from zoo.pretrained.family import Family
from zoo.pretrained.merged import Correction
from zoo.pretrained.safetensors_file import Tensors
from zoo.pretrained.sources import Source

PREFIX = "base_model.model."
MATRIX = re.compile(re.escape(PREFIX) + r"(.+)\.lora_([AB])\.weight")
BASE_HASH = "zoo.base_sha256"  # in the file's metadata: the weights that an adapter of ours is of


def find_pieces(family: Family, model: nn.Module) -> dict[str, Piece]:
    """The key of transformers' model -> what it holds of ours.

    Raises UserError for a ViT, whose modules have other names in transformers 5 than its files.
    """
    if isinstance(model, ViT | MAE):
        raise UserError(
            f"adapters of a {type(model).__name__} in peft's layout are not supported (merged ones "
            "are: zoo.save_pretrained): transformers 5 has renamed its modules, and not its files"
        )
    return {piece.theirs: piece for piece in plan(family.make_table(model, None), model)}


def is_matrix(piece: Piece) -> bool:
    """Is it a dense layer's kernel (or several side by side) as a matrix?"""
    kernels = all(path.endswith("/kernel") for path in piece.ours) and len(piece.shape) == 2
    return kernels and piece.number is None and piece.row.turn in (SAME, LINEAR)


def has_outputs_first(piece: Piece) -> bool:
    """torch's Linear stores `[out, in]`, GPT-2's Conv1D `[in, out]`."""
    return piece.row.turn is LINEAR


def divide(piece: Piece, model: nn.Module) -> list[tuple[str, slice, slice]]:
    """(our kernel, its inputs, its outputs) of each layer of ours in a matrix of theirs."""
    shapes = our_leaves(model)
    parts = places(piece, [shapes[path].shape for path in piece.ours], model)
    divided = []
    for path, (rows, columns) in zip(piece.ours, parts, strict=True):
        inputs, outputs = (columns, rows) if has_outputs_first(piece) else (rows, columns)
        divided.append((path, inputs, outputs))
    return divided


def read_modules(tensors: Tensors) -> tuple[dict[str, dict[str, str]], list[str]]:
    """(module -> {'A': key, 'B': key}, keys of what is stored whole).

    Raises UserError on other parts of adapters: DoRA's magnitudes, biases, embeddings.
    """
    modules: dict[str, dict[str, str]] = {}
    whole = []
    for key in tensors.names():
        match = MATRIX.fullmatch(key)
        if match:
            modules.setdefault(match[1], {})[match[2]] = key
        elif "lora_" in key or not key.startswith(PREFIX):
            raise UserError(
                f"{tensors.place}: {key} is not supported: only lora_A, lora_B of "
                "linear layers, and modules that are saved whole"
            )
        else:
            whole.append(key)
    alone = [keys for keys in modules.values() if len(keys) == 1]
    if alone:
        raise UserError(f"{tensors.place}: {next(iter(alone[0].values()))} lacks its other half")
    return modules, whole


def read_corrections(
    config: AdapterConfig, tensors: Tensors, pieces: Mapping[str, Piece], model: nn.Module
) -> dict[str, Correction]:
    """Our kernel -> its correction. Raises UserError where the adapter is of another base."""
    found, misfits = {}, []
    for module, keys in read_modules(tensors)[0].items():
        piece = pieces.get(f"{module}.weight")
        if piece is None or not is_matrix(piece):
            misfits.append(f"no layer {module}")
            continue
        a, b = (tensors.read(keys[half]) for half in "AB")
        num_out, num_in = piece.shape if has_outputs_first(piece) else piece.shape[::-1]
        rank, scale = config.settings(module)
        if (a.shape, b.shape) != ((rank, num_in), (num_out, rank)):
            misfits.append(
                f"{module} is {num_in} to {num_out} and its adapter of rank {rank}, "
                f"lora_A is {_show(a)}, lora_B {_show(b)}"
            )
            continue
        for path, inputs, outputs in divide(piece, model):
            found[path] = Correction(a[:, inputs].T, b[outputs].T, scale)
    _check(misfits, config.place)
    return found


def read_whole(
    config: AdapterConfig, tensors: Tensors, pieces: Mapping[str, Piece], model: nn.Module
) -> dict[str, np.ndarray]:
    """Our leaf -> what the adapter has in its place. Raises UserError where the model has none."""
    found, misfits, shapes = {}, [], our_leaves(model)
    for key in read_modules(tensors)[1]:
        piece = pieces.get(to_their_key(key))
        if piece is None or piece.number is not None or piece.shape != tensors.shape(key):
            has = "nothing" if piece is None else _show(piece)
            misfits.append(f"{to_their_key(key)} is {_show(tensors.entry(key))}, there it is {has}")
            continue
        array = tensors.read(key)
        parts = places(piece, [shapes[path].shape for path in piece.ours], model)
        for path, place in zip(piece.ours, parts, strict=True):
            found[path] = np.ascontiguousarray(piece.row.turn.to_ours(array[place], model))
    _check(misfits, config.place)
    return found


def count_classes(tensors: Tensors, pieces: Mapping[str, Piece], num_classes: int) -> int:
    """The classes of the head that the adapter brings; those of the model where it brings none."""
    for key in read_modules(tensors)[1]:
        piece, shape = pieces.get(to_their_key(key)), tensors.shape(key)
        if piece and piece.shape != shape and piece.shape == (num_classes, *shape[1:]):
            return shape[0]
    return num_classes


def to_their_key(key: str) -> str:
    """'base_model.model.score.weight' -> 'score.weight'."""
    return key.removeprefix(PREFIX).replace(".modules_to_save.", ".")


def check_hash(tensors: Tensors, base: Source) -> None:
    """Raises UserError where the file says that the adapter is of other weights than these."""
    told = getattr(tensors, "metadata", {}).get(BASE_HASH)
    if told is not None and (found := base.hash()) != told:
        raise UserError(
            f"{tensors.place}: the adapter is of another base: of weights with sha256 "
            f"{told[:16]}..., {base.place} has {found[:16]}..."
        )


def _check(misfits: list[str], place: str) -> None:
    if misfits:
        more = f" (and {len(misfits) - 3} more)" if len(misfits) > 3 else ""
        raise UserError(f"{place}: the adapter is of another base: {'; '.join(misfits[:3])}{more}")


def _show(array: Any) -> str:
    return "x".join(map(str, array.shape))
