"""A ViT begins with the encoder of a masked autoencoder's run."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from conftest import small_config

import zoo
from zoo.config import ModelConfig, TaskConfig, TrainConfig, UserError
from zoo.train.build import build
from zoo.tree import named_leaves

pytestmark = pytest.mark.slow
SIZES = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 16, "patch_size": 4}
SMALL_MAE = {**SIZES, "decoder_width": 8, "decoder_depth": 1, "decoder_num_heads": 2}
SMALL_MAE |= {"decoder_hidden": 16, "mask_ratio": 0.5}
# What an encoder of a masked autoencoder is, beside its sizes.
SMALL_VIT = {**SIZES, "positions": "fixed"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, its parameters)"""
    folder = tmp_path_factory.mktemp("part") / "run"
    config = small_config(
        model=ModelConfig("mae_b16", SMALL_MAE),
        task=TaskConfig("masked_image"),
        train=TrainConfig(batch_size=16, num_steps=1, eval_batch_size=64),
    )
    return folder, jax.device_get(zoo.fit(config, folder).params)


def test_every_leaf_of_the_encoder_is_taken_and_the_head_is_new(run):
    folder, params = run
    start = build(
        small_config(model=ModelConfig("vit_b16", SMALL_VIT), init_from=str(folder))
    ).start
    found, encoder = named_leaves(start.load()), named_leaves(params["encoder"])
    assert set(found) - set(encoder) == start.fresh == {"head/kernel", "head/bias"}
    assert start.taken == set(encoder)
    for path, leaf in encoder.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    assert found["head/kernel"].shape == (16, 10)
    assert any("masked autoencoder its encoder" in line for line in start.report)


def test_another_width_is_refused(run):
    wide = ModelConfig("vit_b16", {**SMALL_VIT, "width": 24})
    with pytest.raises(UserError, match=r"init_from=.*16"):
        build(small_config(model=wide, init_from=str(run[0])))
