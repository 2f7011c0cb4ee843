"""Rules for scores against transformers' processors, on random scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.generation.sampling import Rules, choose, forbid, narrow

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("torch")]
ROWS, WORDS, CASES = 4, 37, 40
random = np.random.default_rng(0)


def draw_scores():
    """Flat and peaked ones."""
    return random.normal(size=(ROWS, WORDS)).astype(np.float32) * random.choice([0.3, 2, 8])


def apply_theirs(torch, processors, scores, held=None):
    held = torch.zeros((ROWS, 1)).long() if held is None else torch.tensor(held)
    result = torch.tensor(scores)
    for processor in processors:
        result = processor(held, result)
    return result.numpy()


WARPERS = [
    {"top_k": True},
    {"top_p": True},
    {"min_p": True},
    {"top_k": True, "top_p": True},
    {"top_k": True, "top_p": True, "min_p": True},
]


@pytest.mark.parametrize("used", WARPERS, ids=",".join)
def test_what_may_be_drawn(torch, used):
    from transformers.generation import logits_process as theirs

    ours = jax.jit(narrow)
    kept_some = set()
    for _ in range(CASES):
        scores, temperature = draw_scores(), np.float32(random.uniform(0.3, 2.0))
        top_k = int(random.geometric(0.1))  # now and then more than there are
        top_p, min_p = (np.float32(x) for x in random.uniform(0.02, 0.98, 2))
        processors = [theirs.TemperatureLogitsWarper(float(temperature))]
        rules = Rules(ends=np.array([2]), temperature=temperature)
        if "top_k" in used:
            processors.append(theirs.TopKLogitsWarper(top_k))
            rules = rules._replace(top_k=np.int32(top_k))
        if "top_p" in used:
            processors.append(theirs.TopPLogitsWarper(float(top_p)))
            rules = rules._replace(top_p=top_p)
        if "min_p" in used:
            processors.append(theirs.MinPLogitsWarper(float(min_p)))
            rules = rules._replace(min_p=min_p)
        found, expected = np.asarray(ours(scores, rules)), apply_theirs(torch, processors, scores)
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        kept_some |= set(np.isfinite(found).sum(axis=1).tolist())
    assert len(kept_some) > 5  # few and many


@pytest.mark.parametrize("logarithms", [False, True], ids=["logits", "log-probabilities"])
def test_what_is_forbidden(torch, logarithms):
    """Repetition, length, banned tokens, forced ones: greedy gives logits, beams logarithms."""
    from transformers.generation import logits_process as theirs

    ours = jax.jit(forbid)
    for _ in range(CASES):
        scores = draw_scores()
        if logarithms:
            scores = np.asarray(jax.nn.log_softmax(scores))
        held = random.integers(0, WORDS, (ROWS, random.integers(1, 12)))
        ends, banned = [[5], [5, 9]][random.integers(2)], [3, 30]
        penalty, least = float(np.float32(random.uniform(0.5, 2))), int(random.integers(1, 12))
        limit = 8
        processors = [
            theirs.RepetitionPenaltyLogitsProcessor(penalty),
            theirs.NoBadWordsLogitsProcessor([[token] for token in [*banned, 5]], ends),
            theirs.MinNewTokensLengthLogitsProcessor(1, least, ends),
            theirs.ForcedBOSTokenLogitsProcessor(7),
            theirs.ForcedEOSTokenLogitsProcessor(1 + limit, 5),
        ]
        rules = Rules(
            ends=np.array(ends),
            min_new=np.int32(least),
            banned=np.isin(np.arange(WORDS), banned),
            first=np.int32(7),
            last=(np.int32(5), np.int32(limit - 1)),
            repetition_penalty=np.float32(penalty),
        )
        seen = (held[:, :, None] == np.arange(WORDS)).any(axis=1)
        found = ours(scores, rules, held.shape[1] - 1, seen)
        expected = apply_theirs(torch, processors, scores, held)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_log_probabilities_are_the_models_own(torch):
    """Whatever the rules make of the scores."""
    scores = draw_scores()
    rules = Rules(np.array([2]), temperature=np.float32(0.5), top_k=np.int32(3))
    keys = jax.random.split(jax.random.key(0), ROWS)
    chosen, logprobs = choose(jnp.asarray(scores), rules, 0, None, keys)
    expected = torch.tensor(scores).log_softmax(-1).numpy()[np.arange(ROWS), chosen]
    np.testing.assert_allclose(logprobs, expected, atol=1e-6)
