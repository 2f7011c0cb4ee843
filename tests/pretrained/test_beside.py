"""What lies beside weights: tokenizers and picture processors, against their libraries."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tokenizers
from PIL import Image
from tokenizers.implementations import BertWordPieceTokenizer
from twins import FOLDER

import zoo
from zoo.data.tokenizers.files import from_roberta_files, from_wordpiece_vocab
from zoo.pretrained.processor import Processor

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "the",
    "cat",
    "s",
    "un",
    "##believ",
    "##able",
    "##s",
    "caf",
    "##e",
    "cafe",
    "!",
    "'",
    "中",
    "文",
]
WORDS += [
    "The",
    "Caf",
    "##é",
    "3",
    "##3",
    ".",
    "-",
    "[",
    "]",
    "sep",
    "\u2028",
    "a",
    "##a",
    "🙂",
    "ß",
    "##x",
]
VOCAB = "\n".join([*SPECIAL, *WORDS]) + "\n"
TEXTS = [
    "",
    "The cat's unbelievable cats!",
    "Café CAFÉ cafe\u0301 ß",
    "中文3.3-3 the中the",
    "tabs\tand\nlines\r\n\u00a0and\u200bnothing\u0000\ufffd the",
    "a" * 99 + " " + "a" * 101,
    "🙂🙂 the🙂 [sep]",
    "  the   cat  ",
]


def copy_twin(tmp_path, twin, **files):
    folder = tmp_path / twin
    shutil.copytree(FOLDER / twin, folder)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}],
    ids=str,
)
def test_a_bert_vocabulary(settings):
    ours = from_wordpiece_vocab(VOCAB, settings)
    lower = settings.get("do_lower_case", True)
    library = BertWordPieceTokenizer(
        {token: i for i, token in enumerate([*SPECIAL, *WORDS])},
        lowercase=lower,
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    assert ours.vocab_size == len(SPECIAL) + len(WORDS)
    for text in TEXTS:
        expected = library.encode(text)
        batch = ours.batch([text])
        assert batch["tokens"][0].tolist() == expected.ids, text
        assert ours.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids
        assert ours.decode(expected.ids) == library.decode(expected.ids)
    pair = library.encode(TEXTS[1], TEXTS[2])
    batch = ours.batch([(TEXTS[1], TEXTS[2])])
    assert batch["tokens"][0].tolist() == pair.ids
    assert batch["types"][0].tolist() == pair.type_ids


ALPHABET = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
PAIR = {
    "vocab__json": json.dumps(
        {
            t: i
            for i, t in enumerate(
                ["<s>", "<pad>", "</s>", "<unk>", *ALPHABET, "th", "the", "Ġthe", "<mask>"]
            )
        }
    ),
    "merges__txt": "#version: 0.2\nt h\nth e\nĠ the\n",
}


def test_a_roberta_vocabulary():
    ours = from_roberta_files(*PAIR.values(), {})
    start, end, the, more, mask = 0, 2, 261, 262, 263
    assert ours.vocab_size == 264
    batch = ours.batch([("the", "the the"), "the<mask> the", "the <mask>"])
    expected = [
        [start, the, end, end, the, more, end],
        [start, the, mask, more, end, 0, 0],
        [start, the, mask, end, 0, 0, 0],
    ]
    np.testing.assert_array_equal(batch["tokens"], expected)
    assert set(batch) == {"tokens", "mask"}  # all of one type
    for text in TEXTS:
        assert ours.decode(ours.batch([text])["tokens"][0]) == text


@pytest.mark.parity
@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}], ids=str)
def test_a_roberta_vocabulary_as_transformers_reads_it(tmp_path, settings):
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[parity]'")
    files = {**PAIR, "tokenizer_config__json": json.dumps(settings)}
    folder = copy_twin(tmp_path, "roberta_masked_lm", **files)
    theirs = transformers.RobertaTokenizerFast.from_pretrained(folder)
    ours = zoo.load_pretrained(folder).tokenizer
    # They leave the space before <mask> where there is no tokenizer.json.
    texts = [*TEXTS, "the<mask> the", " <pad>the</s>x<s>"]
    texts += zip(TEXTS[1:], TEXTS[:0:-1], strict=True)  # an empty second text is none to them
    for text in texts:
        expected = theirs(*([text] if isinstance(text, str) else text))["input_ids"]
        assert ours.batch([text])["tokens"][0].tolist() == expected, text


@pytest.mark.parametrize("twin", ["electra_generator", "distilbert_masked_lm"])
def test_a_vocabulary_as_berts(tmp_path, twin):
    tokenizer = zoo.load_pretrained(copy_twin(tmp_path, twin, vocab__txt=VOCAB)).tokenizer
    assert tokenizer == from_wordpiece_vocab(VOCAB, {})


def test_a_batch_is_padded_and_cut():
    tokenizer = from_wordpiece_vocab(VOCAB, {})
    cls, sep, the, cat = 2, 3, 5, 6
    batch = tokenizer.batch(["the", ("the cat", "cat the the"), ""])
    expected = [
        [cls, the, sep, 0, 0, 0, 0, 0],
        [cls, the, cat, sep, cat, the, the, sep],
        [cls, sep, 0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(batch["tokens"], expected)
    np.testing.assert_array_equal(batch["mask"].sum(1), [3, 8, 2])
    np.testing.assert_array_equal(batch["types"], [[0] * 8, [0] * 4 + [1] * 4, [0] * 8])
    assert (batch["tokens"].dtype, batch["mask"].dtype) == (np.int32, bool)
    cut = tokenizer.batch(["the cat the cat", "the"], length=4)
    expected = [[cls, the, cat, sep], [cls, the, sep, 0]]
    np.testing.assert_array_equal(cut["tokens"], expected)
    # Cutting one batch does not cut the next.
    assert tokenizer.batch(["the cat the cat"])["tokens"].shape == (1, 6)
    assert tokenizer.batch([])["tokens"].shape == (0, 0)


def test_the_tokenizer_of_a_folder(tmp_path):
    settings = json.dumps({"do_lower_case": False})
    bert = copy_twin(tmp_path, "bert_headless", vocab__txt=VOCAB, tokenizer_config__json=settings)
    loaded = zoo.load_pretrained(bert)
    assert loaded.tokenizer.encode("The cat").tolist() == [19, 6]
    # What was written is read before the vocabulary, and says the same.
    zoo.save_pretrained(loaded.model, loaded.params, tmp_path / "out", tokenizer=loaded.tokenizer)
    again = zoo.load_pretrained(tmp_path / "out").tokenizer
    assert again == loaded.tokenizer
    pair = {"vocab__json": '{"a": 0, "b": 1, "ab": 2, "Ġ": 3}', "merges__txt": "#v\na b\n"}
    gpt2 = zoo.load_pretrained(copy_twin(tmp_path, "gpt2_lm", **pair)).tokenizer
    assert gpt2.encode("ab ba").tolist() == [2, 3, 1, 0]
    assert gpt2.decode([2, 3, 1, 0]) == "ab ba"
    assert gpt2.vocab_size == 5  # and the end of a text
    other = zoo.load_pretrained(copy_twin(tmp_path, "gpt2_headless", spiece__model="x"))
    assert other.tokenizer is None
    assert other.report == ("spiece.model: not read as a tokenizer; a tokenizer.json would be",)
    # Qwen splits words by another pattern than GPT-2.
    qwen = zoo.load_pretrained(copy_twin(tmp_path, "qwen3_lm", **pair))
    assert (qwen.tokenizer, qwen.report[-1].split(":")[0]) == (None, "vocab.json")
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 0, "[UNK]": 1}, "[UNK]"))
    llama = copy_twin(tmp_path, "llama_tied", tokenizer__json=backend.to_str())
    assert zoo.load_pretrained(llama).tokenizer.encode("x").tolist() == [0]


PICTURE = np.random.default_rng(0).integers(0, 256, (37, 61, 3), np.uint8)


def test_a_processor_squeezes():
    processor = Processor((8, 12), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), "bicubic")
    resized = Image.fromarray(PICTURE).resize((12, 8), Image.Resampling.BICUBIC)
    expected = (np.asarray(resized) / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    made = processor([PICTURE, Image.fromarray(PICTURE).convert("RGBA"), PICTURE[:9, :9]])
    assert (made.shape, made.dtype) == ((3, 8, 12, 3), np.float32)
    np.testing.assert_allclose(made[0], expected, atol=1e-6)
    np.testing.assert_array_equal(made[0], made[1])


def test_a_processor_crops_as_timm_does():
    # The short side to floor(32 / 0.9) = 35, the long one to 35 * 61 // 37 = 57; the middle of it.
    resized = Image.fromarray(PICTURE).resize((57, 35), Image.Resampling.BILINEAR)
    left, top = round((57 - 32) / 2), round((35 - 32) / 2)
    expected = np.asarray(resized)[top : top + 32, left : left + 32] / 127.5 - 1
    processor = Processor((32, 32), crop=0.9)
    np.testing.assert_allclose(processor([PICTURE])[0], expected, atol=1e-6)
    turned = processor([PICTURE.transpose(1, 0, 2)])[0]
    np.testing.assert_allclose(turned, expected.transpose(1, 0, 2), atol=0.02)
    assert processor([PICTURE[:1, :1]]).shape == (1, 32, 32, 3)


def test_a_grey_processor():
    grey = Processor((8, 8), (0.5,), (0.25,), "nearest")
    square = PICTURE[:8, :8, 0]
    expected = (square[..., None] / 255 - 0.5) / 0.25
    for given in (square, square[..., None], Image.fromarray(square)):
        np.testing.assert_allclose(grey([given])[0], expected, atol=1e-6)


def test_a_processor_as_a_file():
    told = {"image_mean": 0.25, "resample": 0, "do_normalize": True}
    made = Processor.from_hf(told, (4, 6), num_channels=2)
    assert made == Processor((4, 6), (0.25, 0.25), (0.5, 0.5), "nearest")
    assert Processor.from_hf(made.to_hf(), (4, 6)) == made
    assert Processor.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    plain = Processor.from_hf({"do_normalize": False, "image_mean": [9, 9, 9]}, (4, 4))
    assert plain == Processor((4, 4), (0.0,) * 3, (1.0,) * 3)
    assert Processor.from_timm({}, (4, 4)) == Processor((4, 4), interpolation="bicubic", crop=0.9)
    assert Processor.from_timm({"crop_mode": "squash"}, (4, 4)).crop is None
