"""The global batch is a function of (seed, step), whoever reads it and however."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import DataConfig
from zoo.data import ArraySource, TrainStream, open_dataset, parse_ops, read_ahead, read_eval
from zoo.data.order import permutation
from zoo.data.pipeline import draw_uniform

DATASET = open_dataset(DataConfig(source="synthetic:embedded:digits"))
OPS = parse_ops("shift(2)|flip|normalize(0.4, 0.3)", DATASET)
SIZE = len(DATASET.splits["train"])


def make_stream(**changes):
    fields = {"batch_size": 20, "num_steps": 30, "steps_per_block": 1, "seed": 5, **changes}
    return TrainStream(DATASET.splits["train"], OPS, **fields)


def read_all(stream):
    blocks = [stream[i] for i in range(len(stream))]
    return {k: np.concatenate([b[k] for b in blocks]) for k in blocks[0]}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 10**6), size=st.integers(1, 500))
@settings(max_examples=50, deadline=None)
def test_every_epoch_is_a_permutation_of_its_own(seed, epoch, size):
    order = permutation(seed, epoch, size)
    np.testing.assert_array_equal(np.sort(order), np.arange(size))
    if size > 20:
        assert (order != permutation(seed, epoch + 1, size)).any()
        assert (order != permutation(seed + 1, epoch, size)).any()


@given(start=st.integers(0, 10**12), skip=st.integers(0, 50), draws=st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_draws_are_a_function_of_the_position(start, skip, draws):
    whole = draw_uniform(1, 2, start, 60, draws)
    np.testing.assert_array_equal(whole[skip:], draw_uniform(1, 2, start + skip, 60 - skip, draws))
    assert ((whole >= 0) & (whole < 1)).all()
    assert (whole != draw_uniform(1, 3, start, 60, draws)).any()


def test_draws_are_uniform():
    from scipy import stats

    assert stats.kstest(draw_uniform(0, 1, 0, 5000, 3).ravel(), "uniform").pvalue > 0.001


@given(steps=st.integers(1, 7), parts=st.sampled_from([1, 2, 4, 5]))
@settings(max_examples=20, deadline=None)
def test_blocks_and_processes_do_not_change_a_batch(steps, parts):
    whole = read_all(make_stream())
    assert_same(whole, read_all(make_stream(steps_per_block=steps)))
    rows = 20 // parts
    shares = [read_all(make_stream(rows=slice(i * rows, (i + 1) * rows))) for i in range(parts)]
    assert_same(whole, {k: np.concatenate([s[k] for s in shares], axis=1) for k in whole})


def test_each_example_once_an_epoch():
    source = ArraySource({"features": np.arange(96.0)[:, None], "label": np.arange(96)})
    stream = TrainStream(source, (), 20, 24)  # five epochs of 96 are 24 batches of 20
    labels = read_all(stream)["label"].reshape(5, 96)
    for epoch in labels:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(96))
    assert (labels[0] != labels[1]).any()


def test_far_away_steps_cost_nothing_more():
    stream = make_stream(num_steps=10**9)
    assert stream[10**8]["label"].shape == (1, 20)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_reading_ahead_keeps_the_order(num_workers):
    stream = make_stream(steps_per_block=4)
    blocks = list(read_ahead(stream, 3, num_workers=num_workers, prefetch=2))
    assert len(blocks) == len(stream) - 3
    for i, block in enumerate(blocks, start=3):
        assert_same(block, stream[i])


@given(batch_size=st.integers(1, 60), parts=st.sampled_from([1, 2, 3]))
@settings(max_examples=30, deadline=None)
def test_evaluation_counts_every_example_once(batch_size, parts):
    batch_size *= parts
    source, seen = DATASET.splits["test"], []
    share = batch_size // parts
    readers = [
        read_eval(source, (), batch_size, slice(i * share, (i + 1) * share)) for i in range(parts)
    ]
    for batches in zip(*readers, strict=True):
        for batch in batches:
            assert len(batch["mask"]) == share
            seen.append(batch["label"][batch["mask"] > 0])
    expected = source.take(np.arange(len(source)))["label"]
    np.testing.assert_array_equal(np.concatenate(seen), expected)


class Backwards:
    """A source with an order of its own: from the end on, every third place empty."""

    def __init__(self, size):
        self.source = ArraySource({"label": np.arange(size)})

    def __len__(self):
        return len(self.source)

    def take(self, indices):
        return self.source.take(indices)

    def make_order(self, seed, batch_size):
        return self

    def indices(self, positions):
        return np.where(positions % 3 == 2, -1, len(self) - 1 - positions % len(self))


def test_a_source_may_have_an_order_of_its_own():
    stream = TrainStream(Backwards(10), (), 5, 4)
    batch = stream[0]
    assert batch["mask"].tolist() == [[1, 1, 0, 1, 1]]
    assert batch["label"][batch["mask"] > 0].tolist() == [9, 8, 6, 5]
    shares = [
        TrainStream(Backwards(10), (), 5, 4, rows=rows)[0] for rows in (slice(2), slice(2, 5))
    ]
    joined = {k: np.concatenate([s[k] for s in shares], axis=1) for k in batch}
    assert_same(joined, batch)
