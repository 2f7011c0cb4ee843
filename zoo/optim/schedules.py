"""Learning rate as a function of the step, by name.

Each row is called as `make(peak, steps, warmup, **arguments)` and returns the rate by the number of
steps since the end of the warm-up; `steps` are those that remain after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from zoo.config import UserError

Schedule = Callable[[Any], Any]


def make_constant(peak: float, steps: int, warmup: int) -> Schedule:
    """The peak for ever."""
    return optax.constant_schedule(peak)


def make_linear(peak: float, steps: int, warmup: int, final: float = 0.0) -> Schedule:
    """A straight line to `final` of the peak."""
    return optax.linear_schedule(peak, final * peak, steps)


def make_cosine(peak: float, steps: int, warmup: int, final: float = 0.0) -> Schedule:
    """Half a cosine to `final` of the peak (Loshchilov & Hutter 2017, without restarts)."""
    return optax.cosine_decay_schedule(peak, steps, alpha=final)


def make_step(
    peak: float,
    steps: int,
    warmup: int,
    boundaries: Sequence[int] | None = None,
    every: int | None = None,
    factor: float = 0.1,
) -> Schedule:
    """Times `factor` at each of `boundaries`, or `every` so many steps.

    Both count from the start of training, warm-up included, as papers quote them.
    """
    if (boundaries is None) == (every is None):
        raise UserError("optim.schedule='step' takes schedule_arguments boundaries or every: one")
    if boundaries is not None:
        drops = np.asarray(sorted(boundaries), int)
        first = int(drops[0]) if len(drops) else warmup + 1
        whole = optax.piecewise_constant_schedule(peak, {int(b): factor for b in drops})
    else:
        first = int(every)  # type: ignore[arg-type]
        whole = optax.exponential_decay(peak, first, factor, staircase=True) if first > 0 else None
    if first <= warmup or first < 1:
        raise UserError(
            f"optim.schedule='step' first drops at step {first}: "
            f"that must be after optim.warmup_steps={warmup}"
        )
    return lambda step: whole(step + warmup)


def make_inverse_square_root(
    peak: float, steps: int, warmup: int, constant_steps: int = 0
) -> Schedule:
    """peak * sqrt(k / step) from step k on, the peak before (Vaswani et al. 2017).

    k is the length of the warm-up, or `constant_steps` where that is longer: T5 (Raffel et al.
    2020) stays at the peak for 10,000 steps without a warm-up.
    """
    hold = max(warmup, constant_steps)
    if hold < 1:
        raise UserError(
            "optim.schedule='inverse_square_root' is peak * sqrt(warmup_steps / step): "
            "set optim.warmup_steps, or schedule_arguments constant_steps"
        )
    return lambda step: peak * jnp.sqrt(hold / jnp.maximum(step + warmup, hold))


def make_warmup_stable_decay(
    peak: float, steps: int, warmup: int, decay_fraction: float = 0.2, final: float = 0.0
) -> Schedule:
    """The peak, then a line to `final` of it over the last `decay_fraction` of the steps after the
    warm-up (Hu et al. 2024, MiniCPM; the line and the fifth: Hägele et al. 2024)."""
    if not 0 < decay_fraction <= 1:
        raise UserError(
            f"optim.schedule_arguments.decay_fraction={decay_fraction} is not in (0, 1]"
        )
    decay = max(round(decay_fraction * steps), 1)
    return optax.linear_schedule(peak, final * peak, decay, transition_begin=steps - decay)


def make_slanted_triangular(
    peak: float, steps: int, warmup: int, cut_fraction: float = 0.1, ratio: float = 32.0
) -> Schedule:
    """From peak / ratio up to the peak over `cut_fraction` of the steps, and down again (ULMFiT,
    Howard & Ruder 2018, equation 3)."""
    if warmup:
        raise UserError(
            "optim.schedule='slanted_triangular' has a rise of its own (cut_fraction): "
            f"optim.warmup_steps={warmup} must be 0"
        )
    if not 0 < cut_fraction < 1:
        raise UserError(f"optim.schedule_arguments.cut_fraction={cut_fraction} is not in (0, 1)")
    cut = max(int(steps * cut_fraction), 1)
    # The paper falls over cut * (1/cut_fraction - 1) steps, which is steps - cut but for rounding:
    # rounded, its rate could end below zero.
    fall = max(steps - cut, 1)

    def schedule(step: Any) -> Any:
        height = jnp.where(step < cut, step / cut, jnp.maximum(1 - (step - cut) / fall, 0.0))
        return peak * (1 + height * (ratio - 1)) / ratio

    return schedule


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": make_constant,
    "linear": make_linear,
    "cosine": make_cosine,
    "step": make_step,
    "inverse_square_root": make_inverse_square_root,
    "warmup_stable_decay": make_warmup_stable_decay,
    "slanted_triangular": make_slanted_triangular,
}
