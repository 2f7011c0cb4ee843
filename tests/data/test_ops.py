import numpy as np
import pytest

from zoo.config import DataConfig, UserError
from zoo.data import open_dataset, parse_ops, without_random
from zoo.data.ops import finish

DIGITS = open_dataset(DataConfig(source="synthetic:embedded:digits"))
WINE = open_dataset(DataConfig(source="embedded:wine"))
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1), dtype=np.uint8)


def apply(text, images, dataset=DIGITS, seed=0):
    examples = {"image": images}
    for op in parse_ops(text, dataset):
        uniform = np.random.default_rng(seed).random((len(images), op.num_draws))
        examples = op(examples, uniform if op.num_draws else None)
    return examples["image"]


def test_normalize_by_hand():
    np.testing.assert_allclose(
        apply("normalize(0.5, 0.25)", IMAGES), (IMAGES / 255 - 0.5) / 0.25, atol=1e-6
    )
    floats = IMAGES.astype(np.float32)
    np.testing.assert_allclose(apply("normalize((1,), (2,))", floats), (floats - 1) / 2, rtol=1e-6)


def test_shift_moves_and_fills_with_zero():
    moved, kinds = apply("shift(2)", IMAGES), set()
    for before, after in zip(IMAGES[..., 0], moved[..., 0], strict=True):
        padded = np.pad(before, 2)
        found = [
            (y, x) for y in range(5) for x in range(5)
            if (padded[y : y + 8, x : x + 8] == after).all()
        ]  # fmt: skip
        assert found
        kinds.add(found[0])
    assert len(kinds) > 10
    assert (apply("shift(0)", IMAGES) == IMAGES).all()


def test_flip_mirrors_about_half():
    flipped = apply("flip", IMAGES)
    mirrored = [(a == b[:, ::-1]).all() for a, b in zip(flipped, IMAGES, strict=True)]
    same = [(a == b).all() for a, b in zip(flipped, IMAGES, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 10 < sum(mirrored) < 40


def test_standardize_uses_the_training_split():
    (op,) = parse_ops("standardize", WINE)
    train = WINE.splits["train"].take(np.arange(len(WINE.splits["train"])))
    out = op(train, None)["features"]
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(out.std(0), 1, atol=1e-4)


def test_what_reaches_the_model():
    out = finish({"image": IMAGES, "label": np.arange(50)})
    assert out["image"].dtype == np.float32
    assert out["image"].max() <= 1
    assert finish({"features": np.full((1, 2), 300.0)})["features"].max() == 300


def test_random_operations_stay_out_of_evaluation():
    ops = parse_ops("shift(1)|normalize(0.5, 0.5)|flip", DIGITS)
    assert [op.num_draws for op in ops] == [2, 0, 1]
    assert without_random(ops) == ops[1:2]


@pytest.mark.parametrize(
    ("text", "dataset", "message"),
    [
        ("normalise(1)", DIGITS, "did you mean 'normalize'"),
        ("shift(1, 2, 3)", DIGITS, "too many positional arguments"),
        ("shift(-1)", DIGITS, "at least 0"),
        ("shift(1", DIGITS, "cannot read 'shift"),
        ("shift(x)", DIGITS, "cannot read 'shift"),
        ("shift(1)", WINE, "needs 'image', embedded:wine has none"),
        ("standardize", DIGITS, "needs 'features'"),
    ],
)
def test_mistakes(text, dataset, message):
    with pytest.raises(UserError, match=message):
        parse_ops(text, dataset)
