"""ELECTRA's two losses against NumPy; one embedding with the gradients of both models."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_masked_lm import BATCH, PLACED, SIZE

from zoo.config import UserError
from zoo.models.encoder import Encoder
from zoo.tasks.replaced_token import ReplacedToken, draw_tokens
from zoo.train.step import accumulate
from zoo.tree import COMPANIONS, named_leaves

MODEL = Encoder(**SIZE, embedding_width=4, head="replaced_token", pooler=False)
GENERATOR = MODEL.clone(width=4, hidden=4, head="masked_lm")
TASK = ReplacedToken(MODEL, GENERATOR)
KEY = jax.random.key(5)
INFO = types.SimpleNamespace(
    name="text", shapes={"tokens": (9,)}, tokenizer=types.SimpleNamespace(vocab_size=20)
)


def join(params, **changes):
    """The generator's parameters, with the model's embedding."""
    own = {k: v for k, v in params.items() if k in ("embed", "embed_norm", "embed_types", "pos")}
    return {**own, **params[COMPANIONS]["generator"], **changes}


@pytest.fixture(scope="module")
def found():
    fresh = jax.jit(TASK.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: x * 20, fresh)
    # One token is likely, so that some are drawn right.
    bias = params[COMPANIONS]["generator"]["head"]["bias"]
    likely = BATCH["targets"][0][BATCH["real"][0]][0]
    params[COMPANIONS]["generator"]["head"]["bias"] = bias.at[likely].set(60.0)

    def apart(generator_embed, params):
        """The same loss, the generator's embedding being one of its own."""
        inside = {**params[COMPANIONS]["generator"], "embed": generator_embed}
        own = {k: v for k, v in params.items() if k != COMPANIONS}

        import zoo.tasks.replaced_token as module

        before = module.SHARED
        module.SHARED = tuple(name for name in before if name != "embed")
        try:
            return TASK.loss({**own, COMPANIONS: {"generator": inside}}, PLACED, KEY)[0]
        finally:
            module.SHARED = before

    @jax.jit
    def run(params):
        loss, sums = TASK.loss(params, PLACED, None)
        mask = PLACED["token_mask"]
        logits = GENERATOR.apply({"params": join(params)}, PLACED["tokens"], mask=mask)[0]
        at = jnp.take_along_axis(logits, PLACED["places"][..., None], axis=1)
        drawn = draw_tokens(at, None)
        rows = jnp.arange(6)[:, None]
        hidden = jnp.take_along_axis(PLACED["real"], PLACED["places"], axis=1)
        put = jnp.where(hidden, drawn, 0)
        full = PLACED["targets"].at[rows, PLACED["places"]].set(put)
        tokens = jnp.where(PLACED["real"], full, PLACED["targets"])
        told = MODEL.apply(
            {"params": {k: v for k, v in params.items() if k != COMPANIONS}}, tokens, mask=mask
        )[0]
        gradient = jax.grad(lambda p: TASK.loss(p, PLACED, KEY)[0])(params)
        own, theirs = jax.grad(lambda p, e: apart(e, p), (0, 1))(params, params["embed"])
        evaluate = lambda p, b, k: TASK.loss(p, b, None)
        sums_of = [accumulate(evaluate, params, PLACED, KEY, parts) for parts in (1, 2)]
        start = TASK.loss(fresh, PLACED, None)[1]
        out = {"loss": loss, "sums": sums, "logits": logits, "tokens": tokens, "told": told}
        return {**out, "gradient": gradient, "apart": (own, theirs), "parts": sums_of} | {
            "start": start
        }

    return params, jax.device_get(run(params))


def test_by_hand(found):
    got = found[1]
    z, x = got["logits"].astype(np.float64), got["told"].astype(np.float64)
    total, sums = 0.0, dict.fromkeys(got["sums"], 0.0)
    for row in range(5):
        real = np.flatnonzero(BATCH["token_mask"][row])
        hidden = np.flatnonzero(BATCH["real"][row])
        targets = BATCH["targets"][row]
        guesses = [np.log(np.exp(z[row, p]).sum()) - z[row, p, targets[p]] for p in hidden]
        replaced = got["tokens"][row] != targets
        calls = [np.log1p(np.exp(-x[row, p] if replaced[p] else x[row, p])) for p in real]
        total += len(real) * (np.mean(guesses) + 50 * np.mean(calls))
        flagged = x[row] > 0
        for name, value in (
            ("weight", len(real)),
            ("hidden", len(hidden)),
            ("generator_loss", sum(guesses)),
            ("generator_correct", sum(z[row, p].argmax() == targets[p] for p in hidden)),
            ("discriminator_loss", sum(calls)),
            ("correct", (flagged == replaced)[real].sum()),
            ("replaced", replaced[real].sum()),
            ("flagged", flagged[real].sum()),
            ("found", (flagged & replaced)[real].sum()),
        ):
            sums[name] += value
    sums["loss"] = total
    assert got["loss"] == pytest.approx(total, rel=1e-5)
    for name, value in sums.items():
        assert got["sums"][name] == pytest.approx(value, rel=1e-5), name
    # Some were drawn right, so that there is something to count as original.
    assert 0 < sums["replaced"] < sums["hidden"]
    metrics = TASK.summarise(got["sums"])
    assert metrics["loss"] == pytest.approx(total / sums["weight"], rel=1e-5)
    assert metrics["recall"] == pytest.approx(sums["found"] / sums["replaced"])
    assert metrics["generator_loss"] == pytest.approx(sums["generator_loss"] / sums["hidden"])


def test_parts_add_up_to_the_whole(found):
    def same(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(abs(b).max(), 1))

    jax.tree.map(same, *found[1]["parts"])


def test_one_embedding_with_both_gradients(found):
    params, got = found
    assert [p for p in named_leaves(params) if p.endswith("embed/embedding")] == ["embed/embedding"]
    own, theirs = (tree["embed"]["embedding"] if "embed" in tree else tree["embedding"]
                   for tree in got["apart"])  # fmt: skip
    assert abs(own).max() > 1e-3
    assert abs(theirs).max() > 1e-3
    whole = got["gradient"]["embed"]["embedding"]
    np.testing.assert_allclose(whole, own + theirs, rtol=1e-4, atol=1e-4 * abs(whole).max())


def test_no_gradient_goes_through_what_is_drawn(found):
    """Without the discriminator's loss the generator's own gradient is the same."""
    alone = ReplacedToken(MODEL, GENERATOR, 0.0)
    run = jax.jit(jax.grad(lambda p: alone.loss(p, PLACED, KEY)[0]))
    one, other = (tree[COMPANIONS] for tree in (run(found[0]), found[1]["gradient"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), one, other)


def test_at_the_start(found):
    metrics = TASK.summarise(found[1]["start"])
    assert metrics["generator_loss"] == pytest.approx(np.log(20), rel=0.05)
    assert metrics["discriminator_loss"] == pytest.approx(np.log(2), rel=0.05)


def test_tokens_are_drawn_from_the_softmax():
    logits = jnp.log(jnp.array([0.6, 0.3, 0.1]))
    drawn = draw_tokens(jnp.broadcast_to(logits, (20_000, 1, 3)), jax.random.key(0))
    np.testing.assert_allclose(np.bincount(drawn[:, 0]) / 20_000, [0.6, 0.3, 0.1], atol=0.015)
    same = draw_tokens(jnp.broadcast_to(logits, (5, 4, 3)), None)
    assert (same == same[0]).all()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"vocab_size": 21}, "arguments.vocab_size is 21, that of the model 20"),
        ({"embedding_width": 3}, r"embedding_width is 3, .* 4: .*\(set it to 4\)"),
        ({"num_positions": 9}, "num_positions is 9"),
    ],
)
def test_two_embeddings_are_refused(changes, line):
    with pytest.raises(UserError, match=line):
        ReplacedToken.create(MODEL, INFO, GENERATOR.clone(**changes))


def test_without_a_generator_there_is_nothing_to_tell():
    with pytest.raises(UserError, match="does not leave its run"):
        ReplacedToken.create(MODEL, INFO, None)
