"""Guessing hidden tokens against sums written out: masks, padding, accumulation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.models.encoder import Encoder
from zoo.tasks.masked_lm import MaskedLM, find_hidden, guess_tokens
from zoo.train.step import accumulate

SIZE = {"width": 8, "depth": 1, "num_heads": 2, "hidden": 8, "vocab_size": 20, "num_positions": 8}
MODEL = Encoder(**SIZE, head="masked_lm", pooler=False)
TASK = MaskedLM(MODEL, 20)


def make_batch(seed=0, rows=6, length=8, most=3):
    """Rows of several sizes of which up to `most` tokens are hidden, the last row being padding."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 20, (rows, length)).astype(np.int32)
    sizes = random.integers(3, length + 1, rows)
    token_mask = np.arange(length) < sizes[:, None]
    keys = np.where(token_mask, random.random((rows, length)), 2)
    number = random.integers(1, most + 1, rows)
    real = keys.argsort(axis=1).argsort(axis=1) < number[:, None]
    return {
        "tokens": np.where(real, 4, targets),
        "targets": targets,
        "real": real,
        "token_mask": token_mask,
        "places": np.argsort(~real, axis=1, kind="stable")[:, :most].astype(np.int32),
        "mask": (np.arange(rows) < rows - 1).astype(np.float32),
    }


BATCH = make_batch()
PLACED = jax.tree.map(jnp.asarray, BATCH)


@pytest.fixture(scope="module")
def found():
    """Parameters, logits everywhere, and loss and sums with and without places."""
    params = jax.tree.map(lambda x: x * 30, jax.jit(TASK.init)(jax.random.key(0)))
    everywhere = {k: v for k, v in PLACED.items() if k != "places"}

    @jax.jit
    def run(params):
        logits = MODEL.apply({"params": params}, PLACED["tokens"], mask=PLACED["token_mask"])[0]
        few, all_places = (TASK.loss(params, b, None) for b in (PLACED, everywhere))
        parts = accumulate(TASK.loss, params, PLACED, jax.random.key(0), 2)
        whole = accumulate(TASK.loss, params, PLACED, jax.random.key(0), 1)
        return logits, few, all_places, TASK.observe(params, PLACED), parts, whole

    return params, jax.device_get(run(params))


def test_by_hand(found):
    logits, (loss, sums), _, seen, *_ = found[1]
    z = logits.astype(np.float64)
    expected, correct, counts = np.zeros(6), np.zeros(6), np.zeros(20)
    for row in range(5):
        for place in np.flatnonzero(BATCH["real"][row]):
            target = BATCH["targets"][row, place]
            expected[row] += np.log(np.exp(z[row, place]).sum()) - z[row, place, target]
            correct[row] += z[row, place].argmax() == target
            counts[target] += 1
    assert loss == pytest.approx(expected.sum(), rel=1e-5)
    assert sums["weight"] == counts.sum() == BATCH["real"][:5].sum()
    assert sums["correct"] == correct.sum()
    np.testing.assert_array_equal(sums["targets"], counts)
    np.testing.assert_allclose(seen["loss"], expected, rtol=1e-5)
    np.testing.assert_array_equal(seen["num_correct"], correct)
    shares = counts[counts > 0] / counts.sum()
    metrics = TASK.summarise({k: np.asarray(v, np.float64) for k, v in sums.items()})
    assert metrics["unigram_loss"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert metrics["unigram_accuracy"] == pytest.approx(counts.max() / counts.sum())
    assert metrics["loss"] == pytest.approx(expected.sum() / counts.sum(), rel=1e-5)
    assert metrics["accuracy"] == correct.sum() / counts.sum()


def test_neither_places_nor_parts_change_the_sums(found):
    _, few, everywhere, _, parts, whole = found[1]
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)
    jax.tree.map(same, few, everywhere)
    jax.tree.map(same, parts, whole)


def test_at_the_start_every_token_costs_its_share(found):
    fresh = jax.jit(TASK.init)(jax.random.key(1))
    loss, sums = jax.jit(lambda p: TASK.loss(p, PLACED, None))(fresh)
    assert float(loss / sums["weight"]) == pytest.approx(np.log(20), rel=0.02)


def test_a_model_that_takes_no_places_gives_the_same(found):
    class Plain(Encoder):
        def __call__(self, tokens, *, mask=None, train=False):
            return super().__call__(tokens, mask=mask, train=train)

    plain = Plain(**SIZE, head="masked_lm", pooler=False)
    places = find_hidden(PLACED).places
    got, wanted = (
        jax.jit(lambda p, m=model: guess_tokens(m, p, PLACED, places, None))(found[0])
        for model in (plain, MODEL)
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_packed_documents_do_not_see_each_other(found):
    tokens = BATCH["tokens"][:1]
    split = {"segments": np.array([[1] * 4 + [2] * 4]), "positions": np.arange(8)[None] % 4}
    packed = {
        **{k: v[:1] for k, v in BATCH.items()},
        **split,
        "token_mask": np.ones((1, 8), bool),
    }
    other = {**packed, "tokens": tokens.copy()}
    other["tokens"][0, 4:] = 9
    places = np.array([[0, 1, 2, 3]])
    run = jax.jit(lambda b: guess_tokens(MODEL, found[0], b, jnp.asarray(places), None))
    np.testing.assert_allclose(run(packed), run(other), atol=1e-6)


def test_dropout_is_on_in_training(found):
    task = dataclasses.replace(TASK, model=MODEL.clone(dropout=0.5))
    run = jax.jit(lambda k: task.loss(found[0], PLACED, k)[0])
    assert run(jax.random.key(0)) != run(jax.random.key(1))
