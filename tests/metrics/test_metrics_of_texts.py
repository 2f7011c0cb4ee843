"""Texts against sacrebleu and rouge_score; answers and spans against hand-made cases."""

import itertools

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from zoo.metrics import Additive, find_metrics

WORDS = ["the", "a", "cat", "dog,", "sat", "on", "Mat.", "It's", "3.5", "(well)", "isn't", "ein"]
WORDS += ["ünder", "猫", "&", "over"]

OVERLAPS = [("bleu", BLEU()), ("bleu_zh", BLEU(tokenize="zh")), ("chrf", CHRF())]


def pack(texts, references):
    column = np.empty(len(texts), object)
    column[:] = references
    return {"text": np.array(texts, object), "references": column}


def draw_texts(seed, n=30, most=3):
    """References, and texts that are references with words lost, doubled and moved."""
    rng = np.random.default_rng(seed)
    texts, references = [], []
    for _ in range(n):
        own = [
            list(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(rng.integers(1, most + 1))
        ]
        words = [w for w in own[0] for _ in range(rng.choice([0, 1, 1, 1, 2]))]
        references.append(tuple(" ".join(words) for words in own))
        texts.append(" ".join(words))
    return pack(texts, references)


def only(name, records):
    (metric,) = find_metrics(records, [name])
    return metric


def by_sacrebleu(score, records, counts):
    texts = np.repeat(records["text"], counts).tolist()
    references = np.repeat(records["references"], counts).tolist()
    most = max(map(len, references))
    padded = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    return score.corpus_score(texts, padded).score


@pytest.mark.parametrize(("name", "score"), OVERLAPS)
@pytest.mark.parametrize("most", [1, 3])
def test_overlap_as_sacrebleu(name, score, most):
    records = draw_texts(1, most=most)
    counts = np.random.default_rng(2).integers(0, 3, (6, 30))
    counts[0] = 1
    counts[4:] = np.eye(30, dtype=int)[:2]  # short corpora: orders without a match
    values = only(name, records)(records, counts * 1.0)
    for value, own in zip(values, counts, strict=True):
        assert value == pytest.approx(by_sacrebleu(score, records, own), abs=1e-9)
    assert 10 < values[0] < 90


@pytest.mark.parametrize(("name", "score"), OVERLAPS)
def test_overlap_of_odd_texts_as_sacrebleu(name, score):
    cases = [("", ("a b",)), ("a b", ("",)), ("x", ("y",)), ("a", ("a",)), ("", ("abc", ""))]
    cases += [("猫 が", ("猫 が いる",)), ("a b c d", ("a b c d",)), ("a b c d e", ("a b c x e",))]
    cases += [("请更正URL。", ("请输入有效的URL。",))]
    for text, references in cases:
        records = pack([text], [references])
        expected = by_sacrebleu(score, records, [1])
        assert only(name, records).value(records) == pytest.approx(expected, abs=1e-9), text


@pytest.mark.parametrize("which", ["1", "2", "L"])
def test_rouge_by_hand(which):
    records = pack(["the dog sat sat on a mat"], [("The dog on the sat mat!", "none")])
    # 7 and 6 words; shared: the dog sat on mat; pairs: the-dog; in order: the dog on mat
    expected = {"1": 2 * 5 / 13, "2": 2 * 1 / 11, "L": 2 * 4 / 13}[which]
    assert only(f"rouge{which}", records).value(records) == pytest.approx(expected)


def test_longest_common_subsequence_by_brute_force():
    from zoo.metrics.overlap import measure_subsequence

    rng = np.random.default_rng(3)
    for _ in range(40):
        a, b = (list(rng.choice(list("abc"), rng.integers(0, 7))) for _ in range(2))
        parts = [
            set(itertools.chain(*(itertools.combinations(x, k) for k in range(7)))) for x in (a, b)
        ]
        assert measure_subsequence(a, b) == max(map(len, parts[0] & parts[1])), (a, b)


@pytest.mark.parity
def test_rouge_as_rouge_score():
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = rouge_scorer.RougeScorer(names)
    records = draw_texts(4, n=60)
    found = [
        scorer.score_multi(list(references), text)
        for text, references in zip(records["text"], records["references"], strict=True)
    ]
    for name in names:
        expected = np.mean([one[name].fmeasure for one in found])
        assert only(name, records).value(records) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "references", "exact", "f1"),
    [
        ("The  cat.", ("a cat",), 1, 1),
        ("cat sat", ("the cat sat down", "dog"), 0, 2 * 2 / 5),
        ("cat cat", ("cat",), 0, 2 / 3),
        ("", ("",), 1, 1),
        ("the", ("",), 1, 1),
        ("cat", ("",), 0, 0),
        ("cat", (), 0, 0),
        ("anthem", ("them",), 0, 0),
    ],
)
def test_answers(text, references, exact, f1):
    records = pack([text], [references])
    assert only("exact_match", records).value(records) == exact
    assert only("token_f1", records).value(records) == pytest.approx(f1)


def test_spans_by_brute_force():
    rng = np.random.default_rng(5)
    start_logits, end_logits = rng.normal(size=(2, 40, 6))
    start_logits[:, 4:] = end_logits[:, 4:] = -np.inf  # padding
    best = []
    for s, e in zip(start_logits, end_logits, strict=True):
        pairs = [(i, j) for i in range(6) for j in range(i, 6)]
        best.append(max(pairs, key=lambda pair: s[pair[0]] + e[pair[1]]))
    start, end = np.array(best).T.copy()
    end[:10] += 1
    records = {"start_logits": start_logits, "end_logits": end_logits, "start": start, "end": end}
    got = {metric.name: metric.value(records) for metric in find_metrics(records)}
    assert got == {"accuracy": 0.75, "start_accuracy": 1.0, "end_accuracy": 0.75}


def test_texts_are_sums_over_rows():
    """The sums of parts are those of the whole; no weights give NaN, and order is nothing."""
    records = draw_texts(6)
    order = np.random.default_rng(7).permutation(30)
    for metric in find_metrics(records):
        assert isinstance(metric, Additive)
        parts = [{k: v[s] for k, v in records.items()} for s in (slice(9), slice(9, None))]
        sums = sum(metric.statistics(part).sum(axis=0) for part in parts)
        value = metric.value(records)
        assert metric.finish(sums) == pytest.approx(value, abs=1e-12)
        assert metric.value({k: v[order] for k, v in records.items()}) == pytest.approx(value)
        assert np.isnan(metric(records, np.zeros((1, 30)))[0])
