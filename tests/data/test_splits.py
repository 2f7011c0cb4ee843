"""Splits: slices as TFDS makes them, nothing in two splits, parts held out of what is chosen."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from zoo.config import Config, DataConfig, UserError
from zoo.config.checks import check_config
from zoo.data import ArraySource
from zoo.data.sources import ConcatenatedSource, Dataset, SubsetSource
from zoo.data.splits import choose_splits, parse_split, resplit


def numbered(**sizes):
    """A dataset whose examples are known by their numbers, which no two share."""
    splits, start = {}, 0
    for name, size in sizes.items():
        numbers = np.arange(start, start + size)
        splits[name] = ArraySource({"id": numbers, "label": (numbers % 3).astype(np.int32)})
        start += size
    return Dataset("numbers", splits, 3)


def ids(source):
    return source.take(np.arange(len(source)))["id"].tolist()


bound = st.one_of(
    st.just(""),
    st.integers(-120, 120).map(str),
    st.integers(-100, 100).map("{}%".format),
    st.decimals(-100, 100, places=2).map("{}%".format),
)


@given(size=st.integers(1, 100), low=bound, high=bound)
def test_slices_are_those_of_tfds(size, low, high):
    from tensorflow_datasets.core import splits as tfds_splits

    assume(low or high)
    # TFDS takes a unit of either bound for both
    spec = f"train[{low}:{high}]"
    info = tfds_splits.SplitInfo(name="train", shard_lengths=[size], num_bytes=0)
    try:
        (theirs,) = tfds_splits.AbstractSplit.from_spec(spec).to_absolute({"train": info})
    except ValueError:
        theirs = None
    try:
        (ours,) = parse_split(spec, numbered(train=size).splits, "data.train_split")
    except UserError:
        ours = None
    assert (ours is None) == (theirs is None)
    if theirs is not None:
        start = theirs.from_ or 0
        stop = size if theirs.to is None else theirs.to
        assert (ours.start, ours.stop) == (start, max(start, stop))


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    data=st.data(),
)
def test_a_concatenation_is_its_parts_in_a_row(sizes, data):
    sources = numbered(**{f"s{i}": size for i, size in enumerate(sizes)}).splits.values()
    whole = ConcatenatedSource(tuple(sources))
    assert ids(whole) == list(range(sum(sizes)))
    assert whole.labels().tolist() == [i % 3 for i in range(sum(sizes))]
    indices = data.draw(st.lists(st.integers(0, sum(sizes) - 1), min_size=1, max_size=9))
    assert whole.take(np.array(indices))["id"].tolist() == indices
    part = SubsetSource(whole, np.array(indices))
    assert ids(part) == indices
    assert part.name(len(indices) - 1) == f"example {_place(sizes, indices[-1])}"


def _place(sizes, index):
    """The number of an example in its own source."""
    for size in sizes:
        if index < size:
            return index
        index -= size
    raise AssertionError


@given(cut=st.integers(0, 100), later=st.integers(0, 100), size=st.integers(5, 60))
def test_an_overlap_is_refused_and_nothing_else(cut, later, size):
    dataset = numbered(train=size)
    config = DataConfig(train_split=f"train[:{cut}%]", test_split=f"train[{later}%:]")
    first, last = round(cut * size / 100), round(later * size / 100)
    if first > last:
        with pytest.raises(UserError, match=rf"share {first - last} examples of 'train'"):
            choose_splits(dataset, config)
    elif first == 0 or last == size:
        with pytest.raises(UserError, match="is empty"):
            choose_splits(dataset, config)
    else:
        chosen = choose_splits(dataset, config)
        assert ids(chosen.splits["train"]) == list(range(first))
        assert ids(chosen.splits["test"]) == list(range(last, size))


@pytest.mark.parametrize(
    ("sizes", "config", "expected"),
    [
        ({"train": 9, "test": 4}, {}, {"train": 9, "test": 4}),
        ({"train": 9, "dev": 3, "other": 4}, {}, {"train": 9, "val": 3}),
        ({"valid": 9, "test": 4}, {"train_split": "val"}, {"train": 9, "test": 4}),
        ({"train": 9, "val": 3, "test": 4}, {"train_split": "train+val"}, {"train": 12, "test": 4}),
        ({"train": 9, "val": 3}, {"test_split": "dev"}, {"train": 9, "test": 3}),
        ({"train": 9, "extra": 5}, {"train_split": "train[:4] + extra[1:]"}, {"train": 8}),
        ({"train": 9, "b": 5}, {"train_split": "all"}, {"train": 14}),
        ({"train": 9, "test": 5}, {"train_split": "test", "test_split": "train"},
         {"train": 5, "test": 9}),
        ({"train": 9, "val": 3, "test": 5}, {"test_split": "", "val_split": ""}, {"train": 9}),
        ({"train": 10}, {"val_split": "train[80%:]", "train_split": "train[:80%]"},
         {"train": 8, "val": 2}),
    ],
)  # fmt: skip
def test_which_split_is_which(sizes, config, expected):
    chosen = choose_splits(numbered(**sizes), DataConfig(**config)).splits
    assert {name: len(source) for name, source in chosen.items()} == expected
    every = [i for source in chosen.values() for i in ids(source)]
    assert len(set(every)) == len(every)


def test_what_is_not_asked_for_stays_as_it_is():
    dataset = numbered(train=9, test=4)
    assert resplit(choose_splits(dataset, DataConfig()), DataConfig()) is dataset


def test_of_tfds_validation_is_the_usual_test():
    dataset = numbered(train=9, validation=4)
    chosen = choose_splits(dataset, DataConfig(), ("test", "validation"))
    assert list(chosen.splits) == ["train", "test"]


@pytest.mark.parametrize("fractions", [(0.2, 0.0), (0.0, 0.25), (0.2, 0.25), (0.5, 0.4)])
def test_parts_held_out(fractions):
    test, val = fractions
    config = DataConfig(test_fraction=test, validation_fraction=val)
    splits = resplit(numbered(train=60), config).splits
    assert sorted(i for s in splits.values() for i in ids(s)) == list(range(60))
    assert len(splits.get("test", ())) == round(60 * test)
    assert len(splits.get("val", ())) == round(60 * val)
    for source in splits.values():  # stratified
        assert np.ptp(np.bincount(source.labels())) <= 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"train_split": "trian"}, r"no split 'trian', there is train: 20 examples, test"),
        ({"train_split": "train[5]"}, r"cannot read \[5\]"),
        ({"train_split": "train[:1.5]"}, "'1.5' is no whole number"),
        ({"train_split": "train[:120%]"}, r"120% is not in"),
        ({"train_split": "train[:21]"}, "21 is outside the split's 20 examples"),
        ({"train_split": "train[:50%"}, "cannot read 'train"),
        ({"train_split": "train[:2shard]"}, "only tfds: has shards"),
        ({"train_split": "train[10:5]"}, "is empty"),
        ({"train_split": "train[:10]+train[5:]"}, "names 5 examples of 'train' twice"),
        ({"val_split": "train[10:]"}, r"share 10 examples of 'train': slice it, e.g. 'train\[:80%"),
        ({"val_split": "test"}, None),
        ({"test_fraction": 0.2}, "has a 'test' split of its own"),
        ({"test_fraction": 0.2, "fold": (0, 3)}, "set one"),
        ({"fold": (0, 10)}, r"data.fold=\(0, 10\): numbers has 9 examples of the largest class"),
        ({"validation_fraction": 0.01}, "cannot hold out 0.01 of 20 examples"),
    ],
)
def test_mistakes(config, message):
    config = DataConfig(**config)

    def open_all():
        return resplit(choose_splits(numbered(train=20, test=5), config), config)

    if message is None:
        assert list(open_all().splits) == ["train", "val"]  # it is the test no more
        return
    with pytest.raises(UserError, match=message) as error:
        open_all()
    assert "\n" not in str(error.value)


def test_fractions_that_leave_nothing():
    with pytest.raises(UserError, match=r"data.test_fraction=0.6 must be"):
        check_config(Config(data=DataConfig(validation_fraction=0.4, test_fraction=0.6)))
