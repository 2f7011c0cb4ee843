"""One class out of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from zoo.config import UserError
from zoo.tasks.supervised import (
    apply_model,
    argument,
    check_outputs,
    find_input,
    init_model,
    mean_sums,
    refuse_annotated,
    score_classes,
)


@dataclass(frozen=True)
class Classification:
    """Softmax cross-entropy on `label` `[b]`; metrics are loss and accuracy.

    `label_smoothing` as in Szegedy et al. 2016. `mixup` is the alpha of Zhang et al. 2018: images
    and targets are mixed with those of the batch read backwards, one ratio a (micro)batch. `cutmix`
    is that of Yun et al. 2019: a rectangle of the other image is pasted instead, and the targets
    share by its area. With both, each (micro)batch takes one of them, with probability one half.
    """

    head: ClassVar[str] = "sequence"  # of models that have several

    model: nn.Module
    num_classes: int
    label_smoothing: float = argument(0.0)
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
        if info.num_classes == 1:
            names = f" ({info.class_names[0]!r})" if info.class_names else ""
            raise UserError(f"{info.name} has one class{names}: nothing to tell apart")
        return info.num_classes

    @classmethod
    def create(cls, model: nn.Module, info: Any, **arguments: Any) -> Classification:
        if arguments.get("cutmix") and "image" not in info.shapes:
            raise UserError(f"task.arguments.cutmix is for images, {info.name} has none")
        for name in ("mixup", "cutmix"):
            if arguments.get(name, 0.0) < 0:
                raise UserError(f"task.arguments.{name}={arguments[name]} must be at least 0")
        if arguments.get("mixup") and "tokens" in info.shapes:
            raise UserError(f"task.arguments.mixup mixes numbers, {info.name} is text")
        check_outputs(model, cls.num_outputs(info), info.name, "classes")
        return cls(model, cls.num_outputs(info), **arguments)

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed cross-entropy; smoothing, mixup and cutmix only with a key."""
        mask = batch["mask"].astype(jnp.float32)
        targets = jax.nn.one_hot(batch["label"], self.num_classes)
        if key is not None:
            targets = optax.smooth_labels(targets, self.label_smoothing)
            if self.mixup or self.cutmix:
                key, mix_key = jax.random.split(key)
                name = find_input(batch)
                share = self.draw_share(mix_key, batch[name].shape[1:])
                inputs, targets = mix(share, batch[name], targets, mask)
                batch = {**batch, name: inputs}
        logits, _ = apply_model(self.model, params, batch, key)
        sums = score_classes(logits, targets, batch)
        return sums["loss"], sums

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
        return mean_sums(sums, loss="loss", accuracy="correct")

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """`logits` `[b, c]` in float32, `label` `[b]` and `loss` `[b]`, the cross-entropy."""
        logits = apply_model(self.model, params, batch, None)[0].astype(jnp.float32)
        targets = jax.nn.one_hot(batch["label"], self.num_classes)
        losses = optax.softmax_cross_entropy(logits, targets)
        return {"logits": logits, "label": batch["label"], "loss": losses}

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Probabilities `[b, c]`."""
        return jax.nn.softmax(apply_model(self.model, params, batch, None)[0])


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
