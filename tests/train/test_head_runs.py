"""Runs of the heads: Python's own source tagged by its tokenizer; numbers found, choices made."""

from __future__ import annotations

import io
import json
import sysconfig
import tokenize
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import small_config

import zoo
from zoo.config import DataConfig, ModelConfig, OptimConfig, TaskConfig, TrainConfig, UserError

pytestmark = pytest.mark.slow
KINDS = (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING, tokenize.COMMENT)
SIZES = {"width": 32, "depth": 2, "num_heads": 2, "hidden": 64, "dropout": 0.0}
FILLERS = [
    "the",
    "red",
    "barn",
    "is",
    "very",
    "old",
    "and",
    "it",
    "was",
    "sold",
    "by",
    "Ann",
    "for",
    "a",
    "sum",
    "of",
]


def write(folder, name, rows):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fit(source, folder, task, steps, length, **data):
    config = small_config(
        model=ModelConfig("bert_tiny", {**SIZES, "num_positions": length}),
        data=DataConfig(
            f"jsonl:{source}", length=length, cache=str(folder / "cache"),
            **{"tokenizer": "wordpiece:120", **data},
        ),
        task=TaskConfig(task),
        optim=OptimConfig("adamw", 3e-3, warmup_steps=10),
        train=TrainConfig(batch_size=32, num_steps=steps, eval_batch_size=64, steps_per_call=10),
    )  # fmt: skip
    return zoo.fit(config, folder / f"run_{task}")


def read_source(name):
    """The lines of a file of the standard library as words with their tags, 3 words and more."""
    text = (Path(sysconfig.get_path("stdlib")) / f"{name}.py").read_text()
    lines: dict[int, list[tuple[str, str]]] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in KINDS and "\n" not in token.string:
            tag = tokenize.tok_name[token.type]
            lines.setdefault(token.start[0], []).append((token.string, tag))
    rows = [zip(*line, strict=True) for line in lines.values() if len(line) > 2]
    return [dict(zip(("words", "tags"), map(list, row), strict=True)) for row in rows]


def test_python_source_is_tagged(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    train = [row for name in ("ast", "shlex", "textwrap") for row in read_source(name)][:800]
    test = read_source("configparser")[:200]
    write(folder, "train", train)
    write(folder, "test", test)
    result = fit(folder, tmp_path, "token_classification", 120, 48, tokenizer="wordpiece:400")
    counts = Counter(tag for row in test for tag in row["tags"])
    majority = max(counts.values()) / sum(counts.values())
    assert set(counts) == {"NAME", "OP", "STRING", "COMMENT", "NUMBER"}
    assert 0.3 < majority < 0.65
    assert result.metrics["test"]["accuracy"] > 0.9
    (told,) = zoo.predict(tmp_path / "run_token_classification", "x = 3")
    assert [(span.text, span.label) for span in told.spans] == [
        ("x", "NAME"),
        ("=", "OP"),
        ("3", "NUMBER"),
    ]
    some = zoo.predict(tmp_path / "run_token_classification", folder / "test.jsonl")
    assert len(some) == len(test)
    assert not any(prediction.problem for prediction in some)


def make_sentence(random):
    return [str(word) for word in random.choice(FILLERS, random.integers(4, 9))]


def test_a_number_is_found_in_its_window(tmp_path):
    random = np.random.default_rng(0)
    rows = []
    for i in range(400):
        words, number = make_sentence(random) + make_sentence(random), str(random.integers(10, 99))
        place = int(random.integers(0, len(words) + 1))
        before = " ".join(words[:place])
        words.insert(place, number if i % 8 else "no")
        answers = {"text": [number], "answer_start": [len(before) + bool(place)]}
        none = {"text": [], "answer_start": []}
        rows.append(
            {
                "question": "which?",
                "context": " ".join(words),
                "answers": answers if i % 8 else none,
            }
        )
    source = write(tmp_path, "spans", rows)
    result = fit(source, tmp_path, "span", 150, 20, validation_fraction=0.25)
    assert len(result.parts.dataset.splits["train"]) > 330  # windows of 300 contexts
    val = result.metrics["val"]
    assert min(val["accuracy"], val["start_accuracy"], val["end_accuracy"]) > 0.95
    question = ("which?", "it was sold by Ann 57 for a")
    (told,) = zoo.predict(tmp_path / "run_span", [question], top=1)
    assert told.spans[0].text == "57"
    assert told.spans[0].score > 0.5


def test_the_right_choice_is_learned(tmp_path):
    random = np.random.default_rng(0)
    rows = []
    for _ in range(400):
        label = int(random.integers(0, 3))
        choices = [" ".join(make_sentence(random)) for _ in range(3)]
        choices[label] += " 42"
        rows.append({"question": "which has 42?", "choices": choices, "label": label})
    source = write(tmp_path, "choices", rows)
    result = fit(source, tmp_path, "multiple_choice", 60, 32, validation_fraction=0.25)
    assert result.metrics["val"]["accuracy"] > 0.95
    with pytest.raises(UserError, match="chooses between answers"):
        zoo.predict(tmp_path / "run_multiple_choice", "which?")
    with pytest.raises(UserError, match="chooses between answers"):
        result.predict([("which?", "red 42")])
