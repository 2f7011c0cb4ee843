"""Answers of all windows of a context: by brute force."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from conftest import small_config
from published import WORDS, copy_twin, write_wordpiece
from safetensors.numpy import load_file, save_file

import zoo
from zoo.config import DataConfig, ModelConfig, TaskConfig, TrainConfig
from zoo.evaluation.answers import find_best
from zoo.metrics.answers import match_exactly, score_tokens

LENGTH = 16


def test_the_best_span_by_trying_all():
    random = np.random.default_rng(0)
    start, end = random.normal(size=(2, 30, 12))
    there = random.random((30, 12)) < 0.6
    there[0] = False
    for most in (1, 3, 30):
        score, first, last = find_best(start, end, there, most)
        for i in range(30):
            spans = {
                (a, b): start[i, a] + end[i, b]
                for a in range(12)
                for b in range(a, min(a + most, 12))
                if there[i, a] and there[i, b]
            }
            if not spans:
                assert np.isneginf(score[i])
                continue
            best = max(spans, key=spans.__getitem__)
            assert ((first[i], last[i]), score[i]) == (best, spans[best])


def make_rows(none):
    """Questions of short and long contexts, some with two answers, every fifth without one."""
    random = np.random.default_rng(1)
    rows = []
    for i in range(24):
        words = [str(word) for word in random.choice(WORDS, 4 + 9 * (i % 3))]
        place = int(random.integers(0, len(words) - 1))
        starts = [sum(len(w) + 1 for w in words[:place])] * 2
        texts = [words[place], " ".join(words[place : place + 2])]
        if none and i % 5 == 0:
            texts, starts = [], []
        answers = {"text": texts, "answer_start": starts}
        row = {"question": "is the cat big?", "context": " ".join(words)}
        rows.append({**row, "answers": answers, "kind": "ab"[i % 2]})
    return rows


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A span head that has opinions, with the words of its tokenizer."""
    folder = copy_twin("bert_answerer", tmp_path_factory.mktemp("bert") / "bert")
    words = write_wordpiece(folder, 50)
    tensors = load_file(folder / "model.safetensors")
    tensors["qa_outputs.weight"] = tensors["qa_outputs.weight"] * -4
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return zoo.load_pretrained(folder), words


def answer_by_hand(loaded, words, row, apply, none):
    """The text: windows cut by hand, every span of each window tried."""
    question = ["is", "the", "cat", "big", "?"]
    context = row["context"].split()
    ids = {word: i for i, word in enumerate(words)}  # 'a' is there twice: the last one counts
    room = LENGTH - len(question) - 3
    best, text, least, begin = -np.inf, "", np.inf, 0
    while True:
        here = context[begin : begin + room]
        tokens = ["[CLS]", *question, "[SEP]", *here, "[SEP]"]
        types = [0] * (len(question) + 2) + [1] * (len(here) + 1)
        logits = apply(len(tokens), [ids[t] for t in tokens], types)
        least = min(least, logits[0].sum())
        first = len(question) + 2
        for a in range(len(here)):
            for b in range(a, len(here)):
                score = logits[first + a, 0] + logits[first + b, 1]
                if score > best:
                    best, text = score, " ".join(here[a : b + 1])
        if begin + room >= len(context):
            return "" if none and least > best else text
        begin += max(room // 2, 1)


@pytest.mark.parametrize("none", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_answers_of_windows_are_those_of_brute_force(bert, tmp_path, none):
    loaded, words = bert
    rows = make_rows(none)
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = zoo.evaluate(
        loaded, f"jsonl:{path}", length=LENGTH, by=["kind", "length"], worst=2, samples=50
    )
    run = jax.jit(lambda p, t, m, y: loaded.model.apply({"params": p}, t, mask=m, types=y)[0])

    def apply(count, tokens, types):
        tokens, types = (np.array([[*x, *[0] * (LENGTH - count)]]) for x in (tokens, types))
        mask = np.arange(LENGTH)[None] < count
        return np.asarray(run(loaded.params, tokens, mask, types)[0, :count], np.float64)

    texts = [answer_by_hand(loaded, words, row, apply, none) for row in rows]
    assert found.questions["text"].tolist() == texts
    assert len(set(texts)) > 3
    assert ("" in texts) == none
    assert found.num_examples > len(rows)
    for name, score in (("exact_match", match_exactly), ("token_f1", score_tokens)):
        best = [
            max(score(text, right) for right in row["answers"]["text"] or [""])
            for text, row in zip(texts, rows, strict=True)
        ]
        assert found.metrics[name].value == pytest.approx(np.mean(best))
        assert found.metrics[name].low <= np.mean(best) <= found.metrics[name].high
        for part in found.slices[:2]:
            mine = [b for b, row in zip(best, rows, strict=True) if row["kind"] == part.value]
            assert part.metrics[name].value == pytest.approx(np.mean(mine))
            assert part.count == 12
    assert found.worst[0].prediction in {text or "(none)" for text in texts}
    assert found.main.name == "exact_match"
    assert {"loss", "accuracy", "start_accuracy"} <= set(found.metrics)
    assert f"{len(rows)} questions in {found.num_examples} windows" in " ".join(found.notes)


@pytest.mark.slow
def test_runs_by_question_whatever_their_windows(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in make_rows(True)))
    sizes = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 32, "num_positions": 20}
    for length in (16, 20):
        config = small_config(
            model=ModelConfig("bert_tiny", sizes),
            data=DataConfig(
                f"jsonl:{tmp_path}/rows.jsonl", length=length, cache=str(tmp_path / "cache"),
                tokenizer="wordpiece:60", validation_fraction=0.5,
            ),
            task=TaskConfig("span"),
            train=TrainConfig(batch_size=8, num_steps=2, eval_batch_size=8),
        )  # fmt: skip
        result = zoo.fit(config, tmp_path / f"run_{length}")
    first, second = tmp_path / "run_16", tmp_path / "run_20"
    found = zoo.evaluate(first, against=second, samples=50)
    whole = zoo.evaluate(second, samples=50)
    assert whole.num_examples < found.num_examples
    for name, value in result.metrics["val"].items():
        assert whole.metrics[name].value == value
    assert list(found.against.metrics) == ["exact_match", "token_f1"]
    for name, comparison in found.against.metrics.items():
        assert comparison.a == found.metrics[name].value
        assert comparison.b == whole.metrics[name].value
    part = zoo.evaluate(first, split="val[:5]", samples=50)
    assert part.questions["text"].tolist() == found.questions["text"][:5].tolist()
    assert part.questions["references"].tolist() == found.questions["references"][:5].tolist()
