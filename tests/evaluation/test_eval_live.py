"""`zoo eval` of a classifier of transformers: its numbers are those that transformers gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as reference
from published import WORDS, copy_twin, name_labels, write_wordpiece

import zoo

pytestmark = [
    pytest.mark.parity,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
]


def test_a_classifier_of_pairs(torch, tmp_path):
    import transformers

    names = ("no", "maybe", "yes")
    folder = copy_twin("bert_classifier", tmp_path / "bert", **name_labels(*names))
    write_wordpiece(folder, 50)
    random = np.random.default_rng(0)
    rows = [
        {
            "premise": " ".join(random.choice(WORDS, random.integers(1, 12))),
            "hypothesis": " ".join(random.choice(WORDS, random.integers(1, 12))),
            "label": names[random.integers(0, 3)],
        }
        for _ in range(50)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = zoo.evaluate(folder, f"jsonl:{tmp_path}/pairs.jsonl", samples=50)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    chances = []
    with torch.no_grad():
        for row in rows:
            inputs = tokenizer(
                row["premise"], row["hypothesis"], truncation=True, max_length=24,
                return_tensors="pt",
            )  # fmt: skip
            chances.append(torch.softmax(model(**inputs).logits.double(), -1)[0].numpy())
    label = [names.index(row["label"]) for row in rows]
    chosen = np.argmax(chances, axis=1)
    expected = {
        "loss": reference.log_loss(label, chances, labels=[0, 1, 2]),
        "accuracy": reference.accuracy_score(label, chosen),
        "f1_macro": reference.f1_score(label, chosen, average="macro"),
        "matthews": reference.matthews_corrcoef(label, chosen),
    }
    for name, value in expected.items():
        assert found.metrics[name].value == pytest.approx(value, rel=1e-5), name
