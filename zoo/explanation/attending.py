"""The methods that read attention: the maps, rollout, gradient x attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError
from zoo.explanation.flow import (
    RESIDUAL,
    find_copying,
    relate,
    relate_pair,
    roll_out,
    roll_out_pair,
    weigh,
)
from zoo.explanation.outputs import Choice, read_out, read_text_tower
from zoo.explanation.probe import MovedAttention, keep_pool
from zoo.explanation.result import Axis, Maps, Part, Scores
from zoo.explanation.subject import Subject
from zoo.models.decoder import Decoder
from zoo.models.mixer import Mixer

MOST_WEIGHTS = 2**28  # 1 GiB of float32
COPIES = 0.4  # of a head's attention: less is no induction head
# Which axes the maps of a kind of model lie between: name -> (queries, keys).
STREAMS: dict[str, dict[str, tuple[str, str]]] = {
    "image": {"attention": ("images", "images")},
    "text": {"attention": ("tokens", "tokens")},
    "pair": {
        "cross": ("target", "source"),
        "encoder": ("source", "source"),
        "decoder": ("target", "target"),
    },
    "towers": {"image": ("images", "images"), "text": ("tokens", "tokens")},
}
TITLES = {
    "attention": "Attention",
    "cross": "Attention of the target over the source",
    "encoder": "Attention within the source",
    "decoder": "Attention within the target",
    "image": "Attention within the image",
    "text": "Attention within the text",
}

Weights = dict[str, Any]  # name of a stream -> `[layers, n, t, s]`


def pick_attention(kind: str, aux: dict[str, Any]) -> Weights:
    """The maps of one example by the names of STREAMS, from a model's aux."""
    if kind == "pair":
        decoder, encoder = aux["decoder"], aux["encoder"]
        found = {"cross": decoder["cross"], "encoder": encoder["attention"]}
        found["decoder"] = decoder["attention"]
    elif kind == "towers":
        found = {name: aux[name]["attention"] for name in ("image", "text")}
    else:
        found = {"attention": aux["attention"]}
    return {name: weights[:, 0] for name, weights in found.items()}


@dataclass(frozen=True)
class Attended:
    """What one forward pass tells: `pool` are the weights of a learned query that pools, where the
    model has one."""

    outputs: np.ndarray
    weights: Weights
    pool: np.ndarray | None


def count_weights(subject: Subject) -> int:
    """How many attention weights there are. Raises UserError on a model without attention."""
    model: Any = subject.model
    if isinstance(model, Mixer):
        raise UserError("a Mixer has no attention: --method=integrated needs none")
    places = {name: len(axis) for name, axis in subject.axes.items()}
    if subject.kind == "pair":
        s, t = places["source"], places["target"]
        decoder = (model.decoder_depth or model.depth) * (t * t + t * s)
        return model.num_heads * (model.depth * s * s + decoder)
    name = "tokens" if subject.kind == "text" else "images"
    count = model.depth * model.num_heads * places[name] ** 2
    if subject.kind == "towers":
        count += model.text_depth * model.text_num_heads * places["tokens"] ** 2
    return count


def run_attention(subject: Subject) -> Attended:
    """Runs the model once.

    Raises UserError on a model without attention, and on an input too long for all maps.
    """
    count = count_weights(subject)
    if count > MOST_WEIGHTS:
        raise UserError(
            f"the input is too long for maps of all heads ({count / 1e9:.1f} billion weights): "
            "shorten it, or take --method=integrated"
        )

    @jax.jit
    def run(params: Any, inputs: Any) -> Any:
        with keep_pool() as pools:
            outputs, aux = subject.apply(params, inputs)
        return outputs, pick_attention(subject.kind, aux), pools[-1] if pools else None

    found = run(subject.params, subject.inputs)
    outputs, weights, pool = jax.tree.map(lambda x: np.asarray(x, np.float32), found)
    return Attended(outputs, weights, pool)


def explain_attention(
    subject: Subject, choice: Choice | None, attended: Attended
) -> tuple[list[Part], list[str]]:
    """`attention`: the maps, as they are."""
    weights, pool = attended.weights, attended.pool
    parts: list[Part] = []
    for name, (queries, keys) in STREAMS[subject.kind].items():
        start = _find_start(subject, choice, queries, pool)
        parts.append(_make_maps(subject, name, weights[name], queries, keys, start))
    notes = []
    if isinstance(subject.model, Decoder):
        notes = _tell_copying(weights["attention"], subject.ids("tokens"))
    return parts, notes


def _tell_copying(attention: np.ndarray, ids: list[int]) -> list[str]:
    """A line on the heads that copy, where the text repeats itself."""
    scores, count = find_copying(attention, ids)
    if count < 3:
        return []
    order = np.argsort(-scores, axis=None)[:3]
    best = [np.unravel_index(i, scores.shape) for i in order]
    named = [
        f"layer {layer + 1} head {head + 1} ({scores[layer, head]:.2f})"
        for layer, head in best
        if scores[layer, head] >= COPIES
    ]
    if not named:
        return [
            f"Induction heads: none. At {count} repeated tokens no head gives {COPIES} of its "
            "attention to what followed them before (prefix matching, Olsson et al. 2022)."
        ]
    return [
        f"Induction heads: {', '.join(named)}. The share of attention that goes, at {count} "
        "repeated tokens, to what followed them before (prefix matching, Olsson et al. 2022)."
    ]


def explain_rollout(
    subject: Subject, choice: Choice | None, attended: Attended, residual: float = RESIDUAL
) -> tuple[list[Part], list[str]]:
    """`rollout`: the layers' attention multiplied."""
    weights, pool = attended.weights, attended.pool
    if subject.kind == "pair":
        encoder, decoder, cross = (weights[name] for name in ("encoder", "decoder", "cross"))
        source, target = roll_out_pair(encoder, decoder, cross, residual)
        joint = {"cross": source, "decoder": target}
    else:
        joint = {name: roll_out(weights[name], residual) for name in weights}
    note = f"The share of a layer's input that stays: {residual:g}."
    return _show_joint(subject, choice, joint, pool, "Rollout"), [note]


def explain_gradient(
    subject: Subject, choice: Choice, attended: Attended
) -> tuple[list[Part], list[str]]:
    """`gradient`: each weight times the output's gradient with respect to it."""
    weights, pool = attended.weights, attended.pool
    gradients = find_gradients(subject, choice, weights)
    weighed = {name: weigh(weights[name], gradients[name]) for name in weights}
    if subject.kind == "pair":
        source, target = relate_pair(*(weighed[name] for name in ("encoder", "decoder", "cross")))
        joint = {"cross": source, "decoder": target}
    else:
        joint = {name: relate(weighed[name]) for name in weighed}
    parts = _show_joint(subject, choice, joint, pool, "Relevance")
    notes = []
    if all(not x.any() for x in joint.values()):
        notes = ["No attention weight has a positive effect on this output: all is zero."]
    return parts, notes


def find_gradients(subject: Subject, choice: Choice, weights: Weights) -> Weights:
    """The gradient of the explained output with respect to every attention weight."""

    def score(moves: Weights, params: Any, inputs: Any) -> Any:
        calls = order_calls(subject.kind, moves)
        moved = MovedAttention(calls)
        outputs, _ = subject.apply(params, inputs, subject.model.clone(attend=moved))
        if moved.rest:
            raise UserError(f"a {type(subject.model).__name__} does not use its field attend")
        return choice.score(outputs)[0]

    zeros = {name: jnp.zeros(x.shape, jnp.float32) for name, x in weights.items()}
    found = jax.jit(jax.grad(score))(zeros, subject.params, subject.inputs)
    return {name: np.asarray(x, np.float32) for name, x in found.items()}


def order_calls(kind: str, moves: Weights) -> list[Any]:
    """One array `1 n t s` for each call of attention, in the order of a forward pass."""
    if kind == "pair":
        below = list(moves["encoder"])
        both = zip(moves["decoder"], moves["cross"], strict=True)
        calls = [*below, *(x for pair in both for x in pair)]
    else:
        calls = [x for name in STREAMS[kind] for x in moves[name]]
    return [x[None] for x in calls]


def _find_start(subject: Subject, choice: Choice | None, queries: str, pool: Any) -> int | None:
    """The query shown first: where the model's output is read, if that is one place."""
    row = _read_row(subject, choice, queries, pool)
    return int(row.argmax()) if row is not None and row.max() == 1 else None


def _read_row(subject: Subject, choice: Choice | None, name: str, pool: Any) -> Any:
    """How the model reads the places of an axis; None: it does not (a source)."""
    if name == "source":
        return None
    if subject.kind == "towers" and name == "tokens":
        return read_text_tower(subject)
    return read_out(subject, choice, pool)


def _show_joint(
    subject: Subject, choice: Choice | None, joint: Weights, pool: Any, title: str
) -> list[Part]:
    """The row where the model is read as scores, then the whole as a map."""
    parts: list[Part] = []
    maps: list[Part] = []
    for name, matrix in joint.items():
        queries, keys = STREAMS[subject.kind][name]
        row = _read_row(subject, choice, queries, pool)
        axis = subject.axes[keys]
        scores = (np.asarray(row) @ matrix).astype(np.float32)
        told = f"{title} of the {axis.name}"
        parts.append(Scores(f"{name}_scores", told, axis, scores, signed=False))
        start = int(row.argmax()) if row.max() == 1 else None
        weights = matrix[None, None].astype(np.float32)
        maps.append(_make_maps(subject, name, weights, queries, keys, start, f"{title}, all"))
    return parts + maps


def _make_maps(
    subject: Subject,
    name: str,
    weights: np.ndarray,
    queries: str,
    keys: str,
    start: int | None,
    title: str = "",
) -> Maps:
    rows = subject.axes[queries]
    if name == "cross":
        rows = name_predicted(rows)
    told = TITLES[name] if not title else TITLES[name].replace("Attention", title, 1)
    return Maps(name, told, rows, subject.axes[keys], weights, start)


def name_predicted(target: Axis) -> Axis:
    """A target's places by what is predicted there: the words one place on, then what follows."""
    return Axis(target.name, (*target.words[1:], "(next)"))
