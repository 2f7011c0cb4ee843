"""Arithmetic, traffic and collectives of compiled modules, against what was written down."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from zoo.plan.costs import count_meetings, find_costs, find_group
from zoo.plan.hlo import parse_module


def costs_of(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return find_costs(parse_module(jax.jit(function).lower(*arguments).compile().as_text()))


def test_a_loop_counts_as_often_as_it_turns():
    def run(x, ws):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, ws)[0]

    costs = costs_of(run, (8, 64), (7, 64, 64))
    assert costs.flops == 7 * 2 * 8 * 64 * 64
    assert costs.unknown_loops == 0
    # Each turn reads its matrix and not all seven.
    assert 7 * 64 * 64 * 4 <= costs.num_bytes < 7 * 64 * 64 * 4 * 4


def test_loops_in_loops_and_what_a_batch_multiplies():
    def inner(x):
        return jax.lax.fori_loop(0, 3, lambda _, x: jnp.einsum("bij,bjk->bik", x, x), x)

    def run(x):
        return jax.lax.scan(lambda x, _: (inner(x), None), x, None, length=5)[0]

    assert costs_of(run, (4, 16, 16)).flops == 5 * 3 * 2 * 4 * 16**3


def test_a_gradient_has_three_products_of_the_forward_pass():
    def loss(w1, w2, x):
        return jnp.square(jnp.tanh(x @ w1) @ w2).sum()

    costs = costs_of(jax.grad(loss, (0, 1, 2)), (32, 48), (48, 16), (8, 32))
    assert costs.flops == 3 * 2 * 8 * (32 * 48 + 48 * 16)


@pytest.mark.parametrize(
    ("size", "window", "places", "how", "count"),
    [
        (5, 3, 3, {}, 9),
        (5, 3, 5, {"pad": 1}, 13),  # one element of two windows lies in the padding
        (6, 2, 3, {"stride": 2}, 6),
        (8, 8, 8, {"stride": 7, "lhs_dilate": 8}, 8),  # a batch, as the TPU compiler writes it
    ],
)
def test_windows_count_where_they_meet_the_input(size, window, places, how, count):
    plain = {"stride": 1, "pad": 0, "lhs_dilate": 1, "rhs_dilate": 1}
    assert count_meetings(size, window, places, plain | how) == count


def test_a_convolution():
    def run(x, k):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=names)

    costs = costs_of(run, (2, 8, 8, 3), (3, 3, 3, 5))
    assert costs.flops == 2 * (2 * 6 * 6 * 5) * (3 * 3 * 3)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("x), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}", 4),
        ("x), replica_groups=[8,256]<=[256,8]T(1,0), dimensions={1}", 256),
        ("x), replica_groups=mesh['axis_0'=256,'axis_1'=8,'axis_2'=1] {'axis_0','axis_2'}", 256),
    ],
)
def test_groups(text, size):
    assert find_group(text) == size


KERNEL = """\
HloModule step

ENTRY %main (x: f32[8,8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  %k = f32[8,8]{1,0} custom-call(%x), custom_call_target="tpu_custom_call", frontend_attributes={
"told":"{\\"block\\": 256}"
}}, metadata={op_name="kernel"}
  ROOT %dot = f32[8,8]{1,0} dot(%k, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""

SPARSE_CORE = """HloModule m

%scattered (p: f32[8,8]) -> f32[8,8] {
  ROOT %p = f32[8,8]{1,0} parameter(0)
}, execution_thread="sparsecore"

ENTRY %main (x: f32[8,8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  %y = f32[8,8]{1,0} call(%x), to_apply=%scattered
  ROOT %dot = f32[8,8]{1,0} dot(%y, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


def test_what_follows_a_kernel_counts():
    costs = find_costs(parse_module(KERNEL))
    assert costs.flops == 2 * 8**3
    assert costs.kernels == 1


def test_what_follows_work_of_other_cores_counts():
    assert find_costs(parse_module(SPARSE_CORE)).flops == 2 * 8**3
