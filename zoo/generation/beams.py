"""Beam search: likely texts instead of a likely token each time (Sutskever et al. 2014).

The meaning of each option is that of transformers 5: of a row's `num_beams` beams the best
continuations by one token are taken; those that end leave for the hypotheses of the row, where a
score is the sum of log-probabilities over length ** length_penalty; the best others go on.
Prompts do not wait for each other: a row whose hypotheses cannot get better changes no more.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.generation.decode import count_words, find_seen, prefill, run_tokens
from zoo.generation.prompts import Prompts
from zoo.generation.sampling import NEVER, Rules, forbid


class Hypotheses(NamedTuple):
    """Texts that have ended, `k` a row, the best first; scores of none are minus infinity."""

    tokens: Int[Array, "b k n"]
    logprobs: Float[Array, "b k n"]  # of each token, under the model itself
    lengths: Int[Array, "b k"]
    scores: Float[Array, "b k"]


class Beams(NamedTuple):
    """Texts on their way, `k` a row, the best first; `count` tokens were chosen of each. What the
    model sees as rows (`r`) are the beams of all rows in turn."""

    cache: Any
    last: Int[Array, " r"]  # the token that the model has not yet seen
    tokens: Int[Array, "b k n"]
    logprobs: Float[Array, "b k n"]
    totals: Float[Array, "b k"]  # log-probabilities under the rules; of none: minus infinity
    seen: Bool[Array, "r v"] | None
    ended: Hypotheses
    open: Bool[Array, " b"]  # can the hypotheses still get better?
    count: Any


class Options(NamedTuple):
    """What may change without a new program."""

    limit: Any  # tokens of a text
    length_penalty: Any


EarlyStopping = Literal["never"] | bool


@functools.partial(jax.jit, static_argnames=("model", "room", "num_beams", "early_stopping"))
def search(
    model: Any,
    params: Any,
    rules: Rules,
    prompts: Prompts,
    options: Options,
    room: int,
    num_beams: int,
    early_stopping: EarlyStopping,
) -> Hypotheses:
    """The best texts after each prompt, in one dispatch; `room` is at least the limit."""
    crosses = prompts.begin is not None

    def goes_on(beams: Beams) -> Any:
        return (beams.count < options.limit) & beams.open.any()

    def step(beams: Beams) -> Beams:
        logits, cache = run_tokens(model, params, beams.last[:, None], beams.cache, crosses)
        beams = beams._replace(cache=cache)
        return go_on(beams, logits[:, 0], rules, options, early_stopping)

    beams = begin(model, params, rules, prompts, room, num_beams)
    return jax.lax.while_loop(goes_on, step, beams).ended


def begin(
    model: Any, params: Any, rules: Rules, prompts: Prompts, room: int, num_beams: int
) -> Beams:
    """The beams after the prompts, of which the first alone counts: all are alike."""
    cache, last = prefill(model, params, prompts, room)
    rows = len(last)
    seen = find_seen(rules, prompts, last, count_words(model))
    cache, last, seen = jax.tree.map(
        lambda kept: jnp.repeat(kept, num_beams, axis=0) if kept.ndim else kept,
        (cache, last, seen),
    )
    shape = (rows, num_beams)
    none = jnp.full(shape, NEVER)
    tokens = jnp.zeros((*shape, room), jnp.int32)
    logprobs = jnp.zeros((*shape, room), jnp.float32)
    ended = Hypotheses(tokens, logprobs, jnp.zeros(shape, jnp.int32), none)
    totals = none.at[:, 0].set(0.0)
    count = jnp.zeros((), jnp.int32)
    real = jnp.asarray(prompts.real)
    return Beams(cache, last, tokens, logprobs, totals, seen, ended, real, count)


def go_on(
    beams: Beams,
    logits: Float[Array, "r v"],
    rules: Rules,
    options: Options,
    early_stopping: EarlyStopping,
) -> Beams:
    """The beams one token later."""
    rows, num_beams = beams.totals.shape
    own = jax.nn.log_softmax(logits)
    scores = forbid(own, rules, beams.count, beams.seen).reshape(rows, num_beams, -1)
    vocabulary = scores.shape[2]
    totals = (beams.totals[:, :, None] + scores).reshape(rows, -1)
    # Enough for all beams to go on, were every end among them.
    wanted = max(2, 1 + len(rules.ends)) * num_beams
    totals, places = jax.lax.top_k(totals, min(wanted, totals.shape[1]))
    parents, chosen = places // vocabulary, (places % vocabulary).astype(jnp.int32)
    logprobs = jnp.take_along_axis(own.reshape(rows, -1), places, axis=1)

    def extend(texts: Any, new: Any) -> Any:
        texts = jnp.take_along_axis(texts, parents[:, :, None], axis=1)
        return jax.lax.dynamic_update_slice(texts, new[:, :, None], (0, 0, beams.count))

    count = beams.count + 1
    tokens, logprobs = extend(beams.tokens, chosen), extend(beams.logprobs, logprobs)
    over = (chosen[:, :, None] == rules.ends).any(axis=2) | (count >= options.limit)
    # Ends beyond the best `num_beams` continuations do not count.
    ends = over & (jnp.arange(over.shape[1]) < num_beams) & beams.open[:, None]
    scored = jnp.where(ends, totals / count**options.length_penalty, NEVER)
    lengths = jnp.full_like(chosen, count)
    ended = merge(beams.ended, Hypotheses(tokens, logprobs, lengths, scored))
    totals, kept = jax.lax.top_k(jnp.where(over, NEVER, totals), num_beams)
    parents, last = (jnp.take_along_axis(x, kept, axis=1) for x in (parents, chosen))
    rows_kept = (jnp.arange(rows)[:, None] * num_beams + parents).reshape(-1)
    last, seen = last.reshape(-1), beams.seen
    if seen is not None:
        seen = seen[rows_kept].at[jnp.arange(len(last)), last].set(True)
    return Beams(
        reorder(beams.cache, rows_kept),
        last,
        jnp.take_along_axis(tokens, kept[:, :, None], axis=1),
        jnp.take_along_axis(logprobs, kept[:, :, None], axis=1),
        totals,
        seen,
        ended,
        beams.open & can_improve(totals, ended, count, options, early_stopping),
        count,
    )


def merge(ended: Hypotheses, new: Hypotheses) -> Hypotheses:
    """The best of both, as many as there were."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), ended, new)
    _, best = jax.lax.top_k(both.scores, ended.scores.shape[1])
    pick = lambda x: jnp.take_along_axis(x, best.reshape(*best.shape, *[1] * (x.ndim - 2)), axis=1)  # noqa: E731
    return jax.tree.map(pick, both)


def can_improve(
    totals: Float[Array, "b k"],
    ended: Hypotheses,
    count: Any,
    options: Options,
    early_stopping: EarlyStopping,
) -> Bool[Array, " b"]:
    """Might a beam that goes on still displace the worst hypothesis?

    True: not once there are as many hypotheses as beams. Otherwise the best beam is held to be as
    good as it is now, which longer texts may belie where length is rewarded; 'never' takes the
    length at which it would be best.
    """
    penalty, length = options.length_penalty, count
    if early_stopping == "never":
        length = jnp.where(penalty > 0, options.limit, count)
    worst = ended.scores.min(axis=1)
    better = totals[:, 0] / length**penalty > worst
    return better if early_stopping in (False, "never") else better & (worst == NEVER)


def reorder(cache: dict[str, Any], rows: Int[Array, " r"]) -> dict[str, Any]:
    """The cache whose row i is what row `rows[i]` was, a beam of the same prompt: they share the
    source and the mask, which stay where they are."""
    blocks = []
    for block in cache["blocks"]:
        own = jax.tree.map(lambda kept: kept[rows], block.get("self", block))
        blocks.append({**block, "self": own} if "self" in block else own)
    return {**cache, "blocks": blocks}
