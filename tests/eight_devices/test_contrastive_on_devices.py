"""On eight devices every example of the whole batch is a negative, as on one."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import zoo
from zoo.config import ParallelConfig
from zoo.parallel import DATA_AXES, make_mesh
from zoo.tasks.contrastive import Contrastive
from zoo.tree import named_leaves

SIZES = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 16, "text_width": 16, "text_depth": 1}
SIZES |= {"text_num_heads": 2, "text_hidden": 16, "image_size": (4, 4), "patch_size": 2}
SIZES |= {"num_channels": 1, "vocab_size": 30, "num_positions": 5, "embedding_width": 16}
INFO = SimpleNamespace(tokenizer=SimpleNamespace(has_template=True, end=29, pad=0))
ROWS = 16


@pytest.mark.parametrize(
    "name", ["clip_vit_b32", pytest.param("siglip_b16_224", marks=pytest.mark.slow)]
)
def test_loss_and_gradients_are_those_of_one_device(name):
    random = np.random.default_rng(0)
    task = Contrastive.create(zoo.create_model(name, **SIZES), INFO)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    params = jax.tree.map(lambda x: 0.5 * random.normal(size=x.shape).astype(np.float32), shapes)
    batch = {
        "image": random.normal(size=(ROWS, 4, 4, 1)).astype(np.float32),
        "tokens": random.integers(1, 30, size=(ROWS, 5)).astype(np.int32),
        "token_mask": np.ones((ROWS, 5), bool),
        "mask": np.ones(ROWS, np.float32),
    }
    batch["mask"][-1] = 0  # a row of padding

    def find(devices, batch):
        mesh = make_mesh(ParallelConfig(), jax.devices()[:devices])
        rows, whole = NamedSharding(mesh, P(DATA_AXES)), NamedSharding(mesh, P())
        run = jax.value_and_grad(lambda p, b: task.loss(p, b, None), has_aux=True)
        return jax.jit(run, in_shardings=(whole, rows))(params, batch)

    (loss, sums), gradient = find(1, batch)
    (found, found_sums), found_gradient = find(8, batch)
    assert float(found) == pytest.approx(float(loss), rel=1e-5)
    assert float(sums["weight"]) == ROWS - 1
    for key, value in sums.items():
        np.testing.assert_allclose(found_sums[key], value, rtol=1e-5, err_msg=key)
    expected = named_leaves(gradient)
    for path, leaf in named_leaves(found_gradient).items():
        largest = float(np.abs(expected[path]).max())
        np.testing.assert_allclose(
            leaf, expected[path], rtol=1e-5, atol=1e-5 * max(largest, 1.0), err_msg=path
        )
