"""Predictions against transformers' own pipelines and models, on the same files and texts."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from published import copy_twin, name_labels, write_towers, write_word_level, write_wordpiece

import zoo

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers.*"),
]
CLOSE = 2e-6
TEXTS = ["The cat sat on the mat.", "a big red dog", "happy?", "the dog ran in the park " * 8]


@pytest.fixture(scope="module", autouse=True)
def transformers():
    """transformers, or a skip of the whole module."""
    torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[parity]'")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def check_labels(found, expected):
    """Our predictions and a pipeline's lists of labels."""
    for prediction, rows in zip(found, expected, strict=True):
        ours, theirs = dict(prediction.labels), {row["label"]: row["score"] for row in rows}
        assert ours.keys() == theirs.keys()
        for label, score in theirs.items():
            assert abs(ours[label] - score) < CLOSE, (label, ours[label], score)


def make_pictures(folder: pathlib.Path) -> list[str]:
    random = np.random.default_rng(0)
    paths = []
    for number, (height, width) in enumerate(((20, 13), (8, 8), (31, 64))):
        pixels = random.integers(0, 256, (height, width, 3), np.uint8)
        for ending in ("png", "jpg"):
            paths.append(str(folder / f"{number}.{ending}"))
            Image.fromarray(pixels).save(paths[-1])
    # 16 of 8 columns are left: transformers crops some odd margins a pixel further left than we.
    grey = random.integers(0, 256, (9, 18), np.uint8)
    paths.append(str(folder / "grey.png"))
    Image.fromarray(grey).save(paths[-1])
    return paths


@pytest.mark.parametrize("resample", [2, 3])
def test_a_vit_with_its_image_processor(transformers, tmp_path, resample):
    labels = name_labels("cat", "dog", "fox", "owl", "elk")
    folder = copy_twin("vit_classifier", tmp_path / "vit", **labels)
    processor = transformers.ViTImageProcessorPil(
        size={"height": 8, "width": 8}, resample=resample, image_mean=[0.4, 0.5, 0.6]
    )
    processor.save_pretrained(folder)
    paths = make_pictures(tmp_path)
    theirs = transformers.pipeline(
        "image-classification", str(folder), image_processor=processor, top_k=None
    )
    check_labels(zoo.predict(folder, paths, batch_size=3), theirs(paths))


@pytest.mark.parametrize("problem", [None, "multi_label_classification", "regression"])
def test_a_bert_classifier_with_its_tokenizer(transformers, tmp_path, problem):
    more = {"problem_type": problem} if problem else {}
    labels = name_labels("good", "bad", "neither")
    folder = copy_twin("bert_classifier", tmp_path / "bert", **labels, **more)
    write_wordpiece(folder, 50)
    theirs = transformers.pipeline("text-classification", str(folder), top_k=None)
    pairs = [("the cat sat", "a dog ran."), ("red", "the big red dog is happy and not small")]
    found = zoo.predict(folder, [*TEXTS, *pairs], batch_size=4)
    cut = {"truncation": True, "max_length": 24}
    expected = theirs(TEXTS, **cut)
    expected += [theirs({"text": a, "text_pair": b}) for a, b in pairs]
    assert [prediction.note is not None for prediction in found] == [False] * 3 + [True] + [
        False
    ] * 2
    if problem != "regression":
        check_labels(found, expected)
        return
    values = [{row["label"]: row["score"] for row in rows} for rows in expected]
    for prediction, wanted in zip(found, values, strict=True):
        np.testing.assert_allclose(
            list(prediction.values.values()), [wanted[n] for n in labels["label2id"]], atol=1e-5
        )


@pytest.mark.parametrize("name", ["bart_classifier", "gpt2_classifier", "distilbert_classifier"])
def test_classifiers_of_other_kinds(transformers, tmp_path, name):
    folder = copy_twin(name, tmp_path / name)
    write_word_level(folder, 30)
    theirs = transformers.pipeline("text-classification", str(folder), top_k=None)
    texts = ["the cat sat on", "a dog", "big red dog is in the park"]
    check_labels(zoo.predict(folder, texts), theirs(texts, batch_size=1))


def test_tags(transformers, tmp_path):
    labels = name_labels("O", "B-PER", "I-PER", "B-LOC")
    folder = copy_twin("bert_tagger", tmp_path / "bert", **labels)
    write_wordpiece(folder, 50)
    theirs = transformers.pipeline(
        "token-classification", str(folder), aggregation_strategy="simple"
    )
    texts = TEXTS[:3]
    seen = 0
    for prediction, rows in zip(zoo.predict(folder, texts), theirs(texts), strict=True):
        assert [(s.label, s.start, s.end) for s in prediction.spans] == [
            (row["entity_group"], row["start"], row["end"]) for row in rows
        ]
        scores = [span.score for span in prediction.spans]
        np.testing.assert_allclose(scores, [row["score"] for row in rows], atol=CLOSE)
        seen += len(rows)
    assert seen > 3


def test_answers(transformers, tmp_path):
    """transformers 5 has no pipeline for it: all pieces of the context, one by one."""
    import torch

    folder = copy_twin("bert_answerer", tmp_path / "bert")
    write_wordpiece(folder, 50)
    question, context = "is the cat happy?", "the cat sat on a mat, and the dog ran."
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets, owners = inputs.pop("offset_mapping")[0].tolist(), inputs.sequence_ids(0)
    with torch.no_grad():
        out = model(**inputs)
    context_places = [i for i, owner in enumerate(owners) if owner == 1]
    counted = [0, *context_places]
    first, last = (
        dict(zip(counted, torch.softmax(logits[0][counted], 0).tolist(), strict=True))
        for logits in (out.start_logits, out.end_logits)
    )
    pieces = [
        (first[i] * last[j], offsets[i][0], offsets[j][1])
        for i in context_places
        for j in context_places
        if i <= j < i + 15
    ]
    expected = sorted(pieces, reverse=True)[:4]
    (found,) = zoo.predict(folder, (question, context), top=4)
    for span, (score, start, end) in zip(found.spans, expected, strict=True):
        assert (span.text, span.start, span.end) == (context[start:end], start, end)
        assert abs(span.score - score) < CLOSE


def test_fill_mask(transformers, tmp_path):
    folder = copy_twin("bert_masked_lm", tmp_path / "bert")
    write_wordpiece(folder, 50)
    theirs = transformers.pipeline("fill-mask", str(folder), top_k=6)
    texts = ["the [MASK] sat on the mat.", "[MASK] dog [MASK] in the [MASK]", "a [MASK]"]
    for filled, text in zip(zoo.fill_mask(folder, texts, 6), texts, strict=True):
        rows = theirs(text)
        rows = [rows] if isinstance(rows[0], dict) else rows
        assert len(filled.masks) == text.count("[MASK]")
        for tokens, expected in zip(filled.masks, rows, strict=True):
            assert [t.id for t in tokens] == [row["token"] for row in expected]
            assert [t.token for t in tokens] == [row["token_str"] for row in expected]
            np.testing.assert_allclose(
                [t.probability for t in tokens], [row["score"] for row in expected], atol=CLOSE
            )


@pytest.mark.parametrize("name", ["clip_published", "siglip_pixels"])
def test_zero_shot(transformers, tmp_path, name):
    import torch

    folder = copy_twin(name, tmp_path / name)
    tokenizer, processor = write_towers(transformers, folder, name)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    paths, labels = make_pictures(tmp_path), ["cat", "big dog", "red mat"]
    texts = [f"a {label}" for label in labels]
    padding = {"padding": "max_length", "max_length": 10} if name[0] == "s" else {"padding": True}
    tokens = tokenizer(texts, return_tensors="pt", **padding)
    if name[0] == "s":
        tokens.pop("attention_mask")
    tokens.pop("token_type_ids", None)
    images = [Image.open(path).convert("RGB") for path in paths]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = model(pixel_values=pixels, **tokens).logits_per_image
        expected = logits.sigmoid() if name[0] == "s" else logits.softmax(-1)
        vectors = model.get_text_features(**tokens)
        vectors = getattr(vectors, "pooler_output", vectors)
        vectors = torch.nn.functional.normalize(vectors).numpy()
    found = zoo.predict(folder, paths, labels=labels, template="a {}", top=None)
    ours = [[dict(p.labels)[label] for label in labels] for p in found]
    np.testing.assert_allclose(ours, expected.numpy(), atol=5e-6)
    np.testing.assert_allclose(zoo.embed(folder, texts), vectors, atol=CLOSE)


@pytest.mark.parametrize(
    ("name", "pooling"), [("bert_headless", "mean"), ("gpt2_lm", "last"), ("t5_v1", "mean")]
)
def test_embeddings(transformers, tmp_path, name, pooling):
    import torch

    folder = copy_twin(name, tmp_path / name)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    write_word_level(folder, size)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if name == "t5_v1" else model
    texts = ["the cat sat on", "a dog"]
    for text, vector in zip(texts, zoo.embed(folder, texts, normalize=False), strict=True):
        inputs = tokenizer([text], return_tensors="pt")
        inputs.pop("token_type_ids", None)
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state[0].numpy()
        expected = hidden.mean(0) if pooling == "mean" else hidden[-1]
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
