"""The optimizers of Optax by name: those that a pure training step can run, and why not the others.

A row is mostly the Optax function as it is. What it says besides: what `optim.learning_rate` means
to the optimizer, and how decoupled decay reaches it.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from zoo.config import UserError
from zoo.tree import is_stacked, map_named, named_leaves

Rate = Callable[[Any], Any] | float
Mask = Callable[[Any], Any]


@dataclass(frozen=True)
class Optimizer:
    """A row: called as `make(rate, **arguments)`.

    like: the Optax function whose arguments the config may set, where `make` only wraps it.
    rate: what `optim.learning_rate` is to it.
        "schedule": the learning rate of each step.
        "warmup": the same, but nothing may lower it after the warm-up.
        "constant": one number for the whole run.
        "factor": multiplies the step that it finds by itself; 1.0 in the papers.
        "none": it takes no rate at all, which the config has to say by 1.0.
    decay: the argument that takes the mask of decoupled decay, beside one called `weight_decay`;
        "after": decay is added to the update; "none": decay makes no sense.
    """

    make: Callable[..., optax.GradientTransformation]
    like: Callable[..., Any] | None = None
    rate: Literal["schedule", "warmup", "constant", "factor", "none"] = "schedule"
    decay: Literal["mask", "weight_decay_mask", "after", "none"] = "after"

    @property
    def arguments(self) -> list[str]:
        """Names that `optim.arguments` may set."""
        names = list(inspect.signature(self.like or self.make).parameters)[1:]
        return [name for name in names if name not in _NOT_FROM_A_CONFIG]


# Functions and arrays, which a config that is written to JSON cannot hold, and what Optax drops.
_NOT_FROM_A_CONFIG = (
    "clip_value_fn", "base_optimizer", "weight_dimension_numbers", "muon_weight_dimension_numbers",
    "seed",
)  # fmt: skip


def decay_after(rate: Rate, weight_decay: float, mask: Mask) -> optax.GradientTransformation:
    """p - rate * weight_decay * p beside the update, at the rate of the step (Loshchilov & Hutter
    2019)."""
    amount = (lambda count: -weight_decay * rate(count)) if callable(rate) else -weight_decay * rate
    return optax.add_decayed_weights(amount, mask)


def find_hidden_matrices(params: Any) -> Any:
    """A tree of bools: the matrices between layers, which Muon and GaLore are made for.

    Inputs and outputs (embeddings, the head) are matrices too, but one side of them is a vocabulary
    or classes, not a space of features: Jordan (2024) leaves those to Adam, Zhao et al. (2024)
    project attention and feed-forward only. So: the kernels of the blocks, or in a model without
    blocks every kernel but `embed` and `head`. Raises UserError when there are none.
    """
    in_blocks = any(re.search(r"(^|/)blocks/", path) for path in named_leaves(params))

    def is_hidden(path: str, leaf: Any) -> bool:
        place = r"(^|/)blocks/" if in_blocks else r"^(?!(.*/)?(embed|head)/)"
        is_matrix = leaf.ndim - is_stacked(path) == 2
        return bool(is_matrix and re.search(place, path) and path.endswith("kernel"))

    return map_named(is_hidden, params)


def _muon(
    rate: Rate,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
    adam_learning_rate: Rate | None = None,
    **arguments: Any,
) -> optax.GradientTransformation:
    """Muon on hidden matrices, each layer of a stack by itself; Adam on the rest.

    Decay follows each group's own rate; Optax's `adam_weight_decay` has no mask.
    """

    def choose_dimensions(params: Any) -> Any:
        def choose(path: str, hidden: bool) -> Any:
            first = int(is_stacked(path))
            return contrib.MuonDimensionNumbers(first, first + 1) if hidden else None

        hidden = find_hidden_matrices(params)
        if not any(jax.tree.leaves(hidden)):
            raise UserError("optim.name='muon' finds no hidden matrix in this model: choose adamw")
        return map_named(choose, hidden)

    adam_rate = rate if adam_learning_rate is None else adam_learning_rate
    optimizer = contrib.muon(
        rate,
        adam_learning_rate=adam_rate,
        muon_weight_dimension_numbers=choose_dimensions,
        **arguments,
    )
    if mask is None:
        return optimizer

    def decays_in(group: bool) -> Mask:
        return lambda params: jax.tree.map(
            lambda decays, hidden: decays and hidden == group,
            mask(params),
            find_hidden_matrices(params),
        )

    return optax.chain(
        optimizer,
        decay_after(rate, weight_decay, decays_in(True)),
        decay_after(adam_rate, weight_decay, decays_in(False)),
    )


def _galore(rate: Rate, **arguments: Any) -> optax.GradientTransformation:
    def choose_dimensions(params: Any) -> Any:
        def choose(path: str, hidden: bool) -> Any:
            if hidden and is_stacked(path):
                raise UserError(
                    f"optim.name='galore' cannot project {path}, a stack of matrices: "
                    "set model.scan_layers=False"
                )
            return contrib.GaLoreDimensionNumbers() if hidden else None

        return map_named(choose, find_hidden_matrices(params))

    return contrib.galore(rate, weight_dimension_numbers=choose_dimensions, **arguments)


def _mask_decay(make: Callable[..., Any]) -> Callable[..., optax.GradientTransformation]:
    """Gives an optimizer whose decay has no mask one.

    Its decay follows a rate that only it knows, and touches the update but not the state. So the
    update is written with and without; XLA computes what they share once.
    """

    def make_masked(
        rate: Rate, weight_decay: float = 0.0, mask: Mask | None = None, **arguments: Any
    ) -> optax.GradientTransformation:
        """`make` with a mask for its decay."""
        plain = make(rate, **arguments)
        if mask is None:
            return plain
        decayed = make(rate, weight_decay=weight_decay, **arguments)

        def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            updates = plain.update(gradients, state, params)[0]
            with_decay, state = decayed.update(gradients, state, params)
            chosen = jax.tree.map(
                lambda decays, a, b: a if decays else b, mask(params), with_decay, updates
            )
            return chosen, state

        return optax.GradientTransformation(plain.init, update)

    return make_masked


def _schedule_free_sgd(
    rate: Rate, weight_decay: float = 0.0, mask: Mask | None = None, **arguments: Any
) -> optax.GradientTransformation:
    # Optax's shortcut but for the mask of the decay.
    base = optax.chain(optax.add_decayed_weights(weight_decay, mask), optax.sgd(rate))
    return contrib.schedule_free(base, rate, **arguments)


def _schedule_free_adamw(
    rate: Rate,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
    b2: float = 0.999,
    eps: float = 1e-8,
    **arguments: Any,
) -> optax.GradientTransformation:
    # The same. Adam without first moment is RMSProp with Adam's bias correction.
    base = optax.chain(
        optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(rate),
    )
    return contrib.schedule_free(base, rate, **arguments)


def _sm3(rate: Rate, momentum: float = 0.9) -> optax.GradientTransformation:
    # Optax's takes a number only; the rate is the last thing it multiplies by.
    return optax.chain(optax.sm3(1.0, momentum), optax.scale_by_schedule(rate))


def _optimistic_adam(rate: Rate, **arguments: Any) -> optax.GradientTransformation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Optax prefers optimistic_adam_v2
        return optax.optimistic_adam(rate, **arguments)


def _noisy_sgd(rate: Rate, key: int = 0, **arguments: Any) -> optax.GradientTransformation:
    # The state keeps the key as plain numbers: checkpoints hold no typed keys.
    optimizer = optax.noisy_sgd(rate, key=key, **arguments)

    def to_plain(leaf: Any) -> Any:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    def to_key(leaf: Any) -> Any:
        return jax.random.wrap_key_data(leaf) if leaf.dtype == jnp.uint32 else leaf

    def init(params: Any) -> Any:
        return jax.tree.map(to_plain, optimizer.init(params))

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradients, jax.tree.map(to_key, state), params)
        return updates, jax.tree.map(to_plain, state)

    return optax.GradientTransformation(init, update)


def make_sam(
    base: optax.GradientTransformation,
    rho: float = 0.05,
    sync_period: int = 2,
    reset_state: bool = True,
) -> optax.GradientTransformation:
    """Sharpness-aware minimisation (Foret et al. 2021): of `sync_period` steps all but the last
    climb by `rho` along the gradient, the last takes the base optimizer's step from where the
    climb began."""
    climb = optax.chain(contrib.normalize(), optax.sgd(rho))
    optimizer = contrib.sam(base, climb, sync_period, reset_state)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, new = optimizer.update(gradients, state, params)
        # Optax chooses between states by arithmetic, which makes an int of a bool.
        return updates, jax.tree.map(lambda x, old: x.astype(old.dtype), new, state)

    return optax.GradientTransformation(optimizer.init, update)


def _row(make: Callable[..., Any], **fields: Any) -> Optimizer:
    """A row whose decay is Optax's own where that has a mask."""
    names = inspect.signature(make).parameters
    own = [mask for mask in ("mask", "weight_decay_mask") if mask in names]
    decay = own[0] if own and "weight_decay" in names else "after"
    return Optimizer(make, **{"decay": decay, **fields})


_ALIASES = (
    "adabelief adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage lamb lars lion "
    "nadam nadamw novograd optimistic_adam_v2 optimistic_gradient_descent radam rmsprop sgd "
    "sign_sgd signum yogi"
)
_CONTRIB = "acprop ademamix adopt madgrad simplified_ademamix"

OPTIMIZERS: dict[str, Optimizer] = {
    **{name: _row(getattr(optax, name)) for name in _ALIASES.split()},
    **{name: _row(getattr(contrib, name)) for name in _CONTRIB.split()},
    # Optax adds adadelta's decay to the gradient, where it is no decoupled decay.
    "adadelta": _row(optax.adadelta, decay="after"),
    "noisy_sgd": _row(_noisy_sgd, like=optax.noisy_sgd),
    "optimistic_adam": _row(_optimistic_adam, like=optax.optimistic_adam, rate="constant"),
    "rprop": _row(optax.rprop, rate="constant"),
    "sm3": _row(_sm3),
    "muon": _row(_muon, like=contrib.muon),
    "galore": Optimizer(_galore, like=contrib.galore, decay="mask"),
    "cocob": _row(contrib.cocob, rate="none", decay="none"),
    # Their own decay follows the step they find, which is the decoupled one.
    "dog": _row(contrib.dog, rate="factor"),
    "dowg": _row(contrib.dowg, rate="factor"),
    "dadapt_adamw": _row(
        _mask_decay(contrib.dadapt_adamw), like=contrib.dadapt_adamw, rate="factor"
    ),
    "prodigy": _row(_mask_decay(contrib.prodigy), like=contrib.prodigy, rate="factor"),
    "schedule_free_sgd": _row(_schedule_free_sgd, like=contrib.schedule_free_sgd, rate="warmup"),
    "schedule_free_adamw": _row(
        _schedule_free_adamw, like=contrib.schedule_free_adamw, rate="warmup"
    ),
}


@dataclass(frozen=True)
class Whole:
    """Why an optimizer is not to be divided into groups; `rates`: nor its update multiplied."""

    reason: str
    rates: bool = True


_ONE_STEP = Whole("finds one step size for all parameters")
_AVERAGES = Whole("averages the steps that it takes itself")
_MATRICES = Whole("chooses its matrices among all parameters", rates=False)
_NOT_LINEAR = Whole("takes steps that are not proportional to the learning rate")

WHOLE: dict[str, Whole] = {
    **dict.fromkeys(("dadapt_adamw", "prodigy", "dog", "dowg"), _ONE_STEP),
    **dict.fromkeys(("schedule_free_sgd", "schedule_free_adamw"), _AVERAGES),
    **dict.fromkeys(("muon", "galore"), _MATRICES),
    **dict.fromkeys(("cocob", "fromage", "madgrad", "rprop", "optimistic_adam"), _NOT_LINEAR),
    "sam": Whole("climbs along the gradient of all parameters at once"),
}

_NEEDS_LOSS = "needs the value of the loss at every update, a pure training step gives gradients"
_WRAPS = "wraps another optimizer and is none itself"

# name -> why a training step that gives gradients and parameters only cannot run it.
REFUSED: dict[str, str] = {
    "lbfgs": "needs the loss function itself at every update, which a pure training step does not "
    "give",
    "polyak_sgd": _NEEDS_LOSS,
    "momo": _NEEDS_LOSS,
    "momo_adam": _NEEDS_LOSS,
    "reduce_on_plateau": f"{_NEEDS_LOSS}: lower the rate by optim.schedule='step'",
    "sophia": "needs the loss function itself to estimate its curvature, which a pure training "
    "step does not give",
    "dpsgd": "needs the gradient of each example, a training step has that of the batch",
    "differentially_private_aggregate": "needs the gradient of each example, a training step has "
    "that of the batch",
    "lookahead": "needs two copies of the parameters, a training state has one",
    "mechanize": _WRAPS,
    "schedule_free": f"{_WRAPS}: choose schedule_free_sgd or schedule_free_adamw",
    "split_real_and_imaginary": _WRAPS,
}
