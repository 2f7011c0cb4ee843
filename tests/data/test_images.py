import numpy as np
import pytest
from PIL import Image

from zoo.config import DataConfig, UserError
from zoo.data import open_dataset, parse_ops
from zoo.data.images import DISTORTIONS, from_pillow, to_pillow

DATASET = open_dataset(DataConfig(source="synthetic:tfds:cifar10"))
RANDOM = np.random.default_rng(0)
MIXED = [
    RANDOM.integers(0, 256, (y, x, 3), dtype=np.uint8) for y, x in [(40, 50), (64, 33), (32, 32)]
]


def apply(text, images, uniform=None):
    (op,) = parse_ops(text, DATASET)
    if op.num_draws and uniform is None:
        uniform = RANDOM.random((len(images), op.num_draws))
    return op({"image": images}, uniform)["image"]


def test_resize_keeps_the_aspect():
    out = apply("resize(20)", MIXED)
    assert [x.shape for x in out] == [(20, 25, 3), (39, 20, 3), (20, 20, 3)]
    expected = Image.fromarray(MIXED[0]).resize((25, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(out[0], np.asarray(expected))


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_resize_to_a_height_and_a_width(name):
    out = apply(f"resize((12, 30), '{name}')", MIXED)
    assert out.shape == (3, 12, 30, 3)
    expected = Image.fromarray(MIXED[1]).resize((30, 12), getattr(Image.Resampling, name.upper()))
    np.testing.assert_array_equal(out[1], np.asarray(expected))


def test_central_crop_by_hand():
    out = apply("central_crop(32)", MIXED)
    assert out.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(out[0], MIXED[0][4:36, 9:41])
    np.testing.assert_array_equal(out[2], MIXED[2])
    small = apply("central_crop(40)", MIXED[2:])
    np.testing.assert_array_equal(small[0, 4:36, 4:36], MIXED[2])
    assert not small[0, :4].any()


def test_a_crop_of_the_whole_image_is_a_resize():
    out = apply("random_resized_crop(16, 1.0)", MIXED[2:], np.array([[0.3, 0.5, 0.7, 0.9]]))
    expected = Image.fromarray(MIXED[2]).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(out[0], np.asarray(expected))


def test_a_random_resized_crop_by_hand():
    # Area (0.25 + 0.5 * 0.75) * 40 * 50 = 1250, aspect (3 / 4) * (16 / 9) ** 0.5 = 1: 35 x 35.
    draws = np.array([[0.5, 0.5, 0.99, 0.0]])
    cut = Image.fromarray(MIXED[0][:35, 15:])
    out = apply("random_resized_crop((8, 6), 0.25, 'nearest')", MIXED[:1], draws)[0]
    np.testing.assert_array_equal(out, np.asarray(cut.resize((6, 8), Image.Resampling.NEAREST)))
    # The filters of the others reach beyond the crop at its edges: a neighbour is real there.
    out = apply("random_resized_crop((8, 6), 0.25, 'bicubic')", MIXED[:1], draws)[0]
    expected = np.asarray(cut.resize((6, 8), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(out[2:-2, 2:-2], expected[2:-2, 2:-2])


def test_color_jitter_one_part_at_a_time():
    draws = np.full((1, 5), 0.75)  # each part at half of its reach, above
    x = MIXED[2].astype(np.float64)
    grey = np.asarray(Image.fromarray(MIXED[2]).convert("L"), np.float64)
    bright = apply("color_jitter(0.4, 0, 0)", MIXED[2:], draws)[0]
    np.testing.assert_allclose(bright, (x * 1.2).clip(0, 255), atol=1)
    contrast = apply("color_jitter(0, 0.4, 0)", MIXED[2:], draws)[0]
    mean = round(grey.mean())
    np.testing.assert_allclose(contrast, (mean + 1.2 * (x - mean)).clip(0, 255), atol=1)
    colour = apply("color_jitter(0, 0, 0.4)", MIXED[2:], draws)[0]
    expected = (grey[..., None] + 1.2 * (x - grey[..., None])).clip(0, 255)
    np.testing.assert_allclose(colour, expected, atol=1)
    np.testing.assert_array_equal(apply("color_jitter(0, 0, 0)", MIXED[2:])[0], MIXED[2])


def test_hue_turns_as_colorsys_says():
    import colorsys

    colours = [(200, 40, 40), (30, 180, 90), (60, 70, 220), (250, 200, 10)]
    image = np.array([colours], np.uint8)
    out = apply("color_jitter(0, 0, 0, 0.5)", [image], np.array([[0.5, 0.5, 0.5, 0.7, 0]]))[0]
    for before, after in zip(colours, out[0], strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in before))
        expected = np.array(colorsys.hsv_to_rgb((h + 0.2) % 1, s, v)) * 255
        np.testing.assert_allclose(after, expected, atol=8)  # hues are bytes on the way


def test_the_order_of_a_color_jitter_is_drawn():
    draws = RANDOM.random((1, 5)).repeat(24, axis=0)
    draws[:, 4] = (np.arange(24) + 0.5) / 24
    out = apply("color_jitter(0.9, 0.9, 0.9, 0.2)", MIXED[2:] * 24, draws)
    assert len({x.tobytes() for x in out}) > 12


def test_random_crops_have_the_size_and_differ():
    out = apply("random_resized_crop(24)", MIXED * 5)
    assert out.shape == (15, 24, 24, 3)
    assert len({x.tobytes() for x in out[::3]}) == 5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("index", range(len(DISTORTIONS)))
def test_every_distortion_keeps_the_shape(index, channels):
    image = to_pillow(RANDOM.integers(0, 256, (12, 10, channels), dtype=np.uint8))
    for strength in (-1.0, 0.0, 0.5, 1.0):
        out = from_pillow(DISTORTIONS[index](image, strength))
        assert out.shape == (12, 10, channels)
        assert out.dtype == np.uint8


def test_randaugment_is_a_function_of_its_draws():
    draws = RANDOM.random((3, 8))
    first = apply("randaugment(2, 10)", MIXED, draws)
    second = apply("randaugment(2, 10)", MIXED, draws)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    other = apply("randaugment(2, 10)", MIXED, 1 - draws)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
    with pytest.raises(UserError, match="layers=9"):
        parse_ops("randaugment(9)", DATASET)
