"""Tokenizers: round trips, GPT-2's published ids, identity."""

import json
import pathlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.config import DataConfig, UserError
from zoo.data.tokenizers import (
    ByteTokenizer,
    CharTokenizer,
    JsonTokenizer,
    from_gpt2_files,
    make_tokenizer,
    read_tokenizer,
    train_bpe,
)

TEXTS = ["def add(a, b):\n    return a + b\n" * 20, "naïve café, 北京 🙂\n" * 10]
BPE = train_bpe(iter(TEXTS), 290)
ALL = {"bytes": ByteTokenizer(), "chars": CharTokenizer.train(TEXTS), "bpe": BPE}


@given(st.text())
def test_any_text_comes_back(text):
    for tokenizer in (ByteTokenizer(), BPE):
        ids = tokenizer.encode(text)
        assert ids.dtype == np.int32
        assert tokenizer.decode(ids) == text
        assert tokenizer.token_bytes[ids].sum() == len(text.encode())


@pytest.mark.parametrize("name", ALL)
def test_its_json_is_all_it_is(name, tmp_path):
    tokenizer, text = ALL[name], TEXTS[1]
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_json())
    for again in (read_tokenizer(path), pickle.loads(pickle.dumps(tokenizer))):
        assert again.to_json() == tokenizer.to_json()
        assert again.vocab_size == tokenizer.vocab_size
        np.testing.assert_array_equal(again.encode(text), tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.token_bytes[tokenizer.encode(text)].sum() == len(text.encode())


def test_characters_are_in_the_order_of_code_points():
    tokenizer = CharTokenizer.train(["hello", "world"])
    assert tokenizer.alphabet == "dehlorw"
    assert tokenizer.encode("hold").tolist() == [2, 4, 3, 0]
    with pytest.raises(UserError, match="lacks 'b'"):
        tokenizer.encode("box")


def test_bpe_is_learned_the_same_way_again_and_merges():
    assert train_bpe(iter(TEXTS), 290).to_json() == BPE.to_json()
    assert BPE.vocab_size == 290
    assert len(BPE.encode(TEXTS[0])) < len(TEXTS[0]) / 2
    end = BPE.end
    assert BPE.token_bytes[end] == 0
    assert end not in BPE.encode("text with <|endoftext|> in it")


def test_gpt2_files(zoo_data):
    """The ids that OpenAI's own encoder gives (from the examples of its papers and readers)."""
    tokenizer = make_tokenizer(DataConfig(tokenizer="gpt2"), [])
    assert tokenizer.vocab_size == 50257
    assert tokenizer.end == 50256
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
    folder = pathlib.Path(zoo_data) / "gpt2_vocab"
    assert read_tokenizer(folder).to_json() == tokenizer.to_json()
    text = pathlib.Path(zoo_data, "tinyshakespeare", "input.txt").read_text()
    assert len(tokenizer.encode(text)) == 338_025  # as nanoGPT's own preparation counts


def test_one_merge_by_hand():
    encoder = {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "<|endoftext|>": 4}
    tokenizer = from_gpt2_files(json.dumps(encoder), "#version: 0.2\na b\n")
    assert tokenizer.encode("abba ab").tolist() == [2, 1, 0, 3, 2]
    assert tokenizer.token_bytes.tolist() == [1, 1, 2, 1, 0]


def test_bytes_of_other_kinds_are_unknown():
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    assert JsonTokenizer(words.to_str()).token_bytes is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("byts", "data.tokenizer='byts' is unknown .did you mean 'bytes'"),
        ("bpe:12", "257 are the least"),
        ("bpe:many", "write bpe:N"),
        ("nowhere/tokenizer.json", "there is no nowhere/tokenizer.json"),
        ("pyproject.toml", "is no tokenizer"),
    ],
)
def test_mistakes(name, message):
    with pytest.raises(UserError, match=message):
        make_tokenizer(DataConfig(tokenizer=name), ["text"])
