"""All that a run is at one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.optim import Groups, choose_eval_params
from zoo.tree import fill_leaves


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What a checkpoint holds. With the config it decides everything that follows.

    step: optimizer steps done, int32.
    params: the model's nested dict; ema: its running average, or None. opt_state: Optax's state.
        Of what is frozen neither holds anything: None stands in its place.
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
        if self.ema is None:
            return choose_eval_params(self.opt_state, self.params)
        return fill_leaves(self.ema, self.params)


def init_state(
    task: Any,
    optimizer: optax.GradientTransformation,
    batch: Any,
    key: jax.Array,
    use_ema: bool,
    groups: Groups | None = None,
) -> State:
    """The state before the first step; `batch` gives shapes only. Pure, to be jitted."""
    params = task.init(key)
    trained = params if groups is None else groups.trained(params)
    # Those of training: in evaluation a task may have others.
    sums = jax.eval_shape(lambda b: task.loss(params, b, key)[1], batch)
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, trained) if use_ema else None,
        opt_state=optimizer.init(trained),
        sums={
            "task": jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), sums),
            "gradient_norm": jnp.zeros(()),
            "num_steps": jnp.zeros(()),
            "skipped": jnp.zeros(()),
        },
        first_bad_step=jnp.full((), -1, jnp.int32),
    )
