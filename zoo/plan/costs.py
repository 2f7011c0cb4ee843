"""What one run of a compiled module costs a chip: arithmetic, memory traffic, collectives."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from zoo.plan.hlo import Computation, Instruction, Module

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# Names of places, or of what lies inside other instructions, which are counted there.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call"),
    *("conditional", "after-all", "partition-id", "replica-id", "iota", "opt-barrier", "domain"),
}

KERNEL = 'custom_call_target="tpu_custom_call"'


@dataclass(frozen=True)
class Costs:
    """Of one chip, for one run.

    flops: of products and convolutions, 2 a multiply-add. num_bytes: read and written in the
    chip's memory, each fusion's inputs and outputs once. collectives: kind -> number and bytes that
    a chip sends in a ring. unknown_loops: those that count once for want of a number. kernels:
    Pallas kernels other than attention, of which only the traffic is known.
    """

    flops: float
    num_bytes: float
    collectives: dict[str, tuple[float, float]]
    unknown_loops: int
    kernels: int = 0

    @property
    def sent_bytes(self) -> float:
        return float(sum(sent for _, sent in self.collectives.values()))


def find_costs(module: Module) -> Costs:
    """The costs of a module."""
    flops = traffic = 0.0
    kernels: set[str] = set()
    counts: defaultdict[str, float] = defaultdict(float)
    sent: defaultdict[str, float] = defaultdict(float)
    for one, computation, times, fused in module.walk():
        if one.opcode in ("dot", "convolution"):
            flops += times * count_product(one, computation)
        if one.opcode == "custom-call" and KERNEL in one.text:
            counted = count_attention(one, computation)
            flops += times * (counted or 0.0)
            kernels |= {one.name} if counted is None else set()
        if one.opcode.removesuffix("-start") in COLLECTIVES:
            kind = name_collective(one, computation)
            counts[kind] += times
            sent[kind] += times * count_sent(kind, one)
        if not fused and one.opcode not in FREE and not one.opcode.endswith("-done"):
            traffic += times * count_traffic(one, computation, module)
    kinds = {kind: (counts[kind], sent[kind]) for kind in sorted(counts)}
    return Costs(flops, traffic, kinds, module.unknown_loops, len(kernels))


def count_product(one: Instruction, computation: Computation) -> float:
    """FLOPs of a dot or a convolution, whose windows count where they meet the input."""
    out = math.prod(one.outputs[0].shape)
    left, right = (computation.instructions[name].outputs[0].shape for name in one.operands[:2])
    if one.opcode == "dot":
        contracted = _numbers(r"lhs_contracting_dims=\{([\d,]*)\}", one.text)
        return 2.0 * out * math.prod(left[i] for i in contracted)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.text)
    if labels is None:
        return 0.0
    inputs, kernel, outputs = labels.groups()
    pairs = 1
    for letter in (c for c in outputs if c.isdigit()):
        i = int(letter)
        pairs *= count_meetings(
            left[inputs.index(letter)],
            right[kernel.index(letter)],
            one.outputs[0].shape[outputs.index(letter)],
            _window(one.text, i),
        )
    groups = _numbers(r"batch_group_count=(\d+)", one.text) or [1]
    outer = math.prod(one.outputs[0].shape[outputs.index(c)] for c in "bf")
    return 2.0 * outer * pairs * right[kernel.index("i")] / groups[0]


def count_attention(one: Instruction, computation: Computation) -> float | None:
    """FLOPs of the products of a kernel of `attend_splash`: two going forward, of the blocks that
    its scope says it visits; going back five, or four beside the three of a kernel of its own for
    the queries. None: another kernel."""
    phase = re.search(r"splash_mha_(fwd|dkv|dq)", one.text)
    if phase is None:
        return None
    operands = [computation.instructions[name].outputs[0] for name in one.operands]
    q, k = [x.shape for x in operands if x.dtype[0] in "bf" and len(x.shape) >= 3][:2]
    whole = phase[1] == "dkv" and any(len(x.shape) > len(q) for x in one.outputs)
    products = {"fwd": 2, "dkv": 5 if whole else 4, "dq": 3}[phase[1]]
    visited = re.search(r"visits_(\d+)_of_(\d+)", one.text)
    share = int(visited[1]) / int(visited[2]) if visited else 1.0
    return 2.0 * products * math.prod(q) * k[-2] * share


def count_meetings(size: int, window: int, places: int, how: dict[str, Any]) -> int:
    """How many (place, window element) pairs of one dimension meet a real input element."""
    count = 0
    for place, element in itertools.product(range(places), range(window)):
        at = place * how["stride"] - how["pad"] + element * how["rhs_dilate"]
        count += at >= 0 and at % how["lhs_dilate"] == 0 and at // how["lhs_dilate"] < size
    return count


def _window(text: str, i: int) -> dict[str, int]:
    """Stride, padding before and dilations of a dimension."""
    found = re.search(r"window=\{([^}]*)\}", text)
    words = dict(word.split("=") for word in (found.group(1).split() if found else ()))

    def read(name: str, default: str) -> int:
        parts = words.get(name, "").split("x")
        return int(parts[i].split("_")[0]) if i < len(parts) and parts[i] else int(default)

    names = {"stride": "1", "pad": "0", "lhs_dilate": "1", "rhs_dilate": "1"}
    return {name: read(name, default) for name, default in names.items()}


def _numbers(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    return [int(n) for n in found.group(1).split(",") if n] if found else []


def name_collective(one: Instruction, computation: Computation) -> str:
    """The kind of a collective. The TPU compiler writes a reduce-scatter as the fusion of an
    all-reduce and of the slice that a chip keeps."""
    kind = one.opcode.removesuffix("-start")
    root = next((x for x in computation.instructions.values() if x.is_root), one)
    cuts = root.opcode == "dynamic-slice" and one.name in root.operands[:1]
    return "reduce-scatter" if kind == "all-reduce" and cuts else kind


def count_sent(kind: str, one: Instruction) -> float:
    """Bytes that a chip sends, in the best ring."""
    size = find_group(one.text)
    arrays = [a.num_bytes for a in one.outputs if a.dtype not in ("u32", "token") or a.shape]
    if one.opcode.endswith("-start") and len(arrays) > 1:
        # (inputs, outputs): of one that gathers the last is the whole.
        arrays = arrays[len(arrays) // 2 :]
    total = sum(arrays)
    if kind == "collective-permute":
        return total
    share = (size - 1) / size
    if one.opcode == "reduce-scatter":  # the output is one part
        return total * (size - 1)
    return total * share * (2 if kind == "all-reduce" else 1)


def find_group(text: str) -> int:
    """How many devices take part in one instance of a collective."""
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", text)
    if listed:
        return listed.group(1).count(",") + 1
    tiled = re.search(r"replica_groups=\[\d+,(\d+)\]", text)
    if tiled:
        return int(tiled.group(1))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named.group(2)))
    return 2


def count_traffic(one: Instruction, computation: Computation, module: Module) -> float:
    """Bytes read and written in the chip's memory by an instruction outside a fusion."""
    if one.opcode == "dynamic-slice":
        return 2 * _off_chip(one)
    if one.opcode == "dynamic-update-slice":
        return 2 * _off_chip(computation.instructions[one.operands[1]])
    operands = [computation.instructions.get(name) for name in one.operands]
    fused = module.computations.get(one.called[0]) if one.opcode == "fusion" else None
    if fused is None:
        return _off_chip(one) + sum(map(_off_chip, filter(None, operands)))
    read = 0.0
    inside = {
        int(x.text.split(")")[0]): x for x in fused.instructions.values() if x.opcode == "parameter"
    }
    for number, operand in enumerate(operands):
        if operand is not None and number in inside:
            read += min(_off_chip(operand), _read_inside(inside[number], fused))
    root = next((x for x in fused.instructions.values() if x.is_root), None)
    if root is not None and root.opcode == "dynamic-update-slice":
        return read + fused.instructions[root.operands[1]].num_bytes
    return read + _off_chip(one)


def _read_inside(parameter: Instruction, fused: Computation) -> float:
    """What a fusion reads of an input: of one that is only sliced, the slices."""
    users = [x for x in fused.instructions.values() if parameter.name in x.operands]
    if any(x.opcode == "dynamic-update-slice" and x.operands[0] == parameter.name for x in users):
        return 0.0  # written in place
    if users and all(x.opcode in ("dynamic-slice", "slice", "gather") for x in users):
        return float(sum(x.num_bytes for x in users))
    return math.inf


def _off_chip(one: Instruction) -> float:
    return float(sum(array.num_bytes for array in one.outputs if not array.on_chip))
