"""The task of pairs against sums written out, and under masks, parts and padding."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.config import UserError
from zoo.models.transformer import Transformer
from zoo.tasks.seq2seq import SequenceToSequence, choose_begin

MODEL = Transformer(width=8, depth=1, num_heads=2, hidden=16, vocab_size=7)
BYTES = np.array([1, 2, 3, 4, 0, 5, 6])
SIZES = ([4, 2, 5, 1], [3, 5, 1, 4])  # of sources and targets
TASK = SequenceToSequence(MODEL, BYTES, end=2, begin=6, label_smoothing=0.1)


def make_batch(width=5):
    random = np.random.default_rng(0)
    batch = {"mask": jnp.array([1.0, 1.0, 1.0, 0.0])}
    for name, sizes in zip(("source", "target"), SIZES, strict=True):
        tokens = np.pad(random.integers(0, 7, (4, 5)), ((0, 0), (0, width - 5)))
        batch |= {name: tokens, f"{name}_mask": np.arange(width) < np.array(sizes)[:, None]}
    return {k: jnp.asarray(v) for k, v in batch.items()}


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda x: x * 3, jax.jit(TASK.init)(jax.random.key(0)))


@pytest.fixture(scope="module")
def run(params):
    """(loss sum, sums) in evaluation and in training; there is no dropout."""

    @jax.jit
    def run(batch):
        return TASK.loss(params, batch, None), TASK.loss(params, batch, jax.random.key(1))

    return run


def sum_by_hand(params, batch):
    """Row by row, each cut to its own size: losses, smoothed ones, hits, targets, bytes."""
    out = np.zeros(5)
    for row in range(3):
        source, target = (
            batch[k][row, : n[row]] for k, n in zip(("source", "target"), SIZES, strict=True)
        )
        shifted = jnp.array([6, *target[:-1]])
        z = MODEL.apply({"params": params}, source[None], shifted[None])[0][0]
        log_p = np.asarray(jax.nn.log_softmax(z), np.float64)
        target = np.asarray(target)
        for place, token in enumerate(target):
            smooth = np.full(7, 0.1 / 7) + 0.9 * (np.arange(7) == token)
            hit = log_p[place].argmax() == token
            out += [-log_p[place, token], -smooth @ log_p[place], hit, 1, BYTES[token]]
    return out


def test_by_hand(params, run):
    batch = make_batch()
    plain, smooth, hits, count, num_bytes = sum_by_hand(params, batch)
    (loss, sums), (trained, same) = run(batch)
    assert float(loss) == pytest.approx(plain, rel=1e-5)
    assert float(trained) == pytest.approx(smooth, rel=1e-5)
    assert abs(plain - smooth) > 0.1
    for found in (sums, same):  # what is told is never smoothed
        assert float(found["loss"]) == pytest.approx(plain, rel=1e-5)
        assert float(found["weight"]) == count == 9
        assert (float(found["correct"]), float(found["bytes"])) == (hits, num_bytes)
    told = TASK.summarise({k: np.asarray(v, np.float64) for k, v in sums.items()})
    assert told["loss"] == pytest.approx(plain / 9, rel=1e-5)
    assert told["perplexity"] == pytest.approx(np.exp(plain / 9), rel=1e-4)
    assert told["accuracy"] == pytest.approx(hits / 9)
    assert told["bits_per_byte"] == pytest.approx(plain / np.log(2) / num_bytes, rel=1e-5)
    rows, likeliest = jax.jit(lambda p, b: (TASK.observe(p, b), TASK.predict(p, b)))(params, batch)
    assert ((likeliest == batch["target"]) & batch["target_mask"])[:3].sum() == hits
    real = np.asarray(batch["mask"]) > 0
    names = {"loss": "loss", "num_tokens": "weight", "num_correct": "correct", "num_bytes": "bytes"}
    for mine, theirs in names.items():
        assert rows[mine].shape == (4,)
        assert float(rows[mine][real].sum()) == pytest.approx(float(sums[theirs]), rel=1e-6)


def test_padding_and_parts_change_nothing(run):
    """A longer bucket, other numbers where nothing is real, and the batch row by row."""
    batch = make_batch()
    wide = make_batch(9)
    for name in ("source", "target"):
        wide[name] = jnp.where(wide[f"{name}_mask"], wide[name], 3)
    wide["source_mask"] = wide["source_mask"].at[3].set(False)  # a row of nothing
    whole, padded = run(batch), run(wide)
    parts = [run({k: jnp.roll(v, -i, 0)[:1] for k, v in batch.items()}) for i in range(4)]
    added = jax.tree.map(lambda *x: sum(x), *parts)
    for other in (padded, added):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, other)


def test_the_loss_begins_at_the_logarithm_of_the_vocabulary():
    model = dataclasses.replace(MODEL, vocab_size=512, width=64, hidden=64)
    task = SequenceToSequence(model, None, end=0, begin=0)
    params = jax.jit(task.init)(jax.random.key(0))
    random = np.random.default_rng(0)
    tokens = random.integers(0, 512, (2, 4, 16)).astype(np.int32)
    mask = np.ones((4, 16), bool)
    batch = {"source": tokens[0], "target": tokens[1], "source_mask": mask, "target_mask": mask}
    sums = jax.jit(lambda p, b: task.loss(p, b, None)[1])(
        params, {**batch, "mask": np.ones(4, np.float32)}
    )
    told = task.summarise({k: np.asarray(v, np.float64) for k, v in sums.items()})
    # Logits of unit variance cost half a nat more.
    assert np.log(512) - 0.1 < told["loss"] < np.log(512) + 0.8
    assert "bits_per_byte" not in told


def tokenizer(**tokens):
    named = {"begin": None, "pad": None, "end": None, **tokens}
    return SimpleNamespace(vocab_size=7, token_bytes=None, **named)


def test_the_first_token():
    assert choose_begin(tokenizer(begin=5, pad=0, end=1)) == 5
    assert choose_begin(tokenizer(pad=0, end=1)) == 0  # T5, Marian
    assert choose_begin(tokenizer(end=3)) == 3  # byte-level BPE
    assert choose_begin(tokenizer()) is None
    info = SimpleNamespace(name="mine", tokenizer=tokenizer(pad=0, end=1))
    assert SequenceToSequence.create(MODEL, info).special_tokens == {
        "decoder_start_token_id": 0,
        "eos_token_id": 1,
    }
    assert SequenceToSequence.create(MODEL, info, begin=4).begin == 4


@pytest.mark.parametrize(
    ("found", "arguments", "message"),
    [
        (None, {}, "mine is no text"),
        (tokenizer(), {}, "no token that targets begin or end with"),
        (tokenizer(begin=1), {}, "no token that targets begin or end with"),
        (tokenizer(end=1), {"begin": 7}, "begin=7: tokens are 0 to 6"),
        (tokenizer(end=1), {"label_smoothing": 1.0}, r"label_smoothing=1.0 is not in \[0, 1\)"),
    ],
)
def test_mistakes(found, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        SequenceToSequence.create(MODEL, SimpleNamespace(name="mine", tokenizer=found), **arguments)
    assert "\n" not in str(caught.value)
