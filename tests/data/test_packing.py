"""Packed rows: every token once, no document in two minds, the loss that of the documents alone."""

import dataclasses
import itertools
import time

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import DataConfig, UserError
from zoo.data import ArraySource, TrainStream, open_dataset, read_eval
from zoo.data.documents import open_texts, text_array
from zoo.data.packing import cut_documents, pack, plan_rows
from zoo.data.text import encode_text

SIZES = st.lists(st.integers(1, 20), max_size=80)


def best_fit(sizes, capacity):
    """Best-fit decreasing as it is defined: an item at a time, all bins looked at."""
    room, placed = [], []
    for size in sorted(sizes, reverse=True):
        fits = [(left, i) for i, left in enumerate(room) if left >= size]
        if fits:
            place = min(fits)[1]
        else:
            place = len(room)
            room.append(capacity)
        room[place] -= size
        placed.append(place)
    return room


@given(sizes=SIZES, extra=st.integers(0, 10))
def test_as_one_by_one(sizes, extra):
    capacity = max(sizes, default=1) + extra
    bins = pack(np.array(sizes, int), capacity)
    room = best_fit(sizes, capacity)
    filled = np.bincount(bins, weights=sizes, minlength=len(room)) if sizes else np.zeros(0)
    assert sorted(capacity - filled) == sorted(room)
    assert set(bins) == set(range(len(room)))


def test_a_million_documents():
    random = np.random.default_rng(0)
    sizes = np.minimum(random.lognormal(5.5, 1.2, 1_000_000).astype(int) + 2, 1025)
    start = time.process_time()
    bins = pack(sizes, 1025)
    assert time.process_time() - start < 10  # half a second; an O(n^2) would take hours
    filled = np.bincount(bins, weights=sizes)
    assert filled.max() <= 1025
    assert filled.mean() / 1025 > 0.99


@given(sizes=st.lists(st.integers(0, 50), max_size=20), length=st.integers(1, 12))
def test_of_every_document_each_token_but_the_first_is_predicted_once(sizes, length):
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    starts, pieces = cut_documents(offsets, length)
    targets = [t for s, n in zip(starts, pieces, strict=True) for t in range(s + 1, s + n)]
    wanted = [t for a, b in itertools.pairwise(offsets) for t in range(a + 1, b)]
    assert targets == wanted
    assert all(2 <= n <= length + 1 for n in pieces)
    plan = plan_rows(offsets, length)
    assert sorted(zip(plan["starts"], plan["sizes"], strict=True)) == sorted(
        zip(starts, pieces, strict=True)
    )


def make_corpus(folder, sizes, length, **changes):
    """Documents of so many bytes and the end."""
    starts = np.cumsum([0, *sizes])
    texts = [
        "".join(chr(33 + i % 90) for i in range(start, start + size - 1))
        for start, size in zip(starts, sizes, strict=False)
    ]
    config = DataConfig(cache=str(folder), length=length, packing=True, **changes)
    return encode_text(open_texts("mine", {"train": texts, "val": texts}), config)


@given(sizes=st.lists(st.integers(1, 25), min_size=1, max_size=12), length=st.integers(2, 40))
@settings(max_examples=40)
def test_rows_hold_whole_documents(tmp_path_factory, sizes, length):
    if all(n == 1 for n in sizes):
        sizes = [*sizes, 2]
    dataset = make_corpus(tmp_path_factory.getbasetemp() / "packed", sizes, length)
    source = dataset.splits["train"]
    rows = source.take(np.arange(len(source)))
    found = []
    for tokens, segments, positions, real in zip(*rows.values(), strict=True):
        assert (np.diff(segments) >= 0)[segments[1:] > 0].all()
        np.testing.assert_array_equal(tokens[segments == 0], 0)
        for segment in range(1, segments.max() + 1):
            mine = np.flatnonzero(segments == segment)
            np.testing.assert_array_equal(mine, np.arange(mine[0], mine[-1] + 1))
            np.testing.assert_array_equal(positions[mine], np.arange(len(mine)))
            assert real[mine[:-1]].all()
            assert not real[mine[-1] : mine[-1] + 1].any()
            found.append(tuple(tokens[mine]))
    file = source.tokens
    every = file.read(np.arange(len(file)))
    starts, pieces = cut_documents(file.offsets, length)
    assert sorted(found) == sorted(
        tuple(every[s : s + n]) for s, n in zip(starts, pieces, strict=True)
    )
    assert rows["real"].sum() == sum(pieces) - len(pieces)
    shares = read_eval(source, (), 3)
    assert sum((b["real"] * b["mask"][:, None]).sum() for b in shares) == rows["real"].sum()


def test_the_plan_is_made_once_and_told(tmp_path, monkeypatch):
    dataset = make_corpus(tmp_path, [5, 9, 3, 30], 16)
    assert "6 documents (or pieces of them) in 6 rows" not in dataset.notes[0]
    assert "split 'train'" in dataset.notes[0]
    assert "% filled" in dataset.notes[0]
    monkeypatch.setattr("zoo.data.packing.plan_rows", None)  # nobody asks again
    again = make_corpus(tmp_path, [5, 9, 3, 30], 16)
    assert again.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("packing", [True, False])
def test_the_union_of_processes(tmp_path, packing):
    sizes = np.random.default_rng(0).integers(2, 60, 50)
    source = make_corpus(tmp_path, sizes, 32).splits["train"]
    if not packing:
        config = DataConfig(cache=str(tmp_path), length=64, buckets=(8, 24, 64), tokenizer="bytes")
        rows = {"text": text_array(["x" * n for n in sizes]), "label": np.arange(50)}
        source = encode_text(make_dataset(rows), config).splits["train"]
    whole = TrainStream(source, (), 8, 40, seed=3)
    for parts in (1, 2, 4):
        rows = [slice(i * 8 // parts, (i + 1) * 8 // parts) for i in range(parts)]
        shares = [dataclasses.replace(whole, rows=r) for r in rows]
        for step in (0, 3, 17, 39):
            batch, read = whole[step], [share[step] for share in shares]
            for name, values in batch.items():
                joined = np.concatenate([r[name] for r in read], axis=1)
                np.testing.assert_array_equal(joined, values)


def make_dataset(arrays):
    from zoo.data import Dataset

    return Dataset("mine", {"train": ArraySource(arrays)}, fingerprint="x")


@pytest.mark.parametrize("positions", ["rotary", pytest.param("learned", marks=pytest.mark.slow)])
def test_loss_and_gradients_are_those_of_the_documents_alone(tmp_path, positions):
    from zoo.models.decoder import Decoder
    from zoo.tasks import CausalLM

    source = make_corpus(tmp_path, [3, 9, 4, 12, 2, 7, 5], 16).splits["train"]
    model = Decoder(
        width=8, depth=2, num_heads=2, vocab_size=257, num_positions=16, positions=positions,
        scan_layers=True,
    )  # fmt: skip
    task = CausalLM(model, None)
    params = jax.tree.map(lambda x: x * 5, task.init(jax.random.key(0)))
    rows = source.take(np.arange(len(source)))
    assert rows["segments"].max() > 1
    # Rows of mask 0 behind, so that one program does for all.
    packed = {k: np.resize(v, (7, *v.shape[1:])) for k, v in rows.items()}
    packed["mask"] = (np.arange(7) < len(source)).astype(float)
    together = {
        "segments": np.ones((7, 17), int),
        "positions": np.arange(17) + np.zeros((7, 1), int),
    }

    file, offsets = source.tokens, source.tokens.offsets
    alone = {"tokens": np.zeros((7, 17), np.int32), "real": np.zeros((7, 16), bool), **together}
    for i, (a, b) in enumerate(itertools.pairwise(offsets)):
        alone["tokens"][i, : b - a] = file.read(np.arange(a, b))
        alone["real"][i, : b - a - 1] = True
    alone["mask"] = np.ones(7)

    @jax.jit
    def run(params, batch):
        return jax.value_and_grad(lambda p: task.loss(p, batch, None), has_aux=True)(params)

    (ours, sums), gradients = run(params, packed)
    (theirs, their_sums), their_gradients = run(params, alone)
    assert float(sums["weight"]) == float(their_sums["weight"]) == offsets[-1] - 7
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    for x, y in zip(*map(jax.tree.leaves, (gradients, their_gradients)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5 * float(abs(y).max() + 1))
    (other, _), _ = run(params, {**packed, **together})
    assert abs(float(other) - float(theirs)) > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "synthetic:embedded:digits"}, "data.packing is for text"),
        ({"buckets": (4,), "length": 4}, "data.buckets: .* is rows of one length"),
        ({"cache": "/proc/none"}, "cannot write to"),
        ({"tokenizer": "chars", "source": "text:{}/one.txt"}, "too few"),
    ],
)
def test_mistakes(tmp_path, changes, message):
    (tmp_path / "one.txt").write_text("x")
    (tmp_path / "two.txt").write_text("more words")
    source = changes.pop("source", "text:{}/*.txt").format(tmp_path)
    made = {"cache": str(tmp_path), "packing": "buckets" not in changes, **changes}
    with pytest.raises(UserError, match=message):
        open_dataset(DataConfig(source, **made))
