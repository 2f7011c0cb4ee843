"""Prefill and decode: one compiled program each for a bucket of lengths.

The program decodes until `limit` tokens are there or every row has ended. `limit` is an argument,
so the same program decodes all in one dispatch, a token at a time for a stream, or a few at a time
where text must be looked at between them.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.generation.prompts import Prompts
from zoo.generation.sampling import Rules, choose


class State(NamedTuple):
    """Rows on their way; `count` tokens were chosen of each."""

    cache: Any
    last: Int[Array, " b"]  # the token that the model has not yet seen
    tokens: Int[Array, "b n"]
    logprobs: Float[Array, "b n"]
    lengths: Int[Array, " b"]  # of the tokens that count, the end among them
    done: Bool[Array, " b"]
    seen: Bool[Array, "b v"] | None
    keys: Any
    count: Any
    drafted: Any = None  # the cache of a draft
    passes: Any = None  # of the model, where a draft guesses


def prefill(model: Any, params: Any, prompts: Prompts, room: int) -> tuple[Any, Int[Array, " b"]]:
    """(a cache that holds all of the prompts but their last token, that token).

    The cache has room for so many tokens more. Of an encoder-decoder it holds the source, and the
    last token is the one that targets begin with. No logits are computed. The last token is read
    too, and read again by what decodes: rotary positions may depend on how many tokens there are.
    """
    silent = model.clone(head="none")
    rows = prompts.tokens.shape[0]
    inputs: dict[str, Any] = {"tokens": prompts.tokens, "mask": prompts.mask}
    last = prompts.tokens[:, -1]
    if prompts.begin is None:
        cache = model.init_cache(rows, prompts.tokens.shape[1] + room)
    else:
        last = jnp.full((rows,), prompts.begin, jnp.int32)
        cache = model.init_cache(rows, 1 + room, prompts.tokens.shape[1])
        inputs = {"source": prompts.tokens, "target": last[:, None], "source_mask": prompts.mask}
    cache = silent.apply({"params": params}, **inputs, cache=cache)[1]["cache"]
    return {**cache, "length": cache["length"] - 1}, last


def run_tokens(
    model: Any, params: Any, tokens: Int[Array, "b t"], cache: Any, crosses: bool
) -> tuple[Float[Array, "b t v"], Any]:
    """Logits after each of the tokens that follow what the cache holds, and the new cache; one that
    `crosses` is an encoder-decoder."""
    inputs = (None, tokens) if crosses else (tokens,)
    logits, aux = model.apply({"params": params}, *inputs, cache=cache)
    return logits, aux["cache"]


def find_seen(
    rules: Rules, prompts: Prompts, last: Int[Array, " b"], vocabulary: int
) -> Bool[Array, "b v"] | None:
    """Which tokens each row holds, where a rule asks for it: a prompt's, or what a target begins
    with."""
    if rules.repetition_penalty is None:
        return None
    held, mask = prompts.tokens, prompts.mask
    if prompts.begin is not None:
        held, mask = last[:, None], jnp.ones((len(last), 1), bool)
    none = jnp.zeros((len(last), vocabulary), bool)
    return none.at[jnp.arange(len(last))[:, None], held].max(mask)


@functools.partial(jax.jit, static_argnames=("model", "room"))
def start(model: Any, params: Any, rules: Rules, prompts: Prompts, keys: Any, room: int) -> State:
    """The state after the prompts, with room for so many tokens."""
    cache, last = prefill(model, params, prompts, room)
    rows = len(last)
    seen = find_seen(rules, prompts, last, count_words(model))
    return State(
        cache,
        last,
        jnp.zeros((rows, room), jnp.int32),
        jnp.zeros((rows, room), jnp.float32),
        jnp.zeros((rows,), jnp.int32),
        ~prompts.real,
        seen,
        keys,
        jnp.zeros((), jnp.int32),
    )


@functools.partial(jax.jit, static_argnames=("model", "crosses"), donate_argnames="state")
def advance(
    model: Any, params: Any, rules: Rules, state: State, limit: Any, crosses: bool
) -> State:
    """Goes on until each row has `limit` tokens or has ended."""

    def goes_on(state: State) -> Any:
        return (state.count < limit) & ~state.done.all()

    def step(state: State) -> State:
        """One token more of each row."""
        logits, cache = run_tokens(model, params, state.last[:, None], state.cache, crosses)
        token, logprob = choose(logits[:, 0], rules, state.count, state.seen, state.keys)
        seen = state.seen
        if seen is not None:
            seen = seen.at[jnp.arange(len(token)), token].set(True)
        place = (0, state.count)
        return state._replace(
            cache=cache,
            last=token,
            tokens=jax.lax.dynamic_update_slice(state.tokens, token[:, None], place),
            logprobs=jax.lax.dynamic_update_slice(state.logprobs, logprob[:, None], place),
            lengths=state.lengths + ~state.done,
            done=state.done | (token[:, None] == rules.ends).any(axis=1),
            seen=seen,
            count=state.count + 1,
        )

    return jax.lax.while_loop(goes_on, step, state)


def count_words(model: Any) -> int:
    """The tokens that a model may say."""
    return getattr(model, "target_vocab_size", None) or model.vocab_size
