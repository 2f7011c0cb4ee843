"""`zoo.explain`: why a model says what it says, as one page to look at.

The package is not named after the function, as `zoo.generation` is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from zoo.config import UserError, nearest
from zoo.explanation.attending import (
    explain_attention,
    explain_gradient,
    explain_rollout,
    run_attention,
)
from zoo.explanation.flow import RESIDUAL
from zoo.explanation.integrated import explain_integrated
from zoo.explanation.lens import explain_lens, read_layers
from zoo.explanation.outputs import Choice, choose_output
from zoo.explanation.result import Axis, Explanation, Lens, Maps, Output, Scores
from zoo.explanation.subject import Subject, make_subject
from zoo.pretrained.load import Pretrained, load_pretrained

__all__ = [
    "METHODS",
    "Axis",
    "Explanation",
    "Lens",
    "Maps",
    "Output",
    "Scores",
    "explain",
]

METHODS = ("attention", "rollout", "gradient", "integrated", "lens")


def explain(
    source: Any,
    input: Any,
    *,
    method: str = "attention",
    target: str | None = None,
    output: str | int | None = None,
    place: int | None = None,
    baseline: str | None = None,
    residual: float | None = None,
    out: str | Path | None = None,
) -> Explanation:
    """Explains what a model makes of one input.

    Args:
      source: what `zoo.load_pretrained` takes, or what it has returned.
      input: an image (a path, Pillow's, or uint8 `[y, x, ch]`) for models of images; a text for
        decoders and encoders, the source of an encoder-decoder; an image for two towers.
      method: 'attention' (the maps of every layer and head), 'rollout' (Abnar & Zuidema 2020),
        'gradient' (gradient x attention, Chefer et al. 2021), 'integrated' (gradients,
        Sundararajan et al. 2017) or 'lens' (what each layer would answer, nostalgebraist 2020).
      target: an encoder-decoder's target so far; the text that two towers compare an image with.
      output: the class or token to be explained, by name or number; by default the first answer.
      place: of the token whose output is explained, from 0 (negative: from the end); by default
        the last of a decoder, the mask token of a masked language model.
      baseline: where 'integrated' starts: 'black', 'white' or 'mean' of images, 'mask', 'pad' or
        'zero' of texts.
      residual: of 'rollout', the share of a layer's input in its output, 0.5 by default.
      out: writes the page there (it must end in .html), and PNGs beside it.

    Raises UserError in one line, and has written nothing, on an unknown method, class or place, a
    method that the model has no part for, and an input that it does not take.
    """
    _check_words(method, baseline, residual)
    if out is not None:
        from zoo.explanation.page import check_path

        check_path(Path(out))
    loaded = source if isinstance(source, Pretrained) else load_pretrained(source)
    subject = make_subject(loaded, input, target)
    # Accelerators round the factors of float32 products unless told otherwise.
    with jax.default_matmul_precision("highest"):
        choice, parts, notes = _run(subject, method, output, place, baseline, residual)
    told = input if isinstance(input, (str, Path)) else "an image"
    said = str(told) if target is None else f"{told} | {target}"
    found = Explanation(
        method,
        loaded.card.source,
        type(subject.model).__name__,
        said,
        None if choice is None else choice.output,
        () if choice is None else choice.predictions,
        tuple(parts),
        tuple(notes),
    )
    if out is not None:
        found.write(out)
    return found


def run_model(subject: Subject) -> np.ndarray:
    """The model's outputs."""
    run = jax.jit(lambda params, inputs: subject.apply(params, inputs)[0])
    return np.asarray(run(subject.params, subject.inputs), np.float32)


def _run(
    subject: Subject,
    method: str,
    output: str | int | None,
    place: int | None,
    baseline: str | None,
    residual: float | None,
) -> tuple[Choice | None, list[Any], list[str]]:
    """What is explained, the parts, the notes."""
    if method == "lens":
        outputs, layers = read_layers(subject)
        choice = choose_output(subject, outputs, output, place)
        return choice, explain_lens(subject, layers), []
    if method == "integrated":
        choice = choose_output(subject, run_model(subject), output, place)
        return choice, *explain_integrated(subject, _need(subject, choice, method), baseline)
    attended = run_attention(subject)
    choice = choose_output(subject, attended.outputs, output, place)
    if method == "attention":
        return choice, *explain_attention(subject, choice, attended)
    if method == "rollout":
        share = RESIDUAL if residual is None else residual
        return choice, *explain_rollout(subject, choice, attended, share)
    return choice, *explain_gradient(subject, _need(subject, choice, method), attended)


def _need(subject: Subject, choice: Choice | None, method: str) -> Choice:
    """Raises UserError where there is nothing to be explained."""
    if choice is None:
        raise UserError(_tell_missing(subject, method))
    return choice


def _check_words(method: str, baseline: str | None, residual: float | None) -> None:
    """Raises UserError on an unknown method, and on what another method asks for."""
    if method not in METHODS:
        raise UserError(f"there is no method {method!r}{nearest(method, METHODS)}")
    if baseline is not None and method != "integrated":
        raise UserError(f"a baseline is for the method 'integrated', not {method!r}")
    if residual is not None and method != "rollout":
        raise UserError(f"a residual is for the method 'rollout', not {method!r}")
    if residual is not None and not 0 <= residual < 1:
        raise UserError(f"residual={residual} should be a share, 0 or more and less than 1")


def _tell_missing(subject: Subject, method: str) -> str:
    if subject.head == "none":
        return (
            f"the model ends in a vector, and {method!r} explains a class or token: load it with a "
            "head, or take attention or rollout"
        )
    mask = subject.loaded.tokenizer.mask
    token = f" ({subject.name_token(mask)})" if mask is not None else ""
    return f"{method!r} explains one place: write the mask token{token} there, or give --place"
