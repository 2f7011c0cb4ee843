"""Logits a few places at a time against all of them, in float64 NumPy and by the plain path."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.config import TaskConfig, UserError
from zoo.models import make_lora
from zoo.models.decoder import Decoder
from zoo.tasks import causal_lm, make_task
from zoo.tasks.causal_lm import CausalLM
from zoo.tasks.cross_entropy import is_best, sum_losses_in_parts
from zoo.train.step import accumulate

RANDOM = np.random.default_rng(0)
SIZES = {"width": 8, "depth": 1, "num_heads": 2, "vocab_size": 23, "num_positions": 16}
KEY = jax.random.key(2)


def make_batch():
    """Packed documents, of which some tokens do not count, and a row of padding."""
    tokens = RANDOM.integers(0, 23, (4, 12)).astype(np.int32)
    starts = RANDOM.random((4, 12)) < 0.2
    real = RANDOM.random((4, 11)) < 0.7
    mask = np.array([1, 1, 0, 1], np.float32)
    return {"tokens": tokens, "segments": starts.cumsum(1), "real": real, "mask": mask}


BATCH = {k: jnp.asarray(v) for k, v in make_batch().items()}


def test_by_hand():
    """Losses and gradients of a matrix, a bias and the stream, with a last part that is not full
    and z-loss; in float64 by the formulas."""
    stream = RANDOM.normal(size=(3, 7, 5)).astype(np.float32)
    kernel, bias = RANDOM.normal(size=(5, 11)), RANDOM.normal(size=11)
    targets = RANDOM.integers(0, 11, (3, 7))
    counts = (RANDOM.random((3, 7)) < 0.7).astype(np.float32)

    def find(x, kernel, bias):
        read_out = lambda part, number: part @ kernel + bias
        return sum_losses_in_parts(
            read_out, x, *(jnp.asarray(a) for a in (targets, counts)), 3, 0.1
        )

    run = jax.jit(jax.value_and_grad(find, argnums=(0, 1, 2), has_aux=True))
    given = stream, kernel.astype(np.float32), bias.astype(np.float32)
    (total, losses), gradients = run(*given)
    logits = stream.astype(np.float64) @ kernel + bias
    log_z = np.log(np.exp(logits).sum(-1))
    wanted = (log_z - np.take_along_axis(logits, targets[..., None], -1)[..., 0]) * counts
    np.testing.assert_allclose(losses, wanted, atol=1e-5)
    penalty = 0.1 * (log_z**2 * counts).sum()
    assert float(total) == pytest.approx(wanted.sum() + penalty, rel=1e-6)
    p = np.exp(logits - log_z[..., None])
    of_logits = (p * (1 + 0.2 * log_z)[..., None] - np.eye(11)[targets]) * counts[..., None]
    of_kernel = np.einsum("btd,btv->dv", stream, of_logits)
    for got, own in zip(
        gradients, (of_logits @ kernel.T, of_kernel, of_logits.sum((0, 1))), strict=True
    ):
        np.testing.assert_allclose(got, own, atol=1e-5)


SLOW = (pytest.param(kind, marks=pytest.mark.slow) for kind in ("head", "bfloat16"))


@pytest.mark.parametrize("kind", ["tied", "lora", *SLOW])
def test_parts_are_the_whole(monkeypatch, kind):
    """The task's loss, sums and gradients, in one batch and in two microbatches."""
    monkeypatch.setattr(causal_lm, "SMALL_VOCABULARY", 2)
    fields = {"tied": {"logit_cap": 3.0}, "bfloat16": {"dtype": jnp.bfloat16}}
    model = Decoder(**SIZES, **fields.get(kind, {"tied": False}))
    if kind == "lora":
        model = make_lora(model, {"rank": 2, "targets": "attn/q$|head"})
    tasks = [CausalLM(model, None, z_loss=0.01, places=places) for places in (0, 4)]
    params = jax.jit(tasks[0].init)(jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.3 * RANDOM.normal(size=x.shape).astype(x.dtype), params)

    def run(params):
        whole, parts = (accumulate(t.loss, params, BATCH, KEY, 1) for t in tasks)
        return whole, parts, accumulate(tasks[1].loss, params, BATCH, KEY, 2)

    whole, *others = jax.jit(run)(params)
    close = 2e-2 if kind == "bfloat16" else 1e-5
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, close, close), whole, other)


def test_logits_are_never_all_there():
    """The step's memory falls by more than the logits: of a vocabulary large against the width."""
    model = Decoder(**{**SIZES, "vocab_size": 20_000, "num_positions": 256})
    batch = {"tokens": jax.ShapeDtypeStruct((2, 257), np.int32)}
    batch["mask"] = jax.ShapeDtypeStruct((2,), np.float32)

    def measure(places):
        task = CausalLM(model, None, places=places)
        params = jax.eval_shape(task.init, KEY)
        step = jax.jit(lambda p, b: accumulate(task.loss, p, b, KEY, 1))
        return step.lower(params, batch).compile().memory_analysis().temp_size_in_bytes

    assert measure(0) - measure(16) > 2 * 256 * 20_000 * 4


def test_loss_at_the_start_is_that_of_guessing():
    task = CausalLM(Decoder(**{**SIZES, "vocab_size": 500}), None)
    loss, sums = jax.jit(lambda p: task.loss(p, BATCH, None))(jax.jit(task.init)(jax.random.key(0)))
    assert float(loss / sums["weight"]) == pytest.approx(math.log(500), abs=0.02)


def test_z_loss_is_in_no_metric():
    tasks = [CausalLM(Decoder(**SIZES), None, z_loss=z) for z in (0.0, 0.5)]
    params = jax.jit(tasks[0].init)(jax.random.key(0))
    plain, added = jax.jit(lambda p: [t.loss(p, BATCH, KEY) for t in tasks])(params)
    assert float(plain[1]["loss"]) == pytest.approx(float(added[1]["loss"]))
    count = float(added[1]["weight"])
    expected = 0.5 * count * math.log(23) ** 2
    assert float(added[0] - plain[0]) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", ["z_loss", "places"])
def test_mistakes(name):
    class Info:
        name, shapes = "toy", {"tokens": (12,)}

        class tokenizer:  # noqa: N801
            vocab_size, token_bytes = 23, None

    with pytest.raises(UserError, match=f"task.arguments.{name}=-1.* should be 0 or more"):
        make_task(TaskConfig("causal_lm", {name: -1}), {"model": Decoder(**SIZES)}, Info)


def test_the_best_token_is_that_of_argmax():
    logits = np.random.default_rng(0).integers(-3, 3, (4, 50, 7)).astype(np.float32)  # ties
    for target in range(7):
        targets = np.full(logits.shape[:2], target)
        found = jax.jit(is_best)(logits, targets)
        np.testing.assert_array_equal(found, logits.argmax(-1) == target)
