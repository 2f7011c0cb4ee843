"""Texts of labels."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.config import DataConfig, UserError
from zoo.data import TrainStream, open_dataset, parse_ops

NAMES = [[f"{word}{i}" for i in range(10)] for word in ("n", "name ")]
OPEN = {"source": "synthetic:embedded:digits", "tokenizer": "wordpiece:60"}


def open_with(call):
    dataset = open_dataset(DataConfig(transform=call, **OPEN))
    return dataset, parse_ops(call, dataset)


def test_each_image_gets_a_name_of_its_class():
    dataset, ops = open_with(f"caption({NAMES}, templates=('{{}}', 'a {{}}'), length=9)")
    stream = TrainStream(dataset.splits["train"], ops, 32, 4)
    seen = set()
    for block in range(4):
        batch = {name: values[0] for name, values in stream[block].items()}
        assert batch["tokens"].shape == batch["token_mask"].shape == (32, 9)
        for row, label in enumerate(batch["label"]):
            text = dataset.tokenizer.decode(batch["tokens"][row][batch["token_mask"][row]])
            allowed = [t.format(names[label]) for names in NAMES for t in ("{}", "a {}")]
            assert text in allowed
            seen.add(allowed.index(text))
        assert (batch["tokens"][~batch["token_mask"]] == dataset.tokenizer.pad).all()
        ends = batch["token_mask"].sum(1) - 1
        assert (batch["tokens"][np.arange(32), ends] == dataset.tokenizer.end).all()
    assert seen == {0, 1, 2, 3}
    again = TrainStream(dataset.splits["train"], ops, 32, 4)[2]
    np.testing.assert_array_equal(again["tokens"], stream[2]["tokens"])


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("caption([['a', 'b']])", "caption: names=a, b, ...: 2 names, .* has 10 classes"),
        ("caption(templates=('a',))", "'a' should hold one {}"),
        ("caption(length=2)", "tokens: set length to as many"),
        ("captoin", "captoin.*did you mean 'caption'"),
    ],
)
def test_mistakes(call, line):
    with pytest.raises(UserError, match=line):
        open_with(call)


def test_data_without_classes():
    with pytest.raises(UserError, match="diabetes has no classes"):
        open_dataset(DataConfig("synthetic:embedded:diabetes", transform="caption"))
