"""The limit of CLIP's scale, and models that cannot be contrasted."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError
from zoo.tasks.contrastive import LOG_LIMIT, Contrastive, limit_scale


def test_a_scale_at_its_limit_can_only_fall():
    for scale, slope, expected in (
        (1.0, -2.0, -2.0),
        (1.0, 2.0, 2.0),
        (5.0, -2.0, 0.0),
        (5.0, 2.0, 2.0),
    ):
        found = jax.grad(lambda s, slope=slope: slope * limit_scale(s))(jnp.asarray(scale))
        assert float(found) == expected
    np.testing.assert_allclose(np.exp(limit_scale(jnp.asarray(LOG_LIMIT + 1))), 100, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("vit_ti4", "trains two towers.*not a ViT"),
        ("clip_vit_b32", "at its end token.*'wordpiece:512' does"),
        ("siglip_b16_224", "no token .*'wordpiece:512' has"),
    ],
)
def test_mistakes(name, line):
    bytes_alone = SimpleNamespace(has_template=False, end=256, pad=None)
    with pytest.raises(UserError, match=line):
        Contrastive.create(zoo.create_model(name), SimpleNamespace(tokenizer=bytes_alone))
