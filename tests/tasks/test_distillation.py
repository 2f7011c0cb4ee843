"""Each term of distillation against torch, and what a student's run does with its teacher."""

import dataclasses
import json
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL_VIT, small_config
from published import WORDS, copy_twin, name_labels, write_wordpiece

import zoo
from zoo.config import DataConfig, ModelConfig, TaskConfig, TrainConfig, UserError
from zoo.config.parse import set_values
from zoo.tasks.distillation import Distillation
from zoo.train.build import build
from zoo.tree import COMPANIONS, named_leaves, own_params

RANDOM = np.random.default_rng(0)
ROWS, LENGTH, CLASSES = 4, 5, 3
INFO = types.SimpleNamespace(
    num_classes=CLASSES, class_names=(), name="texts", shapes={"tokens": (LENGTH,), "label": ()}
)


class Told(nn.Module):
    """A model that says what it is told to: its parameters are its outputs."""

    width: int
    depth: int
    num_classes: int = CLASSES
    num_heads: int = 2

    def __call__(self, inputs, **more):
        given = self.variables["params"]
        more = {k: given[k] for k in given if k not in ("logits", COMPANIONS)}
        return given["logits"], more


def make_told(model):
    """Random outputs; padded keys have weight 0."""
    logits, two = RANDOM.normal(size=(2, ROWS, CLASSES)) * 2
    hidden = RANDOM.normal(size=(model.depth, ROWS, LENGTH, model.width))
    scores = RANDOM.normal(size=(model.depth, ROWS, 2, LENGTH, LENGTH))
    scores = np.where(REAL[None, :, None, None], scores, -np.inf)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    told = {"logits": logits, "hidden": hidden, "attention": weights}
    told |= {"class_logits": 2 * logits - two, "distillation_logits": two}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), told)


REAL = np.arange(LENGTH) < np.array([5, 3, 1, 4])[:, None]
BATCH = {
    "tokens": np.zeros((ROWS, LENGTH), np.int32),
    "token_mask": REAL,
    "label": np.array([0, 2, 1, 1]),
    "mask": np.array([1.0, 1.0, 1.0, 0.0], np.float32),
}
OFF = {f"{term}_weight": 0.0 for term in ("label", "logit", "hidden", "attention", "vector")}


def measure(told, batch=BATCH, width=6, **arguments):
    """(loss, sums, gradients) of a student of 2 layers and a teacher of 4."""
    student, teacher = Told(6, 2), Told(width, 4)
    task = Distillation.create(student, INFO, teacher, **{**OFF, **arguments})
    batch = jax.tree.map(jnp.asarray, batch)
    grads = jax.jit(jax.grad(task.loss, has_aux=True))(told, batch, jax.random.key(0))
    return grads[1]["loss"], grads[1], grads[0]


def make_both(width=6):
    told = {**make_told(Told(6, 2)), COMPANIONS: {"teacher": make_told(Told(width, 4))}}
    if width != 6:
        told[COMPANIONS]["projection"] = jnp.asarray(RANDOM.normal(size=(2, 6, width)), jnp.float32)
    return told


@pytest.mark.parity
def test_terms_are_those_of_torch(torch):
    functional = torch.nn.functional
    told = make_both(width=8)
    mine = {k: torch.tensor(np.asarray(v)) for k, v in told.items() if k != COMPANIONS}
    teacher = {k: torch.tensor(np.asarray(v)) for k, v in told[COMPANIONS]["teacher"].items()}
    rows, heat = slice(0, 3), 3.0
    goal, labels = teacher["logits"][rows], torch.tensor(BATCH["label"][rows])
    own, taught = mine["class_logits"][rows], mine["distillation_logits"][rows]
    expected = {
        "label": functional.cross_entropy(own, labels, reduction="sum", label_smoothing=0.1),
        "hard": functional.cross_entropy(taught, goal.argmax(-1), reduction="sum"),
        "logit": heat**2
        * functional.kl_div(
            functional.log_softmax(taught / heat, -1),
            functional.log_softmax(goal / heat, -1),
            log_target=True,
            reduction="sum",
        ),
        "hidden": 0.0,
        "attention": 0.0,
    }
    projection = torch.tensor(np.asarray(told[COMPANIONS]["projection"]))
    for row in range(3):
        real = torch.tensor(REAL[row])
        for pair, (a, b) in enumerate([(0, 1), (1, 3)]):
            states = mine["hidden"][a, row][real] @ projection[pair]
            goals = teacher["hidden"][b, row][real]
            expected["hidden"] += functional.mse_loss(states, goals) / 2
        ours, theirs = (x["attention"][-1, row][:, real][..., real] for x in (mine, teacher))
        kl = functional.kl_div(ours.log(), theirs, reduction="sum")
        expected["attention"] += kl / (2 * int(real.sum()))
    for name, value in expected.items():
        term = "logit" if name == "hard" else name
        given = {"temperature": heat, "hard": name == "hard", "label_smoothing": 0.1}
        loss, sums, grads = measure(told, width=8, **{f"{term}_weight": 2.0}, **given)
        np.testing.assert_allclose(sums[f"{term}_loss"], float(value), rtol=2e-5)
        np.testing.assert_allclose(loss, 2 * float(value), rtol=2e-5)
        assert set(sums) == {"loss", "weight", "correct", f"{term}_loss"}
        for path, leaf in named_leaves(grads).items():
            assert np.isfinite(leaf).all(), path
            assert not path.startswith(f"{COMPANIONS}/teacher/") or not np.any(leaf), path
        assert any(np.any(x) for x in jax.tree.leaves(own_params(grads)))


def test_vectors_are_means_of_real_tokens():
    told = make_both()
    expected = 0.0
    for row in range(3):
        a, b = (
            np.asarray(x["hidden"])[-1, row][REAL[row]].mean(0)
            for x in (told, told[COMPANIONS]["teacher"])
        )
        expected += 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    loss, _, _ = measure(told, vector_weight=1.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_parts_add_up_and_padding_is_nothing():
    every = dict.fromkeys(OFF, 1.0)
    told = make_both()
    loss, sums, _ = measure(told, **every)

    def pick(rows):
        def take(path, x):
            return x[:, rows] if path.endswith(("hidden", "attention")) else x[rows]

        return zoo.tree.map_named(take, told), {k: v[rows] for k, v in BATCH.items()}

    parts = [measure(*pick(rows), **every)[1] for rows in (slice(0, 2), slice(2, 4))]
    for name, value in sums.items():
        np.testing.assert_allclose(parts[0][name] + parts[1][name], value, rtol=1e-5)
    garbage = jax.tree.map(jnp.array, told)
    garbage["hidden"] = garbage["hidden"].at[:, 1, 3:].set(99.0)
    garbage["logits"] = garbage["logits"].at[3].set(99.0)
    np.testing.assert_allclose(measure(garbage, **every)[0], loss, rtol=1e-6)


def make_run(**arguments):
    small = {**SMALL_VIT, "patch_size": 4, "pooling": "cls"}
    return small_config(
        model=ModelConfig("vit_ti4", {**small, "depth": 1, "distillation": "head"}),
        task=TaskConfig(
            "distillation",
            {"hard": True, **arguments},
            models={"teacher": {"name": "vit_ti4", "arguments": {**small, "width": 24}}},
        ),
    )


@pytest.mark.slow
def test_a_student_of_a_run_is_measured_alone(tmp_path):
    config = set_values(make_run(), {"optim.weight_decay": 0.1, "train.num_steps": 2})
    programs = build(config).programs
    assert not [p for p in named_leaves(programs.abstract_state.opt_state) if "teacher" in p]
    first = jax.device_get(programs.init_state().params[COMPANIONS]["teacher"])
    result = zoo.fit(config, tmp_path / "run")
    kept = result._all_params[COMPANIONS]["teacher"]
    jax.tree.map(np.testing.assert_array_equal, kept, first)
    found = zoo.evaluate(tmp_path / "run", split="test").metrics
    for name, value in result.metrics["test"].items():
        assert found[name].value == value, name
    images = np.zeros((1, 8, 8), np.uint8)
    assert len(zoo.predict(tmp_path / "run", images)[0].labels) == 5


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"label_weight": -1.0}, "label_weight=-1.0 must be at least 0"),
        ({"label_weight": 0.0, "logit_weight": 0.0}, "every weight is 0"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
        ({"vector_weight": 1.0}, "the student has width=16, the teacher 24"),
        ({"hidden_weight": 1.0, "layers": ((0, 2),)}, "the teacher has layers 0 to 1, not 2"),
        ({"hidden_weight": 1.0}, "student makes 6 tokens and the teacher 5"),
        ({"temprature": 1.0}, "no argument 'temprature'.*temperature"),
    ],
)
def test_mistakes(changes, line):
    with pytest.raises(UserError, match=line):
        build(make_run(**changes))


def test_a_teacher_is_as_it_was_trained(tmp_path):
    """Its head stays, and its classes are the student's, by name."""
    fields = {**SMALL_VIT, "image_size": (8, 8), "num_channels": 1}
    body = zoo.create_model("vit_ti4", **fields, num_classes=0)
    zoo.save_pretrained(body, zoo.init_params(body, seed=0), tmp_path / "body")
    config = make_run()

    def build_with(**teacher):
        teacher["init_from"] = str(tmp_path / "body")
        task = dataclasses.replace(config.task, models={"teacher": teacher})
        build(dataclasses.replace(config, task=task))

    with pytest.raises(UserError, match=r"teacher has no classes, .* has 10 .*logit_weight=0"):
        build_with()
    line = r"task\.models\.teacher: arguments: head/bias, head/kernel would begin at random"
    with pytest.raises(UserError, match=line):
        build_with(arguments={"num_classes": 10})


def test_a_teacher_of_other_classes(tmp_path):
    random = np.random.default_rng(0)
    for name, classes in (("theirs", "abc"), ("ours", "abd")):
        rows = (
            f"{x:.3f},{y:.3f},{classes[i % 3]}" for i, (x, y) in enumerate(random.random((30, 2)))
        )
        (tmp_path / f"{name}.csv").write_text("x,y,label\n" + "\n".join(rows))
    config = small_config(
        data=DataConfig(f"csv:{tmp_path / 'theirs.csv'}", validation_fraction=0.2),
        train=TrainConfig(8, 2),
    )
    zoo.fit(config, tmp_path / "run")
    task = TaskConfig("distillation", models={"teacher": {"init_from": str(tmp_path / "run")}})
    student = dataclasses.replace(config, task=task)
    build(student)
    data = dataclasses.replace(config.data, source=f"csv:{tmp_path / 'ours.csv'}")
    with pytest.raises(UserError, match=r"task\.models\.teacher: .*its classes are not those of"):
        build(dataclasses.replace(student, data=data))


def test_a_teacher_of_another_tokenizer(tmp_path):
    folder = copy_twin("bert_classifier", tmp_path / "bert", **name_labels("a", "b", "c"))
    write_wordpiece(folder, 50)
    rows = [{"text": f"the {word} sat", "label": "abc"[i % 3]} for i, word in enumerate(WORDS * 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    student = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 16, "num_positions": 24}
    config = small_config(
        model=ModelConfig("bert_tiny", student),
        data=DataConfig(f"jsonl:{tmp_path / 'rows.jsonl'}", length=12, validation_fraction=0.2),
        task=TaskConfig("distillation", models={"teacher": {"init_from": str(folder)}}),
        train=TrainConfig(4, 2),
    )
    own, other = (
        dataclasses.replace(config.data, tokenizer=name)
        for name in (str(folder / "vocab.txt"), "wordpiece:60")
    )
    build(dataclasses.replace(config, data=own))
    with pytest.raises(UserError, match=r"teacher: .*its embedding belongs to another tokenizer"):
        build(dataclasses.replace(config, data=other))
