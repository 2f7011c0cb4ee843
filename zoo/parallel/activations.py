"""Where the stream lies between blocks: an ordered table of (module path regex -> axes).

Models know nothing of it: the outputs of the modules that a row names are constrained as they are
called. Left alone, XLA lets the embedding's table decide, and spreads its columns where the rows of
the batch should lie: of a GPT-3 on 2,048 chips that alone is 688 GB a chip.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.parallel.mesh import DATA_AXES
from zoo.tree import STACK

STREAM = (DATA_AXES, ("context", "tensor"), None)
FAN = (DATA_AXES, "context", "tensor")
# Each output of these is `b t d`. Between blocks the tokens lie over `tensor` too, where that
# divides them (Korthikanti et al. 2022): what the backward pass keeps is there once, not once a
# device.
ACTIVATIONS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    (r"(^|/)embed(_target)?$", STREAM),
    (rf"(^|/){STACK}(/\d+)?$", STREAM),
    # Inside a block heads and hidden units lie over `tensor`, as the kernels' rules have them.
    (r"(attn|cross)/(q|k|v)$", FAN),
    (r"mlp/(fc1|gate)$", FAN),
)


def constrain_activations(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The function, with what the models in it give lying as `ACTIVATIONS` says."""
    if mesh.size == 1:
        return function

    def constrain(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        out = call(*args, **kwargs)
        if context.method_name != "__call__":
            return out
        path = "/".join(context.module.path)
        axes = next((axes for pattern, axes in ACTIVATIONS if re.search(pattern, path)), None)
        if axes is None:
            return out
        x, *rest = out if isinstance(out, tuple) else (out,)
        if x.ndim != len(axes):
            return out
        spec = P(*(fit(size, axis, mesh) for size, axis in zip(x.shape, axes, strict=True)))
        x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
        return (x, *rest) if isinstance(out, tuple) else x

    @functools.wraps(function)
    def constrained(*args: Any) -> Any:
        with nn.intercept_methods(constrain):
            return function(*args)

    return constrained


def fit(size: int, axes: Any, mesh: Mesh) -> Any:
    """The longest beginning of the axes that divides a dimension; None where there is none."""
    axes = (axes,) if isinstance(axes, str) else axes or ()
    kept, count = [], 1
    for axis in axes:
        count *= mesh.shape[axis]
        if size % count:
            break
        kept.append(axis)
    return tuple(kept) or None
