"""A student that learns from its own average what views of an image have in common (DINO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.config import UserError
from zoo.tasks.image_keys import make_keys
from zoo.tasks.masked_image import require_images
from zoo.tasks.prototypes import apply_head, init_head
from zoo.tasks.supervised import argument, call_model, init_model, mean_sums
from zoo.tasks.views import Views
from zoo.tree import COMPANIONS, own_params

TEACHER = ("teacher", "teacher_head", "center", "temperature")
NUM_GLOBAL = 2


@dataclass(frozen=True)
class SelfDistillation:
    """Self-distillation with no labels (Caron et al. 2021); the defaults are the paper's.

    The teacher, an average of the student, sees two global views of each image, the student those
    and `local_views` local ones; the loss is the cross-entropy of the student's distribution over
    the prototypes to the teacher's, its mean over the pairs of different views. The teacher's
    outputs are centred by the average of the batches' means and sharpened by its temperature, which
    goes from `warmup_temperature` in `warmup_steps` to `teacher_temperature`. `momentum` of the
    average grows to 1 by a cosine over `num_steps` (of the run; 0: it stays).

    Views are random crops (`Views`), without the paper's blur and solarisation. Local ones are of
    `local_size` pixels (0: as large as the image), for which positions are resized. In evaluation
    the views of an image are a function of its pixels.

    Metrics, in nats: `teacher_entropy` of an image, and `mean_entropy` of the teacher's mean over
    all images, which is 0 where all share one prototype; both are log(prototypes) where the teacher
    says nothing. `agreement`: how often the most probable prototype of the student on one global
    view is the teacher's on the other.
    """

    constants: ClassVar[str] = f"^{COMPANIONS}/({'|'.join(TEACHER)})(/|$)"

    model: nn.Module
    prototypes: int = argument(65536)
    hidden: int = argument(2048)
    bottleneck: int = argument(256)
    local_views: int = argument(8)
    local_size: int = argument(0)
    global_area: tuple[float, float] = argument((0.4, 1.0))
    local_area: tuple[float, float] = argument((0.05, 0.4))
    flip: bool = argument(True)
    jitter: float = argument(0.0)
    student_temperature: float = argument(0.1)
    teacher_temperature: float = argument(0.04)
    warmup_temperature: float = argument(0.04)
    warmup_steps: int = argument(0)
    momentum: float = argument(0.996)
    num_steps: int = argument(0)
    center_momentum: float = argument(0.9)

    @staticmethod
    def num_outputs(info: Any) -> int:
        """None: the model is a body. Raises UserError where the data is no images."""
        require_images(info, "self_distillation")
        return 0

    @classmethod
    def create(cls, model: nn.Module, info: Any, **arguments: Any) -> SelfDistillation:
        """Raises UserError on another model, one with a head, and numbers out of range."""
        if not hasattr(model, "num_placed"):
            raise UserError(
                f"task.name='self_distillation' trains a ViT, not a {type(model).__name__}"
            )
        if model.num_classes:
            raise UserError(
                f"model.arguments.num_classes={model.num_classes}: self_distillation trains a body "
                "without a head (leave it out)"
            )
        task = cls(model, **arguments)
        for name in ("prototypes", "hidden", "bottleneck"):
            if getattr(task, name) < 1:
                raise UserError(f"task.arguments.{name}={getattr(task, name)} must be at least 1")
        for name in ("student_temperature", "teacher_temperature", "warmup_temperature"):
            if getattr(task, name) <= 0:
                raise UserError(f"task.arguments.{name}={getattr(task, name)} must be above 0")
        for name in ("global_area", "local_area"):
            low, high = getattr(task, name)
            if not 0 < low <= high <= 1:
                raise UserError(f"task.arguments.{name}={(low, high)}: 0 < least <= most <= 1")
        for name in ("momentum", "center_momentum"):
            if not 0 <= getattr(task, name) <= 1:
                raise UserError(f"task.arguments.{name}={getattr(task, name)} is not in [0, 1]")
        try:
            task.local_model.grid()
        except UserError as error:
            raise UserError(f"task.arguments.local_size={task.local_size}: {error}") from None
        return task

    @property
    def local_model(self) -> Any:
        """The model for local views."""
        model: Any = self.model
        size = (self.local_size, self.local_size)
        return model.clone(image_size=size) if self.local_size else model

    def init(self, key: jax.Array) -> dict[str, Any]:
        model: Any = self.model
        width = model.width * (2 if model.pooling == "cls_mean" else 1)
        widths = (width, self.hidden, self.hidden, self.bottleneck, self.prototypes)
        head = init_head(jax.random.fold_in(key, 1), widths)
        own = init_model(model, key)
        kept = {"center": jnp.zeros(self.prototypes), "temperature": self.find_temperature(0)}
        return self.begin({**own, COMPANIONS: {"head": head, **kept}})

    def begin(self, params: dict[str, Any]) -> dict[str, Any]:
        """The teacher is the student."""
        beside = params[COMPANIONS]
        teacher = jax.tree.map(jnp.copy, (own_params(params), beside["head"]))
        return {
            **params,
            COMPANIONS: {**beside, "teacher": teacher[0], "teacher_head": teacher[1]},
        }

    def find_temperature(self, step: Any) -> jax.Array:
        """The teacher's at a step."""
        share = jnp.minimum(jnp.asarray(step) / max(self.warmup_steps, 1), 1.0)
        share = share if self.warmup_steps else 1.0
        first, last = self.warmup_temperature, self.teacher_temperature
        return jnp.asarray(first + share * (last - first), jnp.float32)

    def find_momentum(self, step: Any) -> jax.Array:
        """The share of itself that the teacher keeps at a step."""
        share = jnp.minimum(jnp.asarray(step) / max(self.num_steps, 1), 1.0)
        share = share if self.num_steps else 0.0
        return 1 - (1 - self.momentum) * (1 + jnp.cos(jnp.pi * share)) / 2

    def follow(self, params: Any, sums: dict[str, Any], step: jax.Array) -> Any:
        """The teacher, its centre and its temperature after a step."""
        beside = params[COMPANIONS]
        keep, still = self.find_momentum(step), self.center_momentum
        teacher, teacher_head = jax.tree.map(
            lambda t, s: (keep * t + (1 - keep) * s).astype(t.dtype),
            (beside["teacher"], beside["teacher_head"]),
            (own_params(params), beside["head"]),
        )
        mean = sums["teacher_output"] / jnp.maximum(sums["weight"], 1.0)
        moved = {
            "teacher": teacher,
            "teacher_head": teacher_head,
            "center": still * beside["center"] + (1 - still) * mean,
            "temperature": self.find_temperature(step + 1),
        }
        return {**params, COMPANIONS: {**beside, **moved}}

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed over real images. Raises UserError without the teacher, which stays in the run."""
        if COMPANIONS not in params:
            raise UserError(
                "a model of self_distillation is measured by its features: --probe=knn or linear"
            )
        beside, mask = params[COMPANIONS], batch["mask"].astype(jnp.float32)
        global_views, local_views = self.draw_views(batch["image"], key)
        dropout = None if key is None else jax.random.fold_in(key, 1)
        own, head = own_params(params), beside["head"]
        student = self._project(own, head, global_views, self.model, dropout)
        if self.local_views:
            resized = self.resize_positions(own)
            local = self._project(resized, head, local_views, self.local_model, dropout)
            student = jnp.concatenate([student, local], axis=1)
        taught = self._project(
            beside["teacher"], beside["teacher_head"], global_views, self.model, None
        )
        log_student = jax.nn.log_softmax(student / self.student_temperature)
        log_teacher = jax.nn.log_softmax((taught - beside["center"]) / beside["temperature"])
        log_teacher = jax.lax.stop_gradient(log_teacher)
        teacher = jnp.exp(log_teacher)
        cross = -jnp.einsum("btk,bvk->btv", teacher, log_student)
        other = ~jnp.eye(NUM_GLOBAL, cross.shape[2], dtype=bool)
        losses = (cross * other).sum((1, 2)) / other.sum()
        agree = student[:, :NUM_GLOBAL].argmax(-1)[:, ::-1] == log_teacher.argmax(-1)
        entropy = -(teacher * log_teacher).sum(-1)
        sums = {
            "loss": (losses * mask).sum(),
            "weight": mask.sum(),
            "entropy": (entropy.mean(1) * mask).sum(),
            "agree": (agree.mean(1) * mask).sum(),
            "teacher_output": mask @ jax.lax.stop_gradient(taught).mean(1),
            "chosen": mask @ teacher.mean(1),
        }
        return sums["loss"], sums

    def draw_views(self, images: jax.Array, key: jax.Array | None) -> tuple[Any, Any]:
        """Global views `[b, 2, y, x, ch]` and local ones `[b, n, y, x, ch]`."""
        model: Any = self.model
        more = (self.flip, self.jitter)
        wide = Views(NUM_GLOBAL, model.image_size, *self.global_area, *more)
        small = Views(self.local_views, self.local_model.image_size, *self.local_area, *more)
        keys = make_keys(key, images)
        first, second = jax.vmap(jax.random.split, out_axes=1)(keys)
        return wide.draw(first, images), small.draw(second, images) if self.local_views else None

    def resize_positions(self, params: dict[str, Any]) -> dict[str, Any]:
        """The model's parameters for local views: learned positions by bicubic interpolation."""
        before, after = self.model, self.local_model
        if after is before or "pos" not in params:
            return params
        pos, start = params["pos"], before.num_placed()  # type: ignore[attr-defined]
        grid = pos[start:].reshape(*before.grid(), -1)  # type: ignore[attr-defined]
        small = jax.image.resize(grid, (*after.grid(), grid.shape[-1]), "cubic")
        small = small.reshape(-1, grid.shape[-1])
        return {**params, "pos": jnp.concatenate([pos[:start], small])}

    def _project(
        self, params: Any, head: Any, views: jax.Array, model: Any, key: jax.Array | None
    ) -> jax.Array:
        """Outputs `[b, v, prototypes]` for views `[b, v, y, x, ch]`."""
        flat = views.reshape(-1, *views.shape[2:])
        out = apply_head(head, call_model(model, params, flat, key)[0])
        return out.reshape(*views.shape[:2], -1)

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        mean = jnp.asarray(sums["chosen"] / sums["weight"])
        entropy = -jnp.where(mean > 0, mean * jnp.log(jnp.maximum(mean, 1e-30)), 0.0).sum()
        return {
            **mean_sums(sums, loss="loss", teacher_entropy="entropy", agreement="agree"),
            "mean_entropy": float(entropy),
        }

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """Features `[b, d]` of whole images."""
        return call_model(self.model, own_params(params), batch["image"], None)[0]
