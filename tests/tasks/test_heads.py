"""Token classification, spans and multiple choice, computed by hand from the model's outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo.config import TaskConfig, UserError
from zoo.data.sources import from_arrays
from zoo.tasks import TASKS, make_task
from zoo.tasks.span import choose_places
from zoo.train.step import accumulate

RANDOM = np.random.default_rng(0)
ROWS, LENGTH, CHOICES = 8, 9, 3
SIZES = {"width": 8, "depth": 1, "num_heads": 2, "hidden": 16, "vocab_size": 20, "num_classes": 4}


class Info:
    name, num_classes, statistics = "toy", 4, {}


def make_rows(*shape):
    """Tokens, of each row at least 3 of `LENGTH`."""
    sizes = RANDOM.integers(3, LENGTH + 1, shape)
    mask = np.arange(LENGTH) < sizes[..., None]
    tokens = np.where(mask, RANDOM.integers(0, 20, (*shape, LENGTH)), 0)
    types = (np.arange(LENGTH) >= 2) & mask
    return {"tokens": tokens, "token_mask": mask, "types": types.astype(np.int32)}


def make_batch(name):
    rows = make_rows(*((ROWS, CHOICES) if name == "multiple_choice" else (ROWS,)))
    sizes = rows["token_mask"].sum(-1)
    if name == "token_classification":
        counts = rows["token_mask"] & (RANDOM.random((ROWS, LENGTH)) < 0.6)
        counts[1] = False  # a row without a label
        rows["token_label"] = np.where(counts, RANDOM.integers(0, 4, (ROWS, LENGTH)), -1)
        del rows["types"]
    elif name == "span":
        rows["start"] = RANDOM.integers(0, sizes - 1)
        rows["end"] = RANDOM.integers(rows["start"], sizes)
    else:
        rows["label"] = RANDOM.integers(0, CHOICES, ROWS)
    rows["mask"] = (np.arange(ROWS) < 7).astype(np.float32)
    return {k: v.astype(np.int32) if v.dtype == np.int64 else v for k, v in rows.items()}


BATCHES = {name: make_batch(name) for name in ("token_classification", "span", "multiple_choice")}


def open_task(name):
    Info.shapes = {k: v.shape[1:] for k, v in BATCHES[name].items() if k != "mask"}
    head = TASKS.get(name).head
    model = zoo.create_model("bert_tiny", num_positions=16, head=head, **SIZES)
    task = make_task(TaskConfig(name), {"model": model}, Info)
    return task, jax.jit(task.init)(jax.random.key(1))


@pytest.fixture(scope="module", params=list(BATCHES))
def made(request):
    """Name, task, params, batch, the model's outputs, and the task's methods compiled."""
    name, batch = request.param, BATCHES[request.param]
    task, params = open_task(name)
    inputs = [k for k in ("tokens", "token_mask", "types") if k in batch]
    rows = {k: batch[k].reshape(-1, LENGTH) for k in inputs}

    def run(params, tokens, token_mask, **more):
        return task.model.apply({"params": params}, tokens, mask=token_mask, **more)[0]

    outputs = jax.jit(run)(params, **rows)
    loss = jax.jit(lambda p, b: task.loss(p, b, None))
    return name, task, params, batch, np.asarray(outputs, np.float64), loss


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def by_hand(name, batch, outputs):
    """(loss sum, weight, hits) by loops over rows and tokens."""
    loss, weight, hits = 0.0, 0, {"accuracy": 0, "start_accuracy": 0, "end_accuracy": 0}
    for i in range(7):
        size = batch["token_mask"][i].sum(-1)
        if name == "token_classification":
            for place, label in enumerate(batch["token_label"][i]):
                if label >= 0:
                    loss -= log_softmax(outputs[i, place])[label]
                    weight += 1
                    hits["accuracy"] += outputs[i, place].argmax() == label
        elif name == "span":
            start, end = batch["start"][i], batch["end"][i]
            first, last = outputs[i, :size].T
            loss -= (log_softmax(first)[start] + log_softmax(last)[end]) / 2
            weight += 1
            pairs = [(first[a] + last[b], a, b) for a in range(size) for b in range(a, size)]
            _, a, b = max(pairs)
            hits["start_accuracy"] += a == start
            hits["end_accuracy"] += b == end
            hits["accuracy"] += (a, b) == (start, end)
        else:
            logits = outputs.reshape(ROWS, CHOICES)[i]
            loss -= log_softmax(logits)[batch["label"][i]]
            weight += 1
            hits["accuracy"] += logits.argmax() == batch["label"][i]
    return loss, weight, hits


def test_loss_and_metrics(made):
    name, task, params, batch, outputs, loss = made
    loss_sum, sums = loss(params, batch)
    wanted, weight, hits = by_hand(name, batch, outputs)
    assert float(loss_sum) == pytest.approx(wanted, rel=1e-5)
    assert float(sums["weight"]) == weight
    metrics = task.summarise(jax.device_get(sums))
    assert metrics.pop("loss") == pytest.approx(wanted / weight, rel=1e-5)
    for metric, value in metrics.items():
        assert value == pytest.approx(hits[metric] / weight)
    assert ("start_accuracy" in metrics) == (name == "span")


def test_padding_and_parts_change_nothing(made):
    name, task, params, batch, _, loss = made
    whole = jax.device_get(loss(params, batch)[1])
    longer = {
        k: np.pad(v, [(0, 0)] * (v.ndim - 1) + [(0, 4)], constant_values=-1 if "label" in k else 0)
        if v.shape[-1:] == (LENGTH,)
        else v
        for k, v in batch.items()
    }
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5),
        whole,
        jax.device_get(loss(params, longer)[1]),
    )
    if name != "token_classification":
        return  # of the others each row counts once
    key = jax.random.key(0)
    gradients = [
        jax.jit(lambda p, b, n=parts: accumulate(task.loss, p, b, key, n)[0])(params, batch)
        for parts in (1, 4)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *gradients)


def test_what_is_observed_and_predicted(made):
    name, task, params, batch, outputs, _ = made
    seen = jax.device_get(jax.jit(task.observe)(params, batch))
    chances = np.asarray(jax.jit(task.predict)(params, batch))
    np.testing.assert_allclose(chances.sum(1 if name == "span" else -1), 1, rtol=1e-5)
    width = CHOICES if name == "multiple_choice" else 1
    per_row = []
    for i in range(7):  # a batch of seven times this row
        one = {k: np.repeat(v[i : i + 1], ROWS, 0) for k, v in batch.items()}
        mine = np.tile(outputs[width * i : width * (i + 1)], (ROWS,) + (1,) * (outputs.ndim - 1))
        total, weight, _ = by_hand(name, one, mine)
        per_row.append(total / max(weight, 1))
    np.testing.assert_allclose(seen["loss"][:7], per_row, rtol=1e-4, atol=1e-6)
    fields = {
        "token_classification": {"token_logits", "token_label", "loss"},
        "span": {"start_logits", "end_logits", "start", "end", "loss"},
        "multiple_choice": {"logits", "label", "loss"},
    }[name]
    assert seen.keys() == fields
    assert {len(v) for v in seen.values()} == {ROWS}
    if name == "span":
        hidden = ~batch["token_mask"]
        assert (seen["start_logits"][hidden] < -1e20).all()
        assert (chances[hidden] == 0).all()


def test_places_are_in_order():
    logits = jnp.asarray(RANDOM.normal(size=(50, 6, 2)), jnp.float32)
    start, end = choose_places(logits)
    for row, a, b in zip(np.asarray(logits), start, end, strict=True):
        sums = {(i, j): row[i, 0] + row[j, 1] for i in range(6) for j in range(i, 6)}
        assert (int(a), int(b)) == max(sums, key=sums.get)


def test_other_data_is_named():
    needs = {
        "token_classification": "takes 'words' and 'tags'; toy has",
        "span": "takes 'question', 'context' and 'answers'; toy has",
        "multiple_choice": "takes 'question', 'choices' and 'label'; toy has",
    }
    for name, batch in BATCHES.items():
        Info.shapes = {k: v.shape[1:] for k, v in batch.items() if k != "mask"}
        for other, line in needs.items():
            if other != name:
                with pytest.raises(UserError, match=line):
                    TASKS.get(other).num_outputs(Info)
        for other in ("classification", "regression"):
            with pytest.raises(UserError, match=f"'{other}': toy is for the task '{name}'"):
                TASKS.get(other).num_outputs(Info)


def test_one_class_is_nothing_to_learn():
    rows = np.zeros((3, 2), np.float32), np.zeros(3, np.int32)
    with pytest.raises(UserError, match=r"has one class.*: nothing to tell apart"):
        TASKS.get("classification").num_outputs(from_arrays(rows, None, classes=True))
