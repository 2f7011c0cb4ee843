"""The causal task against sums written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.models.decoder import Decoder
from zoo.tasks import CausalLM

MODEL = Decoder(width=8, depth=1, num_heads=2, vocab_size=5, num_positions=6)
BYTES = np.array([1, 2, 3, 4, 0])


def test_by_hand():
    task = CausalLM(MODEL, BYTES)
    params = jax.tree.map(lambda x: x * 30, jax.jit(task.init)(jax.random.key(0)))
    tokens = jax.random.randint(jax.random.key(1), (3, 7), 0, 5)
    mask = jnp.array([1.0, 1.0, 0.0])
    real = jnp.ones((3, 6), bool).at[1, 4:].set(False)
    loss, sums = jax.jit(task.loss, static_argnums=2)(
        params, {"tokens": tokens, "mask": mask, "real": real}, None
    )
    logits = np.asarray(MODEL.apply({"params": params}, tokens[:, :-1])[0], np.float64)
    expected = num_bytes = 0.0
    for row, place in [(0, p) for p in range(6)] + [(1, p) for p in range(4)]:
        target = int(tokens[row, place + 1])
        z = logits[row, place]
        expected += np.log(np.exp(z).sum()) - z[target]
        num_bytes += BYTES[target]
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(sums["weight"]) == 10
    assert float(sums["bytes"]) == num_bytes
    metrics = task.summarise({k: np.asarray(v, np.float64) for k, v in sums.items()})
    assert metrics["loss"] == pytest.approx(expected / 10, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(np.exp(expected / 10), rel=1e-4)
    assert metrics["bits_per_byte"] == pytest.approx(expected / np.log(2) / num_bytes, rel=1e-5)


def test_without_known_bytes_there_are_no_bits():
    task = CausalLM(MODEL, None)
    _, sums = task.loss(
        jax.jit(task.init)(jax.random.key(0)),
        {"tokens": jnp.zeros((1, 4), jnp.int32), "mask": jnp.ones(1)},
        None,
    )
    assert "bits_per_byte" not in task.summarise(sums)


def test_prediction_is_of_the_token_that_follows():
    task = CausalLM(MODEL, BYTES)
    params = jax.jit(task.init)(jax.random.key(0))
    tokens = jnp.array([[1, 2, 3]])
    out = task.predict(params, {"tokens": tokens})
    logits = MODEL.apply({"params": params}, tokens)[0][:, 2]
    np.testing.assert_allclose(out, jax.nn.softmax(logits), rtol=1e-6)


def test_experts_are_balanced_in_training_only():
    fields = {"gated": True, "mlp_bias": False, "num_experts": 3}
    model = Decoder(width=8, depth=1, num_heads=2, vocab_size=5, num_positions=6, **fields)
    params = jax.tree.map(lambda x: x * 30, jax.jit(CausalLM(model, None).init)(jax.random.key(0)))
    batch = {"tokens": jax.random.randint(jax.random.key(1), (2, 7), 0, 5), "mask": jnp.ones(2)}
    key = jax.random.key(2)

    @jax.jit
    def run(params):
        cases = ((0.0, key), (0.5, key), (0.5, None))
        losses = [
            CausalLM(model, None, balance).loss(params, batch, key)[0] for balance, key in cases
        ]
        return losses, model.apply({"params": params}, batch["tokens"][:, :-1])[1]["imbalance"]

    losses, imbalance = run(params)
    assert imbalance > 1
    assert float(losses[1] - losses[0]) == pytest.approx(0.5 * float(imbalance) * 12, rel=1e-4)
    assert float(losses[2]) == pytest.approx(float(losses[0]), rel=1e-6)
