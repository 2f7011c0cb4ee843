"""`zoo.save_pretrained`, `zoo convert`: weights out, in the layout of transformers or our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np
from etils import epath

from zoo.config import UserError, nearest
from zoo.models.lora import LoRA, merge_lora
from zoo.pretrained.adapter_save import export_adapter
from zoo.pretrained.bridge import AsTheirs, all_finite
from zoo.pretrained.describe import architecture_of, describe_model
from zoo.pretrained.load import (
    GENERATION_FILE,
    LABELS,
    PROCESSOR_FILE,
    Card,
    Opened,
    check_ours,
    find_kept,
    find_processor,
    open_pretrained,
)
from zoo.pretrained.processor import Processor
from zoo.pretrained.recipe import RECIPE_FILES, has_recipe, keep_meaning
from zoo.pretrained.safetensors_file import Tensors, write_safetensors
from zoo.pretrained.sources import MODEL_FILE, WEIGHTS
from zoo.pretrained.tensors import MemoryTensors
from zoo.tree import named_leaves, unstack_layers

# What belongs to a model beside its weights, taken along by `convert`.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    GENERATION_FILE,
    PROCESSOR_FILE,
)


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

    `params` as the model holds them, stacked or not, a LoRA model's merged (`save_adapter` writes
    its adapter alone); of a `card` the labels and special tokens go along. Raises UserError when
    transformers has no class for this model (the fields that stand in the way are named), or when
    the folder holds weights already.
    """
    if isinstance(model, LoRA):
        model, params = merge_lora(model, params)
    arrays = {k: np.asarray(v) for k, v in named_leaves(unstack_layers(params)).items()}
    tensors = MemoryTensors(arrays, "params")
    check_ours(tensors, model)
    folder = epath.Path(folder).expanduser()
    # Before anything is written: it may not be possible.
    pictures = None if processor is None else processor.to_hf()
    write_folder(model, tensors, folder, "hf", card.config if card else {}, max_shard_bytes)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer.to_json())
    if pictures is not None:
        _write_json(folder / PROCESSOR_FILE, pictures)
    if card is not None and card.generation:
        _write_json(folder / GENERATION_FILE, card.generation)


def convert(source: Any, target: Any, layout: str | None = None, base: Any = None) -> list[str]:
    """Writes a source anew, as layout 'hf' (Hugging Face) or 'zoo' (our own paths); by default as
    the other one; with it goes what lies beside the weights (tokenizer, processor). An adapter is
    merged into its base, `base` where that is not the one it names; as 'peft' only the adapter of a
    run with LoRA is written. Tensor by tensor: large ones one at a time, a small one is read while
    the one before is written; a safetensors file's are turned in strips, none stands there twice.
    Returns the report.

    Raises UserError as `load_pretrained` and `save_pretrained` do; no weights are left then.
    """
    if layout == "peft":
        export_adapter(source, target, base)
        return []
    opened = open_pretrained(source, None, base)
    if layout is None:
        layout = "hf" if opened.source.layout == "zoo" else "zoo"
    folder = epath.Path(target).expanduser()
    source, run = opened.source, has_recipe(opened.source)
    pictures, lost = _picture_file(opened) if run and layout == "hf" else (None, ())
    kept = find_kept(source)
    if run and layout == "hf":
        more, untold = keep_meaning(source)
        kept, lost = {**kept, **more}, (*lost, *untold)
    write_folder(opened.model, opened.tensors, folder, layout, kept)
    for name in (*COMPANIONS, *(RECIPE_FILES if run and layout == "zoo" else ())):
        if source.folder is not None and (source.folder / name).exists():
            (source.folder / name).copy(folder / name, overwrite=True)
    if pictures is not None:
        _write_json(folder / PROCESSOR_FILE, pictures)
    return [*opened.report, *lost]


def _picture_file(opened: Opened) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """preprocessor_config.json of a run's operations; lines on what it cannot say."""
    processor, lost = find_processor(opened.source, opened.model)
    try:
        return (None, lost) if processor is None else (processor.to_hf(), lost)
    except UserError as error:
        return None, (*lost, f"processor: none ({error})")


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
        raise UserError(f"no layout {layout!r}{nearest(layout, ('hf', 'zoo', 'peft'))}")
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
        array = np.asarray(tensors.read(key), order="C")
        if not all_finite(array):
            bad.append(key)
        if bad and not left:  # the last one: all of them are known
            raise UserError(f"{tensors.place}: NaN or infinity in {', '.join(bad)}")
        return array

    write_safetensors(folder, entries, read, max_shard_bytes=max_shard_bytes)
    _write_json(folder / name, config)


def add_kept(config: dict[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with labels and special tokens, the labels where they are as many."""
    same = len(kept.get("id2label", ())) == len(config.get("id2label", ()))
    return {**config, **{k: v for k, v in kept.items() if same or k not in LABELS}}


def _write_json(path: epath.Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")
