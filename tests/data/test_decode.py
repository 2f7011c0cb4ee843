"""Decoding beside Pillow and hand computation: modes, alpha, 16 bits, EXIF, broken bytes."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo.data.decode import BrokenImage, Decode

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (9, 14, 3), dtype=np.uint8)


def encode(image, form="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def decode(content, **arguments):
    return np.asarray(Decode(**arguments).decode(content))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats_equal_pillow(form):
    content = encode(Image.fromarray(PIXELS), form)
    expected = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(decode(content), np.asarray(expected.convert("RGB")))
    np.testing.assert_array_equal(
        decode(content, mode="grey"), np.asarray(expected.convert("RGB").convert("L"))
    )


def test_lossless_formats_give_the_pixels_back():
    for form, options in (("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})):
        content = encode(Image.fromarray(PIXELS), form, **options)
        np.testing.assert_array_equal(decode(content), PIXELS)


def test_grey_becomes_three_equal_channels():
    grey = PIXELS[..., 0]
    out = decode(encode(Image.fromarray(grey)))
    np.testing.assert_array_equal(out, np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(decode(encode(Image.fromarray(grey)), mode="grey"), grey)


def test_palette_by_hand():
    colours = np.array([[255, 0, 0], [0, 255, 0], [1, 2, 3]], np.uint8)
    places = RANDOM.integers(0, 3, (5, 7), dtype=np.uint8)
    image = Image.fromarray(places, "L")
    image = image.convert("P")
    image.putdata(places.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    np.testing.assert_array_equal(decode(encode(image)), colours[places])


@pytest.mark.parametrize("background", [255, 0, (10, 200, 30)])
def test_alpha_lies_over_the_background(background):
    alpha = RANDOM.integers(0, 256, PIXELS.shape[:2], dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    content = encode(Image.fromarray(np.dstack([PIXELS, alpha])))
    share = alpha[..., None] / 255
    expected = share * PIXELS + (1 - share) * np.array(background)
    out = decode(content, background=background)
    np.testing.assert_allclose(out, expected, atol=1)
    np.testing.assert_array_equal(out[0], np.broadcast_to(background, out[0].shape))
    np.testing.assert_array_equal(out[1], PIXELS[1])


def test_a_transparent_palette_colour_is_background():
    image = Image.new("P", (4, 1))
    image.putpalette([9, 9, 9, 50, 60, 70])
    image.putdata([0, 1, 0, 1])
    out = decode(encode(image, transparency=0), background=(1, 2, 3))
    np.testing.assert_array_equal(out[0], [[1, 2, 3], [50, 60, 70]] * 2)


def test_sixteen_bits_keep_the_upper_eight():
    wide = RANDOM.integers(0, 2**16, (6, 5), dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(
            decode(encode(Image.fromarray(wide), form), mode="grey"), wide >> 8
        )


def test_cmyk_is_close_to_its_rgb():
    flat = np.full((8, 8, 3), (200, 40, 90), np.uint8)
    content = encode(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=100)
    np.testing.assert_allclose(decode(content), flat, atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_equal_an_upright_image(orientation):
    # What each orientation means (EXIF 2.3, 4.6.4 A): where row 0 and column 0 of the file belong.
    stored = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[::-1], 7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: a.swapaxes(0, 1)[:, ::-1],
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = Image.fromarray(np.ascontiguousarray(stored[orientation](PIXELS)))
    np.testing.assert_array_equal(decode(encode(file, exif=exif)), PIXELS)


def test_an_animation_is_its_first_picture():
    frames = [Image.fromarray(x) for x in (PIXELS, 255 - PIXELS)]
    content = encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(decode(content), PIXELS)


JPEG = encode(Image.fromarray(PIXELS), "JPEG")
PNG = encode(Image.fromarray(PIXELS), "PNG")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"no image at all", "it is no image"),
        (JPEG[:-20], "truncated"),
        (FileNotFoundError(2, "No such file or directory"), "No such file"),
        (encode(Image.fromarray(PIXELS[..., 0].astype(np.float32)), "TIFF"), "floats"),
    ],
)
def test_broken_images_say_why(content, why):
    with pytest.raises(BrokenImage, match=why):
        decode(content)


@given(data=st.data())
@settings(max_examples=150)
@pytest.mark.filterwarnings("ignore")  # Pillow's own words on odd bytes
def test_damaged_bytes_are_an_image_or_broken(data):
    content = bytearray(data.draw(st.sampled_from([JPEG, PNG])))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        out, why = decode(bytes(content)), ""
    except BrokenImage as error:
        out, why = np.zeros((1, 1, 3), np.uint8), str(error)
    assert "\n" not in why
    assert "0x" not in why  # no address: the same words on every machine
    assert out.ndim == 3
    assert out.dtype == np.uint8
