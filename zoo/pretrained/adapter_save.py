"""`zoo.save_adapter`: the corrections of a LoRA model alone, in the layout that peft loads."""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from etils import epath
from flax.traverse_util import unflatten_dict

from zoo.config import UserError
from zoo.models.lora import LEAVES, LoRA, merge_lora
from zoo.models.seq2seq import Seq2Seq
from zoo.models.transformer import Transformer
from zoo.pretrained.adapter import (
    BASE_HASH,
    PREFIX,
    divide,
    find_pieces,
    has_outputs_first,
    is_matrix,
)
from zoo.pretrained.bridge import AsTheirs, Piece, all_finite, our_leaves
from zoo.pretrained.describe import family_for, model_of
from zoo.pretrained.family import head_of
from zoo.pretrained.load import Opened, check_ours, open_pretrained
from zoo.pretrained.recipe import CONFIG_FILE
from zoo.pretrained.safetensors_file import write_safetensors
from zoo.pretrained.sources import (
    ADAPTER_FILE,
    ADAPTERS,
    MODEL_FILE,
    WEIGHTS,
    find_source,
    read_json,
)
from zoo.pretrained.tensors import Entry, MemoryTensors
from zoo.tree import named_leaves, unstack_layers

# Our head -> `task_type`; with these peft takes the head for a part of the adapter.
WITH_HEAD = {"sequence": "SEQ_CLS", "token": "TOKEN_CLS", "span": "QUESTION_ANS"}


class Matrices(NamedTuple):
    """What peft holds of one module."""

    a: np.ndarray  # [rank, in]
    b: np.ndarray  # [out, rank]


def save_adapter(model: nn.Module, params: Mapping[str, Any], folder: Any, *, base: Any) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, which `peft.PeftModel` loads onto
    the base and `zoo.load_pretrained` merges into it.

    `params` as the model holds them, stacked or not; `base` is the source that the training began
    from, and its name is what the adapter says of it. What else has been trained, a head above all,
    is stored whole. Where one module of theirs is several layers of ours (GPT-2's `c_attn`), their
    corrections lie block by block in one of the summed rank, with `alpha` as much larger.

    Raises UserError when the model has no LoRA, when the base is another one, when transformers or
    peft have no place for what was trained, or when the folder holds weights already.
    """
    if not isinstance(model, LoRA):
        raise UserError(f"a {type(model).__name__} has no adapter: it was made without model.lora")
    leaves = {k: np.asarray(v) for k, v in named_leaves(unstack_layers(params)).items()}
    check_ours(MemoryTensors(leaves, "params"), model)
    folder = epath.Path(folder).expanduser()
    _check_folder(folder)
    opened = open_pretrained(base, head_of(model.base))
    changed = find_changed(model, leaves, opened)
    family = family_for(opened.source, model.base)
    pieces = find_pieces(family, model.base)
    whole = find_whole(model.base, pieces, changed)
    matrices = gather_matrices(model, leaves, pieces, whole)
    values = describe_adapter(model, pieces, matrices, whole, str(base))
    _, merged = merge_lora(model, unstack_layers(params))
    table = family.make_table(model.base, None)
    theirs = AsTheirs(MemoryTensors(named_leaves(merged), "params"), table, model.base)
    arrays = {f"{PREFIX}{k}": theirs.read(k) for k in pieces if _is_within(k, whole)}
    for module, (a, b) in matrices.items():
        name = f"{PREFIX}{module}"
        arrays |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    bad = [name for name, array in arrays.items() if not all_finite(array)]
    if bad:
        raise UserError(f"params: NaN or infinity in {', '.join(bad)}")
    entries = [Entry(name, array.shape, array.dtype) for name, array in arrays.items()]
    metadata = {"format": "pt", BASE_HASH: opened.source.hash()}
    stem, one_file = ADAPTERS[0].removesuffix(".safetensors"), 2**62
    write_safetensors(
        folder, entries, arrays.__getitem__, stem=stem, max_shard_bytes=one_file, metadata=metadata
    )
    (folder / ADAPTER_FILE).write_text(json.dumps(values, indent=2) + "\n")


def export_adapter(source: Any, folder: Any, base: Any = None) -> None:
    """`save_adapter` of a run; `base` is by default what its `init_from` was.

    Raises UserError on a source that was not trained with LoRA.
    """
    found = find_source(source)
    if found.layout != "zoo" or "lora" not in found.config:
        raise UserError(f"{found.place} was not trained with model.lora: it has no adapter")
    model = model_of(found.config, f"{found.place}/{MODEL_FILE}")
    path = (found.folder or epath.Path()) / CONFIG_FILE
    base = base or (read_json(path).get("init_from") if path.exists() else None)
    if base is None:
        raise UserError(f"{found.place} does not say what it began from: give --base=SOURCE")
    leaves = {name: found.tensors.read(name) for name in found.tensors.names()}
    save_adapter(model, unflatten_dict(leaves, sep="/"), folder, base=base)


def _check_folder(folder: epath.Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder")
    there = [f for f in (*WEIGHTS, *ADAPTERS, "checkpoints") if (folder / f).exists()]
    if there:
        raise UserError(f"{folder} holds {there[0]} already: give another folder")


def find_changed(model: LoRA, leaves: Mapping[str, np.ndarray], opened: Opened) -> set[str]:
    """The leaves of the model that are not the base's. Raises UserError where a corrected kernel is
    among them: the base is another one."""
    place = opened.source.place
    if type(opened.model) is not type(model.base):
        names = (type(m).__name__ for m in (model.base, opened.model))
        raise UserError("the adapter is of a {}, {} is a {}".format(next(names), place, *names))
    changed = set()
    for path in our_leaves(model.base):
        leaf = leaves[path]
        if path in opened.tensors and opened.tensors.shape(path) == leaf.shape:
            same = np.array_equal(opened.tensors.read(path).astype(leaf.dtype), leaf)
        else:
            same = False
        if not same and f"{path.removesuffix('kernel')}{LEAVES[0]}" in leaves:
            raise UserError(f"the adapter is of another base than {place}: {path} differs there")
        changed |= set() if same else {path}
    return changed


def find_whole(model: Any, pieces: Mapping[str, Piece], changed: set[str]) -> list[str]:
    """The modules of theirs that are stored whole. Raises UserError on what is in no module."""
    head, modules = head_of(model), []
    for key, piece in pieces.items():
        in_head = piece.ours[0].split("/")[0] == "head"
        if not (changed & set(piece.ours) or (in_head and head in WITH_HEAD)):
            continue
        module, _, part = key.rpartition(".")
        if part not in ("weight", "bias") or (in_head and key.startswith("cls.")):
            raise UserError(
                f"peft has no place for {key}, which has been trained: save the whole model by "
                "zoo.save_pretrained"
            )
        modules.append(module.split(".")[0] if in_head else module)
    return list(dict.fromkeys(modules))


def _is_within(key: str, modules: list[str]) -> bool:
    return any(key.startswith(f"{module}.") for module in modules)


def gather_matrices(
    model: LoRA, leaves: Mapping[str, np.ndarray], pieces: Mapping[str, Piece], whole: list[str]
) -> dict[str, Matrices]:
    """Module of theirs -> its matrices. Raises UserError on a layer that is no module of theirs."""
    suffix = f"/{LEAVES[0]}"
    rest = {path.removesuffix(suffix) for path in leaves if path.endswith(suffix)}
    found = {}
    for key, piece in pieces.items():
        parts = divide(piece, model.base) if is_matrix(piece) else []
        parts = [part for part in parts if part[0].removesuffix("/kernel") in rest]
        if not parts:
            continue
        rest -= {path.removesuffix("/kernel") for path, *_ in parts}
        if _is_within(key, whole):  # merged there
            continue
        num_out, num_in = piece.shape if has_outputs_first(piece) else piece.shape[::-1]
        a = np.zeros((len(parts), model.rank, num_in), np.float32)
        b = np.zeros((num_out, len(parts), model.rank), np.float32)
        for i, (path, inputs, outputs) in enumerate(parts):
            layer = path.removesuffix("kernel")
            a[i, :, inputs] = leaves[layer + LEAVES[0]].T
            b[outputs, i] = leaves[layer + LEAVES[1]].T
        matrices = Matrices(a.reshape(-1, num_in), b.reshape(num_out, -1))
        found[key.removesuffix(".weight")] = matrices
    if rest:
        raise UserError(f"transformers has no linear layer for {', '.join(sorted(rest))}")
    return found


def describe_adapter(
    model: LoRA,
    pieces: Mapping[str, Piece],
    matrices: Mapping[str, Matrices],
    whole: list[str],
    base: str,
) -> dict[str, Any]:
    """adapter_config.json: the commonest rank, and patterns for modules of another."""
    ranks = {module: len(a) for module, (a, _) in matrices.items()}
    (usual, _), *_ = collections.Counter(ranks.values()).most_common(1) or [(model.rank, 0)]
    others = {re.escape(module): rank for module, rank in ranks.items() if rank != usual}
    head = head_of(model.base)
    task = WITH_HEAD.get(head)
    if head == "lm":
        pairs = isinstance(model.base, Seq2Seq | Transformer)
        task = "SEQ_2_SEQ_LM" if pairs else "CAUSAL_LM"
    return {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "r": usual,
        "lora_alpha": _as_count(model.scale * usual),
        "rank_pattern": others,
        "alpha_pattern": {name: _as_count(model.scale * rank) for name, rank in others.items()},
        "use_rslora": False,
        "lora_dropout": model.dropout,
        "target_modules": sorted(matrices),
        "modules_to_save": whole or None,
        "fan_in_fan_out": any(not has_outputs_first(pieces[f"{m}.weight"]) for m in matrices),
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _as_count(value: float) -> float | int:
    """peft's alpha is a whole number, where it is one."""
    return int(value) if value == int(value) else value
