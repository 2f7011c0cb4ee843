"""Floating-point operations of a function, counted from its jaxpr."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.interpreters import partial_eval


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs of the matrix products and convolutions, 2 a multiply-add; nothing is executed.

    Unlike XLA's cost analysis it counts the body of a scan as often as it runs. `arguments` may be
    `jax.ShapeDtypeStruct`s.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    # As the compiler will, drop what no output needs (an aux that nobody asked for).
    return _count(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            sizes = math.prod(shape[i] for i in contracted)
            total += 2 * sizes * math.prod(equation.outvars[0].aval.shape)
        elif name == "ragged_dot_general":  # each row by one of the matrices
            rows = math.prod(equation.invars[0].aval.shape)
            total += 2 * rows * equation.outvars[0].aval.shape[-1]
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs
        elif name == "cond":
            total += max(_count(branch.jaxpr) for branch in params["branches"])
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(_count(inner) for inner in _inner(params))
    return total


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs in an equation's parameters (pjit, scan, remat, custom rules)."""
    for value in params.values():
        if hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr") and hasattr(value.jaxpr, "eqns"):
            yield value.jaxpr
