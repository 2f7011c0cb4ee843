"""A task with a teacher, which follows the student, and a count of the examples seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from zoo.tasks import Companion
from zoo.tasks.companions import init_models
from zoo.tasks.supervised import run_model
from zoo.tree import COMPANIONS, own_params

SHARE = 0.25  # of the way that the teacher goes in a step


@dataclass(frozen=True)
class Following:
    """Squared distance of the student's outputs from the teacher's, and from the labels."""

    companions: ClassVar[dict[str, Companion]] = {"teacher": Companion()}
    constants: ClassVar[str] = "^companions/"

    model: Any
    teacher: Any

    @staticmethod
    def num_outputs(info: Any) -> int:
        return info.num_classes

    @classmethod
    def create(cls, model: Any, info: Any, teacher: Any) -> Following:
        return cls(model, teacher)

    def init(self, key: jax.Array) -> dict[str, Any]:
        params = init_models(self.model, key, teacher=self.teacher)
        params[COMPANIONS]["seen"] = jnp.zeros(())
        return params

    def loss(self, params: Any, batch: dict[str, Any], key: Any) -> Any:
        own = run_model(self.model, own_params(params), batch["image"], key)
        taught = run_model(self.teacher, params[COMPANIONS]["teacher"], batch["image"], None)
        goal = taught + jax.nn.one_hot(batch["label"], own.shape[-1])
        loss = (jnp.square(own - goal).sum(-1) * batch["mask"]).sum()
        return loss, {"loss": loss, "weight": batch["mask"].sum()}

    def follow(self, params: Any, sums: dict[str, Any], step: jax.Array) -> Any:
        beside = params[COMPANIONS]
        teacher = jax.tree.map(
            lambda t, s: t + SHARE * (s - t), beside["teacher"], own_params(params)
        )
        seen = beside["seen"] + sums["weight"]
        return {**params, COMPANIONS: {"teacher": teacher, "seen": seen}}

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        return {"loss": float(sums["loss"] / sums["weight"])}
