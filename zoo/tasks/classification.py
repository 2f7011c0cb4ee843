"""One class out of several."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError
from zoo.tasks.class_losses import (
    balance_weights,
    sigmoid_losses,
    smooth_targets,
    softmax_losses,
)
from zoo.tasks.supervised import (
    apply_model,
    argument,
    check_outputs,
    find_input,
    init_model,
    mean_sums,
    refuse_annotated,
)


@dataclass(frozen=True)
class Classification:
    """Cross-entropy on `label`: of one class an example `[b]` (softmax), or of several labels
    `[b, c]` of 0 and 1 (a sigmoid each), as the data has it. Metrics are loss and accuracy (of
    several: the share of examples all of whose labels are right) and, of several, `f1_micro`.

    `label_smoothing` as in Szegedy et al. 2016. `class_weights` multiply what each class gives to
    the loss: a number a class, or 'balanced' by the training split (zoo/tasks/class_losses.py).
    `focal` is the gamma of Lin et al. 2017. `mixup` is the alpha of Zhang et al. 2018: images
    and targets are mixed with those of the batch read backwards, one ratio a (micro)batch. `cutmix`
    is that of Yun et al. 2019: a rectangle of the other image is pasted instead, and the targets
    share by its area. With both, each (micro)batch takes one of them, with probability one half.
    All of these are of training: an evaluation's loss is the plain cross-entropy.
    """

    head: ClassVar[str] = "sequence"  # of models that have several

    model: nn.Module
    num_classes: int
    several: bool = False
    label_smoothing: float = argument(0.0)
    class_weights: Any = argument(None)
    focal: float = argument(0.0)
    mixup: float = argument(0.0)
    cutmix: float = argument(0.0)

    @staticmethod
    def num_outputs(info: Any) -> int:
        """Raises UserError when the data has no classes, or none of a whole example."""
        refuse_annotated(info, "classification")
        if not info.num_classes:
            there = "(did you mean 'regression'?)"
            if "label" not in info.shapes:
                fields = ", ".join(info.shapes)
                there = f"and no field 'label', only {fields} (data.columns says what is one)"
            raise UserError(f"task.name='classification', but {info.name} has no classes {there}")
        if info.num_classes == 1 and not has_several(info):
            names = f" ({info.class_names[0]!r})" if info.class_names else ""
            raise UserError(f"{info.name} has one class{names}: nothing to tell apart")
        return info.num_classes

    @classmethod
    def create(cls, model: nn.Module, info: Any, **arguments: Any) -> Classification:
        """Raises UserError on an argument out of its range or that the data cannot have, and on a
        model with other classes."""
        if arguments.get("cutmix") and "image" not in info.shapes:
            raise UserError(f"task.arguments.cutmix is for images, {info.name} has none")
        for name in ("mixup", "cutmix", "focal"):
            if not 0 <= arguments.get(name, 0.0) < math.inf:
                raise UserError(f"task.arguments.{name}={arguments[name]} must be at least 0")
        if not 0 <= arguments.get("label_smoothing", 0.0) <= 1:
            smoothing = arguments["label_smoothing"]
            raise UserError(f"task.arguments.label_smoothing={smoothing} is not in [0, 1]")
        if arguments.get("mixup") and "tokens" in info.shapes:
            raise UserError(f"task.arguments.mixup mixes numbers, {info.name} is text")
        count = cls.num_outputs(info)
        check_outputs(model, count, info.name, "classes")
        weights = find_weights(arguments.pop("class_weights", None), info, count)
        return cls(model, count, has_several(info), class_weights=weights, **arguments)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed cross-entropy; smoothing, weights, focus, mixup and cutmix only with a key."""
        mask = batch["mask"].astype(jnp.float32)
        targets = self._find_targets(batch)
        changed: dict[str, Any] = {}
        if key is not None:
            weights = 1.0 if self.class_weights is None else np.asarray(self.class_weights)
            changed = {"weights": weights, "focal": self.focal}
            targets = smooth_targets(targets, self.label_smoothing, self.several)
            if self.mixup or self.cutmix:
                key, mix_key = jax.random.split(key)
                name = find_input(batch)
                share = self.draw_share(mix_key, batch[name].shape[1:])
                inputs, targets = mix(share, batch[name], targets, mask)
                batch = {**batch, name: inputs}
        logits, _ = apply_model(self.model, params, batch, key)
        loss_sum = (self._find_losses(logits, targets, **changed) * mask).sum()
        sums = {"loss": loss_sum, "weight": mask.sum()}
        if not self.several:
            correct = logits.argmax(-1) == batch["label"]
            return loss_sum, {**sums, "correct": (correct * mask).sum()}
        chosen, label = logits > 0, batch["label"] > 0
        correct = (chosen == label).all(axis=-1)
        counts = {"right": chosen & label, "named": chosen * 1 + label}
        counts = {name: (x.sum(axis=-1) * mask).sum() for name, x in counts.items()}
        return loss_sum, {**sums, "correct": (correct * mask).sum(), **counts}

    def _find_targets(self, batch: dict[str, Any]) -> jax.Array:
        """`[b, c]` in float32."""
        if self.several:
            return batch["label"].astype(jnp.float32)
        return jax.nn.one_hot(batch["label"], self.num_classes)

    def _find_losses(self, logits: jax.Array, targets: jax.Array, **changed: Any) -> jax.Array:
        """Losses `[b]`."""
        find = sigmoid_losses if self.several else softmax_losses
        return find(logits.astype(jnp.float32), targets, **changed)

    def draw_share(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """What a row keeps of itself: one number, or of an image `[y, x, 1]` for each pixel."""
        if not self.cutmix:
            return jax.random.beta(key, self.mixup, self.mixup)
        cut_key, mix_key, choice_key = jax.random.split(key, 3)
        share = draw_window(cut_key, self.cutmix, shape[0], shape[1])[..., None]
        if not self.mixup:
            return share
        mixed = jax.random.beta(mix_key, self.mixup, self.mixup)
        return jnp.where(jax.random.bernoulli(choice_key), mixed, share)

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        found = mean_sums(sums, loss="loss", accuracy="correct")
        if self.several:
            found["f1_micro"] = float(2 * sums["right"] / max(sums["named"], 1))
        return found

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """`logits` `[b, c]` in float32, `label` `[b]` (of several `labels` `[b, c]`) and `loss`
        `[b]`, the cross-entropy."""
        logits = apply_model(self.model, params, batch, None)[0].astype(jnp.float32)
        losses = self._find_losses(logits, self._find_targets(batch))
        label = {"labels" if self.several else "label": batch["label"]}
        return {"logits": logits, **label, "loss": losses}

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Probabilities `[b, c]`, of several labels each by itself."""
        logits = apply_model(self.model, params, batch, None)[0]
        return jax.nn.sigmoid(logits) if self.several else jax.nn.softmax(logits)


def has_several(info: Any) -> bool:
    """Has an example several labels: a row of 0 and 1, one a class?"""
    return bool(info.num_classes) and len(info.shapes.get("label", ())) == 1


def find_weights(given: Any, info: Any, count: int) -> tuple[float, ...] | None:
    """A weight a class: as given, or of 'balanced' by the training split.

    Raises UserError on what is neither, on another number of weights, and on negative ones.
    """
    if given is None:
        return None
    if given == "balanced":
        return tuple(balance_weights(info.class_shares, has_several(info)).tolist())
    place = f"task.arguments.class_weights={given!r}"
    numbers = isinstance(given, tuple | list) and all(isinstance(x, int | float) for x in given)
    if not numbers:
        raise UserError(f"{place} should be 'balanced', or a number for each of {count} classes")
    if len(given) != count:
        raise UserError(f"{place} has {len(given)} numbers, {info.name} {count} classes")
    if not all(0 <= x < math.inf for x in given) or not any(given):
        raise UserError(f"{place} should be numbers from 0 on, not all of them 0")
    return tuple(map(float, given))


def draw_window(key: jax.Array, alpha: float, height: int, width: int) -> jax.Array:
    """`[y, x]`, 0 inside a rectangle and 1 around it.

    Its area is 1 - Beta(alpha, alpha) of the image and its centre anywhere, and what sticks out is
    cut off.
    """
    ratio_key, y_key, x_key = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(ratio_key, alpha, alpha))

    def inside(key: jax.Array, size: int) -> jax.Array:
        half = jnp.floor(side * size) // 2
        centre = jax.random.randint(key, (), 0, size)
        places = jnp.arange(size)
        return (places >= centre - half) & (places < centre + half)

    window = inside(y_key, height)[:, None] & inside(x_key, width)
    return 1.0 - window


def mix(
    share: jax.Array, inputs: jax.Array, targets: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mixes each row with its opposite in the batch: `share` is what it keeps of itself, one number
    or one for each place of an input, and its targets keep the mean of that.

    A row opposite padding stays as it is.
    """
    both_real = mask * mask[::-1]

    def blend(x: jax.Array, share: jax.Array) -> jax.Array:
        kept = 1 - (1 - share) * both_real.reshape(-1, *(1,) * (x.ndim - 1))
        return kept.astype(x.dtype) * x + (1 - kept).astype(x.dtype) * x[::-1]

    return blend(inputs, share), blend(targets, share.mean())
