"""A compiled module read from its text: instructions, and how often each runs.

XLA's own cost analysis counts the body of a loop once. Here a body counts as often as the loop
turns, which its condition says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

WIDTHS = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8}
ARRAY = re.compile(r"(pred|bf16|[suf]\d+|f8\w+|c64|c128|token)\[([\d,]*)\](\{[^}]*\})?")
HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")
END = re.compile(r"^\}(?!\})")  # also of one for other cores: '}, execution_thread=...'
LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
ON_CHIP = re.compile(r"S\([1-9]")  # a memory space that is not the chip's large one


@dataclass(frozen=True)
class Array:
    """One array of an instruction's output."""

    dtype: str
    shape: tuple[int, ...]
    on_chip: bool = False

    @property
    def num_bytes(self) -> float:
        width = WIDTHS.get(self.dtype)
        if width is None:
            digits = re.search(r"\d+", self.dtype)
            width = int(digits.group()) / 8 if digits else 0
        return float(width * math.prod(self.shape))


@dataclass
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    outputs: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str
    is_root: bool
    called: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> float:
        return float(sum(array.num_bytes for array in self.outputs))


@dataclass
class Computation:
    """A named list of instructions."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)


@dataclass(frozen=True)
class Module:
    """All computations of a program, and its entry."""

    computations: dict[str, Computation]
    entry: str
    unknown_loops: int  # whose number of turns could not be read: they count once

    def walk(self) -> Iterator[tuple[Instruction, Computation, float, bool]]:
        """Each instruction with its computation, how often it runs, and whether it lies inside a
        fusion."""
        yield from self._walk(self.entry, 1.0, False)

    def _walk(
        self, name: str, times: float, fused: bool
    ) -> Iterator[tuple[Instruction, Computation, float, bool]]:
        computation = self.computations[name]
        for one in computation.instructions.values():
            yield one, computation, times, fused
            turns = count_turns(self.computations, one) or 1 if one.opcode == "while" else 1
            inside = fused or one.opcode == "fusion"
            for called in one.called:
                yield from self._walk(called, times * turns, inside)


def parse_module(text: str) -> Module:
    """Reads what `compiled.as_text()` gives."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            head = HEAD.match(line)
            if head:
                current = Computation(head.group(2))
                computations[current.name] = current
                entry = current.name if head.group(1) else entry
        elif END.match(line):
            current = None
        elif one := parse_instruction(line):
            current.instructions[one.name] = one
        elif current.instructions:  # what a kernel is told goes on over lines like '}}, ...'
            next(reversed(current.instructions.values())).text += line
    loops = (o for c in computations.values() for o in c.instructions.values())
    unknown = sum(o.opcode == "while" and count_turns(computations, o) is None for o in loops)
    return Module(computations, entry, unknown)


def parse_instruction(line: str) -> Instruction | None:
    """One line; None where it is none."""
    start = LINE.match(line)
    if not start:
        return None
    rest = line[start.end() :]
    end = close(rest) if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opcode, bracket, rest = rest.partition("(")
    if not bracket:
        return None
    inside = rest[: close("(" + rest) - 2]
    called = CALLED.findall(rest) if opcode != "reduce" else []
    for group in BRANCHES.findall(rest):
        called += [name.strip().lstrip("%") for name in group.split(",")]
    names = re.findall(r"%([\w.\-]+)", inside) or re.findall(r"([A-Za-z_][\w.\-]*)", inside)
    return Instruction(
        start.group(2),
        opcode,
        tuple(parse_arrays(kind)),
        tuple(names),
        rest,
        bool(start.group(1)),
        tuple(called),
    )


def parse_arrays(kind: str) -> Iterator[Array]:
    """The arrays of a type, of a tuple several."""
    for dtype, sizes, layout in ARRAY.findall(kind):
        shape = tuple(int(size) for size in sizes.split(",") if size)
        yield Array(dtype, shape, bool(ON_CHIP.search(layout)))


def close(text: str) -> int:
    """Where the bracket that a text begins with ends."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place + 1
    return len(text)


def count_turns(computations: dict[str, Computation], loop: Instruction) -> int | None:
    """How often a loop turns: as XLA says, or by the constant that its condition compares with."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.text)
    if known:
        return int(known.group(1))
    name = re.search(r"condition=%?([\w.\-]+)", loop.text)
    condition = computations.get(name.group(1)) if name else None
    if condition is None:
        return None
    return _bound(computations, condition)


def _bound(computations: dict[str, Computation], condition: Computation) -> int | None:
    """The largest whole constant of a condition that asks for less; None where there is none."""
    found = []
    for one in condition.instructions.values():
        if one.opcode == "constant" and one.outputs and not one.outputs[0].shape:
            number = re.match(r"(\d+)\)", one.text)
            found += [int(number.group(1))] if number else []
    return max(found) if found else None
