"""A small decoder learns to copy, and the page names the heads that do it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from explain_cases import load

import zoo
from zoo.data.tokenizers import CharTokenizer
from zoo.models import create_model, init_params

COUNT, LENGTH, COPIES, GAP = 48, 8, 4, 8  # tokens, of a sequence, its copies, noise between
TOKENIZER = CharTokenizer("".join(chr(ord("0") + i) for i in range(COUNT)))


def draw(key, rows):
    """Noise `[b, t]` in which a random sequence stands COPIES times, at random places; and true
    where the next token is one of a copy. Where a copy begins, nothing but its tokens can tell."""
    keys = jax.random.split(key, 3)
    starts = jnp.cumsum(jax.random.randint(keys[0], (rows, COPIES), 0, GAP), axis=1)
    starts += LENGTH * jnp.arange(COPIES)
    sequence = jax.random.randint(keys[1], (rows, LENGTH), 0, COUNT)
    noise = jax.random.randint(keys[2], (rows, COPIES * (LENGTH + GAP - 1)), 0, COUNT)
    place = jnp.arange(noise.shape[1]) - starts[:, :, None]
    inside = (place >= 0) & (place < LENGTH)
    copied = jnp.take_along_axis(sequence, jnp.where(inside, place, 0).sum(1), axis=1)
    counts = (place >= 0) & (place < LENGTH - 1)
    return jnp.where(inside.any(1), copied, noise), counts[:, 1:].any(1)


def train(steps):
    """A decoder of two layers, two heads each, after so many steps of Adam; and its last loss."""
    sizes = {"width": 64, "depth": 2, "num_heads": 2, "hidden": 16, "vocab_size": COUNT}
    how = {"num_positions": 64, "positions": "rotary", "initializer_range": 0.1}
    model = create_model("gpt2", **sizes, **how)
    optimizer = optax.adam(3e-3)

    def step(carry, key):
        params, state = carry
        tokens, counts = draw(key, 32)

        def find_loss(params):
            logits, _ = model.apply({"params": params}, tokens[:, :-1])
            each = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
            return (each * counts[:, :-1]).sum() / counts[:, :-1].sum()

        loss, gradient = jax.value_and_grad(find_loss)(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), loss

    params = init_params(model)
    keys = jax.random.split(jax.random.key(0), steps)
    (params, _), losses = jax.jit(lambda c, k: jax.lax.scan(step, c, k))(
        (params, optimizer.init(params)), keys
    )
    return model, params, float(losses[-10:].mean())


@pytest.mark.slow
def test_an_induction_head_is_seen_to_copy():
    model, params, loss = train(500)
    assert loss < 0.3  # that of guessing: 3.9
    loaded = dataclasses.replace(load("decoder"), model=model, params=params, tokenizer=TOKENIZER)
    text = "7GOASW?K5:7GOASW?K2V7GOASW?"  # 7GOASW?K, noise, again, noise, again
    found = zoo.explain(loaded, text)
    assert found.output.label == "K"
    assert found.output.probability > 0.8
    (note,) = found.notes
    assert note.startswith("Induction heads: layer 2 head ")
    weights = found.part("attention").weights
    head = int(note.split("head ")[1].split()[0]) - 1
    # From the last '?' to what followed its first two.
    row = weights[1, head, -1]
    assert row[[7, 17]].sum() > 0.7
    # And so at every token that was there before.
    repeats = range(10, 17)
    assert np.mean([weights[1, head, i, i - 9] for i in repeats]) > 0.7
    # No head of the first layer does.
    assert max(weights[0, :, i, i - 9].mean() for i in repeats) < 0.5
    # What it sees decides: gradient x attention finds the same places.
    scores = zoo.explain(loaded, text, method="gradient").part("attention_scores").values
    assert set(np.argsort(-scores)[:4]) & {7, 17}
    # Before it has learned, no head copies.
    fresh = dataclasses.replace(loaded, params=init_params(model))
    assert zoo.explain(fresh, text).notes[0].startswith("Induction heads: none")
