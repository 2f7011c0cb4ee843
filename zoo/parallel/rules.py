"""Where each parameter lives: an ordered table of (path regex -> mesh axis of each dimension)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from zoo.config import UserError, nearest
from zoo.tree import is_stacked, map_named, match_rules, named_leaves

Rule = tuple[str, tuple[str | None, ...]]

# Matrices that fan out put their outputs on `tensor`, those that follow put their inputs there: one
# all-reduce an attention and one a feed-forward (Shoeybi et al. 2019). `fsdp` takes the other side.
RULES: tuple[Rule, ...] = (
    (r"(attn|cross)/(q|k|v)/kernel$", ("fsdp", "tensor")),
    (r"(attn|cross)/(q|k|v)/bias$", ("tensor",)),
    (r"(attn|cross)/out/kernel$", ("tensor", "fsdp")),
    (r"mlp/router/kernel$", ()),
    (r"mlp/experts/(fc1|gate)/kernel$", ("expert", "fsdp", "tensor")),
    (r"mlp/experts/fc2/kernel$", ("expert", "tensor", "fsdp")),
    (r"mlp/(fc1|gate)/kernel$", ("fsdp", "tensor")),
    (r"mlp/(fc1|gate)/bias$", ("tensor",)),
    (r"mlp/fc2/kernel$", ("tensor", "fsdp")),
    # A matrix that fans out must follow a stream that is whole over `tensor`: after another one
    # that fans out XLA's partitioner computes a wrong gradient in silence (jax 0.10.2, a mesh of
    # 2x2x2 CPU devices; tests/eight_devices found it). So the embedding's output stays whole, and
    # the layers of an MLP take turns.
    (r"embed/kernel$", ("fsdp", None)),
    (r"embed(_target)?/embedding$", (None, "fsdp")),
    (r"(^|/)fc\d*[13579]/kernel$", ("fsdp", "tensor")),
    (r"(^|/)fc\d*[02468]/kernel$", ("tensor", "fsdp")),
    (r"^head/kernel$", ("fsdp", None)),
    (r"kernel$", ("fsdp",)),
    (r"lora_(a|b)$", ()),
    (r"(^|/)(pos|cls|dist|registers|mask|probe|bias|scale|embedding)$", ()),
    (r"(^|/)(logit_scale|logit_bias)$", ()),
    (r"^companions/[^/]*$", ()),  # an array that a task keeps
)


def choose_specs(params: Any, mesh: Mesh, extra: Sequence[Rule] = ()) -> Any:
    """A tree of PartitionSpecs: the first rule of `extra` and the table that matches each path.

    A dimension that its axis does not divide stays whole (a head of 10 classes over 4 devices); the
    parameter table shows where everything lies. A leading layer axis is never divided.
    Raises UserError that lists the paths no rule matches, or names a rule that asks too much.
    """
    found = match_rules([*extra, *RULES], list(named_leaves(params)))
    return map_named(lambda path, leaf: _fit(path, leaf, found[path], mesh), params)


def _fit(path: str, leaf: Any, axes: tuple[str | None, ...], mesh: Mesh) -> P:
    shape = leaf.shape[1:] if is_stacked(path) else leaf.shape
    if len(axes) > len(shape):
        raise UserError(f"parallel.rules: {axes} has more axes than {path} of shape {shape}")
    for axis in filter(None, axes):
        if axis not in mesh.shape:
            raise UserError(f"parallel.rules: no mesh axis {axis!r}{nearest(axis, mesh.shape)}")
    fitted = [
        axis if axis is not None and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(axes, shape, strict=False)
    ]
    return P(*([None] if is_stacked(path) else []), *fitted)


def like_params(specs: Any, params: Any, opt_state: Any) -> Any:
    """Specs of an optimizer's state: leaves shaped as their parameter lie with it, others whole.

    A leaf belongs to the parameter whose path ends its own: `0/mu/fc1/kernel` to `fc1/kernel`.
    """
    shapes = {path: leaf.shape for path, leaf in named_leaves(params).items()}
    places = dict(
        zip(shapes, jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, P)), strict=True)
    )

    def place(path: str, leaf: Any) -> P:
        parts = path.split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        owner = next((end for end in ends if end in shapes), None)
        return places[owner] if owner and leaf.shape == shapes[owner] else P()

    return map_named(place, opt_state)
