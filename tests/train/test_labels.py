"""The labels of the splits, before training begins."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.config import UserError
from zoo.data import ArraySource, Dataset, SubsetSource
from zoo.data.sources import ConcatenatedSource
from zoo.train.labels import check_labels, find_labels


def make_dataset(names=("a", "b", "c"), **splits):
    sources = {
        split: ArraySource({"features": np.zeros((len(x), 2), np.float32), "label": np.asarray(x)})
        for split, x in splits.items()
    }
    return Dataset("mine", sources, len(names), names)


def test_notes_name_what_is_absent():
    notes = check_labels(make_dataset(train=[0, 1, 1], val=[2, 0, 2], test=[0, 1, 2])).notes
    assert notes == (
        "split 'train' has no example of 1 of 3 classes: 'c'",
        "split 'val': 2 of 3 examples are of classes that training never sees: 'c'",
        "split 'val' has no example of 1 of 3 classes: 'b'",
        "split 'test': 1 of 3 examples are of classes that training never sees: 'c'",
    )
    whole = make_dataset(train=[0, 1, 2], test=[2, 1, 0])
    assert check_labels(whole).notes == ()


def test_what_cannot_be_trained_is_an_error():
    with pytest.raises(UserError, match="every example of 'train' is of class 'b', of 3: there is"):
        check_labels(make_dataset(train=[1, 1], val=[0, 1, 2]))
    for label in (3, -1):
        with pytest.raises(UserError, match=f"'val' has the label {label}, but its 3 classes are"):
            check_labels(make_dataset(train=[0, 1, 2], val=[0, label]))
    with pytest.raises(UserError, match="split 'val' is empty"):
        make_dataset(train=[0, 1], val=[])


def test_only_labels_at_hand_are_looked_at():
    class OnDisk:
        def __len__(self):
            return 3

        def take(self, indices):
            raise AssertionError("read")

        def labels(self):
            raise AssertionError("read")

    source = make_dataset(train=[0, 1, 2]).splits["train"]
    assert find_labels(OnDisk()) is None
    assert find_labels(SubsetSource(OnDisk(), np.array([1]))) is None
    joined = ConcatenatedSource((source, SubsetSource(source, np.array([2, 0]))))
    assert find_labels(joined).tolist() == [0, 1, 2, 2, 0]
    assert find_labels(ConcatenatedSource((source, OnDisk()))) is None
