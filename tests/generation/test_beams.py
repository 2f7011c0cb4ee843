"""Beam search against the search of all texts, greedy against a loop without a cache."""

import functools
import itertools

import numpy as np
import pytest
from random_sources import make_reader, make_source

import zoo
from zoo.config import UserError

SIZES = {"width": 8, "depth": 1, "num_heads": 2, "hidden": 16}
DECODER = zoo.create_model("gpt2", **SIZES, vocab_size=5, num_positions=24)
T5 = zoo.create_model("t5_small", **SIZES, head_dim=4, vocab_size=5)
SOURCES = {
    "decoder": make_source(DECODER, 0, eos_token_id=[0, 3]),
    "encoder-decoder": make_source(T5, 1, eos_token_id=4, decoder_start_token_id=1),
}
PROMPTS = [np.array([1, 4, 2, 2]), np.array([2]), np.array([4, 1])]
LIMIT = 3


@functools.cache
def open_source(name):
    """(source, its reader, the tokens that end a text)."""
    source = SOURCES[name]
    return source, make_reader(source), np.atleast_1d(source.card.generation["eos_token_id"])


def find_all(read, ends, prompt):
    """The log-probabilities of each text of at most `LIMIT` tokens."""
    texts = {}
    for length in range(1, LIMIT + 1):
        for tokens in itertools.product(range(5), repeat=length):
            ended = [token in ends for token in tokens]
            if any(ended[:-1]) or not (ended[-1] or length == LIMIT):
                continue
            logprobs = read(prompt, tokens)[np.arange(length), list(tokens)]
            texts[tokens] = logprobs
    return texts


@pytest.mark.parametrize(
    "name", ["decoder", pytest.param("encoder-decoder", marks=pytest.mark.slow)]
)
def test_beams_for_all_texts_find_the_best(name):
    """As wide as there are texts, a beam search is a search of all."""
    (source, *reading), wide = open_source(name), 90
    texts = [find_all(*reading, prompt) for prompt in PROMPTS[:2]]
    for penalty in (1.0, -1.0):
        how = {"num_beams": wide, "num_return": wide, "length_penalty": penalty}
        how |= {"max_new_tokens": LIMIT, "early_stopping": "never"}
        for known, best in zip(texts, zoo.generate(source, PROMPTS[:2], **how), strict=True):
            scores = {tokens: x.sum() / len(x) ** penalty for tokens, x in known.items()}
            found = [best, *best.others]
            assert {tuple(g.tokens.tolist()) for g in found} == scores.keys()
            expected = sorted(scores.values(), reverse=True)
            np.testing.assert_allclose([g.score for g in found], expected, atol=1e-5)
            for g in found:
                assert g.score == pytest.approx(scores[tuple(g.tokens)], abs=1e-5)
                np.testing.assert_allclose(g.logprobs, known[tuple(g.tokens)], atol=1e-5)


@pytest.mark.parametrize("name", SOURCES)
def test_greedy_is_a_loop_without_a_cache(name):
    source, read, ends = open_source(name)
    for prompt, made in zip(PROMPTS, zoo.generate(source, PROMPTS, max_new_tokens=9), strict=True):
        tokens = []
        while len(tokens) < 9 and (not tokens or tokens[-1] not in ends):
            tokens.append(int(read(prompt, tokens)[-1].argmax()))
        assert made.tokens.tolist() == tokens
        logprobs = read(prompt, tokens)[np.arange(len(tokens)), tokens]
        np.testing.assert_allclose(made.logprobs, logprobs, atol=1e-5)
        assert made.reason == ("end" if tokens[-1] in ends else "length")


def test_beams_do_not_stream():
    with pytest.raises(UserError, match="beams are known when all have ended: leave stream out"):
        zoo.generate(SOURCES["decoder"], PROMPTS, num_beams=2, stream=print)
