"""Low-rank adaptation: a frozen model whose dense layers each learn a small correction.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models": beside a kernel `[in, out]`
lie `lora_a` `[in, rank]` and `lora_b` `[rank, out]`, and the layer computes
`x @ kernel + alpha / rank * (x @ lora_a) @ lora_b`. `lora_b` begins at zero, so that the first
output is the model's own; merged into the kernel the correction costs nothing.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError
from zoo.models.layers import drop
from zoo.tree import canonical_paths

LEAVES = ("lora_a", "lora_b")
# Uniform within 1 / sqrt(in): what peft begins with, too.
INIT_A = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class LoRA(nn.Module):
    """A model with corrections at its dense layers; its parameters are the model's and, beside the
    kernels, the corrections. It is called as the model is, and has the model's fields.

    The corrections are stored in float32, whatever the model is stored in, and computed in the
    layer's own dtype. Raises UserError on settings that cannot be.
    """

    base: nn.Module
    rank: int = 8
    alpha: float = 16.0
    # Regex that occurs in the canonical paths of the layers, such as `blocks/00/attn/q`.
    targets: str = r"attn/(q|v)$"
    dropout: float = 0.0  # of the corrections' inputs, in training

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"model.lora.rank={self.rank} should be 1 or more")
        if not 0 < self.alpha < math.inf:
            raise UserError(f"model.lora.alpha={self.alpha} should be a number above 0")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.lora.dropout={self.dropout} is not in [0, 1)")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise UserError(f"model.lora.targets={self.targets!r} is no regex: {error}") from None
        super().__post_init__()

    def setup(self) -> None:
        nn.share_scope(self, self.base)

    def __call__(self, *inputs: Any, train: bool = False, **more: Any) -> tuple[Any, Any]:
        """What the model returns."""
        with self._correct(train):
            return self.base(*inputs, train=train, **more)

    def read_out(self, x: Any, train: bool = False) -> Any:
        """The model's own, corrected too; of a model that has it."""
        with self._correct(train):
            return self.base.read_out(x, train=train)  # type: ignore[attr-defined]

    def _correct(self, train: bool) -> AbstractContextManager[Any]:
        """In this context the targets compute with their corrections."""
        targets = find_targets(self.base.clone(parent=None, name=None), self.targets)
        depth = len(self.path)

        def interceptor(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
            y, layer = run(*args, **kwargs), context.module
            if not _is_call(context) or "/".join(layer.path[depth:]) not in targets:
                return y
            # Here the layer's own compact method is under way: it may make parameters.
            x = drop(args[0], self.dropout if train else 0.0, "lora_dropout")
            shapes = (x.shape[-1], self.rank), (self.rank, y.shape[-1])
            a = layer.param("lora_a", INIT_A, shapes[0], jnp.float32)
            b = layer.param("lora_b", nn.initializers.zeros, shapes[1], jnp.float32)
            x, a, b = (leaf.astype(y.dtype) for leaf in (x, a, b))
            return y + self.scale * ((x @ a) @ b)

        return nn.intercept_methods(interceptor)

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / self.rank

    def __getattr__(self, name: str) -> Any:
        base = self.__dict__.get("base")
        if base is not None and name in base.__dataclass_fields__:
            return getattr(base, name)
        return super().__getattr__(name)

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the model's positional inputs."""
        return self.base.input_specs(batch_size)  # type: ignore[attr-defined]

    def init_cache(self, batch: int, length: int) -> Any:
        """The model's empty cache."""
        return self.base.init_cache(batch, length)  # type: ignore[attr-defined]


def _is_call(context: Any) -> bool:
    return isinstance(context.module, nn.Dense) and context.method_name == "__call__"


@functools.lru_cache(maxsize=4)  # tracing a deep model takes seconds
def dense_paths(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The dense layers of a model: path in the model -> canonical paths, several where the layers
    of a stack are scanned."""
    found: dict[str, None] = {}

    def interceptor(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if _is_call(context):
            found["/".join(context.module.path)] = None
        return run(*args, **kwargs)

    def init() -> Any:
        inputs = [jnp.zeros(spec.shape, spec.dtype) for spec in model.input_specs()]  # type: ignore[attr-defined]
        with nn.intercept_methods(interceptor):
            return model.init(jax.random.key(0), *inputs)["params"]

    canonical = canonical_paths(jax.eval_shape(init))
    end = "/kernel"
    return {path: tuple(name.removesuffix(end) for name in canonical[path + end]) for path in found}


@functools.lru_cache(maxsize=4)
def find_targets(model: nn.Module, pattern: str) -> frozenset[str]:
    """The paths in the model of the dense layers in whose canonical path the regex occurs.

    Raises UserError where there is none, or where it is some layers of a scanned stack.
    """
    layers = dense_paths(model)
    found = {
        path: [name for name in names if re.search(pattern, name)] for path, names in layers.items()
    }
    for path, names in found.items():
        if names and len(names) < len(layers[path]):
            raise UserError(
                f"model.lora.targets={pattern!r} is {len(names)} of {len(layers[path])} layers of "
                f"a scanned stack ({names[0]}, ...): set model.scan_layers=False"
            )
    chosen = frozenset(path for path, names in found.items() if names)
    if not chosen:
        few = [names[0] for names in layers.values()][:8]
        told = f"they are like {', '.join(few)}" if few else "the model has none"
        raise UserError(f"model.lora.targets={pattern!r} matches no dense layer ({told})")
    return chosen


def describe_targets(model: LoRA) -> str:
    """The line that says which layers are corrected."""
    layers = dense_paths(model.base)
    chosen = sorted(n for path in find_targets(model.base, model.targets) for n in layers[path])
    return (
        f"model.lora: rank {model.rank}, alpha {model.alpha:g}, beside {len(chosen)} of "
        f"{sum(map(len, layers.values()))} dense layers "
        f"({', '.join(chosen[:3])}{', ...' * (len(chosen) > 3)})"
    )


def merge_kernel(kernel: Any, a: Any, b: Any, scale: float) -> np.ndarray:
    """A kernel `[..., in, out]` with the correction `scale * a @ b` added, in the kernel's dtype;
    on the host, and in float32 at least."""
    kernel, a, b = (np.asarray(x) for x in (kernel, a, b))
    wide = np.promote_types(kernel.dtype, np.float32)
    product = np.matmul(a.astype(wide), b.astype(wide))
    return (kernel.astype(wide) + scale * product).astype(kernel.dtype)


def merge_lora(model: LoRA, params: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The model alone, and parameters of it that compute the same (stacked or not, as given)."""

    def merge(node: Mapping[str, Any]) -> dict[str, Any]:
        kept = {k: merge(v) if isinstance(v, Mapping) else v for k, v in node.items()}
        if "lora_a" in node:
            a, b = kept.pop("lora_a"), kept.pop("lora_b")
            kept["kernel"] = merge_kernel(kept["kernel"], a, b, model.scale)
        return kept

    return model.base, merge(params)
