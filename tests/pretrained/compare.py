"""A twin's folder against our model: outputs, hidden states, gradients."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

import zoo
from zoo.pretrained.bridge import AsTheirs
from zoo.pretrained.describe import FAMILIES
from zoo.pretrained.sources import find_source
from zoo.pretrained.tensors import MemoryTensors
from zoo.tree import named_leaves, unstack_layers

OUTPUT, GRADIENT = 1e-5, 1e-4  # of the largest magnitude


def run(model, params, inputs: dict[str, np.ndarray], cotangent) -> tuple[dict[str, Any], Any]:
    """Outputs by the twins' names, and the gradient of (output * cotangent).sum() / b."""
    inputs = {
        k: jnp.asarray(v.astype(bool) if v.dtype == np.uint8 else v) for k, v in inputs.items()
    }

    is_choice = "tokens" in inputs and inputs["tokens"].ndim == 3
    if is_choice:  # to us, choices are rows of their own
        inputs = {k: x.reshape(-1, x.shape[-1]) for k, x in inputs.items()}

    def loss(params):
        output, aux = model.apply({"params": params}, **inputs)
        if is_choice:
            output = output.reshape(cotangent.shape)
        if isinstance(model, zoo.models.ViT) and cotangent.ndim == 3:
            output = aux["encoded"]  # what transformers' headless ViT returns
        found = {"output": output}
        sides = [side for side in ("encoder", "decoder") if side in aux] or [""]
        if "images" in inputs and "tokens" in inputs:
            sides = ["image", "text"]
            found |= {f"{side}/embedding": aux[side]["embedding"] for side in sides}
        for side in sides:
            hidden = aux[side]["hidden"] if side else aux["hidden"]
            for i in range(len(hidden)):
                found[f"{side}/hidden/{i:02d}".lstrip("/")] = hidden[i]
        if "encoded" in aux:
            found["encoded"] = aux["encoded"]
        if "pooled" in aux:
            found["pooled"] = aux["pooled"]
        return (output * cotangent).sum() / len(output), found

    (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return found, gradient


def check_twin(folder: pathlib.Path, **changes: Any) -> float:
    """Raises on a difference over tolerance; returns the largest relative one of the outputs."""
    loaded = zoo.load_pretrained(folder, **changes)
    reference = load_file(folder / "reference.safetensors")
    names = ("tokens", "types", "mask", "images", "source", "target", "source_mask", "target_mask")
    names += ("masked", "noise")
    inputs = {name: reference[name] for name in names if name in reference}
    found, gradient = run(loaded.model, loaded.params, inputs, jnp.asarray(reference["cotangent"]))
    worst = 0.0
    for name, expected in reference.items():
        if name in inputs or name == "cotangent" or name.startswith("grad/"):
            continue
        if name not in found:
            assert name == "pooled", name  # a ViT without the pooler's kernel gives another one
            continue
        real = real_places(name, inputs, expected)
        difference = np.abs(np.asarray(found[name]) - expected)[real].max()
        worst = max(worst, difference / max(np.abs(expected[real]).max(), 1.0))
        assert difference <= OUTPUT * max(np.abs(expected[real]).max(), 1.0), (name, difference)
    check_gradient(folder, loaded.model, gradient, reference)
    return float(worst)


def real_places(name: str, inputs: dict[str, np.ndarray], array: np.ndarray) -> Any:
    """What is computed at padding is nobody's business."""
    if "source" in inputs:
        mask = inputs["source_mask" if name.startswith("encoder") else "target_mask"]
    else:
        mask = None if name.startswith("image/") else inputs.get("mask")
    if mask is None or array.ndim < 3:
        return ...
    return mask.reshape(-1, mask.shape[-1]).astype(bool)


def check_gradient(folder: pathlib.Path, model, gradient, reference) -> None:
    """Ours turned to their keys by the table, leaf by leaf."""
    source = find_source(folder)
    family = FAMILIES[source.config["model_type"]]
    leaves = {k: np.asarray(v) for k, v in named_leaves(unstack_layers(gradient)).items()}
    names = source.tensors.names()
    view = AsTheirs(MemoryTensors(leaves), family.make_table(model, names), model)
    expected = {k.removeprefix("grad/"): v for k, v in reference.items() if k.startswith("grad/")}
    # A key's bias moves all scores of a query alike: its gradient is nothing but rounding.
    overall = max(np.abs(v).max() for v in expected.values())
    for name, theirs in expected.items():
        ours = view.read(name)
        largest = np.abs(theirs).max()
        scale = overall if largest < 1e-6 * overall else largest
        difference = np.abs(ours - theirs).max()
        assert difference <= GRADIENT * scale, (name, difference, scale)
    for name in set(view.names()) - set(expected):  # what has no gradient there has none here
        assert may_lack(name) or not view.read(name).any(), name


def may_lack(name: str) -> bool:
    """The twins' loss does not reach the pooler of a headless model; a double has no effect."""
    return "pooler" in name or name.endswith("predictions.bias")
