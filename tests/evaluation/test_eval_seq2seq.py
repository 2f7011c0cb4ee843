"""Runs on pairs: what they tell, and what `zoo eval` and `zoo generate` make of them."""

import json

import numpy as np
import pytest
import sacrebleu
from conftest import small_config

import zoo
from zoo.config import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    TaskConfig,
    TrainConfig,
    UserError,
)
from zoo.data import TrainStream
from zoo.data.tokenizers import read_tokenizer
from zoo.train.build import build

TINY = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 16}
TOLD = {"loss", "perplexity", "accuracy", "bits_per_byte"}


def pairs_config(cache, **groups):
    """Four steps on the twin of Multi30k, in buckets."""
    fields = {"tokenizer": "bpe:280", "length": 40, "buckets": (16, 40), "cache": str(cache)}
    defaults = {
        "model": ModelConfig("transformer_base", TINY),
        "data": DataConfig("synthetic:files:multi30k", **fields),
        "task": TaskConfig("seq2seq", {"label_smoothing": 0.1}),
        "train": TrainConfig(batch_size=16, num_steps=4, eval_batch_size=12),
    }
    return small_config(**{**defaults, **groups})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return zoo.fit(pairs_config(folder), folder / "run"), folder / "run"


def test_a_run_is_measured_as_it_was_and_by_its_texts(run):
    result, folder = run
    assert set(result.metrics["test"]) == TOLD
    assert abs(result.metrics["test"]["loss"] - np.log(280)) < 1
    begin = json.loads((folder / "zoo.json").read_text())["kept"]
    assert begin == {"decoder_start_token_id": 0, "eos_token_id": 0}
    found = zoo.evaluate(folder, samples=20, generation={"max_new_tokens": 4})
    values = {name: interval.value for name, interval in found.metrics.items()}
    assert {name: values[name] for name in TOLD} == result.metrics["test"]  # to the last bit
    assert {"bleu", "chrf"} <= set(values)
    assert found.metrics["loss"].low < values["loss"] < found.metrics["loss"].high

    # Its texts are those of zoo.generate, of which sacrebleu says the same.
    pairs = result.parts.dataset
    sources = [
        pairs.tokenizer.decode(x) for x in pairs.splits["test"].take(np.arange(24))["source"]
    ]
    made = zoo.generate(folder, sources, max_new_tokens=4, batch_size=12)
    assert [one.text for one in made] == found.records["text"].tolist()
    right = [[text for (text,) in found.records["references"]]]
    said = found.records["text"].tolist()
    assert values["chrf"] == pytest.approx(sacrebleu.corpus_chrf(said, right).score, rel=1e-9)
    loaded = zoo.load_pretrained(folder)
    assert loaded.card.config == begin
    with pytest.raises(UserError, match=r"the run answers texts: zoo.generate"):
        result.predict(["ba de ki"])
    with pytest.raises(UserError, match="writes text: zoo generate"):
        zoo.predict(folder, "ba de ki")


def test_only_what_is_asked_for_is_measured(run):
    found = zoo.evaluate(run[1], metrics=["loss"], samples=20)
    assert set(found.metrics) == {"loss"}
    assert "text" not in found.records
    with pytest.raises(UserError, match=r"metric 'matthews' needs"):
        zoo.evaluate(run[1], metrics=["matthews"])


def test_buckets_are_of_the_longer_side(run):
    """And every pair is there once an epoch, whole, whatever its bucket."""
    source = run[0].parts.dataset.splits["train"]
    stream = TrainStream(source, (), 16, 6)
    lengths = set()
    for step in range(6):
        batch = stream[step]
        width = batch["source"].shape[-1]
        sizes = [batch[f"{side}_mask"][0].sum(-1) for side in ("source", "target")]
        assert batch["target"].shape[-1] == width == stream.order.length(step)
        assert np.maximum(*sizes).max() <= width
        lengths.add(width)
    assert lengths == {16, 40}
    whole = sum(int(source.take(np.arange(96))[f"{s}_mask"].sum()) for s in ("source", "target"))
    dealt = sum(
        int((stream[i][f"{s}_mask"] * stream[i]["mask"][..., None]).sum())
        for i in range(6)
        for s in ("source", "target")
    )
    assert dealt == whole


@pytest.mark.slow
def test_words_are_learned_and_translated(tmp_path):
    """The words of the source again, in their order."""
    words = ["red", "dog", "cat", "sun", "sea", "sky", "oak", "ice"]
    random = np.random.default_rng(0)
    for name, size in (("train", 400), ("test", 30)):
        rows = [" ".join(random.choice(words, random.integers(2, 6))) for _ in range(size)]
        lines = [json.dumps({"source": row, "target": row}) + "\n" for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    model = {"width": 32, "depth": 1, "num_heads": 2, "hidden": 64}
    files = f"jsonl:{tmp_path}/train.jsonl"
    fields = {"tokenizer": "bpe:300", "length": 12, "cache": str(tmp_path), "test_split": ""}
    config = small_config(
        model=ModelConfig("transformer_base", model),
        data=DataConfig(files, **fields),
        task=TaskConfig("seq2seq", {"label_smoothing": 0.1}),
        optim=OptimConfig("adam", 5e-3, {"b2": 0.98}, "linear", warmup_steps=30),
        train=TrainConfig(batch_size=32, num_steps=400, steps_per_call=20),
    )
    zoo.fit(config, tmp_path / "run")
    for beams in (1, 3):
        generation = {"num_beams": beams}
        test = f"jsonl:{tmp_path}/test.jsonl"
        found = zoo.evaluate(tmp_path / "run", test, samples=20, generation=generation)
        rows = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
        right = [row["target"] for row in rows]
        made = zoo.generate(tmp_path / "run", [row["source"] for row in rows], **generation)
        bleu = sacrebleu.corpus_bleu([one.text for one in made], [right]).score
        assert found.metrics["bleu"].value == pytest.approx(bleu)
        assert bleu > 90
        assert all(one.reason == "end" for one in made)


@pytest.mark.slow
def test_spans_cut_out_of_a_text(tmp_path):
    """T5's own objective: no text is another's translation, so the loss is what is told."""
    fields = {"tokenizer": "unigram:60+20", "length": 32, "cache": str(tmp_path)}
    sizes = {"width": 16, "depth": 1, "num_heads": 2, "head_dim": 8, "hidden": 16}
    spans = {"transform": "corrupt_spans(0.15, 3.0)"}
    config = pairs_config(
        tmp_path,
        model=ModelConfig("t5_small", sizes),
        data=DataConfig("synthetic:embedded:stdlib", **fields, **spans),
        task=TaskConfig("seq2seq"),
        train=TrainConfig(batch_size=8, num_steps=2),
    )
    result = zoo.fit(config, tmp_path / "run")
    told = result.metrics["val"]
    assert set(told) == {"loss", "perplexity", "accuracy"}
    kept = json.loads((tmp_path / "run" / "zoo.json").read_text())["kept"]
    tokenizer = read_tokenizer(tmp_path / "run" / "tokenizer.json")
    assert kept == {"decoder_start_token_id": tokenizer.pad, "eos_token_id": tokenizer.end}
    found = zoo.evaluate(tmp_path / "run", samples=20)
    assert {name: found.metrics[name].value for name in told} == told


PAIRS = {"task": TaskConfig("seq2seq")}
TEXT = DataConfig("synthetic:embedded:stdlib", length=32)
MISTAKES = {
    "a decoder": ({"model": ModelConfig("gpt2")}, "'gpt2': .*'seq2seq' trains an encoder-decoder"),
    "causal": (
        {"task": TaskConfig("causal_lm"), "data": TEXT},
        "'transformer_base' is an encoder-decoder, which task.name='seq2seq' trains",
    ),
    "text alone": ({"data": TEXT}, "takes pairs of texts, 'source' and 'target', or a text with"),
    "images": (
        {"data": DataConfig("synthetic:embedded:digits")},
        "takes pairs of texts.* has image, label",
    ),
    "too few positions": (
        {"model": ModelConfig("bart_base", {**TINY, "num_positions": 20})},
        "has 20 positions, not 40: shorten the text",
    ),
    "another argument": (
        {"task": TaskConfig("seq2seq", {"smoothing": 0.1})},
        "no argument 'smoothing'.*'label_smoothing'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name, tmp_path):
    groups, message = MISTAKES[name]
    with pytest.raises(UserError, match=message) as caught:
        build(pairs_config(tmp_path, **groups))
    assert "\n" not in str(caught.value)


def test_pairs_without_a_target(tmp_path):
    (tmp_path / "half.jsonl").write_text('{"source": "a b"}\n' * 20)
    data = DataConfig(f"jsonl:{tmp_path}/half.jsonl", cache=str(tmp_path), length=16)
    with pytest.raises(UserError) as caught:
        build(pairs_config(tmp_path, data=data))
    assert "target" in str(caught.value) or "label" in str(caught.value)
    assert "\n" not in str(caught.value)
