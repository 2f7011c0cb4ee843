"""What is hidden and what stays are the original; how much is hidden is what was asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.config import DataConfig, UserError
from zoo.data import ArraySource, Dataset, TrainStream, parse_ops, read_eval
from zoo.data.documents import open_texts, text_array
from zoo.data.masking import cut_randomly
from zoo.data.text import encode_text
from zoo.data.tokenizers.plain import PlainTokenizer
from zoo.data.tokenizers.training import train_unigram, train_wordpiece

SPECIAL = (0, 1, 2)  # padding, [SEP], [MASK]


class Words(PlainTokenizer):
    """Fifty tokens: 0 to 2 special, 3 to 39 words and pieces of words, 40 to 49 sentinels."""

    vocab_size, mask, end, token_bytes = 50, 2, 1, None
    special = np.isin(np.arange(50), (*SPECIAL, *range(40, 50)))
    continues = (np.arange(50) % 3 == 1) & (np.arange(50) > 2)
    sentinels = tuple(range(49, 39, -1))

    def encode(self, text):
        return np.zeros(0, np.int32)

    def decode(self, ids):
        return ""

    def to_json(self):
        return "{}"


WORDS = Words()


def make_rows(sizes, length):
    """Rows of ordinary tokens between 3 and 39, each ended by a special one."""
    random = np.random.default_rng(7)
    tokens = np.zeros((len(sizes), length), np.int32)
    for i, size in enumerate(sizes):
        tokens[i, :size] = random.integers(3, 40, size)
        tokens[i, size - 1 : size] = 1
    arrays = {"tokens": tokens, "token_mask": np.arange(length) < np.array(sizes)[:, None]}
    arrays["label"] = np.arange(len(sizes))
    return Dataset("rows", {"train": ArraySource(arrays)}, tokenizer=WORDS)


def run(text, dataset, seed=0):
    (op,) = parse_ops(text, dataset)
    examples = dataset.splits["train"].arrays
    size = len(examples["label"])
    return op(dict(examples), np.random.default_rng(seed).random((size, op.num_draws)))


SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@given(sizes=SIZES, rate=st.floats(0.05, 0.9), whole=st.booleans(), seed=st.integers(0, 99))
def test_masked_tokens(sizes, rate, whole, seed):
    dataset = make_rows(sizes, 30)
    before = dataset.splits["train"].arrays
    out = run(f"mask_tokens({rate}, whole_word={whole})", dataset, seed)
    np.testing.assert_array_equal(out["targets"], before["tokens"])
    kept = ~out["real"]
    np.testing.assert_array_equal(out["tokens"][kept], before["tokens"][kept])
    ordinary = before["token_mask"] & ~WORDS.special[before["tokens"]]
    assert not (out["real"] & ~ordinary).any()
    changed = out["tokens"][out["real"]]
    assert (~WORDS.special[changed] | (changed == 2)).all()
    counts, wanted = out["real"].sum(axis=1), np.rint(ordinary.sum(axis=1) * rate)
    if not whole:
        least = np.minimum(1, ordinary.sum(axis=1))
        np.testing.assert_array_equal(counts, np.maximum(wanted, least))
    for row, chosen, own in zip(before["tokens"], out["real"], ordinary, strict=True):
        for i in range(1, 30) if whole else ():
            if own[i] and own[i - 1] and WORDS.continues[row[i]]:
                assert chosen[i] == chosen[i - 1]
    assert (counts >= wanted).all()


def test_eight_in_ten():
    dataset = make_rows([100] * 2000, 100)
    out = run("mask_tokens(0.15)", dataset)
    chosen, tokens, targets = out["real"], out["tokens"], out["targets"]
    size = chosen.sum()
    assert size == 2000 * 15
    masked, same = (tokens == 2)[chosen].mean(), (tokens == targets)[chosen].mean()
    margin = 4 * (0.8 * 0.2 / size) ** 0.5
    assert masked == pytest.approx(0.8, abs=margin)
    assert same == pytest.approx(0.1 + 0.1 / 37, abs=margin)
    other = tokens[chosen & (tokens != 2) & (tokens != targets)]
    assert set(other) == set(range(3, 40))  # every ordinary token, no special one
    # Every place of a row is chosen alike.
    assert chosen[:, :99].mean(axis=0).std() < 2 * (0.15 * 0.85 / 2000) ** 0.5
    electra = run("mask_tokens(0.15, mask=1, random=0)", dataset)
    assert (electra["tokens"][electra["real"]] == 2).all()
    whole = run("mask_tokens(0.15, whole_word=True)", dataset)
    assert 0.15 < whole["real"][:, :99].mean() < 0.17  # a word more at most


def restore(source, target):
    """The text whose sentinels in `source` stand for what follows them in `target`."""
    spans, current = {}, None
    for token in target:
        if token in WORDS.sentinels:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    assert list(spans) == list(WORDS.sentinels[: len(spans)])
    return [t for token in source for t in spans.pop(token, [token])]


@given(sizes=SIZES, rate=st.floats(0.05, 0.6), mean=st.floats(2, 5), seed=st.integers(0, 99))
def test_corrupted_spans(sizes, rate, mean, seed):
    dataset = make_rows(sizes, 30)
    (op,) = parse_ops(f"corrupt_spans({rate}, {mean})", dataset)
    out = run(f"corrupt_spans({rate}, {mean})", dataset, seed)
    assert set(out) == {"source", "source_mask", "target", "target_mask", "label"}
    removed, spans = op.count(np.array(sizes))
    for i, size in enumerate(sizes):
        source = out["source"][i][out["source_mask"][i]].tolist()
        target = out["target"][i][out["target_mask"][i]].tolist()
        assert source.pop() == target.pop() == WORDS.end
        before = dataset.splits["train"].arrays["tokens"][i, :size].tolist()
        assert restore(source, target) == before
        assert len(target) == removed[i] + spans[i]
        assert len(source) == size - removed[i] + spans[i]
        assert not out["source"][i][~out["source_mask"][i]].any()


def test_the_numbers_of_the_paper():
    """512 tokens, 15 %, spans of 3: 77 tokens in 26 spans, 462 and 104 places with the ends."""
    (op,) = parse_ops("corrupt_spans(0.15, 2)", make_rows([30], 30))
    paper = type(op)()
    removed, spans = paper.count(np.array([512]))
    assert (removed[0], spans[0]) == (77, 26)


def test_all_sums_are_alike_probable():
    """5 as a sum of 3: six ways."""
    draws = np.random.default_rng(0).random((6000, 8))
    parts = cut_randomly(np.full(6000, 5), np.full(6000, 3), draws)
    _, counts = np.unique(parts, axis=0, return_counts=True)
    assert len(counts) == 6
    assert abs(counts - 1000).max() < 4 * 1000**0.5
    assert (parts.sum(axis=1) == 5).all()


WORDPIECE = train_wordpiece(["a word and another wordy word"] * 3, 60)
UNIGRAM = train_unigram(["a word and another wordy word, words"] * 9, 30, 20)


def make_corpus(folder, tokenizer, **changes):
    texts = {s: ["a word and another word " * 9, "wordy " * 21] for s in ("train", "val")}
    config = DataConfig(cache=str(folder), length=16, **changes)
    return encode_text(open_texts("mine", texts), config, tokenizer)


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("mask_tokens(0.15, whole_word=True)", WORDPIECE),
        ("corrupt_spans(0.15, 3)", UNIGRAM),
    ],
)
def test_a_corpus_in_batches(tmp_path, text, tokenizer):
    dataset = make_corpus(tmp_path, tokenizer)
    ops = parse_ops(text, dataset)
    whole = TrainStream(dataset.splits["train"], ops, 4, 9, seed=1)
    for block in range(9):
        shares = [
            TrainStream(dataset.splits["train"], ops, 4, 9, seed=1, rows=r)[block]
            for r in (slice(1), slice(1, 4))
        ]
        for name, values in whole[block].items():
            joined = np.concatenate([share[name] for share in shares], axis=1)
            np.testing.assert_array_equal(joined, values)
    first = list(read_eval(dataset.splits["val"], ops, 3))
    again = list(read_eval(dataset.splits["val"], ops, 3))
    for a, b in zip(first, again, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    if "mask" in text:
        batch = whole[0]
        assert batch["tokens"].shape == batch["targets"].shape == batch["real"].shape == (1, 4, 16)
        seen = [b["targets"][b["token_mask"] & (b["mask"] > 0)[:, None]] for b in first]
        file = dataset.splits["val"].tokens
        held = np.concatenate(seen)
        np.testing.assert_array_equal(held, file.read(np.arange(len(held))))
        assert len(file) - len(held) in (0, 1)
    else:
        assert whole[0]["source"].shape == (1, 4, 16 - 2 + 1 + 1)
        assert whole[0]["target"].shape == (1, 4, 2 + 1 + 1)


def test_packed_documents_and_buckets_are_masked(tmp_path):
    packed = make_corpus(tmp_path, WORDPIECE, packing=True)
    ops = parse_ops("mask_tokens(0.3)", packed)
    batch = TrainStream(packed.splits["train"], ops, 2, 2)[0]
    assert batch["segments"].shape == batch["tokens"].shape == (1, 2, 16)
    assert not batch["real"][batch["segments"] == 0].any()
    rows = {"text": text_array(["word " * n for n in range(1, 13)]), "label": np.arange(12)}
    raw = Dataset("rows", {"train": ArraySource(rows)}, fingerprint="x")
    config = DataConfig(cache=str(tmp_path), length=16, buckets=(8, 16))
    dataset = encode_text(raw, config, WORDPIECE)
    ops = parse_ops("mask_tokens(0.3)", dataset)
    stream = TrainStream(dataset.splits["train"], ops, 4, 3)
    assert {stream[i]["tokens"].shape[-1] for i in range(3)} == {8, 16}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask_tokens(1.5)", "rate=1.5 is not in"),
        ("mask_tokens(mask=0.9, random=0.2)", "together at most 1"),
        ("mask_tokens", "the tokenizer has no .MASK."),
        ("mask_tokens(mask=0, whole_word=True)", "which tokens go on with a word"),
        ("corrupt_spans(0.15, 0.5)", "mean_length=0.5 at least 1"),
        ("corrupt_spans", "need 1 sentinels, <extra_id_0> and on"),
    ],
)
def test_mistakes(tmp_path, text, message):
    dataset = make_corpus(tmp_path, None)
    with pytest.raises(UserError, match=message):
        parse_ops(text, dataset)
