"""A draft model guesses ahead, the model checks all guesses in one pass (Leviathan et al. 2023).

What comes out is what the model alone would say, token by token: a guess is kept where it is what
the model chooses itself, greedily or with the same random key, and behind the last one kept stands
the model's own choice. The caches have one length for all rows, so that the row with the fewest
guesses kept sets the pace of those that go on.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.generation.decode import State, prefill, run_tokens, start
from zoo.generation.prompts import Prompts
from zoo.generation.sampling import Rules, choose


class Pair(NamedTuple):
    """A model and its draft, or the parameters of both."""

    model: Any
    draft: Any


@functools.partial(jax.jit, static_argnames=("models", "room"))
def start_drafted(
    models: Pair, params: Pair, rules: Rules, prompts: Prompts, keys: Any, room: int
) -> State:
    """As `start`, for both."""
    state = start(models.model, params.model, rules, prompts, keys, room)
    drafted = prefill(models.draft, params.draft, prompts, room)[0]
    return state._replace(drafted=drafted, passes=jnp.zeros((), jnp.int32))


@functools.partial(
    jax.jit, static_argnames=("models", "num_guesses", "crosses"), donate_argnames="state"
)
def advance_drafted(
    models: Pair,
    params: Pair,
    rules: Rules,
    state: State,
    limit: Any,
    num_guesses: int,
    crosses: bool,
) -> State:
    """As `advance`; caches and tokens have room for `num_guesses` more than the limit."""

    def goes_on(state: State) -> Any:
        return (state.count < limit) & ~state.done.all()

    def step(state: State) -> State:
        """One pass of the model: the guesses that hold, and one token more."""
        read = (models.draft, params.draft, rules, state, num_guesses, crosses)
        guesses, drafted = guess(*read)
        asked = jnp.concatenate([state.last[:, None], guesses], axis=1)
        logits, cache = run_tokens(models.model, params.model, asked, state.cache, crosses)
        chosen, logprobs = choose_each(logits, rules, state)
        taken = count_taken(chosen, guesses, rules, state.done)
        taken = jnp.minimum(taken, limit - state.count)
        length = state.cache["length"] + taken
        state = take(state, chosen, logprobs, rules, taken)
        return state._replace(
            cache={**cache, "length": length},
            drafted={**drafted, "length": length},
            passes=state.passes + 1,
        )

    return jax.lax.while_loop(goes_on, step, state)


def guess(
    draft: Any,
    params: Any,
    rules: Rules,
    state: State,
    num_guesses: int,
    crosses: bool,
) -> tuple[Int[Array, "b g"], Any]:
    """The draft's next tokens, and its cache, which holds all of them."""

    def step(carry: Any, i: Any) -> Any:
        cache, last, seen = carry
        logits, cache = run_tokens(draft, params, last[:, None], cache, crosses)
        token, _ = choose(logits[:, 0], rules, state.count + i, seen, state.keys)
        return (cache, token, note(seen, token)), token

    # One step more than there are guesses: the last of them is read too.
    carry = (state.drafted, state.last, state.seen)
    (cache, _, _), tokens = jax.lax.scan(step, carry, jnp.arange(num_guesses + 1))
    return tokens[:-1].T, cache


def note(seen: Bool[Array, "b v"] | None, token: Int[Array, " b"]) -> Bool[Array, "b v"] | None:
    """What rows hold with one token more."""
    return None if seen is None else seen.at[jnp.arange(len(token)), token].set(True)


def choose_each(
    logits: Float[Array, "b t v"], rules: Rules, state: State
) -> tuple[Int[Array, "b t"], Float[Array, "b t"]]:
    """What the model chooses at each place, were all before it its own choice, and how likely."""
    chosen, logprobs, seen = [], [], state.seen
    for i in range(logits.shape[1]):
        token, logprob = choose(logits[:, i], rules, state.count + i, seen, state.keys)
        seen = note(seen, token)
        chosen.append(token)
        logprobs.append(logprob)
    return jnp.stack(chosen, axis=1), jnp.stack(logprobs, axis=1)


def count_taken(
    chosen: Int[Array, "b t"], guesses: Int[Array, "b g"], rules: Rules, done: Bool[Array, " b"]
) -> Any:
    """The tokens that all rows can take: the fewest guesses kept, and one. A row that is done, or
    ends among what it keeps, waits for nobody."""
    agree = jnp.cumprod(chosen[:, :-1] == guesses, axis=1).sum(axis=1) + 1
    inside = jnp.arange(chosen.shape[1]) < agree[:, None]
    ends = (chosen[:, :, None] == rules.ends).any(axis=2) & inside
    return jnp.where(done | ends.any(axis=1), chosen.shape[1], agree).min()


def take(
    state: State,
    chosen: Int[Array, "b t"],
    logprobs: Float[Array, "b t"],
    rules: Rules,
    taken: Any,
) -> State:
    """The state after the first `taken` of the chosen tokens; those behind them are written too,
    and written over later."""
    inside = jnp.arange(chosen.shape[1]) < taken
    ends = (chosen[:, :, None] == rules.ends).any(axis=2)
    over = state.done[:, None] | (jnp.cumsum(ends, axis=1) - ends > 0)
    counted = inside & ~over
    seen, rows = state.seen, jnp.arange(len(chosen))[:, None]
    if seen is not None:
        seen = seen.at[rows, chosen].max(jnp.broadcast_to(inside, chosen.shape))
    place = (0, state.count)
    return state._replace(
        last=jnp.take(chosen, taken - 1, axis=1),
        tokens=jax.lax.dynamic_update_slice(state.tokens, chosen, place),
        logprobs=jax.lax.dynamic_update_slice(state.logprobs, logprobs, place),
        lengths=state.lengths + counted.sum(axis=1),
        done=state.done | (ends & counted).any(axis=1),
        seen=seen,
        count=state.count + taken,
    )
