"""The one stack: scanned equals unrolled, remat changes no number, cache and aux in both forms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.config import UserError
from zoo.models.stack import init_stack_cache, run_stack
from zoo.tree import stack_layers


class Accumulator(nn.Module):
    """A block with a cache: adds a running total of what it has seen, scaled by its layer."""

    @nn.compact
    def __call__(self, x, layer, cache, shared):
        x = nn.Dense(x.shape[-1], name="fc")(x) * layer["scale"] + shared
        if cache is None:
            return x, {"seen": x}
        total = cache["total"] + x
        return x + total, {"seen": x, "cache": {"total": total}}


class Model(nn.Module):
    scan: bool
    remat: str = "none"
    depth: int = 3
    num_groups: int | None = None

    @nn.compact
    def __call__(self, x, cache=None):
        layer = {"scale": jnp.arange(1.0, self.depth + 1)}
        return run_stack(
            Accumulator(parent=None), self.depth, x,
            layer=layer, cache=cache, shared=jnp.float32(0.5), scan=self.scan, remat=self.remat,
            num_groups=self.num_groups,
        )  # fmt: skip

    def init_cache(self, batch):
        return init_stack_cache(lambda: {"total": jnp.zeros((batch, 4))}, self.depth, self.scan)


X = jax.random.normal(jax.random.key(0), (2, 4))


@pytest.fixture(scope="module")
def params():
    return Model(scan=False).init(jax.random.key(1), X)["params"]


def test_by_hand(params):
    y, expected = np.asarray(X), []
    for i in range(3):
        fc = params["blocks"][f"{i:02d}"]["fc"]
        y = (y @ fc["kernel"] + fc["bias"]) * (i + 1) + 0.5
        expected.append(y)
    out, aux = Model(scan=False).apply({"params": params}, X)
    np.testing.assert_allclose(out, y, atol=1e-5)
    np.testing.assert_allclose(aux["seen"], np.stack(expected), atol=1e-5)


def test_scanned_equals_unrolled_with_cache(params):
    outputs = []
    for scan in (False, True):
        model = Model(scan=scan)
        own = stack_layers(params) if scan else params
        cache = model.init_cache(2)
        structure = jax.tree.structure(cache)
        for _ in range(3):  # three steps of decoding, as it were
            out, aux = model.apply({"params": own}, X, cache)
            cache = aux["cache"]
            assert jax.tree.structure(cache) == structure
        totals = cache["total"] if scan else jnp.stack([c["total"] for c in cache])
        outputs.append((out, aux["seen"], totals))
    for a, b in zip(*outputs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("remat", ["full", "dots", "offload"])
@pytest.mark.parametrize("scan", [False, True])
def test_remat_changes_no_gradient(params, scan, remat):
    own = stack_layers(params) if scan else params
    grads = [
        jax.jit(jax.grad(lambda p, r=r: (Model(scan, r).apply({"params": p}, X)[0] ** 2).sum()))(
            own
        )
        for r in ("none", remat)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *grads)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("num_groups", [1, 2, 4])
def test_groups_share_their_parameters(num_groups, scan):
    """Layers, layer inputs and caches stay one a layer; consecutive layers use one group."""
    random = np.random.default_rng(0)
    model = Model(scan, "full", depth=4, num_groups=num_groups)
    own = {
        f"{i:02d}": {"fc": {"kernel": random.normal(size=(4, 4)), "bias": random.normal(size=4)}}
        for i in range(num_groups)
    }
    own = jax.tree.map(jnp.float32, {"blocks": own})
    given = {"params": stack_layers(own) if scan else own}
    cache = model.init_cache(2)
    shapes = jax.eval_shape(model.init, jax.random.key(0), X, cache)
    assert jax.tree.map(jnp.shape, given) == jax.tree.map(jnp.shape, shapes)

    step = jax.jit(model.apply)
    totals = np.zeros((4, 2, 4))
    for _ in range(2):
        y, expected = np.asarray(X), []
        for i in range(4):
            fc = own["blocks"][f"{i * num_groups // 4:02d}"]["fc"]
            y = (y @ fc["kernel"] + fc["bias"]) * (i + 1) + 0.5
            expected.append(y)
            totals[i] += y
            y = y + totals[i]
        out, aux = step(given, X, cache)
        assert jax.tree.structure(aux["cache"]) == jax.tree.structure(cache)
        cache = aux["cache"]
        found = cache["total"] if scan else jnp.stack([c["total"] for c in cache])
        pairs = ((out, y), (aux["seen"], np.stack(expected)), (found, totals))
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_groups_that_do_not_divide():
    with pytest.raises(UserError, match="3 layers cannot share 2 groups"):
        Model(scan=False, num_groups=2).init(jax.random.key(0), X)


class Noise(nn.Module):
    @nn.compact
    def __call__(self, x, layer, cache, shared):
        return x, {"kept": nn.Dropout(0.5, deterministic=False, name="drop")(jnp.ones(64))}


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("num_groups", [1, 2, 4])
def test_every_layer_draws_its_own_dropout(num_groups, scan):
    """Also those that share their parameters."""

    class Layers(nn.Module):
        @nn.compact
        def __call__(self, x):
            return run_stack(Noise(parent=None), 4, x, num_groups=num_groups, scan=scan)

    _, aux = jax.jit(Layers().apply)({}, X, rngs={"dropout": jax.random.key(0)})
    assert len(np.unique(aux["kept"], axis=0)) == 4
