"""The MLP on MNIST: 784-128-10, Adam, batches of 32, 5 epochs; first batch to last step.

Compilation is included, reading the files and importing are not.
"""

from __future__ import annotations

import os
import time
from functools import partial

EPOCHS, BATCH = 5, 32


def ours():
    """The recipe through the loop, without evaluation, checkpoints and pictures."""
    import grain  # noqa: F401  the loop imports it when it reads; importing is not measured

    from zoo.config import make_config
    from zoo.memory import keep_freed_memory
    from zoo.train.build import build
    from zoo.train.loop import Loop
    from zoo.train.progress import Progress

    keep_freed_memory()  # as `train.py` does
    config = make_config("configs/mlp_mnist.py", {"log.progress": "False"})
    parts = build(config)
    progress = Progress(config.train.num_steps, BATCH, 0.0, show=False)

    def turn() -> float:
        import jax

        start = time.perf_counter()
        state = Loop(parts, None, progress).run(parts.programs.init_state())
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return turn


def bare():
    """The least JAX, 25 steps a call: see `bare.py`."""
    from zoo.memory import keep_freed_memory

    keep_freed_memory()
    import jax
    import numpy as np
    import optax

    from workloads.bare import cross_entropy, dense, make_step

    images, labels = _read()
    images = (images - np.float32(0.1307)) / np.float32(0.3081)
    count, stacked = EPOCHS * len(images) // BATCH, 25
    optimizer = optax.adam(optax.linear_schedule(1e-3, 0.0, count))

    def loss(p, x, y):
        return cross_entropy(dense(p["head"], jax.nn.relu(dense(p["fc1"], x))), y)

    @jax.jit
    def init(key):
        keys = jax.random.split(key)
        he, xavier = jax.nn.initializers.he_uniform(), jax.nn.initializers.xavier_uniform()
        params = {
            "fc1": {"w": he(keys[0], (784, 128)), "b": jax.numpy.zeros(128)},
            "head": {"w": xavier(keys[1], (128, 10)), "b": jax.numpy.zeros(10)},
        }
        return params, optimizer.init(params)

    @partial(jax.jit, donate_argnums=0)
    def run(carry, batches):
        carry, losses = jax.lax.scan(make_step(loss, optimizer), carry, batches)
        return carry, losses[-1]

    def turn() -> float:
        start = time.perf_counter()
        carry, rng = init(jax.random.key(0)), np.random.default_rng(0)
        order = np.concatenate([rng.permutation(len(images)) for _ in range(EPOCHS)])
        for rows in order.reshape(-1, stacked, BATCH):
            carry, _ = run(carry, (images[rows], labels[rows]))
        jax.block_until_ready(carry)
        return time.perf_counter() - start

    return turn


def _read():
    """Training images `[60000, 784]` in [0, 1] and labels, by our own reader."""
    from zoo.config import DataConfig
    from zoo.data import open_dataset

    arrays = open_dataset(DataConfig("files:mnist")).splits["train"].arrays
    return arrays["image"].reshape(60000, -1).astype("float32") / 255, arrays["label"]


def keras():
    """`Model.fit` with Keras's defaults, on the backend KERAS_BACKEND (default: jax)."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    images, labels = _read()
    layers = [keras.layers.Dense(128, "relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((784,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])

    def turn() -> float:
        start = time.perf_counter()
        model.fit(images, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
        return time.perf_counter() - start

    return turn


def torch():
    """A plain loop over shuffled tensors."""
    import torch
    from torch import nn

    images, labels = (torch.from_numpy(x) for x in _read())
    labels = labels.long()
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(EPOCHS):
            order = torch.randperm(len(images))
            for i in range(0, len(images), BATCH):
                rows = order[i : i + BATCH]
                loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        return time.perf_counter() - start

    return turn
