"""Attention's forms by platform: each gives what the plain part gives, and its gradients."""

import dataclasses
import functools
import importlib.util
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config
from jax.sharding import PartitionSpec as P

from zoo.config import Config, ModelConfig, ParallelConfig, TrainConfig, UserError
from zoo.config.checks import check_config
from zoo.models.attention import attend
from zoo.models.kernels import (
    UNDIVIDED,
    attend_cudnn,
    attend_fused,
    attend_on_gpu,
    attend_on_tpu,
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


def check_against_plain(part, arrays, mask, weights, *how):
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
        ({"t": 600, "s": 600, "n": 1, "k": 1}, (True,)),  # a backward kernel for the queries
    ],
    ids=["causal", "cross", "capped", "long"],
)
def test_the_kernel_for_tpus(sizes, how):
    """Interpreted: what Mosaic makes of it was compiled, not run (docs/scale.md)."""
    check_against_plain(interpreted, *make_case(**sizes), *how)


@pytest.mark.parametrize("part", [interpreted, attend_fused])
@pytest.mark.parametrize("masked", [False, True])
def test_documents_in_one_row(part, masked):
    """A packed row: what comes after the last document is a segment of its own."""
    arrays, mask, weights = make_case(t=150, s=150, masked=masked)
    if masked:  # the first of each document is real: a query that sees nothing has no right answer
        mask = mask.at[..., jnp.asarray([0, 3, 63, 70, 120])].set(True)
    segments = jnp.asarray([[1] * 70 + [2] * 50 + [0] * 30, [1] * 3 + [2] * 60 + [3] * 87])
    check_against_plain(part, arrays, mask, weights, True, None, None, None, segments)
    same = segments[:, None, :, None] == segments[:, None, None, :]
    joined = same if mask is None else mask & same
    out = part(*arrays, mask, True, segments=segments)
    np.testing.assert_allclose(out, attend(*arrays, joined, True), atol=2e-5)


def test_what_the_kernel_has_not_takes_xlas_form():
    """Masks from query to query, and biases: no kernel is needed, so that it runs on a CPU."""
    arrays, _, weights = make_case(t=8, s=8)
    near = jnp.tril(jnp.ones((2, 1, 8, 8), bool))
    check_against_plain(attend_splash, arrays, near, weights)
    check_against_plain(attend_splash, arrays, None, weights, False, jnp.ones((1, 4, 8, 8)))


CPU, TPU = SimpleNamespace(platform="cpu"), SimpleNamespace(platform="tpu")
A100 = SimpleNamespace(platform="gpu", compute_capability="8.0")
V100 = SimpleNamespace(platform="gpu", compute_capability="7.0")
MI300 = SimpleNamespace(platform="gpu", compute_capability="gfx942")


def test_a_device_has_its_form():
    found = [choose_attend(device) for device in (CPU, TPU, A100, V100, MI300)]
    assert found == [attend, attend_on_tpu, attend_on_gpu, attend_fused, attend_fused]
    assert choose_attend(A100, mapped=True) is attend_fused
    assert choose_attend(TPU, mapped=True) is attend_on_tpu
    assert choose_attend(TPU, "splash") is attend_splash
    assert choose_attend(V100, "cudnn") is attend_cudnn
    assert choose_attend(TPU, "plain") is choose_attend(CPU, "plain") is attend
    assert choose_attend(CPU, "xla") is attend_fused


@pytest.mark.parametrize(
    ("device", "form", "line"),
    [
        (CPU, "cudnn", "'cudnn' is for a GPU, not for this CPU"),
        (A100, "splash", "'splash' is for a TPU, not for this GPU"),
        (CPU, "flash", "did you mean 'splash'"),
    ],
)
def test_a_form_of_another_platform(device, form, line):
    with pytest.raises(UserError, match=line):
        choose_attend(device, form)


def trace_kernels(part, t, s, **how):
    """The names of the kernels in the program of `part` and its gradients."""
    arrays, _, weights = make_case(t=t, s=s, **how)

    def loss(*arrays):
        return (part(*arrays, None, t == s) * weights).sum()

    program = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(*arrays))
    return set(re.findall("splash_mha_(fwd|dkv|dq)", program))


def test_short_rows_take_xlas_form_on_a_tpu():
    assert not trace_kernels(attend_on_tpu, 511, 511)
    assert not trace_kernels(attend_on_tpu, 1, 600)  # a step of a decoder
    assert trace_kernels(attend_on_tpu, 512, 512) == {"fwd", "dkv"}


def test_long_rows_have_a_backward_kernel_of_the_queries():
    """The fused one holds a gradient of all queries for each block of keys."""
    assert trace_kernels(attend_splash, 2048, 2048, n=1, k=1) == {"fwd", "dkv"}
    assert trace_kernels(attend_splash, 2560, 2560, n=1, k=1) == {"fwd", "dkv", "dq"}


def lower_for_cuda(monkeypatch, arrays, *how):
    """What a GPU of NVIDIA's would be told of a loss of `attend_cudnn` and its gradients."""
    found = SimpleNamespace(cudnn_get_version=lambda: 91200)
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.cuda_versions", found)

    def loss(*arrays):
        return attend_cudnn(*arrays, *how).astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*arrays)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(
    ("sizes", "masked", "mask_type"),
    [
        ({"t": 196, "s": 196}, False, "NO_MASK"),
        ({"t": 197, "s": 197}, False, "PADDING"),  # a ViT
        ({"t": 197, "s": 197}, "causal", "PADDING_CAUSAL"),
        ({"t": 128, "s": 128, "h": 64}, True, "NO_MASK"),  # BERT: the mask is a bias
        ({"t": 100, "s": 100, "h": 128}, "causal", "CAUSAL"),  # grouped heads
        ({"t": 20, "s": 51}, True, "NO_MASK"),  # across
    ],
)
def test_cudnn_takes_what_it_is_given(monkeypatch, sizes, masked, mask_type):
    """Lowered for CUDA, which needs no GPU: JAX checks shapes there, forward and back. It was not
    run."""
    arrays, mask, _ = make_case(**sizes, masked=masked is True)
    half = [x.astype(jnp.bfloat16) for x in arrays]
    text = lower_for_cuda(monkeypatch, half, mask, masked == "causal")
    called = set(re.findall(r"__cudnn\$fmha\w+", text))
    bias = "ScaleBias" if mask is not None else ""
    assert called == {f"__cudnn$fmha{bias}Softmax", f"__cudnn$fmha{bias}SoftmaxBackward"}
    assert f'mask_type": "{mask_type}"' in text.replace("\\22", '"')


@pytest.mark.parametrize(
    ("sizes", "how"),
    [
        ({}, ()),  # float32
        ({"h": 20}, ()),
        ({"h": 136}, ()),
        ({}, (False, None, None, 5.0)),  # capped
        ({}, (False, "bias")),
    ],
)
def test_what_cudnn_has_not_takes_xlas_form(monkeypatch, sizes, how):
    arrays, mask, _ = make_case(**{"t": 32, "s": 32, **sizes})
    if sizes or how:
        arrays = [x.astype(jnp.bfloat16) for x in arrays]
    if how[1:] == ("bias",):
        how = (False, jnp.ones((1, 4, 32, 32), jnp.bfloat16))
    assert "cudnn" not in lower_for_cuda(monkeypatch, arrays, mask, *how)


def test_cudnn_by_force():
    arrays, mask, _ = make_case(t=8, s=8)
    with pytest.raises(UserError, match=r"cuDNN is not detected. model.attention='xla' does"):
        attend_cudnn(*(x.astype(jnp.bfloat16) for x in arrays), mask)
    model = ModelConfig("vit_ti4", attention="cudnn")
    with pytest.raises(UserError, match=r"needs model.dtype='bfloat16'"):
        check_config(Config(model=model))
    model = dataclasses.replace(model, dtype="bfloat16")
    with pytest.raises(UserError, match=r"cannot train several seeds at once"):
        check_config(Config(model=model, train=TrainConfig(num_seeds=2)))


def test_masks_take_xlas_form_on_a_gpu(monkeypatch):
    monkeypatch.setattr("zoo.models.kernels.attend_cudnn", lambda *_, **__: "cudnn")
    monkeypatch.setattr("zoo.models.kernels.attend_fused", lambda *_, **__: "xla")
    arrays, mask, _ = make_case(t=8, s=8, masked=True)
    assert attend_on_gpu(*arrays) == attend_on_gpu(*arrays, None, True) == "cudnn"
    assert attend_on_gpu(*arrays, mask) == "xla"
    assert attend_on_gpu(*arrays, None, segments=jnp.ones((2, 8))) == "xla"


def test_a_run_takes_the_form_it_is_told():
    model = ModelConfig("vit_ti4", {"width": 16, "depth": 1, "num_heads": 2}, attention="xla")
    config = small_config(model=model, train=TrainConfig(batch_size=8))
    assert build(config).model.attend is attend_fused
    assert share_context(attend_splash, make_mesh(ParallelConfig()), undivided=True) in UNDIVIDED


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install '.[plan]'"
)
@pytest.mark.parametrize(
    ("t", "h", "dtype", "products"),
    [
        *((1000, h, dtype, 7) for h in (32, 64, 80, 128, 256) for dtype in ("float32", "bfloat16")),
        (2500, 64, "bfloat16", 9),  # its scores are computed a third time, for the queries
    ],
)
def test_mosaic_compiles_the_kernel(t, h, dtype, products):
    """Forward and back, rows and heads over a mesh of eight chips, documents and their padding; a
    plan counts what it computes."""
    from zoo.plan import find_target
    from zoo.plan.costs import find_costs
    from zoo.plan.hlo import parse_module

    devices = find_target("v5e:2x4")[1]
    mesh = make_mesh(ParallelConfig(data=4, tensor=2), devices)
    part = share_context(attend_splash, mesh, undivided=True)
    shapes = ((8, t, 4, h), (8, t, 2, h), (8, t, 2, h))
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    segments = jax.ShapeDtypeStruct((8, t), "int32")

    def loss(q, k, v, segments):
        return part(q, k, v, None, True, segments=segments).astype(jnp.float32).sum()

    rows = jax.sharding.NamedSharding(mesh, P(("data",)))
    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), in_shardings=rows)
    costs = find_costs(parse_module(run.lower(*arrays, segments).compile().as_text()))
    assert costs.kernels == 0
    blocks = -(-t // 512)
    # Two rows and two heads a chip, of the blocks that lie on the diagonal or before it.
    of_one = 2 * 2 * 2 * h * 512**2 * blocks * (blocks + 1) / 2
    assert costs.flops == pytest.approx(products * of_one, rel=0.01)
