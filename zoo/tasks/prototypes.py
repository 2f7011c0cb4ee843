"""The head of self-distillation: from features to how near they are to prototypes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def init_head(key: jax.Array, widths: Sequence[int]) -> dict[str, Any]:
    """Dense layers `fc1`, `fc2`, ... between all widths but the last, which is that of the
    prototypes. Kernels are truncated normals of deviation 0.02, biases 0."""
    init = jax.nn.initializers.truncated_normal(0.02)
    keys = jax.random.split(key, len(widths) - 1)
    kernels = [init(k, pair) for k, pair in zip(keys, itertools.pairwise(widths), strict=True)]
    dense = [{"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])} for kernel in kernels[:-1]]
    named = {f"fc{i}": layer for i, layer in enumerate(dense, start=1)}
    return {**named, "prototypes": {"kernel": kernels[-1]}}


def apply_head(params: dict[str, Any], x: Float[Array, "b d"]) -> Float[Array, "b v"]:
    """GELU between the dense layers, then the cosine with each prototype: DINO's projection, its
    last layer weight-normed with a gain of 1 (Caron et al. 2021)."""
    depth = len(params) - 1
    for i in range(1, depth + 1):
        x = x @ params[f"fc{i}"]["kernel"] + params[f"fc{i}"]["bias"]
        x = jax.nn.gelu(x, approximate=False) if i < depth else x
    x = x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    kernel = params["prototypes"]["kernel"]
    return x @ (kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True))
