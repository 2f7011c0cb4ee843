"""One stack for all models: layers unrolled or scanned, remat or not, with aux and cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.config import UserError
from zoo.tree import STACK, layer_name

REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "full": None,  # keep nothing: compute the whole block again
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "offload": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
}


class UnrolledStack(nn.Module):
    """`depth` calls of a block, one after the other, with parameters `00/...`, `01/...`."""

    make_block: Callable[[str], nn.Module]
    depth: int
    num_groups: int

    @nn.compact
    def __call__(self, x: Any, layer: Any, cache: Any, shared: Any) -> tuple[Any, dict[str, Any]]:
        blocks = [self.make_block(layer_name(i)) for i in range(self.num_groups)]
        auxes, caches = [], []
        for i in range(self.depth):
            block = blocks[i * self.num_groups // self.depth]
            own = jax.tree.map(lambda values, i=i: values[i], layer)
            x, aux = block(x, own, None if cache is None else cache[i], shared)
            caches.append(aux.pop("cache", None))
            auxes.append(aux)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *auxes)
        return x, stacked if cache is None else {**stacked, "cache": caches}


def run_stack(
    block: nn.Module,
    depth: int,
    x: Any,
    *,
    layer: Any = None,
    cache: Any = None,
    shared: Any = None,
    num_groups: int | None = None,
    scan: bool = False,
    remat: str = "none",
) -> tuple[Any, dict[str, Any]]:
    """Runs `x` through `depth` calls of `block`, inside a parent's compact `__call__`.

    `block` is a template, called as `block(x, layer, cache, shared) -> (x, aux)`:

    - `layer`: a tree of arrays with a leading layer axis; the block sees its own entry. This is
      where layers of one stack differ (a drop rate, a window, a rotary base).
    - `cache`: a tree with a leading layer axis when scanned, a list of trees when unrolled (what
      `init_stack_cache` makes); the block returns its new entry as `aux["cache"]`.
    - `shared`: what all blocks see alike (a mask, positions).

    Every block has parameters of its own, or `num_groups` sets of parameters serve `depth /
    num_groups` consecutive blocks each (ALBERT, Lan et al. 2020).

    Returns x and aux, each leaf stacked on a leading layer axis, `cache` in the form it came in.
    The parameters are `blocks/00/...` unrolled, `blocks/...` with an axis of groups when scanned.
    """
    num_groups = num_groups or depth
    if depth % num_groups:
        raise UserError(f"{depth} layers cannot share {num_groups} groups of parameters evenly")
    kind: Any = type(block)
    if remat != "none":
        # Under scan the loop itself keeps XLA from merging the two computations.
        kind = nn.remat(kind, policy=REMAT_POLICIES[remat], prevent_cse=not scan)
    if not scan:
        make_block = lambda name: kind(**_copy_fields(block), name=name)  # noqa: E731
        stack = UnrolledStack(make_block, depth, num_groups, name=STACK)
        return stack(x, layer, cache, shared)
    if num_groups < depth:
        kind = _scan(kind, depth // num_groups, variable_broadcast="params")
        split = lambda leaf: leaf.reshape(num_groups, -1, *leaf.shape[1:])  # noqa: E731
        layer, cache = jax.tree.map(split, (layer, cache))
    kind = _scan(kind, num_groups, variable_axes={"params": 0})
    x, aux = kind(**_copy_fields(block), name=STACK)(x, layer, cache, shared)
    if num_groups < depth:
        aux = jax.tree.map(lambda leaf: leaf.reshape(depth, *leaf.shape[2:]), aux)
    return x, aux


def _scan(kind: Any, length: int, **variables: Any) -> Any:
    """A block's class, run `length` times over a leading axis of its layer and cache."""
    own = "variable_axes" in variables
    return nn.scan(
        kind,
        **variables,
        split_rngs={"params": own, "dropout": True},
        in_axes=(0, 0, nn.broadcast),
        length=length,
    )


def init_stack_cache(make_one: Callable[[], Any], depth: int, scan: bool) -> Any:
    """The cache of a stack from the cache of one block, in the form `run_stack` takes."""
    caches = [make_one() for _ in range(depth)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches) if scan else caches


def _copy_fields(block: nn.Module) -> dict[str, Any]:
    """A template's fields, to build a block under another name or transform.

    Its parts are copied: a part that two blocks hold would be one part, with one set of parameters.
    """
    names = [
        f.name for f in dataclasses.fields(block) if f.init and f.name not in ("parent", "name")
    ]
    fields = {name: getattr(block, name) for name in names}
    return {k: v.clone() if isinstance(v, nn.Module) else v for k, v in fields.items()}
