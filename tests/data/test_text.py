"""Windows of text: every token once, nothing of one part in the other, nothing half-written."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import DataConfig, UserError
from zoo.data import TrainStream, open_dataset, read_eval
from zoo.data.array_file import make_array_file
from zoo.data.documents import open_texts
from zoo.data.text import encode_text
from zoo.data.token_file import TokenFile
from zoo.data.token_sources import TokenWindows


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A file of the tokens 0, 1, 2, ..."""
    path = tmp_path_factory.mktemp("tokens") / "numbers.tokens"

    def write(writer):
        writer.add("tokens", np.arange(1000, dtype=np.uint16))
        writer.add("offsets", np.array([0, 300, 301, 700, 1000]))

    make_array_file(path, write)
    return str(path)


@given(size=st.integers(2, 1000), length=st.integers(1, 40), batch=st.integers(1, 9))
def test_evaluation_predicts_every_token_but_the_first_once(numbers, size, length, batch):
    windows = TokenWindows(TokenFile(numbers, 0, size), length, length, whole=False)
    targets = []
    for part in read_eval(windows, (), batch):
        counted = part["real"] & (part["mask"] > 0)[:, None]
        targets += part["tokens"][:, 1:][counted].tolist()
        before = part["tokens"][:, :-1][counted]
        np.testing.assert_array_equal(before + 1, part["tokens"][:, 1:][counted])
    assert targets == list(range(1, size))


@given(start=st.integers(0, 500), size=st.integers(50, 500), length=st.integers(1, 49),
       stride=st.integers(1, 60))  # fmt: skip
def test_training_windows_are_whole_and_in_their_part(numbers, start, size, length, stride):
    windows = TokenWindows(TokenFile(numbers, start, start + size), length, stride, True)
    tokens = windows.take(np.arange(len(windows)))["tokens"]
    assert tokens.dtype == np.int32
    assert (np.diff(tokens, axis=1) == 1).all()
    assert tokens[0, 0] == start
    assert tokens.max() < start + size
    assert start + size - 1 - tokens.max() < stride  # as many as there are


def write_corpus(folder, texts):
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_text(text)
    return DataConfig(f"text:{folder}/*.txt", cache=str(folder / "cache"), length=4)


def test_files_become_tokens_once(tmp_path):
    config = write_corpus(tmp_path, ["hello", "world!"])
    dataset = open_dataset(config)
    train = dataset.splits["train"]
    tokens = train.tokens.read(np.arange(len(train.tokens)))
    assert tokens.tolist() == [*b"hello", 256, *b"world!", 256]
    (file,) = (tmp_path / "cache" / "tokens").iterdir()
    before = file.stat().st_mtime_ns
    again = open_dataset(config)
    assert file.stat().st_mtime_ns == before
    assert again.fingerprint == dataset.fingerprint
    (tmp_path / "1.txt").write_text("world?")
    assert open_dataset(config).fingerprint != dataset.fingerprint
    other = dataclasses.replace(config, tokenizer="chars")
    assert open_dataset(other).fingerprint != dataset.fingerprint


def test_a_stream_of_windows_is_small_to_send_and_the_same_there(tmp_path):
    config = write_corpus(tmp_path, ["some text " * 2000])
    stream = TrainStream(open_dataset(config).splits["train"], (), 8, 20, 5, seed=3)
    sent = pickle.dumps(stream)
    assert len(sent) < 2000
    for block in range(len(stream)):
        there = pickle.loads(sent)[block]["tokens"]
        np.testing.assert_array_equal(stream[block]["tokens"], there)


def test_bits_of_the_standard_library(tmp_path):
    """Whole packages are held out; the tokens are the files' own bytes."""
    dataset = open_dataset(DataConfig("embedded:stdlib", cache=str(tmp_path)))
    sizes = {split: len(source.tokens) for split, source in dataset.splits.items()}
    assert 8e6 < sizes["train"] < 20e6
    assert 0.05 < sizes["val"] / sizes["train"] < 0.3
    import argparse
    import inspect

    text = inspect.getsource(argparse).encode()
    found = []
    for split, source in dataset.splits.items():
        tokens = source.tokens.read(np.arange(len(source.tokens)))
        documents = bytes(np.where(tokens == 256, 0, tokens).astype(np.uint8)).split(b"\0")
        found += [split for document in documents if document == text]
    assert len(found) == 1


def test_shakespeare_is_cut_as_nanogpt_cuts_it(zoo_data, tmp_path):
    config = DataConfig("files:tinyshakespeare", tokenizer="chars", cache=str(tmp_path))
    dataset = open_dataset(config)
    assert dataset.tokenizer.vocab_size == 65
    sizes = {split: len(source.tokens) for split, source in dataset.splits.items()}
    assert sizes == {"train": 1_003_854, "val": 111_540}


def test_the_twin_needs_no_files(monkeypatch, tmp_path):
    monkeypatch.delenv("ZOO_DATA", raising=False)
    for name in ("embedded:stdlib", "files:tinyshakespeare"):
        for tokenizer in ("bytes", "chars", "bpe:300", "gpt2"):
            config = DataConfig(f"synthetic:{name}", tokenizer=tokenizer, cache=str(tmp_path))
            dataset = open_dataset(config)
            assert dataset.splits.keys() == {"train", "val"}
            assert json.loads(dataset.tokenizer.to_json())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "text:/nowhere/*.txt"}, "no file matches"),
        ({"length": 400}, "too few for a window of data.length=400"),
        ({"fold": (0, 5)}, "is text, which is not divided into folds"),
        ({"cache": "/proc/none"}, "cannot write to .*data.cache"),
        ({"source": "synthetic:embedded:stdlib", "tokenizer": "byts"}, "'byts' is unknown"),
        ({"source": "embedded:digits", "tokenizer": "chars"}, "data.tokenizer is for text"),
        ({"source": "embedded:wine", "stride": 3}, "data.stride is for text"),
        ({"source": "files:gpt2_vocab"}, "no published files 'gpt2_vocab'"),
        ({"source": "synthetic:files:tinyshakespeare", "validation_fraction": 0.1},
         "has a 'val' split of its own"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path, changes, message):
    config = dataclasses.replace(write_corpus(tmp_path, ["short text"]), **changes)
    with pytest.raises(UserError, match=message):
        open_dataset(config)


def test_a_file_that_is_no_text_is_named(tmp_path):
    config = write_corpus(tmp_path, ["fine"])
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"bad.txt is not UTF-8 text"):
        open_dataset(config)


def test_a_corpus_of_several_splits_has_one_tokenizer(tmp_path):
    raw = open_texts("mine", {"train": ["abc" * 9], "val": ["cab" * 5, "d" * 9]})
    config = DataConfig(tokenizer="chars", cache=str(tmp_path), length=4)
    assert encode_text(raw, config).tokenizer.alphabet == "abcd"


@given(fraction=st.floats(0.05, 0.9))
@settings(max_examples=20)
def test_what_is_held_out_is_not_trained_on(tmp_path_factory, fraction):
    text = "".join(map(chr, range(0x100, 0x100 + 1000)))  # every character once
    raw = open_texts("mine", {"train": [text]})
    kept, held = raw.splits["train"].hold_out(fraction)
    raw = dataclasses.replace(raw, splits={"train": kept, "val": held})
    folder = str(tmp_path_factory.getbasetemp() / "held")
    config = DataConfig(tokenizer="chars", cache=folder, length=7, stride=2)
    parts = [s.take(np.arange(len(s)))["tokens"] for s in encode_text(raw, config).splits.values()]
    seen, tested = (set(part.flat) for part in parts)
    assert not seen & tested
    assert len(tested) == pytest.approx(1000 * fraction, abs=2)


@pytest.mark.slow
@pytest.mark.parametrize("packing", [False, True])
def test_memory_is_flat_over_ten_thousand_steps(tmp_path, packing):
    """Counted in this process's own pages, those of the mapped file left out."""

    def own_pages():
        with open("/proc/self/status") as stream:
            (line,) = (line for line in stream if line.startswith("RssAnon"))
        return int(line.split()[1]) / 1024

    texts = ["some text " * (1 + i % 40) for i in range(5000)]
    config = DataConfig(cache=str(tmp_path), length=64, packing=packing)
    dataset = encode_text(open_texts("mine", {"train": texts}), config)
    stream = TrainStream(dataset.splits["train"], (), 16, 11_000)
    for step in range(1000):
        stream[step]
    before = own_pages()
    for step in range(1000, 11_000):
        stream[step]
    assert own_pages() - before < 8  # MiB; a batch kept would be 80 and more
