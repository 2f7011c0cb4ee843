"""Bad input of `zoo eval`: one line each, and nothing written."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from published import copy_twin, name_labels, write_wordpiece

import zoo
from zoo.cli import main
from zoo.config import UserError
from zoo.evaluation.classes import align_classes, count_classes, tell_absent
from zoo.evaluation.slices import split_values

ANIMALS = ("cat", "dog", "bird")


def align(model, data, counts=None, named=True):
    counts = np.ones(len(data), int) if counts is None else np.array(counts)
    return align_classes(model, data, counts, "runs/a", "csv:b", named)


@pytest.mark.parametrize(
    ("model", "data", "named", "places"),
    [
        (ANIMALS, ("bird", "cat"), True, [2, 0]),  # by name, whatever the order
        (ANIMALS, ("CAT", "Dog"), True, [0, 1]),
        (ANIMALS, ("1", "2"), True, [1, 2]),  # numbers of classes
        (ANIMALS, ("", "", ""), True, [0, 1, 2]),  # arrays of numbers
        (("LABEL_0", "LABEL_1"), ("0", "1"), False, [0, 1]),
        (("LABEL_0", "LABEL_1"), ("no", "yes"), False, [0, 1]),  # nobody named them: in order
        (tuple("0123456789"), ("3", "7"), True, [3, 7]),
    ],
)
def test_classes_are_matched(model, data, named, places):
    found = align(model, data, named=named)
    assert found.places.tolist() == places
    if model[0] == "LABEL_0" and data[0] == "no":
        assert found.names == ("no", "yes")
        assert "does not name them" in found.notes[0]


@pytest.mark.parametrize(
    ("model", "data", "counts", "told"),
    [
        (ANIMALS, ("bird", "cat", "cow", "dog"), [1, 2, 4, 1], "has 4 .* 3: class 'cow' of 4"),
        (ANIMALS, ("cats", "dog"), [3, 5], "class 'cats' of 3 of the 8 rows .*mean 'cat'"),
        (ANIMALS, ("yes", "no", "so"), [1, 1, 1], "classes 'yes', 'no', 'so' of 3 of the 3 rows"),
        (ANIMALS, ("0", "3"), [1, 2], "class '3' of 2 of the 3 rows is unknown"),
        (("0", "1"), ("no", "yes"), [1, 1], "do not speak of the same classes"),
    ],
)  # fmt: skip
def test_a_class_that_the_head_does_not_know(model, data, counts, told):
    with pytest.raises(UserError, match=told) as caught:
        align(model, data, counts)
    assert "\n" not in str(caught.value)


def test_a_class_without_rows_is_no_mistake_and_an_absent_one_is_told():
    assert align(ANIMALS, ("bird", "cat", "cow"), [1, 1, 0]).places.tolist() == [2, 0, -1]
    (line,) = tell_absent(count_classes(np.array([0, 2, 2, -1]), 3), ANIMALS)
    assert line.startswith("no example of dog here")
    assert tell_absent(np.array([1, 1, 1]), ANIMALS) == ()


def test_slices_by_number_and_by_word():
    words = split_values("kind", ["b", None, "a", "b"])
    assert {k: v.tolist() for k, v in words.items()} == {"(none)": [1], "a": [2], "b": [0, 3]}
    few = split_values("year", ["10", "9", "10"])
    assert list(few) == ["9", "10"]
    numbers = [*range(40), *[99] * 60]  # more than half are the same
    parts = split_values("size", numbers)
    assert {k: len(v) for k, v in parts.items()} == {"0 to 24": 25, "25 to 99": 75}
    with pytest.raises(UserError, match=r"by='text': 300 different values are too many"):
        split_values("text", [f"text {i}" for i in range(300)])


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A classifier of three classes and tables beside it."""
    root = tmp_path_factory.mktemp("bad")
    write_wordpiece(copy_twin("bert_classifier", root / "bert", **name_labels(*ANIMALS)), 50)
    write_wordpiece(copy_twin("bert_headless", root / "headless"), 50)
    other = copy_twin("bert_classifier", root / "other", **name_labels("cat", "dog", "cow"))
    write_wordpiece(other, 50)
    tables = {
        "good": [{"text": "a cat sat", "label": "cat", "source": "x"}] * 2,
        "cow": [{"text": "a cat sat", "label": "cow"}, {"text": "a dog", "label": "dog"}],
        "many": [{"text": "a cat", "label": x} for x in (*ANIMALS, "cow", "eel")],
        "values": [{"text": "a cat sat", "label": 0.5}, {"text": "a dog", "label": 1.5}],
        "bare": [{"text": "a cat sat"}],
        "two": [{"a": "a cat sat", "b": "a dog"}],
        "empty": [],
    }
    for name, rows in tables.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(text)
    (root / "cut").mkdir()
    for name in ("versions.json", "metrics.jsonl"):  # what a run writes before its checkpoints
        (root / "cut" / name).write_text("{}\n")
    (root / "runs" / "a" / "checkpoints").mkdir(parents=True)
    (root / "wide").mkdir()
    write_wordpiece(root / "wide", 56)
    (root / "moved").mkdir()
    words = write_wordpiece(root / "moved", 50)
    (root / "moved" / "vocab.txt").write_text("\n".join([*words[:5], *words[:4:-1]]) + "\n")
    return root


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("bert --data=jsonl:cow.jsonl", "class 'cow' of 1 of the 2 rows is unknown"),
        ("bert --data=jsonl:many.jsonl", "has 5 classes, the head of bert 3: classes 'cow', 'eel'"),
        ("bert --data=jsonl:values.jsonl", "has values, bert gives classes"),
        ("bert --data=jsonl:bare.jsonl", "has no labels"),
        ("bert --data=jsonl:empty.jsonl", "empty.jsonl"),
        ("bert --data=jsonl:god.jsonl", "no such file .did you mean 'good.jsonl'"),
        ("bert --data=embedded:digits", "embedded:digits is no text"),
        ("bert", "bert is no run.*--data"),
        ("bert --data=jsonl:good.jsonl --split=tain", "no split 'tain' .did you mean 'train'"),
        ("bert --data=jsonl:good.jsonl --split=train[:0]", "is empty"),
        ("bert --data=jsonl:good.jsonl --by=sorce", "no column 'sorce' .did you mean 'source'"),
        ("bert --data=jsonl:good.jsonl --metrics=acuracy", "did you mean 'accuracy'"),
        ("bert --data=jsonl:good.jsonl --metrics=perplexity", "'perplexity' needs loss and"),
        ("bert --data=jsonl:good.jsonl --tokenizer=wide/vocab.txt", "tokens, more than the 50"),
        ("bert --data=jsonl:good.jsonl --tokenizer=moved/vocab.txt", "not the one bert was"),
        ("bert --data=jsonl:good.jsonl --columns=lable=label", "no field 'lable'"),
        ("bert --data=jsonl:good.jsonl --columns=label", "should be FIELD=COLUMN"),
        ("bert --data=jsonl:good.jsonl --batch-size=0", "batch_size=0 must be at least 1"),
        ("bert --data=jsonl:good.jsonl --length=99", "length=99: bert takes 1 to 24 tokens"),
        ("bert --data=jsonl:good.jsonl --task=regresion", "did you mean 'regression'"),
        ("bert --data=jsonl:good.jsonl --task=causal_lm", "head 'sequence', which is for 'classif"),
        ("bert --data=jsonl:two.jsonl", r"cannot tell .*\): set columns, e.g."),
        ("bert --data=jsonl:good.jsonl --worst=-1", "^error: worst=-1 must be at least 0$"),
        ("bert --data=jsonl:good.jsonl --confusion=c.txt", "did you mean 'c.txt.png'"),
        ("bert --data=jsonl:good.jsonl --labels=a,b", "2 names for the 3 classes"),
        ("bert --data=jsonl:good.jsonl --out=none/eval.json", "there is no such folder"),
        ("bert --data=jsonl:good.jsonl --against=other", "do not speak of the same classes"),
        ("headless --data=jsonl:good.jsonl", "the head 'none', which is not measured"),
        ("headless --data=jsonl:good.jsonl --task=span", "the head 'none', which is not measured"),
        ("cut --data=jsonl:good.jsonl", "cut is a run without a checkpoint"),
        ("runs --data=jsonl:good.jsonl", "runs is no run, it holds some .did you mean 'runs/a'"),
        ("bert jsonl:good.jsonl", "takes one source"),
        ("bert --dta=x", "no flag --dta .did you mean 'data'"),
    ],
)  # fmt: skip
def test_one_line_and_nothing_written(bert, monkeypatch, capsys, words, told):
    monkeypatch.chdir(bert)
    before = sorted(bert.iterdir())
    assert main(["eval", *words.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    assert re.search(told, line), line
    assert sorted(bert.iterdir()) == before


def test_arguments_of_python(bert):
    with pytest.raises(UserError, match="samples=0 must be at least 1"):
        zoo.evaluate(bert / "bert", "jsonl:x", samples=0)
    with pytest.raises(UserError, match=r"no metric 'acuracy' .did you mean 'accuracy'"):
        zoo.evaluate(bert / "bert", "jsonl:x", metrics="acuracy")
    with pytest.raises(UserError, match=r"data is a source such as .* not int"):
        zoo.evaluate(bert / "bert", 3)
    with pytest.raises(UserError, match="no table with columns"):
        zoo.evaluate(bert / "bert", "text:*.txt", by="language")
