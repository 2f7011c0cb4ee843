"""Batches of text on the console: what counts, where documents end, what is hidden."""

import json

import numpy as np
import pytest

from zoo.data import Dataset
from zoo.data.sources import ArraySource
from zoo.data.tokenizers import ByteTokenizer, train_bpe
from zoo.look.tokens import Speller, describe_row, plain, print_examples, shorten


def codes(text, size=0):
    return np.array([*text.encode(), *[0] * (size - len(text))])


def lines(row, tokenizer=None):
    """Each line of a row as text, what counts in brackets."""
    spell = Speller(tokenizer or ByteTokenizer()).spell
    return [
        (title, "".join(f"[{s.text}]" if s.counts else s.text for s in stretches))
        for title, stretches in describe_row({k: np.array(v) for k, v in row.items()}, spell)
    ]


def test_a_window_of_a_corpus():
    assert lines({"tokens": [*b"hello", 256]}) == [("", "h[ello<end>]")]
    tokens, real = codes("hell", 8), [1, 1, 1, 0, 0, 0, 0]
    assert lines({"tokens": tokens, "real": real}) == [("", "h[ell] (4 tokens of padding)")]


def test_a_prompt_and_its_completion():
    tokens = codes("2+2=4.", 10)
    real = [i in (3, 4) for i in range(9)]
    assert lines({"tokens": tokens, "real": real}) == [("", "2+2=[4.] (4 tokens of padding)")]


def test_packed_documents():
    row = {
        "tokens": codes("abcxyz", 8),
        "segments": [1, 1, 1, 2, 2, 2, 0, 0],
        "positions": [0, 1, 2, 0, 1, 2, 0, 0],
        "real": [1, 1, 0, 1, 1, 0, 0],
    }
    assert lines(row) == [
        ("document 1", "a[bc]"),
        ("document 2", "x[yz]"),
        ("", " (2 tokens of padding)"),
    ]


def test_rows_with_labels_count_by_their_label():
    row = {
        "tokens": codes("goodbad", 9),
        "token_mask": [True] * 7 + [False] * 2,
        "types": [0] * 4 + [1] * 3 + [0, 0],
        "label": 1,
    }
    assert lines(row) == [("text 1", "good"), ("text 2", "bad"), ("", " (2 tokens of padding)")]


def test_pairs():
    row = {
        "source": codes("eins", 5),
        "source_mask": [True] * 4 + [False],
        "target": codes("one", 3),
        "target_mask": [True] * 3,
    }
    assert lines(row) == [("source", "eins (1 tokens of padding)"), ("target", "[one]")]


def test_masked_tokens_show_what_is_meant():
    row = {
        "tokens": codes("h#llo"),
        "token_mask": [True] * 5,
        "targets": codes("hello"),
        "real": [False, True, False, False, True],
    }
    # The last one is asked for and was left as it is.
    assert lines(row) == [("", "h[#→e]ll[o]")]


def test_special_tokens_and_blanks():
    """A decoder drops special tokens, and the blank before the first word of what it is given."""
    from tokenizers import Tokenizer, decoders, models

    vocab = {"▁the": 0, "▁fox": 1, "[MASK]": 2, "▁runs": 3}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[MASK]"))
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(["[MASK]"])
    from zoo.data.tokenizers import JsonTokenizer

    tokenizer = JsonTokenizer(backend.to_str())
    row = {"tokens": [0, 2, 3, 1], "token_mask": [True] * 4, "real": [False, True, False, True]}
    assert lines(row, tokenizer) == [("", "the[[MASK]] runs[ fox]")]


def test_every_text_comes_back():
    text = "naïve 東京 tokens, and more tokens"
    tokenizer = train_bpe(iter([text] * 3), 280)
    ids = tokenizer.encode(text)
    assert lines({"tokens": ids, "real": [False] * (len(ids) - 1)}, tokenizer) == [("", text)]


def test_the_console(capsys):
    tokens = np.stack([codes("ab\x1b[0mc"), codes("de\nfg$h")])
    batch = {"tokens": tokens, "mask": np.ones(2), "label": np.array([0, 1])}
    source = ArraySource({"tokens": tokens})
    dataset = Dataset("x", {"train": source}, 2, ("$no$", "[red]yes"), "x", ByteTokenizer())
    print_examples(batch, dataset)
    out = capsys.readouterr().out
    print_examples({**batch, "mask": np.array([1, 0])}, dataset)
    assert "example 1: an empty row, left out of the loss" in capsys.readouterr().out
    assert out.splitlines()[2:] == [
        "example 0, label $no$", "  ab\\x1b[0mc", "",
        "example 1, label [red]yes", "  de", "  fg$h",
    ]  # fmt: skip


@pytest.mark.parametrize("size", [10, 601, 5000])
def test_long_texts_lose_their_middle(size):
    short = shorten("x" * size)
    assert len(short) < 760
    assert ("characters" in short) == (size == 5000)
    assert plain("a\tb\x00\n") == "a\\tb\\x00\n"


def test_names_of_special_tokens():
    assert Speller(ByteTokenizer()).spell([97, 256], []) == "a<end>"
    assert json.loads(ByteTokenizer().to_json())["zoo"] == "bytes"
