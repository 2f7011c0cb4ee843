"""Integrated gradients (Sundararajan et al. 2017): from a baseline to the input in small steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError, nearest
from zoo.explain.outputs import Choice
from zoo.explain.probe import give_embeddings, keep_embeddings
from zoo.explain.result import Part, Scores
from zoo.explain.subject import Subject, process

FIRST_STEPS, MOST_STEPS, CHUNK = 16, 1024, 8
TOLERANCE = 0.01  # of the difference, between it and the sum of the attributions
IMAGE_BASELINES = ("black", "white", "mean")
TEXT_BASELINES = ("mask", "pad", "zero")


def explain_integrated(
    subject: Subject, choice: Choice, baseline: str | None = None
) -> tuple[list[Part], list[str]]:
    """`integrated`: what each pixel and token adds to the output.

    The path's integral is taken by Gauss and Legendre's rule, with steps doubled until the
    attributions sum to the difference within TOLERANCE, or are MOST_STEPS.
    """
    start, end, told = make_path(subject, baseline)
    read = make_reader(subject, choice)
    gradient = make_gradient(read)
    at_start, at_end = (float(read(subject.params, _widen(x))[0]) for x in (start, end))
    difference, steps = at_end - at_start, FIRST_STEPS
    while True:
        found = integrate(gradient, subject.params, start, end, steps)
        total = float(sum(x.sum() for x in found.values()))
        exact = abs(total - difference) <= TOLERANCE * abs(difference)
        if exact or steps >= MOST_STEPS:
            break
        steps *= 2
    sums = (
        f"Sum of the attributions: {total:.4f}. Difference of the outputs, {at_end:.4f} for the "
        f"input and {at_start:.4f} for the baseline: {difference:.4f}. With {steps} steps they "
    )
    off = abs(total - difference) / max(abs(difference), 1e-12)
    if exact:
        sums += f"agree within {TOLERANCE:.0%} ({off:.2%})."
    else:
        sums += f"DIFFER by {off:.2%}, more than {TOLERANCE:.0%}: do not trust the amounts."
    parts: list[Part] = []
    for name, values in found.items():
        axis = subject.axes[name]
        title = f"What the {axis.name} adds to the output"
        if name == "images":
            rows, columns = axis.picture.shape[:2]  # type: ignore[union-attr]
            values = values.sum(-1)[:rows, :columns]
        else:
            values = values.sum(-1)
        scores = values.astype(np.float32)
        parts.append(Scores(f"{name}_attribution", title, axis, scores, signed=True))
    return parts, [*told, sums]


def make_path(
    subject: Subject, baseline: str | None
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Both ends: pixels `[y, x, ch]` and embedded tokens `[t, d]`, by name of the input; and lines
    that tell what the baseline is."""
    known = [*(IMAGE_BASELINES if "images" in subject.inputs else ())]
    known += [*(TEXT_BASELINES if len(subject.inputs) > ("images" in subject.inputs) else ())]
    if baseline is not None and baseline not in known:
        raise UserError(f"--baseline={baseline!r} is unknown{nearest(baseline, known)}")
    start, end, told = {}, {}, []
    if "images" in subject.inputs:
        blank = baseline if baseline in IMAGE_BASELINES else "black"
        end["images"] = subject.inputs["images"][0]
        start["images"] = _make_blank(subject, str(blank))
        told.append(f"Baseline of the image: {blank}.")
    names = [name for name in subject.inputs if name != "images"]
    if names:
        kind = baseline if baseline in TEXT_BASELINES else None
        given = {name: _replace_tokens(subject, name, kind) for name in names}
        end |= embed_tokens(subject, {name: subject.inputs[name] for name in names})
        there = embed_tokens(subject, {name: ids for name, (ids, _) in given.items()})
        for name in names:
            what = given[name][1]
            special = _is_special(subject, name)[:, None]
            zeros = jnp.where(special, end[name], 0)
            start[name] = zeros if what == "zero" else there[name]
        told.append(_tell_baseline(next(iter(given.values()))[1]))
    return start, end, told


def _tell_baseline(what: str) -> str:
    replaced = {
        "mask": "the mask token in the place of each",
        "pad": "the padding token in the place of each",
        "zero": "zeros in the place of each embedding",
    }[what]
    return f"Baseline of the text: {replaced}; special tokens stay, and count for nothing."


def _make_blank(subject: Subject, kind: str) -> Any:
    """A picture without content, as the model takes it."""
    from PIL import Image

    pixels = subject.inputs["images"][0]
    if kind == "mean":
        return jnp.zeros_like(pixels)
    mode = "L" if pixels.shape[-1] == 1 else "RGB"
    blank = Image.new(mode, (pixels.shape[1], pixels.shape[0]), kind)
    return jnp.asarray(process(subject.loaded, blank)[0])


def _is_special(subject: Subject, name: str) -> np.ndarray:
    """Which places hold no text, `[t]`; the first of a target is its start."""
    ids = np.asarray(subject.inputs[name])[0]
    tokenizer = subject.loaded.tokenizer
    flags = np.asarray(tokenizer.special)
    special = flags[ids.clip(max=len(flags) - 1)] & (ids < len(flags))
    if tokenizer.mask is not None:
        special &= ids != tokenizer.mask  # it is read like a word
    if name == "target":
        special[0] = True
    return special


def _replace_tokens(subject: Subject, name: str, kind: str | None) -> tuple[Any, str]:
    """The baseline's tokens, and which baseline that is. Raises UserError on one that the
    tokenizer lacks."""
    tokenizer = subject.loaded.tokenizer
    tokens = {"mask": tokenizer.mask, "pad": tokenizer.pad}
    if kind in tokens and tokens[str(kind)] is None:
        raise UserError(f"--baseline={kind}: the tokenizer has no such token; take zero")
    kind = kind or next((k for k, token in tokens.items() if token is not None), "zero")
    ids = subject.inputs[name]
    if kind == "zero":
        return ids, kind
    return jnp.where(jnp.asarray(_is_special(subject, name)), ids, tokens[kind]), kind


def embed_tokens(subject: Subject, tokens: dict[str, Any]) -> dict[str, Any]:
    """Tokens `[1, t]` by name of the input -> their embeddings `[t, d]`, before positions."""

    @jax.jit
    def run(params: Any, inputs: Any) -> Any:
        with keep_embeddings() as kept:
            subject.apply(params, inputs)
        return kept

    kept = run(subject.params, {**subject.inputs, **tokens})
    order = [name for name in subject.inputs if name != "images"]
    found = {name: x[0] for name, x in zip(order, kept, strict=True)}
    return {name: found[name] for name in tokens}


def make_reader(subject: Subject, choice: Choice) -> Callable[..., Any]:
    """A compiled function (params, points of the path `[b, ...]`) -> the output at each, `[b]`."""

    def read(params: Any, points: dict[str, Any]) -> Any:
        count = len(next(iter(points.values())))
        inputs = {k: jnp.repeat(x, count, axis=0) for k, x in subject.inputs.items()}
        if "images" in points:
            inputs["images"] = points["images"]
        embedded = [x for name, x in points.items() if name != "images"]
        with give_embeddings(embedded):
            outputs, _ = subject.apply(params, inputs)
        return choice.score(outputs)

    return jax.jit(read)


def make_gradient(read: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled function (params, start, way, nodes `[k]`, weights `[k]`) -> the weighted sum of
    the output's gradients at those points of the path."""

    def gradient(params: Any, start: Any, way: Any, nodes: Any, weights: Any) -> Any:
        def go(a: Any, b: Any) -> Any:
            return (a + nodes.reshape(-1, *[1] * a.ndim) * b).astype(a.dtype)

        def weighted(points: Any) -> Any:
            return (read(params, points) * weights).sum()

        found = jax.grad(weighted)(jax.tree.map(go, start, way))
        return jax.tree.map(lambda x: x.sum(0), found)

    return jax.jit(gradient)


def integrate(
    gradient: Callable[..., Any], params: Any, start: Any, end: Any, steps: int
) -> dict[str, np.ndarray]:
    """(end - start) times the mean gradient along the straight path between them."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    nodes, weights = (nodes + 1) / 2, weights / 2
    way = jax.tree.map(lambda a, b: b - a, start, end)
    total = jax.tree.map(lambda x: np.zeros(x.shape, np.float64), way)
    for i in range(0, steps, CHUNK):
        part = [jnp.asarray(x[i : i + CHUNK], jnp.float32) for x in (nodes, weights)]
        found = gradient(params, start, way, *part)
        total = jax.tree.map(lambda a, b: a + np.asarray(b, np.float64), total, found)
    return {name: total[name] * np.asarray(way[name], np.float64) for name in total}


def _widen(x: dict[str, Any]) -> dict[str, Any]:
    return {name: value[None] for name, value in x.items()}
