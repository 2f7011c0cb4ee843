import jax
import jax.numpy as jnp

import zoo
from zoo.models.flops import count_flops


def test_products_scans_and_branches():
    x, w = jnp.ones((3, 4)), jnp.ones((4, 4))
    assert count_flops(lambda x: x @ w, x) == 2 * 3 * 4 * 4
    scanned = lambda x: jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=5)[0]
    assert count_flops(jax.jit(scanned), x) == 5 * 96
    branch = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ w, lambda x: x, x)
    assert count_flops(branch, x) == 96


def test_convolution():
    x, k = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    conv = lambda x: jax.lax.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert count_flops(conv, x) == 2 * 64 * 27 * 5


def test_scanned_and_unrolled_models_cost_the_same():
    counts = set()
    for scan in (False, True):
        model = zoo.create_model("vit_ti16", scan_layers=scan)
        params = jax.eval_shape(lambda m=model: zoo.init_params(m))
        x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
        run = lambda p, x, m=model: m.apply({"params": p}, x)[0]
        counts.add(count_flops(run, params, x))
    # 1.26 G multiply-adds are published for DeiT-Ti (with its head and patches).
    (count,) = counts
    assert abs(count / 2 / 1.26e9 - 1) < 0.02
