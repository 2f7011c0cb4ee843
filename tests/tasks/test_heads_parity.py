"""The losses of transformers' heads on the same weights and examples."""

import jax
import numpy as np
import pytest

import zoo
from zoo.tasks.multiple_choice import MultipleChoice
from zoo.tasks.span import SpanPrediction
from zoo.tasks.token_classification import TokenClassification

pytestmark = pytest.mark.parity
RANDOM = np.random.default_rng(3)
LENGTH = 10


@pytest.fixture(scope="module")
def open_twin(torch, tmp_path_factory):
    """Their tiny model of a class, and ours with its weights."""
    import transformers

    def open_twin(name, count=5):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        # Initialised wide enough that logits differ from each other.
        more = {"max_position_embeddings": 16, "num_labels": count, "initializer_range": 0.5}
        config = transformers.BertConfig(vocab_size=40, intermediate_size=24, **sizes, **more)
        theirs = getattr(transformers, name)(config).eval()
        folder = tmp_path_factory.mktemp(name)
        theirs.save_pretrained(folder)
        return theirs, zoo.load_pretrained(folder)

    return open_twin


def make_rows(*shape):
    tokens = RANDOM.integers(0, 40, (*shape, LENGTH))
    mask = np.arange(LENGTH) < RANDOM.integers(5, LENGTH + 1, shape)[..., None]
    types = (np.arange(LENGTH) > 3) & mask
    return {"tokens": tokens * mask, "token_mask": mask, "types": types.astype(np.int32)}


def to_theirs(torch, rows, **labels):
    names = {"tokens": "input_ids", "token_mask": "attention_mask", "types": "token_type_ids"}
    made = {
        theirs: torch.tensor(np.asarray(rows[ours], np.int64)) for ours, theirs in names.items()
    }
    return {**made, **{k: torch.tensor(v) for k, v in labels.items()}}


def find_loss(task, params, batch):
    batch = {k: v if v.dtype == bool else v.astype(np.int32) for k, v in batch.items()}
    batch["mask"] = np.ones(len(batch["tokens"]), np.float32)
    loss, sums = jax.jit(lambda p, b: task.loss(p, b, None))(params, batch)
    return float(loss / sums["weight"])


def test_token_classification(torch, open_twin):
    theirs, ours = open_twin("BertForTokenClassification")
    rows = make_rows(6)
    counts = rows["token_mask"] & (RANDOM.random((6, LENGTH)) < 0.5)
    label = np.where(counts, RANDOM.integers(0, 5, counts.shape), -1)
    with torch.no_grad():
        wanted = theirs(**to_theirs(torch, rows, labels=np.where(counts, label, -100))).loss
    got = find_loss(TokenClassification(ours.model, 5), ours.params, {**rows, "token_label": label})
    assert got == pytest.approx(float(wanted), rel=1e-5)


def test_span(torch, open_twin):
    """Theirs counts padding among the places; row by row there is none."""
    theirs, ours = open_twin("BertForQuestionAnswering", 2)
    rows = make_rows(6)
    sizes = rows["token_mask"].sum(1)
    start = RANDOM.integers(0, sizes - 2)
    end = RANDOM.integers(start, sizes)
    wanted = []
    for i, size in enumerate(sizes):
        one = {name: values[i : i + 1, :size] for name, values in rows.items()}
        places = {"start_positions": start[i : i + 1], "end_positions": end[i : i + 1]}
        with torch.no_grad():
            wanted.append(float(theirs(**to_theirs(torch, one, **places)).loss))
    batch = {**rows, "start": start, "end": end}
    got = find_loss(SpanPrediction(ours.model), ours.params, batch)
    assert got == pytest.approx(np.mean(wanted), rel=1e-5)


def test_multiple_choice(torch, open_twin):
    theirs, ours = open_twin("BertForMultipleChoice")
    rows, label = make_rows(4, 3), RANDOM.integers(0, 3, 4)
    with torch.no_grad():
        wanted = theirs(**to_theirs(torch, rows, labels=label)).loss
    got = find_loss(MultipleChoice(ours.model), ours.params, {**rows, "label": label})
    assert got == pytest.approx(float(wanted), rel=1e-5)
