"""One stack for all models: layers unrolled or scanned, remat or not, with aux and cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.tree import STACK, layer_name

REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "full": None,  # keep nothing: compute the whole block again
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class UnrolledStack(nn.Module):
    """`depth` copies of a block, one after the other, with parameters `00/...`, `01/...`."""

    block: nn.Module
    depth: int
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Any, layer: Any, cache: Any, shared: Any) -> tuple[Any, dict[str, Any]]:
        kind, fields = _kind_and_fields(self.block)
        if self.remat != "none":
            kind = nn.remat(kind, policy=REMAT_POLICIES[self.remat])
        auxes, caches = [], []
        for i in range(self.depth):
            own = jax.tree.map(lambda values, i=i: values[i], layer)
            own_cache = None if cache is None else cache[i]
            x, aux = kind(**fields, name=layer_name(i))(x, own, own_cache, shared)
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
    scan: bool = False,
    remat: str = "none",
) -> tuple[Any, dict[str, Any]]:
    """Runs `x` through `depth` copies of `block`, inside a parent's compact `__call__`.

    `block` is a template, called as `block(x, layer, cache, shared) -> (x, aux)`:

    - `layer`: a tree of arrays with a leading layer axis; the block sees its own entry. This is
      where layers of one stack differ (a drop rate, a window, a rotary base).
    - `cache`: a tree with a leading layer axis when scanned, a list of trees when unrolled (what
      `init_stack_cache` makes); the block returns its new entry as `aux["cache"]`.
    - `shared`: what all blocks see alike (a mask, positions).

    Returns x and aux, each leaf stacked on a leading layer axis, `cache` in the form it came in.
    The parameters are `blocks/00/...` unrolled, `blocks/...` with a layer axis when scanned.
    """
    if not scan:
        return UnrolledStack(block, depth, remat, name=STACK)(x, layer, cache, shared)
    kind, fields = _kind_and_fields(block)
    if remat != "none":
        # Under scan the loop itself keeps XLA from merging the two computations.
        kind = nn.remat(kind, policy=REMAT_POLICIES[remat], prevent_cse=False)
    scanned = nn.scan(
        kind,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=(0, 0, nn.broadcast),
        length=depth,
    )
    return scanned(**fields, name=STACK)(x, layer, cache, shared)


def init_stack_cache(make_one: Callable[[], Any], depth: int, scan: bool) -> Any:
    """The cache of a stack from the cache of one block, in the form `run_stack` takes."""
    caches = [make_one() for _ in range(depth)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *caches) if scan else caches


def _kind_and_fields(block: nn.Module) -> tuple[Any, dict[str, Any]]:
    """A template's class and fields, to build copies of it under other names and transforms."""
    names = [
        f.name for f in dataclasses.fields(block) if f.init and f.name not in ("parent", "name")
    ]
    return type(block), {name: getattr(block, name) for name in names}
