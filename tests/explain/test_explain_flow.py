"""Attention followed through layers: against paths counted one by one, and products of blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from zoo.explanation.flow import find_copying, relate, relate_pair, roll_out, roll_out_pair, weigh


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Attention weights: rows sum to one."""
    scores = np.random.default_rng(seed).normal(size=shape) * 2
    weights = np.exp(scores)
    return weights / weights.sum(-1, keepdims=True)


def test_rollout_of_one_layer_is_its_attention():
    attention = draw(1, 3, 5, 5)
    mean = attention[0].mean(0)
    np.testing.assert_allclose(roll_out(attention, residual=0.0), mean)
    # By default half of the layer's input goes on: the paper's (A + I) / 2.
    np.testing.assert_allclose(roll_out(attention), 0.5 * mean + 0.5 * np.eye(5))


def test_rollout_counts_every_path():
    attention = draw(3, 2, 4, 4)
    steps = [0.3 * np.eye(4) + 0.7 * layer.mean(0) for layer in attention]
    expected = np.zeros((4, 4))
    for path in itertools.product(range(4), repeat=4):  # from the input's place to the last's
        weight = np.prod([steps[i][path[i + 1], path[i]] for i in range(3)])
        expected[path[-1], path[0]] += weight
    found = roll_out(attention, residual=0.3)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(found.sum(-1), 1)


def test_rollout_of_a_pair_is_that_of_both_streams_as_one():
    encoder, decoder, cross = draw(2, 2, 4, 4), draw(3, 2, 3, 3, seed=1), draw(3, 2, 3, 4, seed=2)
    source, target = roll_out_pair(encoder, decoder, cross)
    np.testing.assert_allclose(source.sum(-1) + target.sum(-1), 1)
    # One stream of 4 + 3 places; each attention is a matrix over it that leaves the others alone.
    joint = np.eye(7)
    for layer in encoder.mean(1):
        step = np.eye(7)
        step[:4, :4] = 0.5 * np.eye(4) + 0.5 * layer
        joint = step @ joint
    for own, over in zip(decoder.mean(1), cross.mean(1), strict=True):
        for block, columns in ((own, slice(4, 7)), (over, slice(0, 4))):
            step = np.eye(7)
            step[4:] *= 0.5
            step[4:, columns] += 0.5 * block
            joint = step @ joint
    np.testing.assert_allclose(np.concatenate([source, target], axis=1), joint[4:])


def test_relevance_keeps_what_is_positive_and_adds_up():
    attention, gradient = draw(2, 3, 4, 4), np.random.default_rng(1).normal(size=(2, 3, 4, 4))
    weighed = weigh(attention, gradient)
    assert (weighed >= 0).all()
    by_hand = np.mean([max(attention[1, h, 2, 3] * gradient[1, h, 2, 3], 0) for h in range(3)])
    assert weighed[1, 2, 3] == pytest.approx(by_hand)
    one, two = weighed
    np.testing.assert_allclose(relate(weighed), one + two + two @ one)


def test_relevance_of_a_pair():
    encoder, decoder, cross = draw(1, 4, 4), draw(1, 3, 3, seed=1), draw(1, 3, 4, seed=2)
    source, target = relate_pair(encoder, decoder, cross)
    np.testing.assert_allclose(source, cross[0] @ (np.eye(4) + encoder[0]))
    np.testing.assert_allclose(target, decoder[0])


def test_copying_is_told_from_looking_elsewhere():
    ids = [3, 1, 4, 2, 3, 1, 4, 2]
    attention = np.zeros((1, 3, 8, 8))
    for i in range(8):
        attention[0, 0, i, max(i - 3, 0)] = 1  # what followed the token four places before
        attention[0, 1, i, max(i - 4, 0)] = 1  # the same token
        attention[0, 2, i, max(i - 1, 0)] = 1  # the token before
    scores, count = find_copying(attention, ids)
    assert count == 4
    np.testing.assert_array_equal(scores, [[1, 0, 0]])
    assert find_copying(attention, list(range(8)))[1] == 0
