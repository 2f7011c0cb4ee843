"""The multilayer perceptron."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from zoo.models.layers import ACTIVATIONS, Activation, drop


class MLP(nn.Module):
    """Dense layers of any widths; the input is flattened, the output linear."""

    widths: tuple[int, ...] = (128,)
    num_outputs: int = 10
    activation: Activation = "relu"
    dropout: float = 0.0
    input_shape: tuple[int, ...] = (28, 28, 1)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b ..."], *, train: bool = False
    ) -> tuple[Float[Array, "b c"], dict[str, Any]]:
        """Returns the outputs (logits or values) and aux with `hidden`, the last hidden layer."""
        x = x.reshape(x.shape[0], -1).astype(self.dtype)
        for i, width in enumerate(self.widths):
            x = ACTIVATIONS[self.activation](self._dense(width, f"fc{i + 1}")(x))
            x = drop(x, self.dropout if train else 0.0, f"dropout{i + 1}")
        outputs = self._dense(self.num_outputs, "head")(x)
        return outputs.astype(jnp.float32), {"hidden": x}

    def _dense(self, width: int, name: str) -> nn.Dense:
        # Glorot for the saturating activations, He for the others.
        saturating = self.activation in ("sigmoid", "tanh")
        init = nn.initializers.xavier_uniform() if saturating else nn.initializers.he_uniform()
        if name == "head":
            init = nn.initializers.xavier_uniform()
        return nn.Dense(
            width, kernel_init=init, dtype=self.dtype, param_dtype=self.param_dtype, name=name
        )

    def input_specs(self, batch_size: int = 1) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and dtypes of the positional inputs."""
        return (jax.ShapeDtypeStruct((batch_size, *self.input_shape), jnp.float32),)
