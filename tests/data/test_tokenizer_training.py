"""Learned tokenizers: the same each time, with what their families need; the verb."""

import pathlib

import numpy as np
import pytest

from zoo.cli import main
from zoo.config import DataConfig, UserError
from zoo.data.tokenizers import make_tokenizer, read_tokenizer
from zoo.data.tokenizers.training import (
    find_characters,
    json_backend,
    set_in_order,
    train_unigram,
    train_wordpiece,
)

SOURCE = pathlib.Path(__file__).parents[2] / "zoo" / "data"
TEXTS = [path.read_text() for path in sorted(SOURCE.glob("t*.py"))]


@pytest.mark.parametrize("name", ["bpe:600", "wordpiece:600", "unigram:600", "unigram:300+7"])
def test_the_same_each_time(name):
    """The library alone gives another WordPiece and another Unigram vocabulary at each call."""
    tokenizers = [make_tokenizer(DataConfig(tokenizer=name), TEXTS) for _ in range(4)]
    assert len({tokenizer.to_json() for tokenizer in tokenizers}) == 1
    tokenizer = tokenizers[0]
    assert tokenizer.vocab_size == (307 if "+" in name else 600)
    ids = tokenizer.encode(TEXTS[0])
    assert len(ids) < len(TEXTS[0]) / 1.5
    assert tokenizer.end is not None
    assert not tokenizer.special[ids].any() or tokenizer.find("[UNK]", "<unk>") in ids


def test_bert_s_tokens_and_template():
    tokenizer = train_wordpiece(TEXTS, 400)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [tokenizer.find(name) for name in names] == [0, 1, 2, 3, 4]
    assert (tokenizer.pad, tokenizer.begin, tokenizer.end, tokenizer.mask) == (0, 2, 3, 4)
    rows, marks = tokenizer.encode_rows([("Def a", "b"), ("a", "")], 20)
    assert [row[0] for row in rows] == [2, 2]
    assert [row[-1] for row in rows] == [3, 3]
    assert marks[0] == len(tokenizer.encode("def a")) + 2
    words = tokenizer.continues[tokenizer.encode("returning")]
    assert not words[0]
    assert words[1:].all()
    with pytest.raises(UserError, match=r"too small for the .* characters and special tokens"):
        train_wordpiece(TEXTS, 40)


def test_characters_inside_words():
    backend = json_backend(train_wordpiece(["ab"], 20))
    # 'c' begins a word only, a full stop is always alone.
    every, inside = find_characters(["ab c. ba", "cb"], backend)
    assert every == [".", "a", "b", "c"]
    assert inside == ["a", "b"]


def test_t5_s_tokens_and_sentinels():
    tokenizer = train_unigram(TEXTS, 300, 5)
    assert [tokenizer.find(t) for t in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]
    assert tokenizer.sentinels == (304, 303, 302, 301, 300)  # as in T5, the first is the last
    assert tokenizer.special[300:].all()
    text = "def  return\nself"
    assert tokenizer.decode(tokenizer.encode(text)) == "def return self"
    assert tokenizer.encode_rows(["self"], 9)[0][0][-1] == 1
    starts = ~tokenizer.continues[tokenizer.encode("self return def")]
    assert starts.sum() == 3


def test_what_the_library_leaves_to_chance_is_set_in_order():
    """The same pieces with the penalties of leftover characters dealt otherwise, and a sum that
    differs in its last bits."""
    one = [["<unk>", 0.0], ["ab", -2.0], ["x", -9.0], ["y", -8.9999], ["z", -8.9998], ["cd", -3.0]]
    other = [["cd", -3.0 + 1e-13], ["z", -9.0], ["ab", -2.0], ["x", -8.9999], ["y", -8.9998]]
    expected = [("ab", -2.0), ("cd", -3.0), ("z", -8.9998), ("y", -8.9999), ("x", -9.0)]
    assert set_in_order(one) == set_in_order(other) == expected


def test_the_verb(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("".join(TEXTS[:2]))
    out = tmp_path / "words.json"
    command = ["tokenizer", "train", f"text:{tmp_path}/*.txt", "--kind=unigram", "--size=150"]
    assert main([*command, f"--out={out}", "--sentinels=3"]) == 0
    assert "words.json: 153 tokens (unigram), learned from text:" in capsys.readouterr().out
    tokenizer = read_tokenizer(out)
    assert tokenizer.decode(tokenizer.encode("more words")) == "more words"
    np.testing.assert_array_equal(tokenizer.sentinels, [152, 151, 150])
    assert main([*command, f"--out={out}"]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "the source is missing"),
        (["learn", "x"], "did you mean 'train'"),
        (["train", "embedded:wine", "--kind=bpe", "--size=300"], "--out is missing"),
        (["train", "embedded:wine", "--kind=bp", "--size=300", "--out=x.json"], "mean 'bpe'"),
        (["train", "embedded:wine", "--kind=bpe", "--size=3k", "--out=x.json"], "--size='3k' is"),
        (["train", "embedded:wine", "--kind=bpe", "--size=300", "--out=x.txt"], "end in .json"),
        (["train", "synthetic:embedded:wine", "--kind=bpe", "--size=300", "--out=x.json"],
         "has no text to learn"),
        (["train", "synthetic:embedded:stdlib", "--kind=bpe", "--size=30", "--out=x.json"],
         "257 are the least"),
        (["train", "synthetic:embedded:stdlib", "--kind=bpe", "--size=300", "--out=x.json",
          "--sentinels=3"], "sentinels are for unigram"),
        (["train", "x", "--kind=bpe", "--size=300", "--out=nowhere/x.json"], "no folder nowhere"),
    ],
)  # fmt: skip
def test_mistakes(words, message, capsys):
    assert main(["tokenizer", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
