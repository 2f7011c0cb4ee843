"""Where activations lie: an ordered table of (module path regex -> axes of what it gives, takes).

Models know nothing of it: what the named modules give and take is constrained as they are called.
Left alone, XLA lets the tables of parameters decide and spreads the stream's columns where its rows
should lie: of a GPT-3 on 2,048 chips that alone is 688 GB a chip.
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

Axes = tuple[Any, ...]

# Of `b t d`. Between blocks the tokens lie over `tensor` too, where that divides them (Korthikanti
# et al. 2022): what the backward pass keeps is there once, not once a device.
STREAM: Axes = (DATA_AXES, ("context", "tensor"), None)
WHOLE: Axes = (DATA_AXES, "context", None)
# Inside a block heads and hidden units lie over `tensor`, and of logits the vocabulary does.
FAN: Axes = (DATA_AXES, "context", "tensor")
# The path of a module, or of its method behind a colon -> what it gives, what it takes.
ACTIVATIONS: tuple[tuple[str, Axes | None, Axes | None], ...] = (
    (r"(^|/)embed(_target)?$", STREAM, None),
    (rf"(^|/){STACK}(/\d+)?$", STREAM, None),
    (r"(attn|cross)/(q|k|v)$", FAN, None),
    (r"(attn|cross)/out$", None, FAN),
    (r"mlp/(fc1|gate)$", FAN, None),
    (r"mlp/fc2$", None, FAN),
    (r"^(encoder/|decoder/)?norm$", WHOLE, None),
    (r":read_out$", FAN, None),
)


def constrain_activations(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The function, with what the models in it give and take lying as `ACTIVATIONS` says."""
    if mesh.size == 1:
        return function

    def constrain(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        """Around each call of a module's method."""
        method = context.method_name
        path = "/".join(context.module.path) + ("" if method == "__call__" else f":{method}")
        found = next((row for row in ACTIVATIONS if re.search(row[0], path)), None)
        if found is None:
            return call(*args, **kwargs)
        _, gives, takes = found
        if args:
            args = (lay(args[0], takes, mesh), *args[1:])
        out = call(*args, **kwargs)
        if isinstance(out, tuple):
            return (lay(out[0], gives, mesh), *out[1:])
        return lay(out, gives, mesh)

    @functools.wraps(function)
    def constrained(*args: Any) -> Any:
        with nn.intercept_methods(constrain):
            return function(*args)

    return constrained


def lay(x: Any, axes: Axes | None, mesh: Mesh) -> Any:
    """An array constrained; one of another number of dimensions stays as it is."""
    if axes is None or getattr(x, "ndim", 0) != len(axes):
        return x
    spec = P(*(fit(size, axis, mesh) for size, axis in zip(x.shape, axes, strict=True)))
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def fit(size: int, axes: Any, mesh: Mesh) -> Any:
    """The longest beginning of the axes that divides a dimension; None where there is none."""
    kept, count = [], 1
    for axis in (axes,) if isinstance(axes, str) else axes or ():
        count *= mesh.shape[axis]
        if size % count:
            break
        kept.append(axis)
    return tuple(kept) or None
