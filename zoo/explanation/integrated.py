"""Integrated gradients (Sundararajan et al. 2017): from a baseline to the input in small steps."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError, nearest
from zoo.explanation.outputs import Choice
from zoo.explanation.probe import give_embeddings, keep_embeddings
from zoo.explanation.result import Part, Scores
from zoo.explanation.subject import Subject
from zoo.use.jobs import prepare_image

NODES, MOST_STEPS = 8, 2048
TOLERANCE = 0.01  # of the difference, between it and the sum of the attributions
IMAGE_BASELINES = ("black", "white", "mean")
TEXT_BASELINES = ("mask", "pad", "zero")


def explain_integrated(
    subject: Subject, choice: Choice, baseline: str | None = None
) -> tuple[list[Part], list[str]]:
    """`integrated`: what each pixel and token adds to the output.

    As many steps are taken as it needs for the attributions to sum to the difference of the
    outputs; the notes say whether they do.
    """
    start, end, told = make_path(subject, baseline)
    path = integrate(make_reader(subject, choice), subject.params, start, end)
    parts: list[Part] = []
    for name, values in path.attributions.items():
        axis = subject.axes[name]
        if axis.picture is not None:
            rows, columns = axis.picture.shape[:2]
            values = values[:rows, :columns]
        title = f"What the {axis.name} adds to the output"
        scores = values.astype(np.float32)
        parts.append(Scores(f"{name}_attribution", title, axis, scores, signed=True))
    return parts, [*told, tell_sums(path)]


@dataclass(frozen=True)
class Path:
    """A path that has been walked: `attributions` of each pixel `[y, x]` or token `[t]`."""

    attributions: dict[str, np.ndarray]
    at_start: float  # the output for the baseline
    at_end: float
    steps: int

    @property
    def total(self) -> float:
        """The sum of the attributions."""
        return float(sum(x.sum() for x in self.attributions.values()))

    @property
    def gap(self) -> float:
        """How far the sum is from the difference of the outputs, as a share of that."""
        difference = self.at_end - self.at_start
        return abs(self.total - difference) / max(abs(difference), 1e-12)


def tell_sums(path: Path) -> str:
    """Whether the attributions are complete, in words."""
    line = (
        f"Sum of the attributions: {path.total:.4f}. Difference of the outputs, {path.at_end:.4f} "
        f"for the input and {path.at_start:.4f} for the baseline: "
        f"{path.at_end - path.at_start:.4f}. With {path.steps} steps they "
    )
    if path.gap <= TOLERANCE:
        return line + f"agree within {TOLERANCE:.0%} ({path.gap:.2%})."
    return line + f"DIFFER by {path.gap:.2%}, more than {TOLERANCE:.0%}: do not trust the amounts."


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
    return jnp.asarray(prepare_image(subject.loaded, blank, "the baseline")[0])


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
    """A function (params, points of the path `[b, ...]`) -> the output at each, `[b]`."""

    def read(params: Any, points: dict[str, Any]) -> Any:
        count = len(next(iter(points.values())))
        inputs = {k: jnp.repeat(x, count, axis=0) for k, x in subject.inputs.items()}
        if "images" in points:
            inputs["images"] = points["images"]
        embedded = [x for name, x in points.items() if name != "images"]
        with give_embeddings(embedded):
            outputs, _ = subject.apply(params, inputs)
        return choice.score(outputs)

    return read


def integrate(read: Callable[..., Any], params: Any, start: Any, end: Any) -> Path:
    """(end - start) times the mean gradient along the straight path between them.

    A stretch of the path takes NODES of Gauss and Legendre's points. Its attributions should sum
    to the difference of the outputs at its ends: the stretch where they are farthest from it is
    halved, until all together are off by TOLERANCE of the whole difference, or after MOST_STEPS.
    (Where a norm sees embeddings near zero, all happens in a thousandth of the path.)
    """
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    nodes, weights = (nodes + 1) / 2, weights / 2
    way = jax.tree.map(lambda a, b: b - a, start, end)
    measure = _make_measure(read)

    def walk(a: float, b: float) -> tuple[float, float, float, float, float, dict[str, Any]]:
        """(how far off, where, the outputs at both ends, what each part adds)."""
        at = [jnp.asarray(x, jnp.float32) for x in (a + (b - a) * nodes, (b - a) * weights)]
        ends, found = measure(params, start, way, jnp.asarray([a, b], jnp.float32), *at)
        added = {name: np.asarray(x, np.float64) for name, x in found.items()}
        first, last = np.asarray(ends, np.float64).tolist()
        off = sum(x.sum() for x in added.values()) - (last - first)
        return -abs(off), a, b, first, last, added

    stretches = [walk(0.0, 1.0)]
    _, _, _, at_start, at_end, _ = stretches[0]
    steps = NODES
    while steps + 2 * NODES <= MOST_STEPS:
        if -sum(stretch[0] for stretch in stretches) <= TOLERANCE * abs(at_end - at_start):
            break
        _, a, b, *_ = heapq.heappop(stretches)
        for half in ((a, (a + b) / 2), ((a + b) / 2, b)):
            heapq.heappush(stretches, walk(*half))
        steps += 2 * NODES
    parts = [stretch[-1] for stretch in stretches]
    return Path({name: sum(x[name] for x in parts) for name in way}, at_start, at_end, steps)


def _make_measure(read: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled function (params, start, way, ends `[2]`, nodes `[k]`, weights `[k]`) -> (the
    outputs at the ends, what each pixel or token adds on the stretch between them)."""

    def go(start: Any, way: Any, places: Any) -> Any:
        def step(a: Any, b: Any) -> Any:
            return (a + places.reshape(-1, *[1] * a.ndim) * b).astype(a.dtype)

        return jax.tree.map(step, start, way)

    def measure(params: Any, start: Any, way: Any, ends: Any, nodes: Any, weights: Any) -> Any:
        def weighted(points: Any) -> Any:
            return (read(params, points) * weights).sum()

        gradient = jax.grad(weighted)(go(start, way, nodes))
        added = jax.tree.map(lambda x, w: (x.sum(0) * w).sum(-1), gradient, way)
        return read(params, go(start, way, ends)), added

    return jax.jit(measure)
