"""Pictures as a vision model was trained to see them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from zoo.config import UserError, nearest

# Pillow's numbers, which preprocessor_config.json uses too.
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


# What transformers takes where the file of such a processor is silent, beside ViT's.
HF_DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIP": {
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
    },
    "Siglip": {"resample": 3},
}


@dataclass(frozen=True)
class Processor:
    """Resizes, crops and normalises: uint8 RGB in, float32 `b y x ch` out."""

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    interpolation: str = "bilinear"
    crop: float | None = None  # None: the whole picture squeezed; else this part of its short side

    def __post_init__(self) -> None:
        """Raises UserError on an unknown interpolation, and on what divides by zero."""
        known = INTERPOLATIONS.values()
        if self.interpolation not in known:
            raise UserError(
                f"no interpolation {self.interpolation!r}{nearest(self.interpolation, known)}"
            )
        if len(self.mean) != len(self.std) or not all(number > 0 for number in self.std):
            raise UserError(f"mean {self.mean} and std {self.std} do not go together")

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
        # timm's rounding: down.
        rows, columns = (math.floor(side / self.crop) for side in self.size)
        if rows * picture.width >= columns * picture.height:
            columns = picture.width * rows // picture.height
        else:
            rows = picture.height * columns // picture.width
        picture = picture.resize((columns, rows), resample)
        left, top = round((columns - width) / 2), round((rows - height) / 2)
        return picture.crop((left, top, left + width, top + height))

    def to_hf(self) -> dict[str, Any]:
        """preprocessor_config.json. Raises UserError on an oblong crop, which it cannot say."""
        side = self.size[0]
        if self.crop is not None and self.size != (side, side):
            raise UserError("preprocessor_config.json has no place for a crop of a share")
        numbers = {name: number for number, name in INTERPOLATIONS.items()}
        sizes: dict[str, Any] = {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": self.size[0], "width": self.size[1]},
        }
        if self.crop is not None:
            sizes = {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": math.floor(side / self.crop)},
                "do_center_crop": True,
                "crop_size": {"height": side, "width": side},
            }
        return {
            **sizes,
            "do_resize": True,
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
    def from_hf(
        cls, values: Mapping[str, Any], image_size: tuple[int, int], num_channels: int = 3
    ) -> Processor:
        """From preprocessor_config.json; where it is silent, transformers' defaults.

        The size is the model's, whatever the file says.
        """
        values = {**HF_DEFAULTS.get(_hf_type(values), {}), **values}
        resample = values.get("resample", 2)
        numbers = {"image_mean": 0.5, "image_std": 0.5, **values}
        if not values.get("do_normalize", True):
            numbers = {"image_mean": 0.0, "image_std": 1.0}
        mean, std = (_numbers(numbers[k], num_channels) for k in ("image_mean", "image_std"))
        interpolation = INTERPOLATIONS.get(resample, str(resample))
        return cls(image_size, mean, std, interpolation, _hf_crop(values))

    @classmethod
    def from_timm(cls, values: Mapping[str, Any], image_size: tuple[int, int]) -> Processor:
        """From timm's `pretrained_cfg`; where it is silent, timm's defaults for its ViTs."""
        mode = values.get("crop_mode", "center")
        (crop,) = _numbers(values.get("crop_pct", 0.9), 1)
        return cls(
            image_size,
            _numbers(values.get("mean", 0.5), 3),
            _numbers(values.get("std", 0.5), 3),
            str(values.get("interpolation", "bicubic")),
            None if mode == "squash" else crop,
        )


def _hf_type(values: Mapping[str, Any]) -> str:
    """'CLIP' of `CLIPImageProcessor`, `CLIPImageProcessorFast`, `CLIPFeatureExtractor`."""
    names = ("image_processor_type", "feature_extractor_type")
    told = str(next((values[name] for name in names if values.get(name)), ""))
    return re.sub("(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", told)


def _hf_crop(values: Mapping[str, Any]) -> float | None:
    """The part of the short side that is kept, where the middle is cropped after that side was
    given a length. A crop of a squeezed picture (DeiT's) is not followed.

    The middle is torchvision's, as in OpenAI's code; that of transformers lies a pixel further left
    or up where the margin is 3 more than a multiple of 4.
    """
    size, crop = values.get("size"), values.get("crop_size")
    short = size.get("shortest_edge") if isinstance(size, dict) else size
    side = min(crop.values()) if isinstance(crop, dict) else crop
    if not values.get("do_center_crop") or not isinstance(short, int) or not isinstance(side, int):
        return None
    share = side / short
    return share if math.floor(side / share) == short else math.nextafter(share, 0)


def _numbers(value: Any, count: int) -> tuple[float, ...]:
    """A list of numbers, or one for all channels."""
    values = value if isinstance(value, list) else [value] * count
    if not all(isinstance(number, int | float) for number in values):
        raise UserError(f"{value!r} should be a number a channel")
    return tuple(float(number) for number in values)
