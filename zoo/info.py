"""What models there are and what one is made of: `zoo list`, `zoo info`.

All of it is read off a traced initialisation: no parameter is made, nothing is computed.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from zoo.config import UserError, nearest
from zoo.console import align, show_bytes, show_count
from zoo.models import CLASSES, MODELS, create_model, list_models, model_fields
from zoo.models.flops import count_flops
from zoo.pretrained.describe import layouts_of
from zoo.tree import STACK, count_params, is_stacked, named_leaves


@dataclasses.dataclass(frozen=True)
class Measure:
    """A model's shapes and arithmetic; `params` and `outputs` hold `jax.ShapeDtypeStruct`s.

    `flops` is that of a forward pass, 2 a multiply-add, for one example, or for one token where
    all inputs are tokens (`unit`).
    """

    inputs: dict[str, jax.ShapeDtypeStruct]
    params: dict[str, Any]
    outputs: Any
    flops: float
    unit: str

    @property
    def num_params(self) -> int:
        return count_params(self.params)


def make_model(name: str, arguments: dict[str, Any] | None = None) -> nn.Module:
    """A model to be looked at: layers are scanned where it can, so that depth costs no time.

    Raises UserError on an unknown name or field.
    """
    given = dict(arguments or {})
    factory = MODELS.get(name)
    if "scan_layers" in model_fields(factory if isinstance(factory, type) else type(factory())):
        given.setdefault("scan_layers", True)
    return create_model(name, **given)


def measure(model: nn.Module) -> Measure:
    """Shapes and FLOPs of a model on a batch of one.

    Raises UserError when the model does not say what it takes.
    """
    if not hasattr(model, "input_specs"):
        raise UserError(
            f"{type(model).__name__} has no method input_specs(batch_size): see docs/your_own.md"
        )
    specs = model.input_specs(1)
    shapes: dict[str, Any] = {}

    def run(key: Any, *inputs: Any) -> Any:
        # One trace gives all: initialisation runs the forward pass and has no products of its own.
        (outputs, _), variables = model.init_with_output(key, *inputs)
        shapes["params"], shapes["outputs"] = variables.get("params", {}), outputs
        return outputs

    flops = count_flops(run, jax.random.key(0), *specs)
    names = [p for p in inspect.signature(type(model).__call__).parameters if p != "self"]
    tokens = all(_is_tokens(spec) for spec in specs)
    num_tokens = sum(spec.shape[1] for spec in specs) if tokens else 1
    return Measure(
        dict(zip(names, specs, strict=False)),
        {path: _as_shape(leaf) for path, leaf in flatten_dict(shapes["params"], sep="/").items()},
        jax.tree.map(_as_shape, shapes["outputs"]),
        flops / num_tokens,
        "token" if tokens else "example",
    )


def _as_shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _is_tokens(spec: jax.ShapeDtypeStruct) -> bool:
    return len(spec.shape) == 2 and jnp.issubdtype(spec.dtype, jnp.integer)


def print_list(glob: str = "*") -> None:
    """`zoo list`: a line a model, printed as it is measured.

    Raises UserError when no name matches the shell pattern.
    """
    names = list_models(glob)
    if not names:
        try:
            MODELS.get(glob)  # a name of a family that the table does not list, such as vit_s4
        except UserError:
            known = list_models()
            near = nearest(glob.strip("*?"), known) or " (zoo list shows all)"
            raise UserError(f"no model matches {glob!r}{near}") from None
        names = [glob]
    width = max(len("model"), *map(len, names))
    shape = f"{{:{width}}}  {{:>15}}  {{:>7}}  {{:7}}  {{:23}}  {{}}"
    print(shape.format("model", "parameters", "FLOPs", "for one", "input", "weights"))
    for name in names:
        found = measure(model := make_model(name))
        taken = " + ".join(_show_input(spec) for spec in found.inputs.values())
        count, flops = f"{found.num_params:,}", show_count(found.flops)
        print(shape.format(name, count, flops, found.unit, taken, _show_layouts(model)), flush=True)
    print("FLOPs: of a forward pass, 2 a multiply-add")
    print("weights: files it loads, by transformers' model_type; npz: flax's; zoo: our own")


def _show_layouts(model: nn.Module) -> str:
    known = type(model) in CLASSES.values()
    return ", ".join([*layouts_of(model), "zoo"]) if known else "-"


def _show_input(spec: jax.ShapeDtypeStruct) -> str:
    if _is_tokens(spec):
        return f"{spec.shape[1]} tokens"
    return "x".join(map(str, spec.shape[1:])) or "a number"


def print_info(name: str, arguments: dict[str, Any]) -> None:
    """`zoo info`: parameters by part, shapes, FLOPs and memory of one model.

    Raises UserError on an unknown name or field, or a value the model cannot take.
    """
    model = make_model(name, arguments)
    found = measure(model)
    print(f"{name}: {(inspect.getdoc(type(model)) or type(model).__name__).splitlines()[0]}\n")
    rows = [("part", "shape", "parameters"), *part_rows(found.params)]
    print("\n".join(align([*rows, ("total", "", f"{found.num_params:,}")], right={2})))
    facts = [("input", f"{key} {_show_spec(spec)}") for key, spec in found.inputs.items()]
    facts += [
        ("output", f"{key} {_show_spec(spec)}".strip())
        for key, spec in named_leaves(found.outputs).items()
    ]
    facts += [
        ("FLOPs", f"{show_count(found.flops)} a forward pass of one {found.unit}"),
        ("memory", ", ".join(_show_memory(found.num_params))),
    ]
    print("\n" + "\n".join(align(facts)))


def _show_spec(spec: jax.ShapeDtypeStruct) -> str:
    return f"[{', '.join(['b', *map(str, spec.shape[1:])])}] {spec.dtype.name}"


def _show_memory(num_params: int) -> list[str]:
    sizes = {"float32": 4, "bfloat16": 2}
    return [f"{show_bytes(num_params * size)} in {name}" for name, size in sizes.items()]


@dataclasses.dataclass
class _Part:
    """A module, or a stack of blocks with the leaves of one of them."""

    count: int = 0
    depth: int = 0  # 0: no stack
    leaves: dict[tuple[str, tuple[int, ...]], int] = dataclasses.field(default_factory=dict)


def part_rows(params: dict[str, jax.ShapeDtypeStruct]) -> list[tuple[str, str, str]]:
    """Rows (part, shape, parameters) from path -> shape, stacked or not.

    A module at the top is one row. A stack is one row `blocks/*` with depth x the parameters of a
    block, then a row for each leaf of one block.
    """
    rows: list[tuple[str, str, str]] = []
    for name, part in group_params(params).items():
        shape = ""
        if part.depth:
            same = all(copies == part.depth for copies in part.leaves.values())
            each = f"{part.count // part.depth:,}" if same else "blocks that differ"
            shape = f"{part.depth} x {each}"
        elif name in params:
            shape = _show_shape(params[name].shape)
        rows.append((name, shape, f"{part.count:,}"))
        for (leaf, dims), copies in part.leaves.items():
            some = "" if copies == part.depth else f" in {copies} of {part.depth}"
            rows.append((f"  {leaf}", _show_shape(dims) + some, f"{math.prod(dims):,}"))
    return rows


def group_params(params: dict[str, jax.ShapeDtypeStruct]) -> dict[str, _Part]:
    """Part name -> what it holds, in the order of the model."""
    # A tower with a stack inside ('encoder/blocks') is told by its own parts.
    towers = {path.split("/")[0] for path in params if STACK in path.split("/")[1:]}
    found: dict[str, _Part] = {}
    blocks: dict[str, set[str]] = {}
    for path, leaf in params.items():
        words = path.split("/")
        if STACK not in words[:-1]:
            part = found.setdefault("/".join(words[: 2 if words[0] in towers else 1]), _Part())
            part.count += math.prod(leaf.shape)
            continue
        split = words.index(STACK) + 1
        name = "/".join([*words[:split], "*"])
        part = found.setdefault(name, _Part())
        part.count += math.prod(leaf.shape)
        if is_stacked(path):
            part.depth = leaf.shape[0]
            part.leaves["/".join(words[split:]), leaf.shape[1:]] = part.depth
            continue
        blocks.setdefault(name, set()).add(words[split])
        part.depth = len(blocks[name])
        key = ("/".join(words[split + 1 :]), leaf.shape)
        part.leaves[key] = part.leaves.get(key, 0) + 1
    return found


def _show_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
