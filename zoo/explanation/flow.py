"""Attention followed through the layers: rollout, relevance, and heads that copy.

Pure functions of attention maps; `l` is the number of layers. What comes in is what one stack, or
encoder and decoder, tell in `aux`, for one example.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

RESIDUAL = 0.5  # Abnar & Zuidema: one half of a layer's output is its input


def roll_out(
    attention: Float[np.ndarray, "l n t t"], residual: float = RESIDUAL
) -> Float[np.ndarray, "t t"]:
    """Where the last layer's places come from (Abnar & Zuidema 2020); rows sum to one.

    The product over the layers of `residual * identity + (1 - residual) * attention`, heads
    averaged. Of one layer and no residual that is its attention.
    """
    joint = np.eye(attention.shape[-1], dtype=np.float64)
    for layer in attention.mean(axis=1, dtype=np.float64):
        joint = residual * joint + (1 - residual) * layer @ joint
    return joint


def roll_out_pair(
    encoder: Float[np.ndarray, "l n s s"],
    decoder: Float[np.ndarray, "m n t t"],
    cross: Float[np.ndarray, "m n t s"],
    residual: float = RESIDUAL,
) -> tuple[Float[np.ndarray, "t s"], Float[np.ndarray, "t t"]]:
    """Where the places of a decoder come from: shares of the source and of the target, each row of
    the two together sums to one.

    Rollout over both streams: a cross-attention is a layer that looks at the encoder's last.
    """
    below = roll_out(encoder, residual)
    length = decoder.shape[-1]
    joint = np.concatenate([np.zeros((length, len(below))), np.eye(length)], axis=1)
    looked = np.concatenate([below, np.zeros((len(below), length))], axis=1)
    for own, over in zip(decoder.mean(1), cross.mean(1), strict=True):
        joint = residual * joint + (1 - residual) * own @ joint
        joint = residual * joint + (1 - residual) * over @ looked
    return joint[:, : len(below)], joint[:, len(below) :]


def weigh(
    attention: Float[np.ndarray, "l n t s"], gradient: Float[np.ndarray, "l n t s"]
) -> Float[np.ndarray, "l t s"]:
    """The positive part of gradient x attention, heads averaged (Chefer et al. 2021, eq. 5)."""
    return (attention * gradient).clip(min=0).mean(axis=1, dtype=np.float64)


def relate(weighed: Float[np.ndarray, "l t t"]) -> Float[np.ndarray, "t t"]:
    """How much each place of the input counts for each place of the last layer: from the identity
    on, each layer adds what it weighs (Chefer et al. 2021, eq. 6). The identity is taken off."""
    start = np.eye(weighed.shape[-1])
    joint = start
    for layer in weighed:
        joint = joint + layer @ joint
    return joint - start


def relate_pair(
    encoder: Float[np.ndarray, "l s s"],
    decoder: Float[np.ndarray, "m t t"],
    cross: Float[np.ndarray, "m t s"],
) -> tuple[Float[np.ndarray, "t s"], Float[np.ndarray, "t t"]]:
    """As `relate`, for source and target at the places of a decoder.

    The rules of Chefer et al. 2021 for encoder-decoders, the streams not normalised between.
    """
    below = relate(encoder) + np.eye(encoder.shape[-1])
    start = np.eye(decoder.shape[-1])
    source, target = np.zeros(cross.shape[1:]), start
    for own, over in zip(decoder, cross, strict=True):
        source, target = source + own @ source, target + own @ target
        source = source + over @ below
    return source, target - start


def find_copying(
    attention: Float[np.ndarray, "l n t t"], ids: list[int]
) -> tuple[Float[np.ndarray, "l n"], int]:
    """The prefix-matching score of each head (Olsson et al. 2022), and from how many places.

    At a token that has stood in the text before, an induction head looks at what followed it there:
    the score is the share of its attention that goes there, the mean over such places.
    """
    places = [
        (i, [j + 1 for j in range(i) if ids[j] == ids[i] and j + 1 < i]) for i in range(len(ids))
    ]
    places = [(i, found) for i, found in places if found]
    scores = np.zeros(attention.shape[:2])
    for i, found in places:
        scores += attention[:, :, i, found].sum(-1)
    return scores / max(len(places), 1), len(places)
