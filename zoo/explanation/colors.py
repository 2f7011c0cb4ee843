"""Colours of numbers, one table for page, script and pictures."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

# Red for what adds, blue for what takes away; white is zero. (ColorBrewer's RdBu, safe for the
# colour-blind.)
SIGNED = ("#2166ac", "#67a9cf", "#d1e5f0", "#ffffff", "#fddbc7", "#ef8a62", "#b2182b")
POSITIVE = ("#ffffff", "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f")
HEAT = ("#ffffb2", "#fecc5c", "#fd8d3c", "#f03b20", "#bd0026")  # over a picture in grey
OVER = 0.8  # how much of the strongest colour hides the picture below


def make_table(anchors: tuple[str, ...], count: int = 256) -> UInt8[np.ndarray, "k 3"]:
    """Colours between the anchors, evenly."""
    rgb = np.array([[int(a[i : i + 2], 16) for i in (1, 3, 5)] for a in anchors], float)
    at = np.linspace(0, len(anchors) - 1, count)
    columns = [np.interp(at, np.arange(len(anchors)), rgb[:, i]) for i in range(3)]
    return np.stack(columns, axis=-1).round().astype(np.uint8)


# One more of the signed, so that zero has its place in the middle.
TABLES = {
    "SIGNED": make_table(SIGNED, 257),
    "POSITIVE": make_table(POSITIVE),
    "HEAT": make_table(HEAT),
}


def find_scale(values: np.ndarray) -> float:
    """The magnitude that has the strongest colour: of many, as of pixels, 0.5 % are beyond it."""
    sizes = np.abs(values)
    top = sizes.max(initial=0.0) if sizes.size < 1000 else np.quantile(sizes, 0.995)
    return float(top or sizes.max(initial=0.0) or 1.0)


def color_of(value: float, scale: float, signed: bool) -> tuple[str, str]:
    """Background and letters, '#rrggbb', of a number."""
    share = float(np.clip(value / scale, -1, 1))
    share = (share + 1) / 2 if signed else max(share, 0.0)
    table = TABLES["SIGNED" if signed else "POSITIVE"]
    red, green, blue = table[round(share * (len(table) - 1))].tolist()
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    return f"#{red:02x}{green:02x}{blue:02x}", "#ffffff" if dark else "#1b1b1b"


def lay_over(
    picture: UInt8[np.ndarray, "y x 3"],
    values: Float[np.ndarray, "r c"],
    scale: float,
    signed: bool,
) -> UInt8[np.ndarray, "y x 3"]:
    """The picture in grey under colours, the stronger the farther from zero; a value covers a
    block of pixels."""
    height, width = picture.shape[:2]
    rows = np.arange(height) * values.shape[0] // height
    columns = np.arange(width) * values.shape[1] // width
    share = np.clip(values / scale, -1 if signed else 0, 1)[rows][:, columns]
    if signed:
        colors = TABLES["SIGNED"][np.where(share < 0, 0, -1)]
    else:
        colors = TABLES["HEAT"][(share * 255).round().astype(int)]
    grey = (picture @ np.array([0.299, 0.587, 0.114]))[..., None]
    alpha = OVER * np.sqrt(np.abs(share))[..., None]
    return ((1 - alpha) * grey + alpha * colors).round().astype(np.uint8)


def enlarge(picture: np.ndarray, least: int = 320) -> np.ndarray:
    """A small picture with each pixel as a block, so that its longer side is about `least`."""
    times = max(least // max(picture.shape[:2]), 1)
    return picture.repeat(times, axis=0).repeat(times, axis=1)
