"""Where a run's parameters come from: published weights or another run (`init_from`), or a part."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from zoo.config import Config, TaskConfig, UserError
from zoo.data import Dataset
from zoo.data.sources import hash_tokenizer
from zoo.data.tokenizers import is_file
from zoo.models import CLASSES
from zoo.pretrained.adapt import Plan, plan_change
from zoo.pretrained.bridge import all_finite, our_leaves
from zoo.pretrained.describe import find_meaning
from zoo.pretrained.load import Opened, check_ours, find_kept, open_pretrained, read_generation
from zoo.pretrained.part import take_part
from zoo.pretrained.recipe import find_recipe
from zoo.pretrained.sources import find_source
from zoo.pretrained.text import find_tokenizer
from zoo.tree import stack_layers

PRETRAINED = "pretrained"  # the `model.name` of the model that `init_from` is of
FROM_SOURCE = "init_from"  # the `data.tokenizer` that lies beside the weights
HEADS = ("head", "head_dist", "classifier")
# Fields whose change is told by the leaves that change with them, or decides nothing.
TOLD = ("head", "num_classes", "num_outputs", "image_size", "vocab_size", "num_positions", "pooler")


@dataclass(frozen=True)
class Start:
    """Parameters of `source`, a model `before`, on their way into the model `after`. Headers have
    been read, no numbers.

    `taken` and `fresh` are canonical paths of `after`: leaves that are the source's (whole, or
    resized), and leaves that begin anew. `report` is for people; `rows` (path, where it is from,
    what became of it) is the whole account.
    """

    source: str
    before: nn.Module
    after: nn.Module
    taken: frozenset[str]
    fresh: frozenset[str]
    report: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = dataclasses.field(repr=False)
    _plan: Plan = dataclasses.field(repr=False)
    _seed: int = dataclasses.field(repr=False)

    def load(self, seed: int | None = None) -> dict[str, Any]:
        """The parameters of `after`, stacked where it has `scan_layers`; what begins anew is drawn
        from `seed`, by default the run's. One leaf is read at a time; the source is opened again,
        so that nothing of it is held before or behind.

        Raises UserError on NaN or infinity in a leaf that is taken.
        """
        tensors = take_part(open_source(self.source), self.after).tensors
        shapes = our_leaves(self.after)

        def read(path: str) -> np.ndarray:
            array = tensors.read(path)
            if not all_finite(array):
                raise UserError(f"init_from={self.source!r}: NaN or infinity in {path}")
            return array

        leaves = {
            path: jnp.asarray(leaf, shapes[path].dtype)
            for path, leaf in self._plan.make_leaves(read, self._seed if seed is None else seed)
        }
        params = unflatten_dict(leaves, sep="/")
        return stack_layers(params) if getattr(self.after, "scan_layers", False) else params


def open_source(source: str, head: str | None = None) -> Opened:
    """What `init_from` names, its headers read and compared with its model; the model is None of
    a run whose model is a class of the user's own. Raises UserError in one line."""
    try:
        found = find_source(source)
        if found.layout == "zoo" and not found.config:
            return Opened(found, None, found.tensors, ())
        return open_pretrained(found, head)
    except UserError as error:
        raise UserError(f"init_from={source!r}: {error}") from None


def find_own_tokenizer(opened: Opened) -> Any:
    """The tokenizer beside the weights, None where there is none."""
    source = opened.source
    return find_tokenizer(source.folder, source.config)[0] if source.folder else None


def choose_tokenizer(config: Config, opened: Opened | None) -> Any:
    """The tokenizer of `data.tokenizer='init_from'`; None where it names another.

    Raises UserError where there is none beside the weights.
    """
    if opened is None or config.data.tokenizer != FROM_SOURCE:
        return None
    tokenizer = find_own_tokenizer(opened)
    if tokenizer is None:
        raise UserError(f"data.tokenizer='init_from': {opened.source.place} has no tokenizer")
    return tokenizer


def begin_as_source(task: TaskConfig, opened: Opened | None) -> TaskConfig:
    """The task with targets that begin as those of the weights it starts from, unless it says with
    which token."""
    if opened is None or task.name != "seq2seq" or "begin" in task.arguments:
        return task
    told = {**find_kept(opened.source), **read_generation(opened.source.folder)}
    begin = told.get("decoder_start_token_id")
    if begin is None:
        return task
    return dataclasses.replace(task, arguments={**task.arguments, "begin": begin})


def takes_embedding(config: Config, opened: Opened) -> bool:
    """Are the source's embedded tokens taken?"""
    paths = opened.tensors.names()
    return any(re.search(r"(^|/)embed/embedding$", p) and _takes(config, p) for p in paths)


def _takes(config: Config, path: str) -> bool:
    return re.search(config.init_pattern, path) is not None


def make_start(config: Config, opened: Opened, after: nn.Module, dataset: Dataset) -> Start:
    """What becomes of the source's parameters in the model that is trained.

    Raises UserError when the pattern takes nothing, when what it takes does not fit, and when the
    tokens of the data are not those of the embedding that is taken.
    """
    source = str(config.init_from)
    opened = take_part(opened, after)
    try:
        if opened.model is None:
            check_ours(opened.tensors, after)
        before = after if opened.model is None else opened.model
        _check_images(before, after, dataset)
        told = [*opened.report, *compare_tokenizers(config, opened, dataset)]
        why = why_renew_head(config, opened, after, dataset)
        plan = plan_change(
            before,
            after,
            lambda path: _takes(config, path) and not (why and path.split("/")[0] in HEADS),
        )
    except UserError as error:
        raise UserError(f"init_from={source!r}: {error}") from None
    taken = plan.kept | plan.resized
    if not taken:
        raise UserError(
            f"init_pattern={config.init_pattern!r} takes no parameter of init_from={source!r} "
            f"(its paths are like {next(iter(opened.tensors.names()))!r})"
        )
    rows = list_leaves(opened, plan)
    report = describe_start(config, plan, rows, [why, *told] if why else told)
    return Start(source, before, after, taken, plan.fresh, report, rows, plan, config.seed)


def _check_images(before: Any, after: Any, dataset: Dataset) -> None:
    had, has = (getattr(model, "num_channels", None) for model in (before, after))
    if None not in (had, has) and had != has:
        raise UserError(
            f"its images have {had} channels, those of {dataset.name} have {has}: change them in "
            "data.transform, or leave the embedding out by init_pattern"
        )


def compare_tokenizers(config: Config, opened: Opened, dataset: Dataset) -> list[str]:
    """Lines on what is taken on trust. Raises UserError on tokens of another tokenizer."""
    if dataset.tokenizer is None or not takes_embedding(config, opened):
        return []
    tokenizer, name = find_own_tokenizer(opened), config.data.tokenizer
    if tokenizer is None and not (name == "gpt2" or is_file(name)):
        raise UserError(
            f"its embedding belongs to a tokenizer that does not lie beside it, and not to "
            f"data.tokenizer={name!r}: name its file, or leave the embedding out by init_pattern"
        )
    if tokenizer is None:
        return [f"it brings no tokenizer: that data.tokenizer={name!r} is its own is trusted"]
    if hash_tokenizer(tokenizer) != dataset.tokenizer_hash:
        raise UserError(
            f"its embedding belongs to another tokenizer than data.tokenizer={name!r}: set "
            "data.tokenizer='init_from', or leave the embedding out by init_pattern"
        )
    return []


def why_renew_head(config: Config, opened: Opened, after: Any, dataset: Dataset) -> str:
    """Why a head of the right shape is not to be taken: it reads something else, or its outputs
    stand for other things, or for the same in another order. '' where it may be taken."""
    before = opened.model
    had, has = getattr(before, "head", None), getattr(after, "head", None)
    if had != has:
        return "" if had in (None, "none") else f"head: {had!r} -> {has!r}, begins anew"
    recipe = find_recipe(opened.source)
    if recipe is not None and recipe.task.name != config.task.name:
        return f"head: of the task {recipe.task.name!r}, begins anew"
    other = compare_classes(opened, dataset)
    return f"head: of other classes ({other}), begins anew" if other else ""


def compare_classes(opened: Opened, dataset: Dataset) -> str:
    """'theirs -> ours' where a source's classes are as many as the data's and have other names, or
    the same in another order; '' where not, or where nobody named them."""
    names = find_kept(opened.source).get("id2label") or {}
    theirs = [str(names[key]) for key in sorted(names, key=int)]
    ours = [str(name) for name in dataset.class_names]
    if not _are_names(theirs) or not _are_names(ours) or len(theirs) != len(ours):
        return ""
    if [name.casefold() for name in theirs] == [name.casefold() for name in ours]:
        return ""
    return f"{_few(theirs)} -> {_few(ours)}"


def _are_names(names: list[str]) -> bool:
    """Do they say more than numbers? transformers calls nameless classes LABEL_0, LABEL_1."""
    return any(name not in (str(i), f"LABEL_{i}") for i, name in enumerate(names))


def list_leaves(opened: Opened, plan: Plan) -> tuple[tuple[str, ...], ...]:
    """(path, what it is made of, what became of it) of every leaf of either model."""
    rows = []
    for path in our_leaves(plan.after):
        if path in plan.fresh:
            rows.append((path, "-", "new"))
        else:
            origin = " + ".join(opened.tensors.origins(path))
            rows.append((path, origin, "resized" if path in plan.resized else "loaded"))
    known = {row[0] for row in rows if row[2] != "new"}
    left = [path for path in opened.tensors.names() if path not in known]
    return (*rows, *(("-", " + ".join(opened.tensors.origins(path)), "left") for path in left))


def describe_start(
    config: Config, plan: Plan, rows: tuple[tuple[str, ...], ...], told: list[str]
) -> tuple[str, ...]:
    """The lines of the account; long lists are shortened."""
    sizes = {p: int(np.prod(x.shape, dtype=int)) for p, x in our_leaves(plan.after).items()}
    taken = [path for path, _, what in rows if what in ("loaded", "resized")]
    renamed = sum(path != origin for path, origin, what in rows if what in ("loaded", "resized"))
    lines = [
        f"parameters from {config.init_from}: {_count(taken, sizes)} of {sum(sizes.values()):,}"
        + (f" ({renamed} leaves renamed)" if renamed else "")
    ]
    if plan.resized:
        lines.append(f"resized: {_few(sorted(plan.resized))}")
    if plan.fresh:
        lines.append(f"new: {_count(plan.fresh, sizes)} ({_few(sorted(plan.fresh))})")
    left = [origin for _, origin, what in rows if what == "left"]
    if left:
        lines.append(f"left in the source: {len(left)} leaves ({_few(left)})")
    return tuple(lines + [f"init_from: {line}" for line in (*plan.report, *told, *_other(plan))])


def _other(plan: Plan) -> list[str]:
    """Fields that make another computation of the same parameters."""
    if type(plan.before) not in CLASSES.values():
        return []
    had, has = find_meaning(plan.before), find_meaning(plan.after)
    return [
        f"{name} was {had[name]!r} in the source, is {has[name]!r} here"
        for name in had
        if name not in TOLD and had[name] != has[name]
    ]


def _count(paths: Iterable[str], sizes: Mapping[str, int]) -> str:
    paths = list(paths)
    return f"{len(paths)} leaves, {sum(sizes[path] for path in paths):,} parameters"


def _few(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
