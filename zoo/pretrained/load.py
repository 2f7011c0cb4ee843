"""`zoo.load_pretrained`, `zoo.save_pretrained`, `zoo convert`: published weights in and out."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from zoo.config import UserError, nearest
from zoo.models import make_model
from zoo.pretrained.adapt import adapt_params
from zoo.pretrained.bridge import AsOurs, AsTheirs, all_finite, contiguous, our_leaves, read_tree
from zoo.pretrained.describe import (
    architecture_of,
    choose_family,
    describe_model,
    family_of,
    model_of,
)
from zoo.pretrained.family import head_of
from zoo.pretrained.processor import Processor
from zoo.pretrained.safetensors_file import Tensors, write_safetensors
from zoo.pretrained.sources import MODEL_FILE, WEIGHTS, Source, find_source, read_json
from zoo.pretrained.tensors import MemoryTensors
from zoo.pretrained.text import find_tokenizer
from zoo.tree import named_leaves, stack_layers, unstack_layers

PROCESSOR_FILE = "preprocessor_config.json"
# What belongs to a model beside its weights, taken along by `convert`.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "generation_config.json",
    PROCESSOR_FILE,
)
# Of a config.json what says nothing about the arithmetic and yet belongs to the model.
KEPT = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "id2label",
    "label2id",
)


@dataclass(frozen=True)
class Card:
    """What is known of weights beside the numbers."""

    source: str
    licence: str | None  # as the source's README.md states it
    processor: Processor | None  # mean, std, size, crop, interpolation
    config: dict[str, Any]  # labels and special tokens, as the source's config.json tells them
    _source: Source = dataclasses.field(repr=False)

    @functools.cached_property
    def source_hash(self) -> str:
        """sha256 of the weight files; of several, of their names and hashes. Reads them whole."""
        return self._source.hash()


@dataclass(frozen=True)
class Pretrained:
    """A model with published parameters, and what belongs to it."""

    model: nn.Module
    params: dict[str, Any]
    tokenizer: Any  # None where the source has none that can be read
    processor: Processor | None  # of vision models
    card: Card
    report: tuple[str, ...]  # a line for each thing left aside, changed or begun anew


@dataclass(frozen=True)
class Opened:
    """Weights that fit their model, not yet read: `tensors` by our paths."""

    source: Source
    model: Any
    tensors: Tensors
    report: tuple[str, ...]


def load_pretrained(
    source: Any, head: str | None = None, *, dtype: Any = None, seed: int = 0, **changes: Any
) -> Pretrained:
    """Loads published weights, or a run's.

    Args:
      source: a Hugging Face folder (safetensors, sharded, or a torch .bin, read without torch and
        without running code), timm's safetensors, an AugReg or big_vision .npz, a folder in our own
        layout, a run's workdir, or OWNER/NAME on the hub where no such path exists.
      head: 'lm', 'masked_lm', 'sequence', 'token', 'span', 'classification' or 'none'; by default
        the one the source was saved with. A new head begins at random, from `seed`.
      dtype: of the parameters; by default those of the file.
      **changes: fields of the model, such as `num_classes=10`, `image_size=(384, 384)`,
        `vocab_size`, `num_positions`, `scan_layers=True`; the parameters are made to fit
        (`zoo.pretrained.adapt_params`), and `report` says how.

    Raises UserError in one line, and has loaded nothing, when there is no such source, when it is
    damaged, when one key of theirs or one leaf of ours is left without a partner (all are listed),
    on NaN, and on a change that the parameters cannot follow.
    """
    kind = _check_dtype(dtype)
    opened = open_pretrained(source)
    folder, before = opened.source.folder, opened.model
    after = _change(before, head, changes)
    processor = _find_processor(opened.source, after)
    tokenizer, told = find_tokenizer(folder, opened.source.config) if folder else (None, ())
    # Each leaf goes to the device as soon as it is read: the host holds one at a time.
    params = read_tree(opened.tensors, lambda x: jnp.asarray(x, kind))
    changed: list[str] = []
    if after is not before:
        params, changed = _adapt(params, before, after, seed)
    params = jax.tree.map(lambda x: jnp.asarray(x, kind), params)
    if getattr(after, "scan_layers", False):
        params = stack_layers(params)
    kept = find_kept(opened.source)
    card = Card(opened.source.place, _find_licence(folder), processor, kept, opened.source)
    report = (*opened.report, *changed, *told)
    return Pretrained(after, params, tokenizer, processor, card, report)


def open_pretrained(source: Any) -> Opened:
    """Finds weights and compares every key and shape with the model of their config."""
    found = find_source(source)
    if found.layout == "zoo":
        model = model_of(found.config, f"{found.place}/{MODEL_FILE}")
        _check_ours(found.tensors, model)
        return Opened(found, model, found.tensors, ())
    family = family_of(found)
    model = make_model(*choose_family(family, found), place=found.place)
    view = AsOurs(found.tensors, family.make_table(model, found.tensors.names()), model)
    return Opened(found, model, view, view.report)


def save_pretrained(
    model: nn.Module,
    params: Mapping[str, Any],
    folder: Any,
    *,
    tokenizer: Any = None,
    processor: Processor | None = None,
    card: Card | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes the folder that `transformers` loads: config.json, safetensors, tokenizer.json.

    `params` as the model holds them, stacked or not; of a `card` the labels and special tokens go
    along. Raises UserError when transformers has no
    class for this model (the fields that stand in the way are named), or when the folder holds
    other weights.
    """
    arrays = {k: np.asarray(v) for k, v in named_leaves(unstack_layers(params)).items()}
    tensors = MemoryTensors(arrays, "params")
    _check_ours(tensors, model)
    folder = epath.Path(folder).expanduser()
    # Before anything is written: it may not be possible.
    pictures = None if processor is None else processor.to_hf()
    write_folder(model, tensors, folder, "hf", card.config if card else {}, max_shard_bytes)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer.to_json())
    if pictures is not None:
        _write_json(folder / PROCESSOR_FILE, pictures)


def convert(source: Any, target: Any, layout: str | None = None) -> list[str]:
    """Writes a source anew, as layout 'hf' (Hugging Face) or 'zoo' (our own paths); by default as
    the other one. Tensor by tensor: two are in memory at most. Returns the report.
    """
    opened = open_pretrained(source)
    if layout is None:
        layout = "hf" if opened.source.layout == "zoo" else "zoo"
    folder = epath.Path(target).expanduser()
    write_folder(opened.model, opened.tensors, folder, layout, find_kept(opened.source))
    for name in COMPANIONS:
        if opened.source.folder is not None and (opened.source.folder / name).exists():
            (opened.source.folder / name).copy(folder / name, overwrite=True)
    return list(opened.report)


def write_folder(
    model: nn.Module,
    ours: Tensors,
    folder: epath.Path,
    layout: str,
    kept: Mapping[str, Any],
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Weights and the file that says what model they are of; the weights are whole or not there."""
    if layout not in ("hf", "zoo"):
        raise UserError(f"no layout {layout!r}{nearest(layout, ('hf', 'zoo'))}")
    if layout == "hf":
        family, config = architecture_of(model)
        tensors: Tensors = AsTheirs(ours, family.make_table(model, None), model)
        config, name = add_kept(config, kept), "config.json"
    else:
        config, tensors, name = {**describe_model(model), "kept": dict(kept)}, ours, MODEL_FILE
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder")
    there = [file for file in (*WEIGHTS, "checkpoints") if (folder / file).exists()]
    if there:
        raise UserError(f"{folder} holds {there[0]} already: give another folder")

    entries = [tensors.entry(key) for key in tensors.names()]
    bad, left = [], len(entries)

    def read(key: str) -> np.ndarray:
        nonlocal left
        left -= 1
        array = contiguous(tensors.read(key))
        if not all_finite(array):
            bad.append(key)
        if bad and not left:  # the last one: all of them are known
            raise UserError(f"{tensors.place}: NaN or infinity in {', '.join(bad)}")
        return array

    write_safetensors(folder, entries, read, max_shard_bytes=max_shard_bytes)
    _write_json(folder / name, config)


def find_kept(source: Source) -> dict[str, Any]:
    """What `KEPT` names of a source's config."""
    values = source.config.get("kept", {}) if source.layout == "zoo" else source.config
    return {key: values[key] for key in KEPT if values.get(key) is not None}


def add_kept(config: dict[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with labels and special tokens, the labels where they are as many."""
    same = len(kept.get("id2label", ())) == len(config.get("id2label", ()))
    return {**config, **{k: v for k, v in kept.items() if same or k in KEPT[:4]}}


def _write_json(path: epath.Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


def _check_ours(tensors: Tensors, model: nn.Module) -> None:
    """Raises UserError with every leaf missing, left over or misshapen."""
    wanted = {path: tuple(leaf.shape) for path, leaf in our_leaves(model).items()}
    found = {path: tensors.shape(path) for path in tensors.names()}
    wrong = [
        f"{path} is {found.get(path, 'missing')}, the model wants {wanted.get(path, 'none')}"
        for path in sorted(wanted.keys() | found.keys())
        if wanted.get(path) != found.get(path)
    ]
    if wrong:
        raise UserError(f"{tensors.place}: not the model's parameters: {'; '.join(wrong)}")


def _check_dtype(dtype: Any) -> Any:
    """Raises UserError on what is no floating type."""
    try:
        if dtype is None or jnp.issubdtype(dtype, jnp.floating):
            return dtype
    except TypeError:
        pass
    raise UserError(f"dtype={dtype!r} is none of float32, bfloat16, float16, float64")


def _adapt(params: Any, before: Any, after: Any, seed: int) -> tuple[dict[str, Any], list[str]]:
    """`adapt_params`, whose table of misfits becomes one line."""
    try:
        return adapt_params(params, before, after, seed)
    except UserError as error:
        raise UserError(str(error).replace(":\n  ", ": ").replace("\n  ", "; ")) from None


def _change(model: Any, head: str | None, changes: dict[str, Any]) -> Any:
    """The model asked for: another head, other fields."""
    if head is not None and head != head_of(model):
        if hasattr(model, "head"):
            changes = {"head": head, **changes}
            if head == "sequence" and hasattr(model, "pooler"):
                changes.setdefault("pooler", True)
        elif head == "none":
            changes = {"num_classes": 0, **changes}
        elif head != "classification":
            raise UserError(f"a {type(model).__name__} has the heads 'classification' and 'none'")
        elif not changes.get("num_classes"):
            raise UserError("head='classification' needs num_classes: the source has no head")
    if not changes:
        return model
    kept = {name: getattr(model, name) for name in model.__dataclass_fields__}
    kept = {k: v for k, v in kept.items() if k not in ("parent", "name")}
    return make_model(type(model), {**kept, **changes}, place="load_pretrained")


def _find_processor(source: Source, model: Any) -> Processor | None:
    size = getattr(model, "image_size", None)
    if size is None:
        return None
    path = (source.folder or epath.Path()) / PROCESSOR_FILE
    try:
        if source.layout == "timm":
            return Processor.from_timm(source.config.get("pretrained_cfg", source.config), size)
        values = read_json(path) if source.folder is not None and path.exists() else {}
        return Processor.from_hf(values, size, model.num_channels)
    except UserError as error:
        raise UserError(f"{source.place}: its processor: {error}") from None


def _find_licence(folder: epath.Path | None) -> str | None:
    """The line `license:` of the README's head."""
    readme = folder / "README.md" if folder is not None else None
    if readme is None or not readme.exists():
        return None
    head = readme.read_bytes().decode(errors="replace").split("\n---", 1)[0]
    found = re.search(r"^license:\s*(\S+)", head, re.MULTILINE)
    return found[1].strip("'\"") if found else None
