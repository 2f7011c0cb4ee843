"""A run on labelled texts, by a task of the user's own: its folder treats texts as it did."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import small_config

import zoo
from zoo.config import DataConfig, ModelConfig, TaskConfig, UserError
from zoo.train.build import eval_batches

pytestmark = pytest.mark.slow
GOOD, BAD = ["good", "fine", "happy"], ["bad", "poor", "sad"]


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    root = tmp_path_factory.mktemp("reviews")
    random = np.random.default_rng(0)
    lines = ["review\tlabel"]
    for i in range(40):
        words = random.choice(GOOD if i % 2 else BAD, random.integers(1, 9))
        lines.append(f"it is {' '.join(words)}\t{'praise' if i % 2 else 'blame'}")
    (root / "train.tsv").write_text("\n".join(lines[:31]) + "\n")
    (root / "test.tsv").write_text("\n".join([lines[0], *lines[31:]]) + "\n")
    fields = {"width": 16, "depth": 1, "num_heads": 2, "num_positions": 24, "head": "sequence"}
    config = small_config(
        model=ModelConfig("gpt2", fields),
        data=DataConfig(f"tsv:{root}", tokenizer="chars", length=24),
        task=TaskConfig("texts_task:TextClassification"),
    )
    return root, zoo.fit(config, root / "run"), [line.split("\t")[0] for line in lines[31:]]


def test_texts_go_as_in_the_evaluation(reviews):
    root, result, texts = reviews
    (batch,) = eval_batches(result.parts, "test")
    expected = np.asarray(result.parts.programs.predict(result.params, batch))[: len(texts)]
    names = result.parts.dataset.class_names
    for inputs in (root / "test.tsv", texts):
        found = zoo.predict(root / "run", inputs, top=None)
        ours = [[dict(p.labels)[name] for name in names] for p in found]
        np.testing.assert_allclose(ours, expected, atol=1e-6)
        cut = [p.note is not None for p in found]
        assert cut == [len(text) > 24 for text in texts]
        assert any(cut)
        assert not all(cut)


def test_a_pair_for_a_run_of_single_texts(reviews):
    root, _, _ = reviews
    with pytest.raises(UserError, match="takes no pairs"):
        zoo.predict(root / "run", ("it is", "good"))
