"""Pictures as a vision model was trained to see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from zoo.config import UserError

# Pillow's numbers, which preprocessor_config.json uses too.
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True)
class Processor:
    """Resizes, crops and normalises: uint8 RGB in, float32 `b y x ch` out."""

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    interpolation: str = "bilinear"
    crop: float | None = None  # None: the whole picture squeezed; else this part of its short side

    def __call__(self, images: Sequence[Any]) -> Float[np.ndarray, "b y x ch"]:
        """`images` are Pillow's, or uint8 arrays `[y, x, ch]`, of any size."""
        from PIL import Image

        made = []
        for image in images:
            picture = image if hasattr(image, "resize") and hasattr(image, "convert") else None
            if picture is None:
                picture = Image.fromarray(np.asarray(image).squeeze())
            picture = self._resize(picture.convert("L" if len(self.mean) == 1 else "RGB"))
            array = np.asarray(picture, np.float32).reshape(*self.size, len(self.mean)) / 255
            made.append((array - np.array(self.mean)) / np.array(self.std))
        return np.stack(made).astype(np.float32)

    def _resize(self, picture: Any) -> Any:
        from PIL import Image

        resample = getattr(Image.Resampling, self.interpolation.upper())
        height, width = self.size
        if self.crop is None:
            return picture.resize((width, height), resample)
        scale = max(height / picture.height, width / picture.width) / self.crop
        large = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(large, resample)
        left, top = round((large[0] - width) / 2), round((large[1] - height) / 2)
        return picture.crop((left, top, left + width, top + height))

    def to_hf(self) -> dict[str, Any]:
        """preprocessor_config.json. Raises UserError on a crop, which it cannot say."""
        if self.crop is not None:
            raise UserError("preprocessor_config.json has no place for a crop of a share")
        numbers = {name: number for number, name in INTERPOLATIONS.items()}
        return {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": self.size[0], "width": self.size[1]},
            "resample": numbers[self.interpolation],
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    def to_dict(self) -> dict[str, Any]:
        """All fields, for our own layout."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Processor:
        """The inverse of `to_dict`."""
        lists: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**lists)

    @classmethod
    def from_hf(cls, values: Mapping[str, Any], image_size: tuple[int, int]) -> Processor:
        """From preprocessor_config.json; where it is silent, transformers' defaults."""
        size = values.get("size", image_size)
        if isinstance(size, Mapping):
            size = (size.get("height", image_size[0]), size.get("width", image_size[1]))
        elif isinstance(size, int):
            size = (size, size)
        plain = not values.get("do_normalize", True)
        return cls(
            (int(size[0]), int(size[1])),
            tuple(np.zeros(3) if plain else values.get("image_mean", (0.5, 0.5, 0.5))),
            tuple(np.ones(3) if plain else values.get("image_std", (0.5, 0.5, 0.5))),
            INTERPOLATIONS[values.get("resample", 2)],
        )

    @classmethod
    def from_timm(cls, values: Mapping[str, Any], image_size: tuple[int, int]) -> Processor:
        """From timm's `pretrained_cfg`; where it is silent, timm's defaults for its ViTs."""
        mode = values.get("crop_mode", "center")
        crop = None if mode == "squash" else float(values.get("crop_pct", 0.9))
        return cls(
            image_size,
            tuple(values.get("mean", (0.5, 0.5, 0.5))),
            tuple(values.get("std", (0.5, 0.5, 0.5))),
            str(values.get("interpolation", "bicubic")),
            crop,
        )
