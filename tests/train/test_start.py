"""`init_from`: what is loaded, resized, left and begun anew, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from conftest import SMALL_VIT, small_config

import zoo
from zoo.config import (
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    TaskConfig,
    TrainConfig,
    UserError,
    quick,
)
from zoo.config.checks import check_config
from zoo.data.tokenizers.training import train_tokenizer
from zoo.models import init_params, param_shapes
from zoo.train.build import build
from zoo.tree import named_leaves, unstack_layers

WORDS = ("good", "fine", "happy", "bad", "poor", "sad", "it", "is", "and", "so")
SIZES = {"width": 16, "depth": 2, "num_heads": 2, "hidden": 32, "num_positions": 24}
SMALL_GPT = {"width": 16, "depth": 2, "num_heads": 2, "num_positions": 24}


def write_rows(root, columns="text\tlabel", label=lambda i: "praise" if i % 2 else "blame"):
    random = np.random.default_rng(0)
    lines = []
    for i in range(48):
        own = WORDS[:3] if i % 2 else WORDS[3:6]
        words = [*random.choice(own, 3), *random.choice(WORDS[6:], random.integers(1, 6))]
        lines.append(f"{' '.join(words)}\t{label(i)}")
    root.mkdir()
    (root / "train.tsv").write_text("\n".join([columns, *lines[:32]]) + "\n")
    (root / "val.tsv").write_text("\n".join([columns, *lines[32:]]) + "\n")
    return root


def draw_params(shapes):
    """Parameters unlike any fresh ones, at no cost of compiling."""
    random = np.random.default_rng(0)
    return jax.tree.map(lambda s: random.normal(0.1, 0.3, s.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A BERT with its tokenizer, whose table has three places more, and texts with labels."""
    root = tmp_path_factory.mktemp("start")
    tokenizer = train_tokenizer("wordpiece", [" ".join(WORDS)] * 4, 60)
    vocab = tokenizer.vocab_size + 3
    model = zoo.create_model("bert_tiny", **SIZES, vocab_size=vocab, dropout=0.1)
    params = draw_params(param_shapes(model))
    zoo.save_pretrained(model, params, root / "bert", tokenizer=tokenizer)
    write_rows(root / "rows")
    return root


def start_config(home, **groups):
    data = DataConfig(f"tsv:{home / 'rows'}", tokenizer="init_from", length=16)
    defaults = {"model": ModelConfig("pretrained"), "data": data, "init_from": str(home / "bert")}
    return small_config(**{**defaults, **groups})


def read_source(home):
    return named_leaves(zoo.load_pretrained(home / "bert").params)


def test_what_is_loaded_and_what_is_new(home):
    start = build(start_config(home)).start
    assert start.fresh == {"head/kernel", "head/bias"}
    loaded, theirs = named_leaves(start.load()), read_source(home)
    assert set(loaded) == set(theirs) | start.fresh
    assert start.taken == set(theirs)
    for path in theirs:
        np.testing.assert_array_equal(loaded[path], theirs[path])
    # As a run of the same seed without a source would draw it.
    drawn = named_leaves(jax.jit(lambda: init_params(start.after, 0))())
    for path in start.fresh:
        np.testing.assert_array_equal(loaded[path], drawn[path])
    assert (start.before.head, start.after.head, start.after.num_classes) == ("none", "sequence", 2)
    assert start.after.vocab_size == start.before.vocab_size  # more than the tokenizer has
    assert start.after.dropout == pytest.approx(0.1)  # as config.json says
    told = "\n".join(start.report)
    count = sum(x.size for x in theirs.values())
    assert f"{len(theirs)} leaves, {count:,} parameters of {count + 34:,}" in told
    assert "new: 2 leaves, 34 parameters (head/bias, head/kernel)" in told
    rows = {path: (origin, what) for path, origin, what in start.rows}
    assert rows["embed/embedding"] == ("embeddings.word_embeddings.weight", "loaded")
    assert rows["head/bias"] == ("-", "new")


def test_a_part_by_regex(home):
    start = build(start_config(home, init_pattern=r"^embed|blocks/00/")).start
    wanted = {p for p in read_source(home) if p.startswith(("embed", "blocks/00/"))}
    assert start.taken == wanted
    assert {"pos", "pooler/bias", "blocks/01/norm1/scale", "head/kernel"} <= start.fresh
    loaded, theirs = named_leaves(start.load()), read_source(home)
    for path in wanted:
        np.testing.assert_array_equal(loaded[path], theirs[path])
    assert any("left in the source" in line for line in start.report)
    assert ("-", "pooler.dense.bias", "left") in start.rows


def test_scanned_layers_take_unscanned_ones(home):
    config = start_config(home, model=ModelConfig("bert_tiny", SIZES, scan_layers=True))
    parts = build(config)
    loaded = parts.start.load()
    assert loaded["blocks"]["attn"]["q"]["kernel"].shape == (2, 16, 16)
    state = parts.programs.start_from(loaded)
    ours, theirs = named_leaves(unstack_layers(state.params)), read_source(home)
    for path in theirs:
        np.testing.assert_array_equal(ours[path], theirs[path])


@pytest.mark.slow
def test_a_run_goes_on_to_the_bit_and_answers(home, tmp_path):
    config = start_config(
        home,
        train=TrainConfig(batch_size=8, num_steps=6, eval_batch_size=16),
        checkpoint=CheckpointConfig(every_steps=3),
    )
    first = zoo.fit(config, tmp_path / "run")
    (newest,) = (tmp_path / "run" / "checkpoints").glob("*6")
    shutil.rmtree(newest)
    again = zoo.fit(config, tmp_path / "run")
    a, b = named_leaves(first.params), named_leaves(again.params)
    assert all(np.array_equal(a[p], b[p]) for p in a)
    begun = read_source(home)
    assert any(not np.array_equal(a[p], begun[p]) for p in begun)
    assert "embeddings.word_embeddings.weight" in (tmp_path / "run" / "init_from.txt").read_text()

    texts = ["good fine it is", "so sad and bad"]
    found = [dict(p.labels) for p in zoo.predict(tmp_path / "run", texts)]
    rows = [[labels["blame"], labels["praise"]] for labels in found]
    np.testing.assert_allclose(rows, first.predict(texts), atol=1e-6)
    with pytest.raises(UserError, match="predict takes texts here"):
        first.predict([("good", "bad")])


def test_a_run_is_a_source_itself(home, tmp_path):
    """All of it, head and tokenizer; for other classes without the head."""
    config = start_config(home, train=TrainConfig(16, 1))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, val_split=""))
    first = zoo.fit(config, tmp_path / "run")
    onward = dataclasses.replace(config, init_from=str(tmp_path / "run"))
    start = build(onward).start
    assert start.fresh == set()
    a, b = named_leaves(first.params), named_leaves(start.load())
    assert all(np.array_equal(a[p], b[p]) for p in a)
    write_rows(tmp_path / "others", label=lambda i: "warm" if i % 2 else "cold")
    data = dataclasses.replace(config.data, source=f"tsv:{tmp_path / 'others'}")
    start = build(dataclasses.replace(onward, data=data)).start
    assert start.fresh == {"head/kernel", "head/bias"}
    assert any("of other classes (blame, praise -> cold, warm)" in x for x in start.report)


@pytest.mark.parity
def test_what_was_trained_is_what_transformers_loads(home, tmp_path, torch):
    from transformers import AutoModelForSequenceClassification

    data = dataclasses.replace(start_config(home).data, val_split="")
    result = zoo.fit(start_config(home, data=data, train=TrainConfig(16, 2)))
    zoo.save_pretrained(result.model, result.params, tmp_path / "out")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = result.parts.dataset.tokenizer
    rows, _ = tokenizer.encode_rows(["good and happy it is", "so sad"], 16)
    for row, ours in zip(rows, result.predict(["good and happy it is", "so sad"]), strict=True):
        with torch.no_grad():
            logits = theirs(torch.tensor(np.asarray(row)[None], dtype=torch.long)).logits
        np.testing.assert_allclose(torch.softmax(logits, -1)[0].numpy(), ours, atol=1e-5)


@pytest.mark.slow
def test_values_of_texts(home, tmp_path):
    write_rows(tmp_path / "rows", label=lambda i: f"{i % 2 * 3 + 0.5}")
    data = DataConfig(f"tsv:{tmp_path / 'rows'}", tokenizer="init_from", length=16)
    train = TrainConfig(batch_size=16, num_steps=150, steps_per_call=10, eval_batch_size=16)
    # The source's layers are drawn at random: only what they read is taken.
    groups = {"data": data, "task": TaskConfig("regression"), "train": train}
    result = zoo.fit(start_config(home, init_pattern="^embed/", **groups))
    assert result.metrics["val"]["r2"] > 0.8
    low, high = result.predict(["bad poor it is", "good fine it is"])[:, 0]
    assert low < 1.5 < 2.5 < high


def test_a_decoder_reads_the_last_real_token(home):
    data = DataConfig(f"tsv:{home / 'rows'}", tokenizer="bytes", length=40)
    model = ModelConfig("gpt2", {**SMALL_GPT, "num_positions": 40})
    parts = build(small_config(data=data, model=model))
    assert parts.model.head == "sequence"
    params = draw_params(parts.programs.abstract_state.params)
    examples = parts.dataset.splits["val"].take(np.arange(4))
    batch = {k: np.asarray(v) for k, v in examples.items()}
    found = jax.jit(parts.task.predict)(params, batch)
    size = int(batch["token_mask"][0].sum())
    body = dataclasses.replace(parts.model, head="none")
    rest = {k: v for k, v in params.items() if k != "head"}
    stream = jax.jit(body.apply)({"params": rest}, batch["tokens"][:1, :size])[0][0, -1]
    expected = jax.nn.softmax(stream @ params["head"]["kernel"])
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_images_of_another_size(tmp_path):
    fields = {**SMALL_VIT, "image_size": (8, 8), "num_channels": 1, "num_classes": 10}
    model = zoo.create_model("vit_s4", **fields)
    zoo.save_pretrained(model, draw_params(param_shapes(model)), tmp_path / "digits")
    data = DataConfig("synthetic:embedded:mnist_5k", transform="normalize(0.5, 0.5)")
    larger = small_config(
        model=ModelConfig("pretrained"), data=data, init_from=str(tmp_path / "digits")
    )
    parts = build(larger)
    assert parts.model.image_size == (28, 28)
    assert parts.start.fresh == set()
    assert any("pos: 2x2 -> 7x7 grid, bicubic" in line for line in parts.start.report)
    assert parts.start.load()["pos"].shape == (50, 16)
    colours = dataclasses.replace(data, source="synthetic:tfds:cifar10")
    with pytest.raises(UserError, match=r"its images have 1 channels, those of .* have 3"):
        build(dataclasses.replace(larger, data=colours))


MISTAKES = [
    ({"init_pattern": "blocks/77"}, "takes no parameter of init_from=.*paths are like"),
    ({"init_pattern": "block(s"}, "is no regex"),
    ({"init_from": None}, "model.name='pretrained' needs init_from"),
    ({"init_from": None, "model": ModelConfig("bert_tiny", SIZES)}, "'init_from' needs init_from"),
    ({"init_from": None, "init_pattern": "embed"}, "init_pattern='embed' needs init_from"),
    ({"init_from": "/no/such/place/here"}, "init_from='/no/such/place/here': there is no /no"),
    ({"init_from": "numpy"}, "there is no numpy .did you mean 'package:numpy'"),
    ({"init_from": "package:numpy"}, "package:numpy holds no folder with config.json"),
    ({"model": ModelConfig("pretraind")}, "did you mean 'pretrained'"),
    ({"init_from": "package:no-such-zoo"}, "install --no-deps no-such-zoo"),
    ({"model": ModelConfig("gpt2", SMALL_GPT)}, "a Encoder cannot be made to fit a Decoder"),
    ({"model": ModelConfig("bert_tiny", {**SIZES, "depth": 3})}, "blocks/02/.*: none -> "),
    ({"model": ModelConfig("pretrained", {"num_heads": 4})}, "num_heads: 2 -> 4, must stay"),
    ({"model": ModelConfig("pretrained", {"num_classes": 3})}, "num_classes=3: .* has 2 classes"),
    ({"model": ModelConfig("pretrained", {"widht": 3})}, "widht is unknown .did you mean 'width'"),
    ({"model": ModelConfig("pretrained", {"head": "lm"})}, "heads masked_lm, .* wants 'lm'"),
    ({"task": TaskConfig("causal_lm")}, "'causal_lm' takes a corpus"),
    ({"task": TaskConfig("classification", {"mixup": 0.2})}, "mixup mixes numbers, .* is text"),
]


@pytest.mark.parametrize(("groups", "message"), MISTAKES)
def test_mistakes(home, groups, message):
    with pytest.raises(UserError, match=message):
        build(check_config(start_config(home, **groups)))


def test_mistakes_of_the_data(home):
    data = start_config(home).data
    for changes, message in (
        ({"tokenizer": "bytes"}, "another tokenizer than data.tokenizer='bytes': set data.tok"),
        ({"length": 40}, "the model has 24 positions, not 40: shorten the text"),
    ):
        with pytest.raises(UserError, match=message):
            build(start_config(home, data=dataclasses.replace(data, **changes)))
    # Without the embedding the tokens are free.
    other = dataclasses.replace(data, tokenizer="bytes")
    start = build(start_config(home, data=other, init_pattern="blocks|pooler")).start
    assert start.after.vocab_size == 257
    assert "embed/embedding" in start.fresh


def test_a_first_look_needs_no_weights(home):
    named = start_config(home, model=ModelConfig("bert_tiny", SIZES), init_pattern="blocks")
    named = dataclasses.replace(
        named, data=DataConfig("files:sst2", tokenizer="init_from", length=16)
    )
    parts = build(check_config(quick(named)))
    assert parts.start is None
    assert quick(start_config(home)).init_from == str(home / "bert")
