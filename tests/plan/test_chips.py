"""Names of slices of TPUs, and the mistakes in them."""

from __future__ import annotations

import pytest

from zoo.config import UserError
from zoo.parallel.chips import CHIPS, SHAPES, find_chip, parse_slice


@pytest.mark.parametrize(
    ("text", "name", "num_chips"),
    [
        ("v5p:8x16x16", "v5p:8x16x16", 2048),
        ("v5p-4096", "v5p:8x16x16", 2048),  # cores
        ("v4-512", "v4:4x8x8", 256),  # cores
        ("v4:8x8x4", "v4:8x8x4", 256),
        ("v5e-256", "v5e:16x16", 256),  # chips
        ("v5litepod-16", "v5e:4x4", 16),
        ("v6e-8", "v6e:2x4", 8),
    ],
)
def test_slices(text, name, num_chips):
    cut = parse_slice(text)
    assert str(cut) == name
    assert cut.num_chips == num_chips


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("v5x:4x4", r"no TPU 'v5x' \(did you mean"),
        ("v5e-100", r"Cloud has no 'v5e-100' \(nearest: 'v5e-128'\)"),
        ("v5p:16x16", r"a slice of v5p has 3 dimensions, such as 'v5p:16x16x24'"),
        ("v5e:4x4x4", "has 2 dimensions"),
        ("v5e:4x", "has 2 dimensions"),
        ("v5e:0x4", "has 2 dimensions"),
        ("v5e", "has 2 dimensions"),
        ("h100:4x4", "no TPU 'h100'"),
    ],
)
def test_mistakes(text, line):
    with pytest.raises(UserError, match=line):
        parse_slice(text)


def test_the_shapes_have_so_many_chips():
    for dimensions, shapes in SHAPES.items():
        name = next(name for name, chip in CHIPS.items() if chip.dimensions == dimensions)
        for count, shape in shapes.items():
            assert parse_slice(f"{name}:{shape}").num_chips == count


def test_chips_by_what_jax_calls_them():
    assert find_chip("TPU v5 lite") is CHIPS["v5e"]
    assert find_chip("cpu") is None
