"""Attention parts for accelerators: what XLA makes of it, cuDNN's and Pallas' flash attention.

Flash attention (Dao et al. 2022) never holds all scores of a row of heads at once.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from zoo.config import UserError, nearest
from zoo.models.attention import Attend, attend

LANES = 128  # a kernel's blocks of tokens are multiples of it
BLOCKS = (512, 256, 128)


def attend_fused(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s k h"],
    v: Float[Array, "b s k h"],
    mask: Bool[Array, "#b 1 #t s"] | None = None,
    causal: bool = False,
    bias: Float[Array, "#b n t s"] | None = None,
    scale: float | None = None,
    cap: float | None = None,
    implementation: Literal["xla", "cudnn"] = "xla",
) -> Float[Array, "b t n h"]:
    """The attention part that XLA fuses for an accelerator, or cuDNN's flash attention, of a GPU;
    capped scores neither has, and the plain part is taken.

    Raises UserError on what cuDNN refuses: float32, heads too wide, a machine without it.
    """
    if cap is not None:
        return attend(q, k, v, mask, causal, bias, scale, cap)
    if implementation == "cudnn" and q.dtype == jnp.float32:
        raise UserError("model.attention='cudnn' needs model.dtype='bfloat16' or 'float16'")
    how: dict[str, Any] = {"is_causal": causal, "scale": scale, "implementation": implementation}
    try:
        return jax.nn.dot_product_attention(q, k, v, bias, mask, **how)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        if implementation != "cudnn":
            raise
        raise UserError(f"model.attention='cudnn': {error}") from None


attend_cudnn = functools.partial(attend_fused, implementation="cudnn")


def attend_splash(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s k h"],
    v: Float[Array, "b s k h"],
    mask: Bool[Array, "#b 1 #t s"] | None = None,
    causal: bool = False,
    bias: Float[Array, "#b n t s"] | None = None,
    scale: float | None = None,
    cap: float | None = None,
    interpret: bool = False,
) -> Float[Array, "b t n h"]:
    """JAX's Pallas kernel for TPUs, which passes over blocks that a causal query cannot see.

    Biases, and masks that differ from query to query (packed documents, windows), it has not: those
    take XLA's form. `interpret` runs the kernel on a CPU, for tests.
    """
    t, s, h = q.shape[1], k.shape[1], q.shape[-1]
    of_keys = mask is None or mask.shape[2] == 1
    if bias is not None or not of_keys or (causal and t != s):
        return attend_fused(q, k, v, mask, causal, bias, scale, cap)
    kernel = make_splash(q.shape[2], t + -t % LANES, s + -s % LANES, causal, cap, interpret)
    real = jnp.ones((q.shape[0], s), bool) if mask is None else mask[:, 0, 0]
    real = jnp.broadcast_to(real, (q.shape[0], s))
    q = (q * (h**-0.5 if scale is None else scale)).astype(q.dtype)
    q, k, v = (pad_tokens(x.swapaxes(1, 2), 2) for x in (q, k, v))

    def run(q: Any, k: Any, v: Any, real: Any) -> Any:
        from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

        return kernel(q, k, v, SegmentIds(jnp.ones(q.shape[1], jnp.int32), real))

    out = jax.vmap(run)(q, k, v, pad_tokens(real.astype(jnp.int32), 1))
    return out.swapaxes(1, 2)[:, :t]


def make_splash(
    num_heads: int, t: int, s: int, causal: bool, cap: float | None, interpret: bool
) -> Any:
    """The kernel for `n t h`, `k s h`, `k s h`; t and s are multiples of LANES."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    mask = splash.CausalMask((t, s)) if causal else splash.FullMask((t, s))
    of_queries, of_keys = (next(block for block in BLOCKS if n % block == 0) for n in (t, s))
    blocks = splash.BlockSizes(
        block_q=of_queries,
        block_kv=of_keys,
        block_kv_compute=of_keys,
        block_q_dkv=of_queries,
        block_kv_dkv=of_keys,
        block_kv_dkv_compute=of_keys,
        use_fused_bwd_kernel=True,
    )
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask] * num_heads),
        block_sizes=blocks,
        attn_logits_soft_cap=cap,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )


def pad_tokens(x: Any, axis: int) -> Any:
    """Zeros behind, up to a multiple of LANES."""
    missing = -x.shape[axis] % LANES
    return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])


FORMS: dict[str, Attend] = {
    "plain": attend,
    "xla": attend_fused,
    "cudnn": attend_cudnn,
    "splash": attend_splash,
}
# Kernels are taken by force alone until they are timed on what they are for, and a plan knows what
# they compute.
OF_PLATFORM = {"cpu": "plain", "gpu": "xla", "tpu": "xla"}
ONLY_ON = {"cudnn": "gpu", "splash": "tpu"}
UNDIVIDED = (attend_splash,)  # a kernel that XLA cannot lay over devices


def choose_attend(platform: str, form: str = "auto") -> Attend:
    """The attention part of a platform, 'cpu', 'gpu' or 'tpu': that of OF_PLATFORM,
    or `form`.

    One of UNDIVIDED runs on one device, or inside `shard_map` (`zoo.parallel.share_context`).
    Raises UserError on a form that the platform does not have.
    """
    usual = OF_PLATFORM.get(platform, "xla")
    name = usual if form == "auto" else form
    if name not in FORMS:
        raise UserError(f"no attention {name!r}{nearest(name, FORMS)}")
    if ONLY_ON.get(name, platform) != platform:
        raise UserError(
            f"model.attention={name!r} is for a {ONLY_ON[name].upper()}, not for this "
            f"{platform.upper()} ('auto' takes {usual!r})"
        )
    return FORMS[name]
