"""Buckets: every example once an epoch, in batches of like length, wherever a run begins."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import Config, DataConfig, TrainConfig, UserError
from zoo.config.checks import check_config
from zoo.data import ArraySource, Dataset, TrainStream
from zoo.data import order as order_module
from zoo.data.buckets import make_buckets
from zoo.data.documents import text_array
from zoo.data.text import encode_text

LENGTHS = (4, 9, 16)


@given(
    sizes=st.lists(st.integers(0, 16), min_size=1, max_size=70),
    batch=st.integers(1, 12),
    seed=st.integers(0, 9),
)
@settings(max_examples=60)
def test_an_epoch(tmp_path_factory, sizes, batch, seed):
    config = DataConfig(cache=str(tmp_path_factory.getbasetemp() / "buckets"))
    sizes = np.array(sizes)
    order = make_buckets(sizes, LENGTHS, config).make_order(seed, batch)
    steps = -(-len(sizes) // batch)
    assert order.num_batches == steps
    epochs = []
    for epoch in range(3):
        dealt = order.indices(np.arange(epoch * steps * batch, (epoch + 1) * steps * batch))
        np.testing.assert_array_equal(np.sort(dealt[dealt >= 0]), np.arange(len(sizes)))
        rows = dealt.reshape(steps, batch)
        assert (rows[:-1] >= 0).all()  # only the last batch has empty rows
        lengths = np.array([order.length(epoch * steps + i) for i in range(steps)])
        moved = 0
        for row, length in zip(rows, lengths, strict=True):
            longest = sizes[row[row >= 0]].max()
            assert longest <= length
            assert np.searchsorted(LENGTHS, longest) == LENGTHS.index(length)
            moved += (np.searchsorted(LENGTHS, sizes[row[row >= 0]]) < LENGTHS.index(length)).sum()
        assert moved <= (len(LENGTHS) - 1) * (batch - 1)  # remainders only
        epochs.append(dealt)
    if len(sizes) > 30:
        assert (epochs[0] != epochs[1]).any()


def make_rows(folder, sizes, **changes):
    texts = {"text": text_array(["x" * n for n in sizes]), "label": np.arange(len(sizes))}
    raw = Dataset("mine", {"train": ArraySource(texts)}, fingerprint="x")
    config = DataConfig(cache=str(folder), length=16, buckets=LENGTHS, **changes)
    return encode_text(raw, config).splits["train"]


def test_batches_have_the_length_of_their_bucket(tmp_path):
    sizes = np.random.default_rng(0).integers(1, 17, 60)
    stream = TrainStream(make_rows(tmp_path, sizes), (), 6, 20)
    seen = []
    for step in range(20):
        batch = stream[step]
        assert batch["tokens"].shape == (1, 6, stream.order.length(step))
        np.testing.assert_array_equal(batch["token_mask"].sum(-1), sizes[batch["label"]])
        seen += batch["label"][batch["mask"] > 0].tolist()
    assert sorted(seen) == sorted([*range(60)] * 2)
    assert {stream.order.length(i) for i in range(20)} == set(LENGTHS)


def test_a_late_step_costs_what_an_early_one_costs(tmp_path, monkeypatch):
    """Counted in random numbers drawn: those of one epoch."""
    drawn = []
    real = order_module.draw_permutation

    def count(seed, epoch, size, stream=0):
        drawn.append(size)
        return real(seed, epoch, size, stream)

    monkeypatch.setattr(order_module, "draw_permutation", count)
    monkeypatch.setattr("zoo.data.buckets.draw_permutation", count)
    rows = make_rows(tmp_path, np.random.default_rng(0).integers(1, 17, 60))
    plain = dataclasses.replace(rows, buckets=None)
    costs = {}
    for name, source in (("buckets", rows), ("plain", plain)):
        for step in (10, 10_000_000):
            drawn.clear()
            TrainStream(source, (), 6, step + 1, seed=71)[step]
            costs[name, step] = sum(drawn)
    assert costs["buckets", 10] == costs["buckets", 10_000_000] <= 60 + 10
    assert costs["plain", 10] == costs["plain", 10_000_000] == 60


@pytest.mark.parametrize(
    ("data", "train", "message"),
    [
        ({"buckets": (16, 8)}, {}, r"data.buckets=\(16, 8\) must grow"),
        ({"buckets": (16, 32)}, {}, "must grow from at least 1 to data.length=256"),
        ({"buckets": (0, 256)}, {}, "must grow from at least 1"),
        ({"buckets": (16, 256)}, {"steps_per_call": 4}, "needs train.steps_per_call=1, not 4"),
    ],
)
def test_mistakes(data, train, message):
    with pytest.raises(UserError, match=message):
        check_config(Config(data=DataConfig(**data), train=TrainConfig(**train)))
