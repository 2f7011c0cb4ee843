"""Attention's forms by platform: each gives what the plain part gives, and its gradients."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config
from jax.sharding import PartitionSpec as P

from zoo.config import ModelConfig, ParallelConfig, TrainConfig, UserError
from zoo.models.attention import attend
from zoo.models.kernels import (
    UNDIVIDED,
    attend_cudnn,
    attend_fused,
    attend_splash,
    choose_attend,
)
from zoo.parallel import make_mesh, share_context
from zoo.train.build import build

interpreted = functools.partial(attend_splash, interpret=True)


def make_case(t=200, s=200, n=4, k=2, h=32, masked=False):
    """q, k, v, a mask of keys, and what the output is weighed by."""
    random = np.random.default_rng(0)
    q, key, v, weights = (
        jnp.asarray(random.normal(size=size), jnp.float32)
        for size in ((2, t, n, h), (2, s, k, h), (2, s, k, h), (2, t, n, h))
    )
    mask = jnp.asarray(random.random((2, 1, 1, s)) < 0.7).at[..., 0].set(True) if masked else None
    return (q, key, v), mask, weights


def compare(part, arrays, mask, weights, *how):
    def loss(one, *arrays):
        return (one(*arrays, mask, *how) * weights).sum()

    find = jax.value_and_grad(loss, argnums=(1, 2, 3))
    value, grads = jax.jit(functools.partial(find, part))(*arrays)
    expected, wanted = jax.jit(functools.partial(find, attend))(*arrays)
    assert float(value) == pytest.approx(float(expected), rel=1e-5, abs=1e-4)
    for grad, want in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(grad, want, atol=1e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(
    ("sizes", "how"),
    [
        ({}, (True,)),  # grouped heads; a length that no block divides
        ({"t": 70, "s": 130, "masked": True}, (False,)),  # across, with padding
        ({"masked": True}, (True, None, 0.2, 5.0)),  # scaled and capped
    ],
    ids=["causal", "cross", "capped"],
)
def test_the_kernel_for_tpus(sizes, how):
    """Interpreted: what Mosaic makes of it was compiled, not run (docs/scale.md)."""
    compare(interpreted, *make_case(**sizes), *how)


def test_what_the_kernel_has_not_takes_xlas_form():
    """Masks from query to query, and biases: no kernel is needed, so that it runs on a CPU."""
    arrays, _, weights = make_case(t=8, s=8)
    near = jnp.tril(jnp.ones((2, 1, 8, 8), bool))
    compare(attend_splash, arrays, near, weights)
    compare(attend_splash, arrays, None, weights, False, jnp.ones((1, 4, 8, 8)))


def test_a_platform_has_its_form():
    assert choose_attend("cpu") is attend
    assert choose_attend("gpu") is attend_fused
    assert choose_attend("tpu") is attend_fused
    assert choose_attend("tpu", "splash") is attend_splash
    assert choose_attend("gpu", "cudnn") is attend_cudnn
    assert choose_attend("tpu", "plain") is choose_attend("cpu", "plain") is attend
    assert choose_attend("cpu", "xla") is attend_fused


@pytest.mark.parametrize(
    ("platform", "form", "line"),
    [
        ("cpu", "cudnn", "'cudnn' is for a GPU, not for this CPU .'auto' takes 'plain'."),
        ("gpu", "splash", "'splash' is for a TPU, not for this GPU .'auto' takes 'xla'."),
        ("cpu", "flash", "did you mean 'splash'"),
    ],
)
def test_a_form_of_another_platform(platform, form, line):
    with pytest.raises(UserError, match=line):
        choose_attend(platform, form)


def test_cudnn_is_for_half_precision():
    arrays, mask, _ = make_case(t=8, s=8)
    with pytest.raises(UserError, match=r"needs model.dtype='bfloat16'"):
        attend_cudnn(*arrays, mask)
    with pytest.raises(UserError, match=r"model.attention='cudnn': cuDNN is not detected"):
        attend_cudnn(*(x.astype(jnp.bfloat16) for x in arrays), mask)


def test_a_run_takes_the_form_it_is_told():
    model = ModelConfig("vit_ti4", {"width": 16, "depth": 1, "num_heads": 2}, attention="xla")
    config = small_config(model=model, train=TrainConfig(batch_size=8))
    assert build(config).model.attend is attend_fused
    assert share_context(attend_splash, make_mesh(ParallelConfig()), undivided=True) in UNDIVIDED


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install '.[plan]'"
)
@pytest.mark.parametrize("h", [32, 64, 80, 128, 256])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mosaic_compiles_the_kernel(h, dtype):
    """Forward and back, rows and heads over a mesh of eight chips."""
    from zoo.plan import find_target

    devices = find_target("v5e:2x4")[1]
    mesh = make_mesh(ParallelConfig(data=4, tensor=2), devices)
    part = share_context(attend_splash, mesh, undivided=True)
    shapes = ((8, 1000, 4, h), (8, 1000, 2, h), (8, 1000, 2, h))
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]

    def loss(q, k, v):
        return part(q, k, v, None, True).astype(jnp.float32).sum()

    rows = jax.sharding.NamedSharding(mesh, P(("data",)))
    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), in_shardings=rows)
    assert "tpu_custom_call" in run.lower(*arrays).compile().as_text()
