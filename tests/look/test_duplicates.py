"""Duplicates against brute force."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zoo.data import ArraySource, Dataset
from zoo.look.duplicates import Duplicates, hash_inputs, normalise
from zoo.look.read import read_blocks

TEXTS = st.lists(
    st.sampled_from(["a b", "A  b", "c", "\uff43", "d", "e\n"]), min_size=1, max_size=12
)


def find(**splits):
    """Duplicates of splits, each a list of (text, label)."""
    sources = {}
    for split, examples in splits.items():
        text = np.array([t for t, _ in examples], object)
        label = np.array([n for _, n in examples], np.int32)
        sources[split] = ArraySource({"text": text, "label": label})
    duplicates = Duplicates(Dataset("x", sources, 2, fingerprint="x"))
    for split, source in sources.items():
        for block in read_blocks(split, source):
            duplicates.see(block)
    return duplicates


@given(train=TEXTS, val=TEXTS, labels=st.lists(st.integers(0, 1), min_size=24, max_size=24))
def test_groups_are_those_of_brute_force(train, val, labels):
    places = [("train", i) for i in range(len(train))] + [("val", i) for i in range(len(val))]
    texts = dict(zip(places, [*train, *val], strict=True))
    known = dict(zip(places, labels, strict=False))
    groups = {}
    for place, text in texts.items():
        same = {"\uff43": "c", "A  b": "a b", "e\n": "e"}.get(text, text)
        groups.setdefault(same, []).append(place)
    wanted = [
        (group, len({known[p] for p in group}) > 1) for group in groups.values() if len(group) > 1
    ]
    found = find(
        train=[(t, known["train", i]) for i, t in enumerate(train)],
        val=[(t, known["val", i]) for i, t in enumerate(val)],
    )
    assert list(found.groups()) == wanted
    totals = {f.kind: f.count for f in found.findings() if "val" not in f.split.split(", ")}
    inside = sum(max(sum(p[0] == "train" for p in g) - 1, 0) for g in groups.values())
    assert totals.get("duplicate", 0) == inside
    between = [f for f in found.findings() if f.kind == "duplicate_between"]
    leaked = sum(p[0] == "val" for g in groups.values() if ("train" in dict(g)) for p in g)
    assert (between[0].count if between else 0) == leaked


def test_normal_form():
    assert normalise("  Straße\t\u00e9ﬁ ") == normalise("STRASSE e\u0301fi")
    assert normalise("ab") != normalise("a b")


def test_what_counts_as_the_same_input():
    floats = np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]], np.float32)
    a, b, c = hash_inputs({"features": floats, "label": np.arange(3)})
    assert a == b != c
    # Shapes tell apart, and a border between two texts does.
    images = [np.zeros((2, 3, 1), np.uint8), np.zeros((3, 2, 1), np.uint8)]
    assert len({*hash_inputs({"image": images}).tolist()}) == 2
    texts = {"text": np.array(["ab", "a"], object), "text_pair": np.array(["c", "bc"], object)}
    assert len({*hash_inputs(texts).tolist()}) == 2
