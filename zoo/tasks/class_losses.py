"""Losses of classes from logits and soft targets `[b, c]`: of one class an example, or several.

Both are sums over the classes of what each target gives; weights and focus multiply these terms, so
that smoothing, mixing, weights and focus go together in any way.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Weights = np.ndarray | float  # `[c]`


def softmax_losses(
    logits: Float[Array, "b c"],
    targets: Float[Array, "b c"],
    weights: Weights = 1.0,
    focal: float = 0.0,
) -> Float[Array, " b"]:
    """Cross-entropy of one class an example, each class's term times its weight."""
    log_p = jax.nn.log_softmax(logits)
    return -(targets * weights * focus(log_p, focal) * log_p).sum(axis=-1)


def sigmoid_losses(
    logits: Float[Array, "b c"],
    targets: Float[Array, "b c"],
    weights: Weights = 1.0,
    focal: float = 0.0,
) -> Float[Array, " b"]:
    """Cross-entropy of several labels an example, each there or not; the mean over the classes.

    A weight is that of the label where it is there, beside 1 where it is not.
    """
    there, absent = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    losses = targets * weights * focus(there, focal) * there
    losses = losses + (1 - targets) * focus(absent, focal) * absent
    return -losses.mean(axis=-1)


def focus(log_p: Any, focal: float) -> Any:
    """(1 - p)^focal: what is told right already counts less (Lin et al. 2017)."""
    if not focal:
        return 1.0
    # Of p = 1 a power below 1 has no derivative.
    return jnp.maximum(-jnp.expm1(log_p), 1e-12) ** focal


def smooth_targets(
    targets: Float[Array, "b c"], smoothing: float, several: bool
) -> Float[Array, "b c"]:
    """Targets mixed with the even distribution over the classes, or over a label's being there or
    not."""
    even = 0.5 if several else 1 / targets.shape[-1]
    return (1 - smoothing) * targets + smoothing * even


def balance_weights(shares: np.ndarray, several: bool) -> np.ndarray:
    """Weights `[c]` with which all classes count alike, from the part of the examples that each
    has: of mean 1 over the examples (as scikit-learn's 'balanced'), or of several labels how many
    examples are without one for each that has it. A class without examples has 1."""
    seen = np.where(shares > 0, shares, 1.0)
    weights = (1 - shares) / seen if several else 1 / (len(shares) * seen)
    return np.where((shares > 0) & (weights > 0), weights, 1.0)
