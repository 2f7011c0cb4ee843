"""All that a run is at one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.optim import choose_eval_params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What a checkpoint holds. With the config it decides everything that follows.

    step: optimizer steps done, int32.
    params: the model's nested dict; ema: its running average, or None.
    opt_state: Optax's state.
    sums: the task's metric sums and the step's own, since the last multiple of `log.every_steps`.
    first_bad_step: the first step whose loss was not finite, -1 while there is none.
    """

    step: Any
    params: Any
    ema: Any
    opt_state: Any
    sums: Any
    first_bad_step: Any

    @property
    def eval_params(self) -> Any:
        """What is evaluated and shipped: an average, ours or the optimizer's, or the parameters."""
        return choose_eval_params(self.opt_state, self.params) if self.ema is None else self.ema


def init_state(
    task: Any, optimizer: optax.GradientTransformation, batch: Any, key: jax.Array, use_ema: bool
) -> State:
    """The state before the first step; `batch` gives shapes only. Pure, to be jitted."""
    params = task.init(key)
    sums = jax.eval_shape(lambda b: task.loss(params, b, None)[1], batch)
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params) if use_ema else None,
        opt_state=optimizer.init(params),
        sums={
            "task": jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), sums),
            "gradient_norm": jnp.zeros(()),
            "num_steps": jnp.zeros(()),
            "skipped": jnp.zeros(()),
        },
        first_bad_step=jnp.full((), -1, jnp.int32),
    )
