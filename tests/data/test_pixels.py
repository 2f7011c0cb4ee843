"""Crops, frames, mirrors and holes beside windows found by search and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.config import DataConfig, UserError
from zoo.data import open_dataset, parse_ops

DIGITS = open_dataset(DataConfig(source="synthetic:embedded:digits"))
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(1, 256, (40, 8, 10, 3), dtype=np.uint8)


def apply(text, images, seed=0, uniform=None):
    (op,) = parse_ops(text, DIGITS)
    if uniform is None and op.num_draws:
        uniform = np.random.default_rng(seed).random((len(images), op.num_draws))
    return op({"image": images}, uniform)["image"]


def test_pad_equals_numpy():
    expected = np.full((40, 12, 12, 3), 7, np.uint8)
    expected[:, 2:-2, 1:-1] = IMAGES
    np.testing.assert_array_equal(apply("pad((2, 1), 7)", IMAGES), expected)
    floats = IMAGES.astype(np.float32)
    assert apply("pad(1, -0.5)", floats)[0, 0, 0, 0] == -0.5


def test_random_crops_are_windows_of_the_framed_image():
    out, places = apply("random_crop((6, 5), 2)", IMAGES), set()
    assert out.shape == (40, 6, 5, 3)
    for before, after in zip(IMAGES, out, strict=True):
        framed = np.pad(before, ((2, 2), (2, 2), (0, 0)))
        found = [
            (y, x) for y in range(7) for x in range(10)
            if (framed[y : y + 6, x : x + 5] == after).all()
        ]  # fmt: skip
        assert found
        places.add(found[0])
    assert len(places) > 15
    corner = apply("random_crop(4)", IMAGES, uniform=np.full((40, 2), 0.9999))
    np.testing.assert_array_equal(corner, IMAGES[:, -4:, -4:])


@given(seed=st.integers(0, 10**6), least=st.floats(0.02, 0.3))
def test_erased_is_one_rectangle_of_the_area_drawn(seed, least):
    images = IMAGES[:4].repeat(4, axis=1).repeat(4, axis=2)
    out = apply(f"erase(1, {least}, 0.4)", images, seed)
    for before, after in zip(images, out, strict=True):
        hole = (after == 0).all(-1)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        np.testing.assert_array_equal(after[~hole], before[~hole])
        # Rounded sides, and a tall one is cut to the image.
        assert hole.sum() <= 0.4 * hole.size + hole.shape[0] + hole.shape[1]
    draws = np.tile([0.9, 0.5, 0.5, 0.5, 0.5], (4, 1))
    np.testing.assert_array_equal(apply("erase(0.5)", images, uniform=draws), images)


def test_erase_by_hand():
    image = np.ones((1, 20, 20, 1), np.float32)
    # Area 0.25, aspect 1, in the lower right corner.
    expected = image.copy()
    expected[:, 10:, 10:] = -3
    out = apply(
        "erase(1, 0.25, 0.25, value=-3)", image, uniform=np.array([[0, 0, 0.5, 0.999, 0.999]])
    )
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random_crop(0)", "size=0 must be at least 1"),
        ("random_crop(4, -1)", "padding=-1"),
        ("erase(probability=2)", "probability=2.0 is not in"),
        ("erase(min_area=0.5)", "max_area"),
        ("erase(min_aspect=0)", "min_aspect"),
        ("pad(-1)", "at least 0"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(UserError, match=f"^data.transform: .*{message}"):
        parse_ops(text, DIGITS)


def test_mistakes_seen_at_the_images():
    with pytest.raises(UserError, match=r"9 x 9 pixels do not fit into an image of 8 x 10"):
        apply("random_crop(9)", IMAGES)
    with pytest.raises(UserError, match="no byte"):
        apply("pad(1, 0.5)", IMAGES)
