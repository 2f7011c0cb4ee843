"""Rotary positions, and the scalings by which a model reads further than it was trained to.

The letters of the shapes are those of `layers.py`; `i` is a pair of components of a head, `h / 2`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from zoo.config import UserError

Rotary = tuple[Float[Array, "#b t h"], Float[Array, "#b t h"]]  # cosines, sines


@dataclass(frozen=True)
class RotaryScaling:
    """Slower turns, so that more positions fit into the angles that a model was trained on.

    - 'linear': every rate is divided by `factor` (Chen et al. 2023).
    - 'dynamic': the base grows with the tokens there are, once they are more than `length`
      ("NTK-aware", as transformers computes it). With a cache the keys stay as they were turned.
    - 'llama3': a rate that makes fewer than `slow` turns in `length` is divided, one that makes
      more than `fast` is kept, between them it is blended by the number of turns (Llama Team 2024).
    - 'yarn': likewise, blended by the component; cosines and sines are multiplied by `magnitude`,
      which sharpens the attention (Peng et al. 2023).
    """

    kind: Literal["linear", "dynamic", "llama3", "yarn"]
    factor: float
    length: int = 0  # positions the model was trained on; 'linear' does without
    slow: float = 1.0
    fast: float = 32.0
    magnitude: float = 1.0
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}  # for `convert`

    def __post_init__(self) -> None:
        """Raises UserError on numbers that make no scaling."""
        if self.factor <= 0 or (self.kind != "linear" and self.length < 1):
            raise UserError(f"rotary scaling {self.kind!r} needs a factor and a length over 0")
        if self.kind in ("llama3", "yarn") and not 0 < self.slow < self.fast:
            raise UserError(f"rotary scaling {self.kind!r} needs 0 < slow < fast")


def rotary_angles(
    positions: Int[Array, "b t"],
    head_dim: int,
    base: float,
    scaling: RotaryScaling | None = None,
) -> Rotary:
    """Cosines and sines of rotary positions (Su et al. 2021), `b t h`, in float32.

    Component i of a head is turned with component i + h/2, by position * base ** (-2 i / h), or by
    the rate that `scaling` makes of it.
    """
    if scaling is not None and scaling.kind == "dynamic":
        base = _grow_base(positions, head_dim, base, scaling)
    rates = base ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    if scaling is not None and scaling.kind != "dynamic":
        rates = _slow_down(rates, base, scaling)
    angles = positions[..., None].astype(jnp.float32) * jnp.concatenate([rates, rates])
    if scaling is None or scaling.magnitude == 1:
        return jnp.cos(angles), jnp.sin(angles)
    return jnp.cos(angles) * scaling.magnitude, jnp.sin(angles) * scaling.magnitude


def _grow_base(positions: Any, head_dim: int, base: float, scaling: RotaryScaling) -> Any:
    """The base at which the tokens there are turn as far as `length` did at the first."""
    length = jnp.maximum(positions.max() + 1, scaling.length).astype(jnp.float32)
    growth = scaling.factor * length / scaling.length - (scaling.factor - 1)
    return base * growth ** (head_dim / (head_dim - 2))


def _slow_down(rates: Float[Array, " i"], base: float, scaling: RotaryScaling) -> Any:
    """Each rate, divided by the factor as far as it is not kept."""
    if scaling.kind == "linear":
        return rates / scaling.factor
    if scaling.kind == "llama3":
        turns = scaling.length * rates / (2 * math.pi)
        kept = (turns - scaling.slow) / (scaling.fast - scaling.slow)
    else:
        first, last = (
            _find_pair(n, len(rates), base, scaling) for n in (scaling.fast, scaling.slow)
        )
        first, last = max(math.floor(first), 0), min(math.ceil(last), 2 * len(rates) - 1)
        # Theirs too: a step, where both ends are one component.
        width = last - first or 0.001
        kept = 1 - (jnp.arange(len(rates), dtype=jnp.float32) - first) / width
    kept = jnp.clip(kept, 0.0, 1.0)
    return rates * kept + rates / scaling.factor * (1 - kept)


def _find_pair(turns: float, num_pairs: int, base: float, scaling: RotaryScaling) -> float:
    """Which pair of components makes so many turns in `length`."""
    return num_pairs * math.log(scaling.length / (turns * 2 * math.pi)) / math.log(base)


def rotate(
    x: Float[Array, "b t n h"], cos: Float[Array, "#b t h"], sin: Float[Array, "#b t h"]
) -> Float[Array, "b t n h"]:
    """Turns each pair of components by its angle."""
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    return (x * cos[:, :, None] + turned * sin[:, :, None]).astype(x.dtype)
