"""Mixtures: exact weights in every block, each source's own epochs, any position at once."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import Config, DataConfig, UserError, quick
from zoo.config.checks import check_config
from zoo.config.parse import set_values
from zoo.data import ArraySource, TrainStream, open_dataset
from zoo.data.mixture import MixtureSource, count_weights
from zoo.data.order import make_order


def numbered(sizes):
    """Sources of examples (which source, number in it)."""
    return tuple(
        ArraySource({"owner": np.full(size, i), "number": np.arange(size)})
        for i, size in enumerate(sizes)
    )


def by_hand(order, sources, count):
    """The stream by walking it: a block's places in turn, a source's next example each time."""
    seen = [0] * len(sources)
    out = []
    for position in range(count):
        owners, _ = order._arrange(np.array([position // sum(order.counts)]))
        owner = owners[0, position % sum(order.counts)]
        epoch, place = divmod(seen[owner], len(sources[owner]))
        own = order.parts[owner].indices(np.array([epoch * len(sources[owner]) + place]))
        out.append((int(owner), int(own[0])))
        seen[owner] += 1
    return out


mixtures = st.lists(
    st.tuples(st.integers(1, 12), st.integers(1, 5)), min_size=1, max_size=4
)  # (size, count)


@settings(max_examples=50)
@given(mixtures, st.integers(0, 2**31), st.data())
def test_the_stream_is_each_sources_own_epochs_by_weight(parts, seed, data):
    sizes, counts = zip(*parts, strict=True)
    sources = numbered(sizes)
    mixture = MixtureSource(sources, counts)
    order = make_order(mixture, seed, 4)
    num = 6 * sum(counts)
    examples = mixture.take(order.indices(np.arange(num)))
    stream = list(zip(examples["owner"].tolist(), examples["number"].tolist(), strict=True))
    assert stream == by_hand(order, sources, num)
    for block in range(6):  # exact in every block
        owners = examples["owner"][block * sum(counts) : (block + 1) * sum(counts)]
        assert np.bincount(owners, minlength=len(counts)).tolist() == list(counts)
    for i, size in enumerate(sizes):  # every epoch of a source is all of it
        numbers = examples["number"][examples["owner"] == i]
        for epoch in range(len(numbers) // size):
            assert sorted(numbers[epoch * size : (epoch + 1) * size]) == list(range(size))
    some = data.draw(st.lists(st.integers(0, num - 1), min_size=1, max_size=9))
    alone = pickle.loads(pickle.dumps(make_order(mixture, seed, 4))).indices(np.array(some))
    np.testing.assert_array_equal(alone, order.indices(np.arange(num))[some])


def test_far_positions_cost_what_near_ones_cost():
    mixture = MixtureSource(numbered([1000, 10]), (3, 1))
    order = make_order(mixture, 0, 8)
    far = order.indices(np.array([0, 5, 10**12, 10**12 + 1, 10**15]))
    assert far.min() >= 0
    assert far.max() < 1010
    blocks = order._arrange(np.arange(50))[0]
    assert len({tuple(row) for row in blocks}) == 4  # every arrangement occurs


def test_a_split_over_processes_is_the_same_stream():
    mixture = MixtureSource(numbered([17, 5]), (2, 1))
    whole = TrainStream(mixture, (), 8, 30, 5, seed=3)
    for block in range(len(whole)):
        halves = [dataclasses.replace(whole, rows=slice(i * 4, i * 4 + 4))[block] for i in range(2)]
        for field in ("owner", "number"):
            joined = np.concatenate([half[field] for half in halves], axis=1)
            np.testing.assert_array_equal(joined, whole[block][field])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.integers(1, 8))
def test_weights_are_a_ratio(weights, scale):
    common = np.gcd.reduce(weights)
    expected = tuple(w // common for w in weights)
    assert count_weights([w * scale for w in weights]) == expected
    assert count_weights([w / 8 for w in weights]) == expected


def test_weights_as_people_write_them():
    assert count_weights([0.7, 0.2, 0.1]) == (7, 2, 1)
    for bad in ([0.0, 1], [-1, 2], [float("nan")]):
        with pytest.raises(UserError, match="is not a positive number"):
            count_weights(bad)
    with pytest.raises(UserError, match="round them"):
        count_weights([0.123456, 0.876544])


def test_sources_of_the_config(tmp_path):
    for name, rows in (("a", "5,x\n6,y\n"), ("b", "7,y\n8,x\n9,x\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.csv").write_text("n,label\n" + rows)
        (tmp_path / name / "test.csv").write_text("n,label\n0,x\n")
    mixture = {f"csv:{tmp_path}/a": 2, f"csv:{tmp_path}/b": 1.0}
    dataset = open_dataset(DataConfig(mixture=mixture))
    assert {split: len(source) for split, source in dataset.splits.items()} == {
        "train": 5,
        "test": 2,
    }
    batch = TrainStream(dataset.splits["train"], (), 6, 1).read(0, 1)["features"]
    assert (batch < 7).sum() == 4
    assert "mixture: 2 x csv" in dataset.notes[0]
    other = dataclasses.replace(DataConfig(mixture=mixture), mixture=dict.fromkeys(mixture, 1))
    assert open_dataset(other).fingerprint != dataset.fingerprint


def test_only_what_a_source_lacks_is_held_out():
    fractions = {"validation_fraction": 0.25, "test_fraction": 0.3}
    splits = open_dataset(DataConfig(mixture={"embedded:wine": 1}, **fractions)).splits
    assert {k: len(s) for k, s in splits.items()} == {"train": 106, "val": 36, "test": 36}


@pytest.mark.parametrize(
    ("mixture", "changes", "message"),
    [
        ({"embedded:wine": 1, "embedded:digits": 1}, {}, "fields features, label; .* has image"),
        ({"embedded:wine": 1, "embedded:breast_cancer": 1}, {}, r"is \[13\], of .* \[30\]"),
        ({"embedded:digits": 1, "synthetic:tfds:cifar100": 1}, {}, "10 and 100 classes"),
        ({"embedded:wine": 1}, {"fold": (0, 3)}, "data.fold is for one source"),
        ({"embedded:win": 1}, {}, "did you mean 'wine'"),
    ],
)
def test_sources_that_do_not_fit(mixture, changes, message):
    with pytest.raises(UserError, match=message):
        open_dataset(DataConfig(mixture=mixture, **changes))


def test_a_mixture_on_the_command_line():
    config = set_values(Config(), {"data.mixture": "{'text:a/*.txt': 2, 'embedded:stdlib': 1}"})
    assert config.data.mixture == {"text:a/*.txt": 2.0, "embedded:stdlib": 1.0}
    assert set_values(config, {"data.mixture.text:a/*.txt": "3"}).data.mixture["text:a/*.txt"] == 3
    check_config(config)
    twin = quick(config).data
    assert list(twin.mixture) == ["synthetic:text:a/*.txt", "synthetic:embedded:stdlib"]
    with pytest.raises(UserError, match=r"data.mixture takes the place of data.source='files:x'"):
        check_config(set_values(config, {"data.source": "files:x"}))
    check_config(set_values(config, {"data.source": ""}))  # of a recipe, taken back


def test_texts_of_a_mixture_share_a_tokenizer_and_are_read_by_weight(tmp_path):
    for name, letters in (("a", "ab"), ("b", "cd")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.txt").write_text(letters * 90)
    mixture = {f"text:{tmp_path}/a/*.txt": 2, f"text:{tmp_path}/b/*.txt": 1}
    config = DataConfig(
        mixture=mixture, tokenizer="chars", length=8, cache=str(tmp_path), validation_fraction=0.2
    )
    dataset = open_dataset(config)
    assert dataset.tokenizer.alphabet == "abcd"
    tokens = TrainStream(dataset.splits["train"], (), 30, 2).read(0, 2)["tokens"]
    of_a = (tokens.reshape(60, 9) < 2).all(axis=1)
    of_b = (tokens.reshape(60, 9) > 1).all(axis=1)
    assert (of_a.sum(), of_b.sum()) == (40, 20)
    val = dataset.splits["val"].take(np.arange(len(dataset.splits["val"])))
    assert val["tokens"].shape == (10, 9)  # 36 tokens of each, every one but the first predicted
    assert val["real"].sum() == 2 * 35
