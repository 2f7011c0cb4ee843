"""Attention parts for accelerators: what XLA makes of it, cuDNN's and Pallas' flash attention.

Flash attention (Dao et al. 2022) never holds all scores of a row of heads at once.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from zoo.config import UserError, nearest
from zoo.models.attention import Attend, attend, join_segments
from zoo.models.lora import LoRA

LANES = 128  # a kernel's blocks of tokens are multiples of it
BLOCKS = (512, 256, 128)
FEW_BLOCKS = 4  # of keys: more make the fused backward kernel's parts of the gradient large
LONG = 512  # tokens


def attend_fused(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s k h"],
    v: Float[Array, "b s k h"],
    mask: Bool[Array, "#b 1 #t s"] | None = None,
    causal: bool = False,
    bias: Float[Array, "#b n t s"] | None = None,
    scale: float | None = None,
    cap: float | None = None,
    segments: Int[Array, "b t"] | None = None,
) -> Float[Array, "b t n h"]:
    """The attention part that XLA fuses for an accelerator; capped scores it has not, and the plain
    part is taken."""
    if cap is not None:
        return attend(q, k, v, mask, causal, bias, scale, cap, segments)
    mask = join_segments(mask, segments)
    how: dict[str, Any] = {"is_causal": causal, "scale": scale, "implementation": "xla"}
    return jax.nn.dot_product_attention(q, k, v, bias, mask, **how)


def attend_cudnn(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s k h"],
    v: Float[Array, "b s k h"],
    mask: Bool[Array, "#b 1 #t s"] | None = None,
    causal: bool = False,
    bias: Float[Array, "#b n t s"] | None = None,
    scale: float | None = None,
    cap: float | None = None,
    segments: Int[Array, "b t"] | None = None,
) -> Float[Array, "b t n h"]:
    """cuDNN's flash attention, of a GPU. JAX wants an even number of tokens of it.

    What it has not takes XLA's form: float32, heads whose width is no multiple of 8 up to 128,
    biases, capped scores. Raises UserError on a machine without cuDNN.
    """
    b, t, _, h = q.shape
    s = k.shape[1]
    if q.dtype == jnp.float32 or h % 8 or h > 128 or bias is not None or cap is not None:
        return attend_fused(q, k, v, mask, causal, bias, scale, cap, segments)
    mask = join_segments(mask, segments)
    how: dict[str, Any] = {"is_causal": causal, "scale": scale, "implementation": "cudnn"}
    if mask is not None:
        mask = pad(pad(jnp.broadcast_to(mask, (mask.shape[0], 1, t, s)), 2, 2), 3, 2)
    elif t % 2 or s % 2:
        how["query_seq_lengths"] = jnp.full(b, t, jnp.int32)
        how["key_value_seq_lengths"] = jnp.full(b, s, jnp.int32)
    q, k, v = (pad(x, 1, 2) for x in (q, k, v))
    try:
        return jax.nn.dot_product_attention(q, k, v, None, mask, **how)[:, :t]
    except RuntimeError as error:
        raise UserError(f"{error} model.attention='xla' does without") from None


def attend_splash(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b s k h"],
    v: Float[Array, "b s k h"],
    mask: Bool[Array, "#b 1 #t s"] | None = None,
    causal: bool = False,
    bias: Float[Array, "#b n t s"] | None = None,
    scale: float | None = None,
    cap: float | None = None,
    segments: Int[Array, "b t"] | None = None,
    interpret: bool = False,
) -> Float[Array, "b t n h"]:
    """JAX's Pallas kernel for TPUs, which passes over blocks that a causal query cannot see.

    Biases, masks that differ from query to query (windows) and float16 it has not: those take XLA's
    form. `interpret` runs the kernel on a CPU, for tests.
    """
    t, s, h = q.shape[1], k.shape[1], q.shape[-1]
    of_keys = mask is None or mask.shape[2] == 1
    if bias is not None or not of_keys or (causal and t != s) or q.dtype == jnp.float16:
        return attend_fused(q, k, v, mask, causal, bias, scale, cap, segments)
    t_up, s_up = t + -t % LANES, s + -s % LANES
    kernel = make_splash(q.shape[2], t_up, s_up, causal, cap, interpret)
    numbers = [pad(x, 1, LANES) for x in number_segments(mask, segments, q.shape[:2], k.shape[:2])]
    q = (q * (h**-0.5 if scale is None else scale)).astype(q.dtype)
    q, k, v = (pad(x.swapaxes(1, 2), 2, LANES) for x in (q, k, v))

    def run(q: Any, k: Any, v: Any, *numbers: Any) -> Any:
        from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

        return kernel(q, k, v, SegmentIds(*numbers))

    with jax.named_scope(name_visits(t_up, s_up, causal)):
        out = jax.vmap(run)(q, k, v, *numbers)
    return out.swapaxes(1, 2)[:, :t]


def number_segments(
    mask: Bool[Array, "#b 1 1 s"] | None,
    segments: Int[Array, "b t"] | None,
    queries: tuple[int, ...],
    keys: tuple[int, ...],
) -> tuple[Int[Array, "b t"], Int[Array, "b s"]]:
    """Numbers of queries and keys: who has the same sees. 0 is a hidden key, and what pads."""
    if segments is None:
        of_queries, of_keys = jnp.ones(queries, jnp.int32), jnp.ones(keys, jnp.int32)
    else:
        of_queries = of_keys = segments.astype(jnp.int32) + 1
    return of_queries, of_keys if mask is None else jnp.where(mask[:, 0, 0], of_keys, 0)


def name_visits(t: int, s: int, causal: bool) -> str:
    """How many blocks the kernel visits, of how many: for plans and profiles."""
    rows, columns = t // find_block(t), s // find_block(s)
    return f"visits_{rows * (rows + 1) // 2 if causal else rows * columns}_of_{rows * columns}"


def make_splash(
    num_heads: int, t: int, s: int, causal: bool, cap: float | None, interpret: bool
) -> Any:
    """The kernel for `n t h`, `k s h`, `k s h`; t and s are multiples of LANES."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    mask = splash.CausalMask((t, s)) if causal else splash.FullMask((t, s))
    of_queries, of_keys = find_block(t), find_block(s)
    fused = s <= FEW_BLOCKS * of_keys
    blocks = splash.BlockSizes(
        block_q=of_queries,
        block_kv=of_keys,
        block_kv_compute=of_keys,
        block_q_dkv=of_queries,
        block_kv_dkv=of_keys,
        block_kv_dkv_compute=of_keys,
        block_q_dq=None if fused else of_queries,
        block_kv_dq=None if fused else of_keys,
        use_fused_bwd_kernel=fused,
    )
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask] * num_heads),
        block_sizes=blocks,
        attn_logits_soft_cap=cap,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )


def find_block(num_tokens: int) -> int:
    """How many tokens, a multiple of LANES, a kernel takes at once."""
    return next(block for block in BLOCKS if num_tokens % block == 0)


def pad(x: Any, axis: int, unit: int) -> Any:
    """Zeros behind, up to a multiple of `unit`."""
    missing = -x.shape[axis] % unit
    return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])


def attend_on_tpu(q: Any, k: Any, *others: Any, **packed: Any) -> Any:
    """`attend_splash` where both sides are LONG, else XLA's form: by the compiled modules' memory
    traffic the kernel is ahead from LONG tokens on also at a third of its peak (docs/scale.md)."""
    part = attend_splash if min(q.shape[1], k.shape[1]) >= LONG else attend_fused
    return part(q, k, *others, **packed)


def attend_on_gpu(q: Any, k: Any, v: Any, mask: Any = None, *others: Any, **packed: Any) -> Any:
    """`attend_cudnn` where no mask is given, else XLA's form: JAX hands cuDNN a mask as a bias,
    whole, and has it compute that bias' gradient, which not every cuDNN can."""
    part = attend_fused if mask is not None or packed else attend_cudnn
    return part(q, k, v, mask, *others, **packed)


FORMS: dict[str, Attend] = {
    "plain": attend,
    "xla": attend_fused,
    "cudnn": attend_cudnn,
    "splash": attend_splash,
}
ONLY_ON = {"cudnn": "gpu", "splash": "tpu"}
# XLA cannot lay them over devices.
UNDIVIDED = (attend_cudnn, attend_on_gpu, attend_splash, attend_on_tpu)


def choose_attend(device: Any, form: str = "auto", mapped: bool = False) -> Attend:
    """The attention part for a device of JAX: `form`, or the one that suits it. `mapped`: it will
    run under `vmap`, where JAX's use of cuDNN fails (jax-ml/jax#36702).

    One of UNDIVIDED runs on one device, or inside `shard_map` (`zoo.parallel.share_context`).
    Raises UserError on a form that the device does not have.
    """
    platform = device.platform
    if form == "auto":
        on_gpu = attend_on_gpu if has_flash(device) and not mapped else attend_fused
        return {"cpu": attend, "tpu": attend_on_tpu}.get(platform, on_gpu)
    if form not in FORMS:
        raise UserError(f"no attention {form!r}{nearest(form, FORMS)}")
    if ONLY_ON.get(form, platform) != platform:
        raise UserError(
            f"model.attention={form!r} is for a {ONLY_ON[form].upper()}, not for this "
            f"{platform.upper()} ('auto' takes what suits it)"
        )
    return FORMS[form]


def has_flash(device: Any) -> bool:
    """Is it a GPU of NVIDIA's that cuDNN has flash attention for, from Ampere on?"""
    major = str(getattr(device, "compute_capability", "")).split(".")[0]
    return major.isdigit() and int(major) >= 8


def with_attention(model: Any, part: Attend) -> Any:
    """The model, or the one that LoRA corrects, with another attention part; one without attention
    is as it was."""
    if isinstance(model, LoRA):
        return model.clone(base=with_attention(model.base, part))
    return model.clone(attend=part) if hasattr(model, "attend") else model
