"""From logits to the next token: what is forbidden, what is made less likely, what is drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

NEVER = -jnp.inf


class Rules(NamedTuple):
    """How a token is chosen. Each rule is an array, or None where it is not in use: a program is
    compiled for the rules in use, not for their values."""

    ends: Int[Array, " e"]  # tokens that end a row
    min_new: Any = None  # no end among so many tokens
    banned: Bool[Array, " v"] | None = None
    first: Any = None  # what a row must begin with
    repetition_penalty: Any = None
    temperature: Any = None  # None: the likeliest token is taken
    top_k: Any = None
    top_p: Any = None
    min_p: Any = None
    last: Any = None  # (a token that ends a row of the full length, the place where it does)


def forbid(
    scores: Float[Array, "b v"], rules: Rules, count: Any, seen: Bool[Array, "b v"] | None
) -> Float[Array, "b v"]:
    """Scores (logits or log-probabilities) under the rules that hold for every way of choosing.

    `count` tokens were chosen before; `seen` are those that a row holds, its prompt's too. The
    repetition penalty divides positive scores and multiplies negative ones (Keskar et al. 2019).
    """
    tokens = jnp.arange(scores.shape[1])
    if rules.repetition_penalty is not None:
        penalty = rules.repetition_penalty
        worse = jnp.where(scores < 0, scores * penalty, scores / penalty)
        scores = jnp.where(seen, worse, scores)
    if rules.banned is not None:
        scores = jnp.where(rules.banned, NEVER, scores)
    if rules.min_new is not None:
        is_end = (tokens[:, None] == rules.ends).any(axis=1)
        scores = jnp.where(is_end & (count < rules.min_new), NEVER, scores)
    if rules.first is not None:
        forced = jnp.where(tokens == rules.first, 0.0, NEVER)
        scores = jnp.where(count == 0, forced, scores)
    if rules.last is not None:
        token, place = rules.last
        scores = jnp.where(count == place, jnp.where(tokens == token, 0.0, NEVER), scores)
    return scores


def narrow(scores: Float[Array, "b v"], rules: Rules) -> Float[Array, "b v"]:
    """Scores to draw from: divided by the temperature, then the `top_k` highest (Fan et al. 2018),
    then the fewest that hold `top_p` of the probability (Holtzman et al. 2020), then those of at
    least `min_p` of the highest's (Nguyen et al. 2024)."""
    scores = scores / rules.temperature
    if rules.top_k is not None:
        highest = -jnp.sort(-scores, axis=1)
        kth = jnp.take(highest, jnp.minimum(rules.top_k, scores.shape[1]) - 1, axis=1)
        scores = jnp.where(scores < kth[:, None], NEVER, scores)
    if rules.top_p is not None:
        highest = -jnp.sort(-scores, axis=1)
        shares = jax.nn.softmax(highest, axis=1)
        before = jnp.cumsum(shares, axis=1) - shares
        # The first stays, whatever its share.
        inside = (before < rules.top_p).at[:, 0].set(True)
        lowest = jnp.min(jnp.where(inside, highest, jnp.inf), axis=1, keepdims=True)
        scores = jnp.where(scores < lowest, NEVER, scores)
    if rules.min_p is not None:
        shares = jax.nn.softmax(scores, axis=1)
        least = rules.min_p * shares.max(axis=1, keepdims=True)
        scores = jnp.where(shares < least, NEVER, scores)
    return scores


def choose(
    logits: Float[Array, "b v"],
    rules: Rules,
    count: Any,
    seen: Bool[Array, "b v"] | None,
    keys: Any,
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """The next token of each row, and its log-probability under the model itself, before any rule.

    `keys` are one random key a row: what a row draws does not depend on the rows beside it.
    """
    scores = forbid(logits, rules, count, seen)
    if rules.temperature is None:
        chosen = jnp.argmax(scores, axis=1)
    else:
        here = jax.vmap(jax.random.fold_in, (0, None))(keys, count)
        chosen = jax.vmap(jax.random.categorical)(here, narrow(scores, rules))
    picked = jnp.take_along_axis(logits, chosen[:, None], axis=1)[:, 0]
    return chosen.astype(jnp.int32), picked - jax.nn.logsumexp(logits, axis=1)
