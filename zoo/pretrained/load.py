"""`zoo.load_pretrained`: published weights in."""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from zoo.config import UserError
from zoo.models import make_model, model_fields
from zoo.models.lora import LoRA
from zoo.pretrained.adapt import adapt_params
from zoo.pretrained.adapter import (
    check_hash,
    count_classes,
    find_pieces,
    read_corrections,
    read_whole,
)
from zoo.pretrained.adapter_config import read_adapter_config
from zoo.pretrained.bridge import AsOurs, our_leaves, read_tree
from zoo.pretrained.describe import (
    choose_fields,
    family_for,
    family_of,
    find_heads,
    model_of,
)
from zoo.pretrained.family import Family, head_of
from zoo.pretrained.merged import Merged, merge_run
from zoo.pretrained.pooling import Pooling, read_pooling
from zoo.pretrained.processor import Processor
from zoo.pretrained.recipe import Recipe, find_recipe, has_recipe, read_labels, to_processor
from zoo.pretrained.safetensors_file import Tensors
from zoo.pretrained.sources import ADAPTER_FILE, MODEL_FILE, Source, find_source, read_json
from zoo.pretrained.text import find_pad_token, find_tokenizer
from zoo.tree import stack_layers

PROCESSOR_FILE = "preprocessor_config.json"
GENERATION_FILE = "generation_config.json"
LABELS = ("id2label", "label2id")
# Of a config.json what says nothing about the arithmetic and yet belongs to the model.
KEPT = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bad_words_ids",
    "suppress_tokens",
    "problem_type",
    *LABELS,
)


@dataclass(frozen=True)
class Card:
    """What is known of weights beside the numbers."""

    source: str
    licence: str | None  # as the source's README.md states it
    processor: Processor | None  # mean, std, size, crop, interpolation
    config: dict[str, Any]  # labels and special tokens, as the source's config.json tells them
    generation: dict[str, Any]  # generation_config.json as it is, {} where there is none
    _source: Source = dataclasses.field(repr=False)

    @functools.cached_property
    def recipe(self) -> Recipe | None:
        """Of a run (or a copy of one in our own layout): its data, its task and the operations of
        its evaluation. Raises UserError as `read_recipe` does."""
        return find_recipe(self._source)

    @functools.cached_property
    def pad_token(self) -> str | None:
        """What texts are padded with, as the tokenizer's settings beside the weights name it."""
        return find_pad_token(self._source.folder) if self._source.folder else None

    @functools.cached_property
    def pooling(self) -> Pooling | None:
        """How sentence-transformers' files beside the weights make a vector of a text. Raises
        UserError on one we do not know."""
        return read_pooling(self._source.folder) if self._source.folder else None

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
    source: Any,
    head: str | None = None,
    *,
    base: Any = None,
    dtype: Any = None,
    seed: int = 0,
    **changes: Any,
) -> Pretrained:
    """Loads published weights, or a run's.

    Args:
      source: a Hugging Face folder (safetensors, sharded, or a torch .bin, read without torch and
        without running code), timm's safetensors, an AugReg or big_vision .npz, a folder in our own
        layout, a run's workdir, `package:NAME` (weights that an installed package holds), or
        OWNER/NAME on the hub where no such path exists. An adapter in peft's layout is merged into
        its base, a run with LoRA into its model.
      head: 'lm', 'masked_lm', 'replaced_token', 'sequence', 'token', 'span', 'multiple_choice',
        'classification' or 'none'; by default the one the source was saved with. A new head begins
        at random, from `seed`.
      base: of an adapter: its base as a source, where that is not what the adapter names.
      dtype: of the parameters; by default those of the file.
      **changes: fields of the model, such as `num_classes=10`, `image_size=(384, 384)`,
        `vocab_size`, `num_positions`, `scan_layers=True`; the parameters are made to fit
        (`zoo.pretrained.adapt_params`), and `report` says how.

    Raises UserError in one line, and has loaded nothing, when there is no such source, when it is
    damaged, when one key of theirs or one leaf of ours is left without a partner (all are listed),
    on NaN, and on a change that the parameters cannot follow.
    """
    kind = _check_dtype(dtype)
    opened = open_pretrained(source, head, base)
    folder, before = opened.source.folder, opened.model
    after = change_model(before, head, changes)
    processor, untold = find_processor(opened.source, after)
    tokenizer, told = find_tokenizer(folder, opened.source.config) if folder else (None, ())
    told = (*untold, *told)
    # Each leaf goes to the device as soon as it is read: the host holds one at a time.
    params = read_tree(opened.tensors, lambda x: jnp.asarray(x, kind))
    changed: list[str] = []
    if after is not before:
        params, changed = adapt_params(params, before, after, seed)
    params = jax.tree.map(lambda x: jnp.asarray(x, kind), params)
    if getattr(after, "scan_layers", False):
        params = stack_layers(params)
    kept = find_kept(opened.source)
    generation = read_generation(folder)
    licence = _find_licence(folder)
    card = Card(opened.source.place, licence, processor, kept, generation, opened.source)
    report = (*opened.report, *changed, *told)
    return Pretrained(after, params, tokenizer, processor, card, report)


def open_pretrained(source: Any, head: str | None = None, base: Any = None) -> Opened:
    """Finds weights and compares every key and shape with the model of their config.

    A `head` that is asked for is what is tried first where the config names none. `base` is for an
    adapter, in the place of the one that it names.
    """
    found = find_source(source)
    if found.layout == "peft":
        return _open_adapter(found, head, base)
    if base is not None:
        raise UserError(f"{found.place} is no adapter: it has no base")
    if found.layout == "zoo" and not found.config:
        raise UserError(f"{found.place}: {MODEL_FILE} is missing; a run writes it when it starts")
    if found.layout == "zoo":
        model = model_of(found.config, f"{found.place}/{MODEL_FILE}")
        check_ours(found.tensors, model)
        if isinstance(model, LoRA):
            return Opened(found, model.base, merge_run(found.tensors, model), ())
        return Opened(found, model, found.tensors, ())
    family = family_of(found)
    heads, misfits = find_heads(family, found, head), []
    for name in heads:
        try:
            opened = _open_as(family, found, name)
        except UserError as error:
            misfits.append(error)
        else:
            line = f"head {name!r}: by the keys, config.json names no architecture that we have"
            told = (line,) if len(heads) > 1 else ()
            return dataclasses.replace(opened, report=(*told, *opened.report))
    if len(heads) == 1:
        raise misfits[0]
    raise UserError(
        f"{found.place}/config.json: architectures should name one of {', '.join(family.heads)}; "
        f"the keys fit none of them (taken for {heads[0]!r}: {misfits[0]})"
    )


def _open_as(family: Family, found: Source, head: str) -> Opened:
    """Weights taken for those of a model with this head. Raises UserError where they are not."""
    model = make_model(family.model_class, choose_fields(family, found, head), place=found.place)
    view = AsOurs(found.tensors, family.make_table(model, found.tensors.names()), model)
    return Opened(found, model, view, view.report)


def _open_adapter(found: Source, head: str | None, base: Any) -> Opened:
    """An adapter in peft's layout as its base with the corrections merged.

    Raises UserError when it is of another base, or does what we cannot.
    """
    config = read_adapter_config(found.config, f"{found.place}/{ADAPTER_FILE}")
    name = config.base if base is None else base
    if not name:
        raise UserError(f"{found.place}: the adapter names no base: give base=SOURCE")
    try:
        opened = open_pretrained(name, config.head or head)
    except UserError as error:
        hint = "" if base is not None else " (another place of it: base=SOURCE)"
        raise UserError(f"{found.place}: its base: {error}{hint}") from None
    check_hash(found.tensors, opened.source)
    model = change_model(opened.model, config.head, {})
    family = family_for(opened.source, model)
    pieces = find_pieces(family, model)
    classes = getattr(model, "num_classes", 0)
    if (count := count_classes(found.tensors, pieces, classes)) != classes:
        model = change_model(model, None, {"num_classes": count})
        pieces = find_pieces(family, model)
    wanted, whole = our_leaves(model), read_whole(config, found.tensors, pieces, model)
    merged = Merged(
        found.place,
        opened.tensors,
        read_corrections(config, found.tensors, pieces, model),
        whole,
        [path for path in wanted if path in whole or path in opened.tensors],
    )
    check_ours(merged, model)
    told = [f"{p}: the base's, left aside" for p in opened.tensors.names() if p not in wanted]
    # Of a head that was trained anew nobody knows whether its classes are still the base's.
    own_task = model == opened.model and all(
        np.array_equal(leaf, opened.tensors.read(path))
        for path, leaf in whole.items()
        if path.startswith("head/")
    )
    if opened.source.layout == "zoo" and not own_task:
        told += ["its head is its own: the names of the base's classes are left aside"]
    source = dataclasses.replace(
        opened.source,
        place=found.place,
        files=(*opened.source.files, *found.files),
        own_task=own_task,
    )
    return Opened(source, model, merged, (*opened.report, *told))


def read_generation(folder: epath.Path | None) -> dict[str, Any]:
    """generation_config.json. Raises UserError on one that is no JSON object."""
    path = (folder or epath.Path()) / GENERATION_FILE
    return read_json(path) if folder is not None and path.exists() else {}


def find_kept(source: Source) -> dict[str, Any]:
    """What `KEPT` names of a source's config."""
    values = source.config.get("kept") if source.layout == "zoo" else source.config
    if values is None:  # a run's own folder
        values = read_labels(source.folder) if source.folder and has_recipe(source) else {}
    return {key: values[key] for key in KEPT if values.get(key) is not None}


def check_ours(tensors: Tensors, model: nn.Module) -> None:
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


def change_model(
    model: Any, head: str | None, changes: dict[str, Any], place: str = "load_pretrained"
) -> Any:
    """The model asked for: another head, other fields. Raises UserError, that names `place`, on a
    head or a field that there is not."""
    if head is not None and head != head_of(model):
        if hasattr(model, "head"):
            changes = {"head": head, **changes}
            if head in ("sequence", "multiple_choice") and hasattr(model, "pooler"):
                changes.setdefault("pooler", True)
        elif not hasattr(model, "num_classes"):
            raise UserError(f"a {type(model).__name__} has no head, so none can be asked for")
        elif head == "none":
            changes = {"num_classes": 0, **changes}
        elif head != "classification":
            raise UserError(f"a {type(model).__name__} has the heads 'classification' and 'none'")
        elif not changes.get("num_classes", model.num_classes):
            raise UserError("head='classification' needs num_classes: the source has no head")
    if not changes:
        return model
    kept = {name: getattr(model, name) for name in model_fields(type(model))}
    return make_model(type(model), {**kept, **changes}, place=place)


def find_processor(source: Source, model: Any) -> tuple[Processor | None, tuple[str, ...]]:
    """(what pictures go through, None where a model takes none or nothing tells; lines for the
    report). Raises UserError on a file that makes no processor."""
    size = getattr(model, "image_size", None)
    if size is None:
        return None, ()
    path = (source.folder or epath.Path()) / PROCESSOR_FILE
    there = source.folder is not None and path.exists()
    if has_recipe(source) and not there:
        try:
            recipe = find_recipe(source)
            assert recipe is not None
            return to_processor(recipe, size, model.num_channels), ()
        except UserError as error:
            return None, (f"processor: none ({error})",)
    try:
        if source.layout == "timm":
            told = source.config.get("pretrained_cfg", source.config)
            return Processor.from_timm(told, size), ()
        values = {
            "image_processor_type": default_processor(source.config),
            **(read_json(path) if there else {}),
        }
        return Processor.from_hf(values, size, model.num_channels), ()
    except UserError as error:
        raise UserError(f"{source.place}: its processor: {error}") from None


def default_processor(config: dict[str, Any]) -> str:
    """The image processor that transformers takes for a model whose folder names none."""
    kind = str(config.get("model_type", ""))
    names = {"clip": "CLIPImageProcessor", "siglip": "SiglipImageProcessor"}
    return names.get(kind.split("_")[0], "ViTImageProcessor")


def _find_licence(folder: epath.Path | None) -> str | None:
    """The line `license:` of the README's head."""
    readme = folder / "README.md" if folder is not None else None
    if readme is None or not readme.exists():
        return None
    head = readme.read_bytes().decode(errors="replace").split("\n---", 1)[0]
    found = re.search(r"^license:\s*(\S+)", head, re.MULTILINE)
    return found[1].strip("'\"") if found else None
