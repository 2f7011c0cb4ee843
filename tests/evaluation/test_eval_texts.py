"""`zoo eval` of models that generate: its texts are `zoo.generate`'s, its numbers sacrebleu's."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import sacrebleu
from published import WORDS, copy_twin, write_json_tokenizer
from safetensors.numpy import load_file, save_file

import zoo
from zoo.cli import main
from zoo.config import UserError
from zoo.data.tokenizers import ByteTokenizer

NEW = {"max_new_tokens": 5}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"jsonl:{path}"


def write_tokenizer(folder, size):
    """Whole words, an end behind each text."""
    tokens = ["<pad>", "</s>", "<unk>", *WORDS]
    tokens += [f"w{i}" for i in range(size - len(tokens))]
    write_json_tokenizer(folder, tokens, ("<unk>", "</s>"), "<pad>")
    made = json.loads((folder / "tokenizer.json").read_text())
    made["post_processor"]["single"] = made["post_processor"]["single"][1:]
    (folder / "tokenizer.json").write_text(json.dumps(made))
    return tokens


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """(a loaded T5 that says much, another one, rows whose targets are near what it says)."""
    root = tmp_path_factory.mktemp("t5")
    made = []
    for scale in (9.0, 4.0):
        folder = copy_twin("t5_v1", root / f"t5_{scale}", eos_token_id=1)
        words = write_tokenizer(folder, 50)
        tensors = {name: x * scale for name, x in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        made.append(zoo.load_pretrained(folder))
    random = np.random.default_rng(0)
    sources = [" ".join(random.choice(WORDS, 1 + i % 5)) for i in range(14)]
    said = zoo.generate(made[0], sources, batch_size=1, **NEW)
    rows = []
    for i, (source, one) in enumerate(zip(sources, said, strict=True)):
        target = one.text.split() or ["cat"]
        target[0] = target[0] if i % 3 else "dog"
        rows.append({"source": source, "target": " ".join(target), "kind": "ab"[i % 2]})
    assert len({one.text for one in said}) > 5
    assert set(words) >= {"cat", "dog"}
    return *made, rows, write(root / "pairs.jsonl", rows)


def test_an_encoder_decoder_is_measured_by_its_texts(t5, tmp_path):
    loaded, other, rows, data = t5
    texts = [zoo.generate(loaded, row["source"], **NEW)[0].text for row in rows]
    right = [row["target"] for row in rows]
    found = zoo.evaluate(
        loaded, data, generation=NEW, by=["kind", "length"], worst=3, against=other, samples=50,
        batch_size=7,
    )  # fmt: skip
    assert found.records["text"].tolist() == texts
    assert found.records["references"].tolist() == [(text,) for text in right]
    values = {name: interval.value for name, interval in found.metrics.items()}
    bleu = sacrebleu.corpus_bleu(texts, [right]).score
    assert 0 < bleu < 100
    assert values["bleu"] == pytest.approx(bleu, rel=1e-12)
    assert values["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, [right]).score, rel=1e-9)
    equal = [a == b for a, b in zip(texts, right, strict=True)]
    assert values["exact_match"] == pytest.approx(np.mean(equal))
    assert {"rouge1", "rouge2", "rougeL", "token_f1"} <= set(values)
    for part in found.slices[:2]:
        mine = [i for i, row in enumerate(rows) if row["kind"] == part.value]
        alone = sacrebleu.corpus_bleu([texts[i] for i in mine], [[right[i] for i in mine]])
        assert part.metrics["bleu"].value == pytest.approx(alone.score)
    assert not any(equal[example.index] for example in found.worst)
    assert found.worst[0].prediction == texts[found.worst[0].index] or "(none)"
    theirs = [zoo.generate(other, row["source"], **NEW)[0].text for row in rows]
    against = sacrebleu.corpus_bleu(theirs, [right]).score
    assert found.against.metrics["bleu"].b == pytest.approx(against)

    # The same in other batches and in another order.
    again = zoo.evaluate(loaded, data, generation=NEW, batch_size=1, samples=50)
    assert again.records["text"].tolist() == texts
    order = np.random.default_rng(1).permutation(len(rows))
    mixed = write(tmp_path / "mixed.jsonl", [rows[i] for i in order])
    moved = zoo.evaluate(loaded, mixed, generation=NEW, batch_size=7, samples=50)
    assert moved.records["text"].tolist() == [texts[i] for i in order]
    for one in (again, moved):
        assert {name: i.value for name, i in one.metrics.items()} == pytest.approx(values)


@pytest.mark.parametrize("beams", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_command_line(t5, tmp_path, capsys, beams):
    loaded, _, rows, data = t5
    out = tmp_path / "eval.json"
    words = [loaded.card.source, f"--data={data}", f"--num_beams={beams}", "--max-new-tokens=3"]
    words.append("--batch-size=7")
    chosen = ["--metrics=bleu,token_f1", "--samples=20", f"--out={out}", "--length=4", "--worst=1"]
    assert main(["eval", *words, *chosen]) == 0
    told = json.loads(out.read_text())
    assert list(told["metrics"]) == ["bleu", "token_f1"]
    assert told["settings"]["generation"] == {"max_new_tokens": 3, "num_beams": beams}
    assert "sources have more than 4 tokens" in told["notes"][0]
    assert told["notes"][0].startswith(str(sum(len(r["source"].split()) > 3 for r in rows)))
    cut = [" ".join(row["source"].split()[:3]) for row in rows]
    made = zoo.generate(loaded, cut, batch_size=7, num_beams=beams, max_new_tokens=3)
    texts = [one.text for one in made]
    bleu = sacrebleu.corpus_bleu(texts, [[row["target"] for row in rows]]).score
    assert told["metrics"]["bleu"]["value"] == pytest.approx(bleu)
    assert "token_f1" in capsys.readouterr().out


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A loaded decoder of bytes."""
    folder = tmp_path_factory.mktemp("gpt2") / "bytes"
    sizes = {"width": 16, "depth": 1, "num_heads": 2, "vocab_size": 257, "num_positions": 48}
    model = zoo.create_model("gpt2", **sizes)
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: zoo.init_params(model))
    params = jax.tree.map(lambda x: 0.5 * random.normal(size=x.shape).astype(x.dtype), shapes)
    zoo.save_pretrained(model, params, folder, tokenizer=ByteTokenizer())
    return zoo.load_pretrained(folder)


def test_a_decoder_goes_on_from_prompts(gpt2, tmp_path):
    prompts = ["two plus two", "a", "the red", "cat"]
    texts = [zoo.generate(gpt2, prompt, **NEW)[0].text for prompt in prompts]
    rows = [
        {"prompt": p, "completion": t if i else "no"}
        for i, (p, t) in enumerate(zip(prompts, texts, strict=True))
    ]
    data = write(tmp_path / "prompts.jsonl", rows)
    found = zoo.evaluate(
        gpt2, data, metrics=["exact_match", "loss"], generation=NEW, samples=20, batch_size=1
    )
    assert found.records["text"].tolist() == texts
    assert found.metrics["exact_match"].value == pytest.approx(3 / 4)
    assert found.metrics["loss"].value > 0


@pytest.mark.slow
def test_a_decoder_writes_where_texts_are_asked_for(gpt2, tmp_path):
    data = write(tmp_path / "prompts.jsonl", [{"prompt": "a", "completion": "b"}])
    plain = zoo.evaluate(gpt2, data, samples=20)
    assert set(plain.metrics) == {"loss", "perplexity", "bits_per_byte"}
    assert "bleu" in zoo.evaluate(gpt2, data, generation={"max_new_tokens": 1}, samples=20).metrics


@pytest.mark.parametrize(
    ("rows", "options", "told"),
    [
        ([{"text": "a"}], {}, "generates from 'source' .* has text: --columns=source=COLUMN"),
        (None, {"generation": {"num_beam": 2}}, "no setting 'num_beam'.*'num_beams'"),
        (None, {"generation": {"num_beams": 0}}, "num_beams=0 should be at least 1"),
        (None, {"metrics": ["accuracy"]}, "'accuracy' needs"),
        (None, {"metrics": ["blue"]}, "'blue'.*'bleu'"),
        (None, {"labels": ["a"]}, "labels: .* is measured by the texts"),
        (None, {"task": "causal_lm"}, "task: .* is measured by the texts"),
        (None, {"by": ["lenght"]}, "no column 'lenght'"),
        (None, {"batch_size": 0}, "batch_size=0 should be at least 1"),
        (None, {"split": "test[:0]"}, "split"),
    ],
)
def test_what_does_not_fit(t5, tmp_path, rows, options, told):
    data = write(tmp_path / "rows.jsonl", rows) if rows else t5[3]
    with pytest.raises(UserError, match=told) as caught:
        zoo.evaluate(t5[0], data, **{"batch_size": 7, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_models_of_two_kinds_are_not_compared(t5, gpt2, tmp_path):
    with pytest.raises(UserError, match=r"is an encoder-decoder, .* is none"):
        zoo.evaluate(t5[0], t5[3], generation=NEW, against=gpt2)
    data = write(tmp_path / "prompts.jsonl", [{"prompt": "a", "completion": "b"}])
    with pytest.raises(UserError, match="is an encoder-decoder: it is compared with another"):
        zoo.evaluate(gpt2, data, against=t5[0])
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("it was a dark night " * 9)
    with pytest.raises(UserError, match="generates from 'prompt' what 'completion' should be"):
        zoo.evaluate(gpt2, f"text:{corpus}", metrics=["bleu"])
