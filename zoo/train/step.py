"""One training step: a pure function, compiled elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.config import Config
from zoo.optim import Groups
from zoo.train.state import State
from zoo.tree import fill_leaves

Batch = dict[str, jax.Array]
Loss = Callable[[Any, Batch, jax.Array], tuple[jax.Array, Any]]
ALL_ALIKE = Groups()


def make_train_step(
    task: Any,
    optimizer: optax.GradientTransformation,
    config: Config,
    norm: Callable[[Any], jax.Array] = optax.tree.norm,
    groups: Groups = ALL_ALIKE,
    axis: str | None = None,
) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
    """Returns `train_step(state, batch, key=that of config.seed) -> (state, report)`.

    The gradient is that of the loss summed over the real examples of all microbatches, divided by
    their number once: accumulation equals one big batch, however the padding falls. Randomness is a
    function of (seed, step, microbatch). `norm` makes of the gradients the `gradient_norm` of the
    rows. `report` holds scalars: `loss` and `first_bad_step`. What `groups` freezes is a constant
    of the loss: no gradient of it is taken; a task may let some of it follow the others. Over the
    `axis` of a `pmap` gradients and sums are added up, and each replica draws its own randomness.
    """
    seed, parts, ema_decay = config.seed, config.optim.num_microbatches, config.optim.ema_decay
    log_every = config.log.every_steps
    add_up = functools.partial(_add_up, axis)

    def train_step(
        state: State, batch: Batch, key: jax.Array | None = None
    ) -> tuple[State, dict[str, jax.Array]]:
        """One optimizer step."""
        key = jax.random.fold_in(jax.random.key(seed) if key is None else key, state.step)
        if axis is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        old = groups.trained(state.params)

        def find_loss(trained: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
            return task.loss(fill_leaves(trained, state.params), batch, key)

        gradients, sums = accumulate(find_loss, old, batch, key, parts, add_up)
        gradients = groups.hold_back(gradients, state.step)
        weight = jnp.maximum(sums["weight"], 1.0)
        updates, opt_state = optimizer.update(gradients, state.opt_state, old)
        trained = optax.apply_updates(old, updates)
        params = fill_leaves(trained, state.params)
        if hasattr(task, "follow"):
            params = task.follow(params, sums, state.step)
        loss = sums["loss"] / weight
        own_sums = {
            "task": sums,
            "gradient_norm": norm(gradients),
            "num_steps": 1.0,
            "skipped": add_up((1 - batch["mask"]).sum()),
        }
        bad = (state.first_bad_step < 0) & ~jnp.isfinite(loss)
        new = State(
            step=state.step + 1,
            params=params,
            ema=None if ema_decay is None else average(state.ema, trained, ema_decay, state.step),
            opt_state=opt_state,
            sums=add_sums(state, own_sums, log_every),
            first_bad_step=jnp.where(bad, state.step + 1, state.first_bad_step),
        )
        return new, {"loss": loss, "first_bad_step": new.first_bad_step}

    return train_step


def scan_steps(train_step: Callable[..., Any]) -> Callable[..., Any]:
    """`train_step` over batches stacked on a leading axis; the report is the last step's."""

    def train_steps(state: State, batches: Batch) -> tuple[State, dict[str, jax.Array]]:
        state, reports = jax.lax.scan(train_step, state, batches)
        return state, jax.tree.map(lambda report: report[-1], reports)

    return train_steps


def accumulate(
    find_loss: Loss,
    params: Any,
    batch: Batch,
    key: jax.Array,
    parts: int,
    add_up: Callable[[Any], Any] = lambda tree: tree,
) -> tuple[Any, Any]:
    """Gradient of the mean loss, and metric sums, over `parts` microbatches in turn.

    `find_loss(params, batch, key)` gives the sum of the losses and the metric sums; `add_up` adds a
    tree up over replicas.
    """
    if parts == 1:

        def mean_loss(params: Any) -> tuple[jax.Array, Any]:
            # Divided here, the few numbers of the outputs are, not every gradient.
            loss_sum, sums = find_loss(params, batch, key)
            return loss_sum / jnp.maximum(add_up(sums["weight"]), 1.0), sums

        return add_up(jax.grad(mean_loss, has_aux=True)(params))
    gradient = jax.grad(find_loss, has_aux=True)

    # Rows i, i + parts, ... form microbatch i: each device keeps the rows it has.
    def split(x: jax.Array) -> jax.Array:
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    def body(total: Any, inputs: Any) -> tuple[Any, None]:
        index, microbatch = inputs
        part = gradient(params, microbatch, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, part), None

    micro = jax.tree.map(split, batch)
    shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], micro), key)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    gradients, sums = add_up(jax.lax.scan(body, zeros, (jnp.arange(parts), micro))[0])
    weight = jnp.maximum(sums["weight"], 1.0)
    return jax.tree.map(lambda g: (g / weight).astype(g.dtype), gradients), sums


def _add_up(axis: str | None, tree: Any) -> Any:
    """A tree added up over the replicas of a mapped axis."""
    return tree if axis is None else jax.lax.psum(tree, axis)


def find_norm(tree: Any) -> jax.Array:
    """The square root of the sum of all squares, in float32, in the form for one device: of rows
    that are spread over several it would gather them."""
    return jnp.sqrt(sum(map(_sum_squares, jax.tree.leaves(tree))))


def _sum_squares(x: jax.Array) -> jax.Array:
    # Neighbouring rows are added first, a few times over: one pass, which XLA vectorises on a CPU.
    # With the plain sum of a matrix it did not, and that was a quarter of the MLP's step.
    squares = jnp.square(x.astype(jnp.float32))
    for _ in range(4):
        if squares.ndim < 2 or len(squares) % 2:
            break
        pairs = squares.reshape(-1, 2, *squares.shape[1:])
        squares = pairs[:, 0] + pairs[:, 1]
    return squares.sum()


def average(ema: Any, params: Any, decay: float, step: jax.Array) -> Any:
    """Exponential average whose decay grows to `decay`: min(decay, (1 + step) / (10 + step))."""
    step = step.astype(jnp.float32)
    rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda e, p: e + (rate * (p - e)).astype(e.dtype), ema, params)


def add_sums(state: State, new: Any, log_every: int) -> Any:
    """Adds a step's sums to those since the last multiple of `log_every`."""
    fresh = state.step % log_every == 0
    return jax.tree.map(lambda old, x: jnp.where(fresh, 0, old) + x, state.sums, new)
