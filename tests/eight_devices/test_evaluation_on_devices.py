"""`zoo eval` on eight devices: the numbers of one device, padding and broken rows left out."""

import jax
import numpy as np
import pytest
from conftest import small_config

import zoo
from zoo.config import DataConfig, TrainConfig
from zoo.evaluation.passes import make_eval_step


@pytest.mark.parametrize(
    "batch_size", [None, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 100))]
)
def test_eight_devices_say_what_one_says(tmp_path, batch_size):
    config = small_config(
        data=DataConfig("embedded:digits", transform="normalize(0.5, 0.5)"),
        train=TrainConfig(16, 4, eval_batch_size=50),
    )
    result = zoo.fit(config, tmp_path / "run")
    found = zoo.evaluate(tmp_path / "run", split="test[:101]", batch_size=batch_size, samples=20)
    examples = result.parts.dataset.splits["test"].take(np.arange(101))
    images = (examples["image"].astype(np.float32) / 255 - 0.5) / 0.5
    batch = {"image": images, "label": examples["label"], "mask": np.ones(101, np.float32)}
    device = jax.devices()[0]
    params, batch = jax.device_put((jax.device_get(result.params), batch), device)
    alone = jax.jit(make_eval_step(result.parts.task))(params, batch)
    records = jax.device_get(alone["records"])
    assert found.num_examples == 101
    assert found.records["label"].tolist() == records["label"].tolist()
    np.testing.assert_allclose(found.records["logits"], records["logits"], atol=1e-5)
    correct = (records["logits"].argmax(1) == records["label"]).sum()
    assert found.metrics["accuracy"].value == correct / 101
    mean = records["loss"].astype(np.float64).mean()
    assert found.metrics["loss"].value == pytest.approx(mean, rel=1e-6)
