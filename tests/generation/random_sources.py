"""Small random models as `zoo.generate` takes them, and what they say without a cache."""

from __future__ import annotations

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import zoo
from zoo.generation.prompts import crosses_over

LONGEST = 16  # places that `log_probabilities` computes


def make_source(model: Any, seed: int, **generation: Any) -> Any:
    """A model with noise for parameters, so much that texts differ."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    params = jax.tree.map(lambda x: jnp.asarray(0.5 * random.normal(size=x.shape), x.dtype), shapes)
    card = types.SimpleNamespace(config={}, generation=generation)
    return types.SimpleNamespace(model=model, params=params, tokenizer=None, card=card)


def make_reader(source: Any) -> Any:
    """A function (prompt, tokens after it) -> log-probabilities `[len(tokens) + 1, v]` of each next
    token, by one call of the model on the whole text, padded on the right, without a cache."""
    model, begin = source.model, source.card.generation.get("decoder_start_token_id")

    @jax.jit
    def run(*inputs: Any) -> Any:
        kept = {} if begin is None else {"source_mask": inputs[2]}
        logits, _ = model.apply({"params": source.params}, *inputs[:2], **kept)
        return jax.nn.log_softmax(logits[0])

    def pad(row: Any) -> Any:
        return jnp.array([[*row, *[0] * (LONGEST - len(row))]], jnp.int32)

    def read(prompt: Any, tokens: Any) -> np.ndarray:
        if crosses_over(model):
            mask = jnp.arange(LONGEST)[None] < len(prompt)
            return np.asarray(run(pad(prompt), pad([begin, *tokens]), mask))[: len(tokens) + 1]
        whole = np.asarray(run(pad([*prompt, *tokens])))
        return whole[len(prompt) - 1 : len(prompt) + len(tokens)]

    return read
