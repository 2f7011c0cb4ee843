"""Parameter trees by name: paths, ordered regex rules, masks, stacked and unstacked layers.

The canonical tree is unstacked: `blocks/00/attn/q/kernel`. A model with `scan_layers` holds
`blocks/attn/q/kernel` with a leading layer axis. Only this file maps the one to the other.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from zoo.config import UserError

STACK = "blocks"  # the name every stack of layers bears, at any depth of a tree
# Beside a model's own parameters: those of other models that its task has, by their names there,
# and arrays that the task keeps. They never leave a run.
COMPANIONS = "companions"


def path_name(key_path: Sequence[Any]) -> str:
    """JAX's key path as 'blocks/00/attn/q/kernel'."""
    return jax.tree_util.keystr(tuple(key_path), simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """Path -> leaf, in the order of the tree; None is no leaf."""
    return {path_name(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def leaves_below(prefix: str, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Of leaves by path those under `prefix/`, by the rest of their paths."""
    start = f"{prefix}/"
    return {path.removeprefix(start): x for path, x in leaves.items() if path.startswith(start)}


def own_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's parameters those of the model that it trains."""
    return {name: child for name, child in params.items() if name != COMPANIONS}


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` whose function is given the path's name first."""
    return jax.tree_util.tree_map_with_path(lambda p, *xs: function(path_name(p), *xs), tree, *rest)


def select(pattern: str, params: Any) -> Any:
    """A tree of bools: does the regex occur in the leaf's path? It may in none."""
    return map_named(lambda path, _: re.search(pattern, path) is not None, params)


def make_mask(pattern: str, params: Any) -> Any:
    """A tree of bools: does the regex occur in the leaf's path?

    Raises UserError when it matches nothing: a pattern that does nothing is a mistake.
    """
    mask = select(pattern, params)
    if not any(jax.tree.leaves(mask)):
        paths = list(named_leaves(params))
        raise UserError(f"pattern {pattern!r} matches no parameter (paths are like {paths[0]!r})")
    return mask


def drop_leaves(tree: Any, paths: Collection[str]) -> Any:
    """The tree with None, which is no leaf, in the place of the leaves of these paths."""
    return map_named(lambda path, leaf: None if path in paths else leaf, tree) if paths else tree


def fill_leaves(part: Any, whole: Any) -> Any:
    """The tree of `drop_leaves` again whole: where it has None, the leaves of `whole`."""
    return jax.tree.map(
        lambda leaf, other: other if leaf is None else leaf,
        part,
        whole,
        is_leaf=lambda x: x is None,
    )


def match_rules(rules: Sequence[tuple[str, Any]], paths: Sequence[str]) -> dict[str, Any]:
    """Path -> value of the first rule whose regex occurs in it.

    Raises UserError that lists every path no rule matches.
    """
    found: dict[str, Any] = {}
    missing: list[str] = []
    for path in paths:
        value = next((v for pattern, v in rules if re.search(pattern, path)), missing)
        if value is missing:
            missing.append(path)
        found[path] = value
    if missing:
        raise UserError(f"no rule of parallel.rules matches: {', '.join(missing)}")
    return found


def is_stacked(path: str) -> bool:
    """True for a leaf with a leading layer axis: a part of a path after 'blocks' is no number."""
    parts = path.split("/")
    return any(
        part == STACK and not following.isdigit() for part, following in itertools.pairwise(parts)
    )


def canonical_paths(params: Any) -> dict[str, tuple[str, ...]]:
    """Path of each leaf of arrays or shapes -> its canonical paths: its own, or one a layer."""
    out: dict[str, tuple[str, ...]] = {}
    for path, leaf in named_leaves(params).items():
        if not is_stacked(path):
            out[path] = (path,)
            continue
        parts = path.split("/")
        at = next(
            i
            for i, (part, following) in enumerate(itertools.pairwise(parts), start=1)
            if part == STACK and not following.isdigit()
        )
        out[path] = tuple(
            "/".join([*parts[:at], layer_name(i), *parts[at:]]) for i in range(leaf.shape[0])
        )
    return out


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """blocks/00/..., blocks/01/... -> blocks/... with a leading layer axis, at any depth."""
    out = {}
    for name, child in params.items():
        if not isinstance(child, Mapping):
            out[name] = child
        elif name == STACK and all(key.isdigit() for key in child):
            layers = [stack_layers(child[key]) for key in sorted(child, key=int)]
            out[name] = jax.tree.map(lambda *leaves: _stack(leaves), *layers)
        else:
            out[name] = stack_layers(child)
    return out


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """blocks/... with a leading layer axis -> the canonical blocks/00/..., at any depth."""
    out = {}
    for name, child in params.items():
        if not isinstance(child, Mapping):
            out[name] = child
        elif name == STACK and not all(key.isdigit() for key in child):
            depth = jax.tree.leaves(child)[0].shape[0]
            layers = [jax.tree.map(lambda leaf, i=i: leaf[i], child) for i in range(depth)]
            out[name] = {layer_name(i): unstack_layers(layer) for i, layer in enumerate(layers)}
        else:
            out[name] = unstack_layers(child)
    return out


def _stack(leaves: Sequence[Any]) -> Any:
    if isinstance(leaves[0], jax.Array):
        return jax.numpy.stack(leaves)
    return np.stack(leaves)


def layer_name(index: int) -> str:
    """'00', '01', ...: two digits or more."""
    return f"{index:02d}"


def count_params(tree: Any) -> int:
    """How many numbers a tree of arrays or shapes holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def overview(params: Any, places: Mapping[str, str] | None = None) -> list[tuple[str, ...]]:
    """Rows (path, shape, dtype, count[, place]) for a table of parameters."""
    rows: list[tuple[str, ...]] = []
    for path, leaf in named_leaves(params).items():
        row = (
            path,
            "x".join(map(str, leaf.shape)) or "-",
            str(leaf.dtype),
            f"{np.prod(leaf.shape, dtype=int):,}",
        )
        rows.append((*row, places[path]) if places is not None else row)
    return rows
