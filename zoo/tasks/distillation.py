"""A student learns from a teacher, which stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from zoo.config import UserError
from zoo.tasks.classification import Classification
from zoo.tasks.companions import Companion, init_models
from zoo.tasks.supervised import apply_model, argument, find_input, init_model, mean_sums
from zoo.tree import COMPANIONS, own_params

TERMS = ("label", "logit", "hidden", "attention", "vector")
PROJECTION = "projection"


@dataclass(frozen=True)
class Distillation:
    """A weighted sum of terms, each a mean over a row's real tokens; one of weight 0 is left out.

    - `label`: cross-entropy with the labels, smoothed by `label_smoothing`.
    - `logit` (Hinton et al. 2015): the teacher's probabilities at `temperature` T against the
      student's, Kullback-Leibler times T ** 2; `hard`: cross-entropy with the teacher's likeliest
      class instead (DeiT, Touvron et al. 2021).
    - `hidden` (FitNets, Romero et al. 2015; TinyBERT, Jiao et al. 2020): mean squared error of
      hidden states, for the pairs (student's layer, teacher's) of `layers`, counted from 0; by
      default every layer of the student and the teacher's at the same height. Where the widths
      differ the student's go through a matrix for each pair, which is trained beside it.
    - `attention` (MiniLM, Wang et al. 2020, without its relation of values): Kullback-Leibler of
      the last layers' attention weights, a mean over heads.
    - `vector`: one less the cosine of the mean tokens, the vectors of texts or images.

    A student with a distillation token (`distillation='head'` of a ViT) learns the labels with one
    head and the teacher with the other; evaluated is the mean of both, as in DeiT. Rows are mixed
    with no other: mixup is the plain classifier's.

    A student with classes is evaluated as a classifier, without its teacher. One without (of a
    model with head 'none', or `num_classes=0`) needs no labels, takes the terms that need none, and
    its evaluation is those.
    """

    head: ClassVar[str] = "sequence"  # of models that have several
    companions: ClassVar[dict[str, Companion]] = {"teacher": Companion(same_classes=True)}
    constants: ClassVar[str] = f"^{COMPANIONS}/teacher/"

    model: Any
    classifier: Classification | None  # the student as one
    teacher: Any
    label_weight: float = argument(0.5)
    logit_weight: float = argument(0.5)
    hidden_weight: float = argument(0.0)
    attention_weight: float = argument(0.0)
    vector_weight: float = argument(0.0)
    temperature: float = argument(1.0)
    hard: bool = argument(False)
    layers: tuple[tuple[int, int], ...] = argument(())
    label_smoothing: float = argument(0.0)

    @staticmethod
    def num_outputs(info: Any) -> int:
        """0 of data without classes."""
        return Classification.num_outputs(info) if info.num_classes else 0

    @classmethod
    def create(cls, model: Any, info: Any, teacher: Any, **arguments: Any) -> Distillation:
        """Raises UserError on a term that the two models cannot have."""
        classifier = None
        if info.num_classes and has_classes(model):
            classifier = Classification.create(model, info)
        task = cls(model, classifier, teacher, **arguments)
        if teacher is not None:
            check_terms(task, info)
        elif classifier is None:
            raise UserError(
                "a student without classes is measured beside its teacher, in its own run: zoo "
                "embed gives its vectors, init_from fine-tunes it"
            )
        return task

    def weights(self) -> dict[str, float]:
        """Of the terms that are not left out."""
        found = {name: getattr(self, f"{name}_weight") for name in TERMS}
        return {name: weight for name, weight in found.items() if weight}

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(student's layer, teacher's) of the hidden states."""
        if self.layers:
            return self.layers
        depth, step = size_of(self.model, "depth"), divide_depths(self)
        return tuple((i, (i + 1) * step - 1) for i in range(depth))

    def init(self, key: jax.Array) -> dict[str, Any]:
        """The student's, and beside it the teacher's and the projection."""
        if self.teacher is None:
            return init_model(self.model, key)
        params = init_models(self.model, key, teacher=self.teacher)
        widths = [size_of(model, "width") for model in (self.model, self.teacher)]
        if self.hidden_weight and widths[0] != widths[1]:
            shape = (len(self.pairs()), *widths)
            draw = jax.random.normal(jax.random.fold_in(key, 2), shape)
            params[COMPANIONS][PROJECTION] = draw * widths[0] ** -0.5
        return params

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed; in evaluation that of the classifier, where the student is one."""
        if key is None and self.classifier is not None:
            return self.classifier.loss(own_params(params), batch, None)
        mask = batch["mask"].astype(jnp.float32)
        outputs, terms = self._compare(params, batch, key)
        sums = {f"{name}_loss": (term * mask).sum() for name, term in terms.items()}
        sums["loss"] = sum(w * sums[f"{name}_loss"] for name, w in self.weights().items())
        sums["weight"] = mask.sum()
        if self.classifier is not None:
            sums["correct"] = ((outputs.argmax(-1) == batch["label"]) * mask).sum()
        return sums["loss"], sums

    def _compare(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The student's outputs, and each term of each row, `[b]`."""
        beside = params[COMPANIONS]
        outputs, mine = apply_model(self.model, own_params(params), batch, key)
        # In no training mode, whatever the student's is.
        taught, theirs = jax.lax.stop_gradient(
            apply_model(self.teacher, beside["teacher"], batch, None)
        )
        made = {}
        for name in self.weights():
            if name == "label":
                made[name] = self._label_term(mine.get("class_logits", outputs), batch["label"])
            elif name == "logit":
                made[name] = self._logit_term(mine.get("distillation_logits", outputs), taught)
            else:
                real = find_real(batch, mine, theirs)
                compare = {"hidden": self._hidden_term, "attention": compare_attention}
                made[name] = compare.get(name, compare_vectors)(mine, theirs, real, beside)
        return outputs, made

    def _label_term(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        targets = optax.smooth_labels(targets, self.label_smoothing)
        return optax.softmax_cross_entropy(logits, targets)

    def _logit_term(self, logits: jax.Array, taught: jax.Array) -> jax.Array:
        if self.hard:
            return optax.softmax_cross_entropy_with_integer_labels(logits, taught.argmax(-1))
        heat = self.temperature
        return heat**2 * optax.losses.kl_divergence_with_log_targets(
            jax.nn.log_softmax(logits / heat), jax.nn.log_softmax(taught / heat)
        )

    def _hidden_term(self, mine: Any, theirs: Any, real: jax.Array, beside: Any) -> jax.Array:
        ours, goals = (jnp.array(side) for side in zip(*self.pairs(), strict=True))
        states = mine["hidden"][ours].astype(jnp.float32)
        if PROJECTION in beside:
            states = jnp.einsum("pbtd,pde->pbte", states, beside[PROJECTION])
        gaps = states - theirs["hidden"][goals].astype(jnp.float32)
        return mean_real(jnp.square(gaps).mean(-1), real).mean(0)

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        """The loss, of a classifier its accuracy, in training the terms."""
        base = {"loss": "loss"} | ({"accuracy": "correct"} if "correct" in sums else {})
        names = (f"{name}_loss" for name in TERMS)
        return mean_sums(sums, **base, **{name: name for name in names if name in sums})

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """A classifier's fields; of a student without classes `loss` `[b]`."""
        if self.classifier is not None:
            return self.classifier.observe(own_params(params), batch)
        terms = self._compare(params, batch, None)[1]
        return {"loss": sum(w * terms[name] for name, w in self.weights().items())}  # type: ignore[dict-item]

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Probabilities `[b, c]`, or the outputs of a student without classes."""
        if self.classifier is not None:
            return self.classifier.predict(own_params(params), batch)
        return apply_model(self.model, own_params(params), batch, None)[0]


def has_classes(model: Any) -> bool:
    """Are a model's outputs logits of classes?"""
    return getattr(model, "head", None) != "none" and getattr(model, "num_classes", None) != 0


def size_of(model: Any, name: str) -> Any:
    """A field of a model, or of the base of one with LoRA; None where it has none."""
    return getattr(getattr(model, "base", model), name, None)


def check_terms(task: Distillation, info: Any) -> None:
    """Raises UserError on an argument that cannot be, and on a term that the models cannot have."""
    for name in (*(f"{term}_weight" for term in TERMS), "label_smoothing"):
        if not getattr(task, name) >= 0:
            raise UserError(f"task.arguments.{name}={getattr(task, name)} must be at least 0")
    if not task.temperature > 0:
        raise UserError(f"task.arguments.temperature={task.temperature} must be above 0")
    weights = task.weights()
    if not weights:
        raise UserError("task.arguments: every weight is 0, nothing is left to learn")
    for name in ("label", "logit"):
        if name in weights and task.classifier is None:
            whose = info.name if not info.num_classes else "the student"
            raise UserError(
                f"task.arguments.{name}_weight={weights[name]}: {whose} has no classes (0 leaves "
                "the term out)"
            )
    if "logit" in weights:
        _check_classes(task, info)
    for term, field in (("hidden", "depth"), ("attention", "num_heads"), ("vector", "width")):
        if term not in weights:
            continue
        mine, its = (size_of(model, field) for model in (task.model, task.teacher))
        if mine is None or its is None:
            model = task.model if mine is None else task.teacher
            raise UserError(
                f"task.arguments.{term}_weight: a {type(model).__name__} tells no {field}"
            )
        if term != "hidden" and mine != its:
            raise UserError(
                f"task.arguments.{term}_weight: the student has {field}={mine}, the teacher {its}"
            )
    if "hidden" in weights:
        _check_layers(task)


def _check_classes(task: Distillation, info: Any) -> None:
    teacher = task.teacher
    count = getattr(teacher, "num_classes", getattr(teacher, "num_outputs", info.num_classes))
    count = count if has_classes(teacher) else 0
    if count != info.num_classes:
        raise UserError(
            f"task.models.teacher has {count or 'no'} classes, {info.name} has "
            f"{info.num_classes} (task.arguments.logit_weight=0 leaves its logits out)"
        )


def divide_depths(task: Distillation) -> int:
    """Layers of the teacher for each of the student's. Raises UserError where they do not come out
    even."""
    mine, its = (size_of(model, "depth") for model in (task.model, task.teacher))
    if its % mine:
        raise UserError(
            f"the teacher's {its} layers are no multiple of the student's {mine}: set "
            "task.arguments.layers, pairs of theirs"
        )
    return its // mine


def _check_layers(task: Distillation) -> None:
    if not task.layers:
        divide_depths(task)
    for pair in task.layers:
        for whose, layer, model in zip(
            ("student", "teacher"), pair, (task.model, task.teacher), strict=True
        ):
            depth = size_of(model, "depth")
            if not 0 <= layer < depth:
                raise UserError(
                    f"task.arguments.layers: the {whose} has layers 0 to {depth - 1}, not {layer}"
                )


def find_real(batch: dict[str, Any], mine: Any, theirs: Any) -> jax.Array:
    """`[b, t]`, 1 where both models hold a real token. Raises UserError where one has more tokens
    than the other."""
    shape, other = mine["hidden"].shape[1:3], theirs["hidden"].shape[1:3]
    if shape != other:
        raise UserError(
            f"of one {find_input(batch)} the student makes {shape[1]} tokens and the teacher "
            f"{other[1]}: only their logits can be compared (hidden_weight, attention_weight and "
            "vector_weight 0)"
        )
    return batch.get("token_mask", jnp.ones(shape)).astype(jnp.float32)


def mean_real(values: jax.Array, real: jax.Array) -> jax.Array:
    """`[..., b]` of values `[..., b, t]`: the mean over a row's real tokens, 0 without one."""
    return (values * real).sum(-1) / jnp.maximum(real.sum(-1), 1.0)


def compare_attention(mine: Any, theirs: Any, real: jax.Array, beside: Any) -> jax.Array:
    """`[b]`: the last layers' weights; keys that the teacher does not look at add nothing."""
    ours, goals = (aux["attention"][-1].astype(jnp.float32) for aux in (mine, theirs))
    tiny = jnp.finfo(jnp.float32).tiny
    logs = jnp.log(jnp.maximum(goals, tiny)) - jnp.log(jnp.maximum(ours, tiny))
    return mean_real((goals * logs).sum(-1).mean(1), real)


def compare_vectors(mine: Any, theirs: Any, real: jax.Array, beside: Any) -> jax.Array:
    """`[b]`: one less the cosine of the mean tokens."""

    def mean_token(aux: Any) -> jax.Array:
        tokens = aux.get("encoded", aux["hidden"][-1]).astype(jnp.float32)
        return mean_real(jnp.moveaxis(tokens, -1, 0), real)  # [d, b]

    vectors = mean_token(mine), mean_token(theirs)
    return 1 - optax.losses.cosine_similarity(*vectors, axis=0, epsilon=1e-6)
