"""Rows, pairs and prompts against the tokenizers called one text at a time; a cache that fills."""

import dataclasses
import errno
import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.config import DataConfig, UserError
from zoo.data import ArraySource, Dataset, TrainStream, open_dataset
from zoo.data import array_file as array_file_module
from zoo.data.array_file import make_array_file, map_array
from zoo.data.documents import open_texts, text_array
from zoo.data.text import encode_text, join_prompts
from zoo.data.token_file import spread
from zoo.data.tokenizers.training import train_bpe, train_unigram, train_wordpiece

WORDS = ["a tree", "the tree that fell", "", "trees [SEP] and more trees", "no </s> end"]
PIECES = train_wordpiece(WORDS * 3, 60)
UNIGRAM = train_unigram(WORDS * 9, 40)
BPE = train_bpe(WORDS, 280)


def make_dataset(**fields):
    arrays = {
        name: text_array(values) if isinstance(values[0], str) else np.asarray(values)
        for name, values in fields.items()
    }
    return Dataset("mine", {"train": ArraySource(arrays)}, 5, fingerprint="raw")


def encode(folder, dataset, own=None, **changes):
    config = DataConfig(cache=str(folder), **{"length": 9, **changes})
    return encode_text(dataset, config, own)


def take(dataset):
    source = dataset.splits["train"]
    return source.take(np.arange(len(source)))


def test_rows_are_what_the_tokenizer_makes_of_a_batch(tmp_path):
    """`batch` asks the library for all at once; [SEP] written in a text is text here."""
    texts = [w for w in WORDS if "[SEP]" not in w]
    pairs = {"text": texts, "text_pair": texts[::-1], "label": [0, 1, 2, 3]}
    for fields in (pairs, {k: pairs[k] for k in ("text", "label")}):
        rows = take(encode(tmp_path, make_dataset(**fields), PIECES))
        given = [*zip(texts, texts[::-1], strict=True)] if "text_pair" in fields else texts
        wanted = PIECES.batch(given, 9)
        longest = wanted["tokens"].shape[1]
        np.testing.assert_array_equal(rows["tokens"][:, :longest], wanted["tokens"])
        np.testing.assert_array_equal(rows["token_mask"].sum(1), wanted["mask"].sum(1))
        if "text_pair" in fields:
            np.testing.assert_array_equal(rows["types"][:, :longest], wanted["types"])
        assert ("types" in rows) == ("text_pair" in fields)
        assert rows["tokens"].shape == rows["token_mask"].shape == (4, 9)
        np.testing.assert_array_equal(rows["label"], [0, 1, 2, 3])
    rows = take(encode(tmp_path, make_dataset(text=WORDS[3:4], label=[1]), PIECES, length=30))
    separator = PIECES.find("[SEP]")
    assert (rows["tokens"] == separator).sum() == 1


def test_rows_of_bytes(tmp_path):
    fields = {"text": ["ab", "c"], "text_pair": ["d", "efghijklm"], "label": [0.5, 1.5]}
    rows = take(encode(tmp_path, make_dataset(**fields)))
    assert rows["tokens"][0].tolist() == [*b"ab", 256, *b"d", 0, 0, 0, 0, 0]
    assert rows["types"][0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert rows["tokens"][1].tolist() == [*b"c", 256, *b"efghijk"]


@pytest.mark.parametrize("tokenizer", [UNIGRAM, BPE, None])
def test_pairs_end(tmp_path, tokenizer):
    dataset = encode(tmp_path, make_dataset(source=WORDS, target=WORDS[::-1]), tokenizer)
    made, tokenizer = take(dataset), dataset.tokenizer
    assert made.keys() == {"source", "source_mask", "target", "target_mask"}
    for i, (source, target) in enumerate(zip(WORDS, WORDS[::-1], strict=True)):
        for name, text in (("source", source), ("target", target)):
            row = made[name][i][made[f"{name}_mask"][i]]
            assert row.tolist() == [*tokenizer.encode(text)[:8], tokenizer.end]


def test_prompts_count_their_completions(tmp_path):
    prompts, completions = ["ab", "", "abcdefghijkl", "a"], ["cd", "x", "y", "abcdefghijkl"]
    rows = take(encode(tmp_path, make_dataset(prompt=prompts, completion=completions)))
    assert rows["tokens"].shape == (4, 10)
    assert rows["tokens"][0].tolist() == [*b"abcd", 256, 0, 0, 0, 0, 0]
    targets = [
        row[1:][real].tolist() for row, real in zip(rows["tokens"], rows["real"], strict=True)
    ]
    # A first token is never predicted; too long a completion loses its end.
    assert targets == [[*b"cd", 256], [256], [*b"y", 256], [*b"abcdefghi"]]
    assert rows["tokens"][2].tolist() == [*b"efghijkly", 256]  # too long a prompt, its beginning


@given(
    sizes=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=9),
    begin=st.booleans(),
    room=st.integers(2, 14),
)
def test_joined_prompts(sizes, begin, room):
    first = np.array([99] if begin else [], int)
    rows = [(np.arange(a), 50 + np.arange(b)) for a, b in sizes]
    joined, marks = join_prompts(rows, first, room)
    for (prompt, completion), row, mark in zip(rows, joined, marks, strict=True):
        assert len(row) <= room
        before, after = row[:mark].tolist(), row[mark:].tolist()
        assert after == completion.tolist()[: len(after)]
        assert len(after) == min(len(completion), room - 1)
        own = [t for t in before if t != 99]
        assert own == prompt.tolist()[len(prompt) - len(own) :]
        if len(first) + len(prompt) + len(completion) <= room:
            assert before == [*first, *prompt]
        elif len(first) + len(prompt):
            assert before


@given(st.lists(st.integers(0, 5), max_size=20))
def test_spread(counts):
    owners, places = spread(np.array(counts, int))
    assert owners.tolist() == [i for i, n in enumerate(counts) for _ in range(n)]
    assert places.tolist() == [j for n in counts for j in range(n)]


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Two sources in turn, as a mixture is."""

    sources: tuple

    def __len__(self):
        return sum(map(len, self.sources))

    def take(self, indices):
        half = len(self.sources[0])
        found = [self.sources[int(i >= half)].take(np.array([i % half])) for i in indices]
        return {k: np.concatenate([f[k] for f in found]) for k in found[0]}

    def make_order(self, seed, batch_size):
        return self

    def indices(self, positions):
        half = len(self.sources[0])  # the two are alike in size
        return positions % 2 * half + positions // 2 % half


def test_of_a_mixture_each_source_is_encoded_alone(tmp_path):
    parts = [open_texts("x", {"train": [c * 40]}).splits["train"] for c in "ab"]
    raw = Dataset("mixed", {"train": Mixed(tuple(parts))}, fingerprint="raw")
    dataset = encode(tmp_path, raw, length=8)
    batch = TrainStream(dataset.splits["train"], (), 6, 1)[0]["tokens"][0]
    assert ["".join(sorted({chr(t) for t in row if t < 256})) for row in batch] == ["a", "b"] * 3
    rows = [make_dataset(text=[c, c], label=[0, 1]).splits["train"] for c in "ab"]
    raw = Dataset("mixed", {"train": Mixed(tuple(rows))}, fingerprint="raw")
    batch = TrainStream(encode(tmp_path, raw).splits["train"], (), 4, 1)[0]["tokens"][0]
    assert [chr(row[0]) for row in batch] == ["a", "b", "a", "b"]


def test_a_disk_that_fills(tmp_path, monkeypatch):
    dataset = open_texts("mine", {"train": ["some text " * 50]})
    written = []

    class Full(array_file_module.ArrayWriter):
        def _write(self, content):
            written.append(len(content))
            if sum(written) > 300:
                raise OSError(errno.ENOSPC, "No space left on device")
            super()._write(content)

    monkeypatch.setattr(array_file_module, "ArrayWriter", Full)
    with pytest.raises(UserError, match=r"cannot write to .*\(data.cache\): .*No space left"):
        encode(tmp_path, dataset)
    assert written
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    monkeypatch.undo()
    assert len(encode(tmp_path, dataset).splits["train"].tokens) == 501
    (file,) = (p for p in tmp_path.rglob("*.tokens"))
    whole = file.read_bytes()
    file.write_bytes(whole[:200])  # cut off by something else: it is made again
    encode(tmp_path, dataset)
    assert file.read_bytes() == whole


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 255), max_size=9)))
@settings(max_examples=20)
def test_arrays_in_a_file(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("arrays") / "some.arrays"
    dtypes = {"a": "uint8", "b": "int64", "c": "float32"}

    def write(writer):
        for name, values in arrays.items():
            writer.add(name, np.array(values, dtypes[name]))

    make_array_file(path, write)
    for name, values in arrays.items():
        found = map_array(str(path), name)
        assert found.dtype == dtypes[name]
        assert found.tolist() == values


@pytest.mark.parametrize(
    ("changes", "fields", "message"),
    [
        ({"packing": True}, ("text", "label"), "data.packing: mine is text, no corpus"),
        ({"stride": 3}, ("source", "target"), "data.stride: mine is source and target, no corpus"),
        ({"tokenizer": "chars"}, ("source", "target"), "'chars' has no end token"),
        ({"tokenizer": "unigram:4"}, ("source", "target"), "'unigram:4': a unigram .* the least"),
        ({"tokenizer": "wordpiece:x"}, ("text", "label"), "write wordpiece:N"),
    ],
)
def test_mistakes(tmp_path, changes, fields, message):
    values = {"label": [0, 1]}
    raw = make_dataset(**{f: values.get(f, ["one", "two"]) for f in fields})
    with pytest.raises(UserError, match=message):
        encode(tmp_path, raw, **changes)


def test_what_is_no_text_is_named(tmp_path):
    array = text_array(["one", "two", "three"])
    array[1] = None
    raw = Dataset("mine", {"train": ArraySource({"text": array})}, fingerprint="raw")
    with pytest.raises(UserError, match="the field 'text' holds None"):
        encode(tmp_path, raw)
    raw = make_dataset(text=["fine", "broken \ud800"])
    with pytest.raises(UserError, match="is no Unicode text"):
        encode(tmp_path, raw)


def test_files_of_vocabularies(tmp_path):
    files = pathlib.Path(__file__).parent / "files"
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\nc\n")
    (tmp_path / "doc.md").write_text("ab c " * 30)
    config = DataConfig(f"text:{tmp_path}/*.md", cache=str(tmp_path), length=4)
    words = open_dataset(dataclasses.replace(config, tokenizer=str(tmp_path / "vocab.txt")))
    file = words.splits["train"].tokens
    assert file.read(np.arange(3)).tolist() == [5, 6, 7]
    assert file.read(np.array([len(file) - 1])) == words.tokenizer.end == 3  # [SEP]
    assert words.tokenizer.mask == 4
    folder = dataclasses.replace(config, tokenizer=str(tmp_path))
    assert open_dataset(folder).fingerprint == words.fingerprint
    for name in ("unigram", "bpe"):
        model = dataclasses.replace(config, tokenizer=str(files / f"{name}.model"))
        assert open_dataset(model).tokenizer.vocab_size > 100
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no tokenizer.json, vocab.txt"):
        open_dataset(dataclasses.replace(config, tokenizer=str(tmp_path / "empty")))


def test_texts_that_are_cut_are_told(tmp_path):
    rows = [{"text": "a" * n, "label": n % 2} for n in (2, 5, 9, 12)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(f"jsonl:{tmp_path}/a.jsonl", tokenizer="bytes", length=8)
    told = open_dataset(dataclasses.replace(config, cache=str(tmp_path / "cache"))).notes[-1]
    assert told.startswith("split 'train': 2 of 4 texts fill all 8 tokens of data.length")
    longer = dataclasses.replace(config, length=32, cache=str(tmp_path / "cache"))
    assert not any("fill all" in note for note in open_dataset(longer).notes)
