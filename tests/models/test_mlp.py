import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import UserError


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu"])
def test_forward_by_hand(activation):
    model = zoo.create_model(
        "mlp", widths=(5, 4), num_outputs=3, activation=activation, input_shape=(2, 3)
    )
    params = jax.tree.map(lambda x: x + 0.1, zoo.init_params(model))
    x = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    function = {
        "sigmoid": lambda y: 1 / (1 + np.exp(-y)),
        "tanh": np.tanh,
        "relu": lambda y: y.clip(0),
    }
    y = x.reshape(7, 6)
    for name in ("fc1", "fc2"):
        y = function[activation](y @ params[name]["kernel"] + params[name]["bias"])
    y = y @ params["head"]["kernel"] + params["head"]["bias"]
    outputs, _ = model.apply({"params": params}, jnp.asarray(x))
    np.testing.assert_allclose(outputs, y, atol=1e-5)


def test_the_classic_count():
    model = zoo.create_model("mlp", widths=(128,))
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 784 * 128 + 128 + 1280 + 10


def test_dropout_only_in_training():
    model = zoo.create_model("mlp", widths=(50,), dropout=0.5)
    params, x = zoo.init_params(model), jnp.ones((2, 28, 28, 1))
    hidden = lambda k: model.apply({"params": params}, x, train=True, rngs={"dropout": k})[1][
        "hidden"
    ]
    assert (hidden(jax.random.key(0)) != hidden(jax.random.key(1))).any()
    assert (model.apply({"params": params}, x)[0] == model.apply({"params": params}, x)[0]).all()


def test_unknown_activation():
    with pytest.raises(UserError, match="did you mean 'relu'"):
        zoo.create_model("mlp", activation="rellu")
