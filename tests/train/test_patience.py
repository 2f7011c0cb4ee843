"""Early stopping: when, what is kept, and that a resumed run stops where an unbroken one does."""

import math

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from conftest import small_config

import zoo
from zoo.config import TrainConfig, UserError
from zoo.config.parse import set_values
from zoo.train.patience import find_stop

VALUES = st.lists(st.sampled_from([0.1, 0.2, 0.3, math.nan]), max_size=12)


@hypothesis.given(VALUES, st.integers(1, 4), st.sampled_from(["min", "max"]))
def test_it_stops_where_a_plain_search_says(values, patience, mode):
    """At the first evaluation behind whose best lie `patience` others."""
    seen = [(10 * (i + 1), value) for i, value in enumerate(values)]
    expected = None
    for end in range(1, len(values) + 1):
        real = [x for x in values[:end] if not math.isnan(x)]
        best = values.index((min if mode == "min" else max)(real)) if real else -1
        if end - 1 - best >= patience:
            expected = (10 * (best + 1) if real else None, 10 * end)
            break
    found = find_stop(seen, patience, mode)
    assert found[1] == (expected and expected[1])
    if expected:
        assert found[0] == expected[0]


def make_run(**changes):
    # A rate so large that the loss soon grows.
    config = small_config(
        train=TrainConfig(
            batch_size=16, num_steps=40, eval_batch_size=64, eval_every_steps=2, patience=2
        )
    )
    changes = {"optim.learning_rate": 1.0, "data.validation_fraction": 0.2, **changes}
    return set_values(config, changes)


@pytest.mark.slow
def test_a_run_ends_early_with_its_best(tmp_path):
    config = make_run()
    memory = zoo.fit(config)
    whole = zoo.fit(config, tmp_path / "whole")
    rows = [r for r in zoo.train.read_rows(tmp_path / "whole") if r["split"] == "val"]
    values = [(r["step"], r["loss"]) for r in rows]
    best, stop = find_stop(values, 2, "min")
    assert stop == values[-1][0] < 40
    tests = [r["step"] for r in whole.history if r["split"] == "test"]
    assert tests == [best]
    loaded = zoo.load_pretrained(tmp_path / "whole")
    for other in (memory.params, loaded.params):
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(other), whole.params)
    # The same command does not train on.
    again = zoo.fit(config, tmp_path / "whole")
    assert [r["split"] for r in again.history] == ["test"]
    assert again.metrics["test"] == whole.metrics["test"]
    # A run that was cut off on its way stops at the same step.
    short = make_run(**{"train.num_steps": stop - 1})
    zoo.fit(short, tmp_path / "cut")
    longer = make_run(**{"checkpoint.extend": True})
    resumed = zoo.fit(longer, tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert resumed.history[-2]["step"] == stop


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"train.patience": 0}, "train.patience=0 must be a number of at least 1"),
        ({"train.eval_every_steps": None}, "train.patience=2 needs train.eval_every_steps"),
        ({"data.validation_fraction": 0.0}, "needs a 'val' split"),
        ({"checkpoint.best_metric": "val/acuracy"}, "did you mean 'val/accuracy'"),
    ],
)
def test_mistakes(changes, line, tmp_path):
    with pytest.raises(UserError, match=line):
        zoo.fit(make_run(**changes), tmp_path / "run")
