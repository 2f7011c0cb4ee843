"""A model with one input, made ready: what stands at each place, and the arrays it takes."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from zoo.config import UserError
from zoo.explanation.probe import unroll
from zoo.explanation.result import Axis
from zoo.generation.decode import count_words
from zoo.generation.settings import find_specials
from zoo.look.tokens import Speller
from zoo.models import max_tokens
from zoo.models.clip import CLIP, TextTower, TwoTowers
from zoo.models.decoder import Decoder
from zoo.models.encoder import Encoder
from zoo.models.mixer import Mixer
from zoo.models.patches import as_pair
from zoo.models.seq2seq import Seq2Seq
from zoo.models.transformer import Transformer
from zoo.models.vit import ViT
from zoo.pretrained.load import Pretrained
from zoo.use.jobs import prepare_image

IMAGES, TEXTS, PAIRS = (ViT, Mixer), (Decoder, Encoder, TextTower), (Seq2Seq, Transformer)
KINDS: dict[str, tuple[type, ...]] = {
    "image": IMAGES,
    "text": TEXTS,
    "pair": PAIRS,
    "towers": (TwoTowers,),
}
AXES = {"images": "image", "tokens": "text", "source": "source", "target": "target"}
BEFORE = 8  # tokens that are decoded with one to see how it is written there


@dataclass(frozen=True)
class Subject:
    """A model, its layers one by one, with a batch of one: `inputs` as the model takes them."""

    kind: str  # of KINDS
    model: Any
    params: dict[str, Any]
    inputs: dict[str, Any]  # 'images', 'tokens', 'source', 'target'
    axes: dict[str, Axis]  # by the same names
    loaded: Pretrained

    def apply(self, params: Any, inputs: Any, model: Any = None) -> tuple[Any, dict[str, Any]]:
        """The model's outputs and aux; to be traced."""
        return (model or self.model).apply({"params": params}, **inputs)

    @property
    def head(self) -> str:
        """'classes', 'tokens' (classes at each place), 'replaced', 'span', 'choice', 'match' of an
        image and a text, or 'none'."""
        model = self.model
        if self.kind == "towers":
            return "match"
        if isinstance(model, (ViT, Mixer)):
            return "classes" if model.num_classes else "none"
        named = {"sequence": "classes", "replaced_token": "replaced", "multiple_choice": "choice"}
        named |= {"lm": "tokens", "masked_lm": "tokens", "token": "tokens", "span": "span"}
        return named.get(getattr(model, "head", "none"), "none")

    @property
    def is_vocabulary(self) -> bool:
        """Are the classes the tokens of the vocabulary?"""
        return getattr(self.model, "head", "") in ("lm", "masked_lm")

    @property
    def text(self) -> str:
        """The name of the tokens at whose places the outputs are."""
        return "target" if self.kind == "pair" else "tokens"

    @functools.cached_property
    def speller(self) -> Speller:
        return Speller(self.loaded.tokenizer)

    def ids(self, name: str) -> list[int]:
        """The tokens of an input."""
        return np.asarray(self.inputs[name])[0].tolist()

    def name_token(self, token: int, place: int | None = None) -> str:
        """A token as it would be written behind the one at a place of the text."""
        if token >= self.loaded.tokenizer.vocab_size:  # models round their vocabulary up
            return f"[token {token}]"
        before = [] if place is None else self.ids(self.text)[max(place - 1, 0) : place + 1]
        return self.speller.spell([token], before)

    def name_class(self, index: int) -> str:
        """A class by its label, or by its number."""
        labels = self.loaded.card.config.get("id2label") or {}
        return str(labels.get(str(index), f"class {index}"))


def make_subject(loaded: Pretrained, given: Any, target: str | None) -> Subject:
    """Reads the input for a loaded model.

    Args:
      given: an image's path, Pillow image or uint8 array; for models of text a text.
      target: an encoder-decoder's target so far, or the text that goes with an image.

    Raises UserError on a model that is explained otherwise or not at all, an input that it does not
    take, a source without a tokenizer, a text longer than the positions.
    """
    model, params = unroll(loaded.model, loaded.params)
    kind = next((k for k, classes in KINDS.items() if isinstance(model, classes)), None)
    if kind is None or (kind == "pair" and model.head not in ("lm", "none")):
        head = f" with the head {model.head!r}" if kind else ""
        raise UserError(
            f"zoo explain takes models of images, texts or both, no {type(model).__name__}{head}"
        )
    if kind in ("pair", "towers") and target is None:
        told = "what is translated so far" if kind == "pair" else "the text to compare it with"
        raise UserError(f"a {type(model).__name__} takes two inputs: give --target, {told}")
    if kind in ("image", "text") and target is not None:
        raise UserError(f"a {type(model).__name__} takes one input, no --target")
    inputs: dict[str, Any] = {}
    axes: dict[str, Axis] = {}
    if kind in ("image", "towers"):
        inputs["images"], axes["images"] = _read_image(loaded, model, given)
    if kind == "text":
        inputs["tokens"] = _read_text(loaded, given, "tokens")
    if kind == "towers":
        inputs["tokens"] = _pad_text(loaded, _read_text(loaded, target, "tokens"))
    if kind == "pair":
        inputs["source"] = _read_text(loaded, given, "source")
        inputs["target"] = _read_text(loaded, target, "target")
    speller = Speller(loaded.tokenizer) if kind != "image" else None
    for name in inputs.keys() - axes.keys():
        axes[name] = Axis(AXES[name], spell_words(speller, inputs[name][0].tolist()))
    arrays = {name: jnp.asarray(x) for name, x in inputs.items()}
    return Subject(kind, model, params, arrays, axes, loaded)


def spell_words(speller: Any, ids: list[int]) -> tuple[str, ...]:
    """Each token as it is written in its text; a blank before a word is a part of its token."""
    return tuple(speller.spell([token], ids[max(i - BEFORE, 0) : i]) for i, token in enumerate(ids))


def _read_text(loaded: Pretrained, text: Any, name: str) -> np.ndarray:
    """A row of tokens, `[1, t]`."""
    if loaded.tokenizer is None:
        raise UserError(f"{loaded.card.source} has no tokenizer, which a text needs")
    if not isinstance(text, str):
        raise UserError(f"a {type(loaded.model).__name__} takes a text, not {type(text).__name__}")
    if not text and name != "target":
        raise UserError("the text is empty")
    tokenizer = loaded.tokenizer
    if name == "target":
        told = {**loaded.card.config, **loaded.card.generation}
        begin = find_specials(told, tokenizer, crosses=True).begin
        ids = np.concatenate([[begin], tokenizer.encode(text)])
    elif hasattr(tokenizer, "batch"):
        ids = tokenizer.batch([text])["tokens"][0]
    else:
        ids = tokenizer.encode(text)
    limit, count = max_tokens(loaded.model), loaded.model.vocab_size
    if name == "target":
        count = count_words(loaded.model)
    if limit is not None and len(ids) > limit:
        raise UserError(f"the text is {len(ids)} tokens, the model has {limit} positions")
    if not len(ids) or ids.max() >= count:
        raise UserError(
            f"the tokenizer gives token {ids.max(initial=-1)}, the model has {count}: they do not "
            "belong together"
            if len(ids)
            else "the text has no tokens"
        )
    return ids[None].astype(np.int32)


def _pad_text(loaded: Pretrained, ids: np.ndarray) -> np.ndarray:
    """As the tower was trained: SigLIP reads the last of all its positions."""
    model: Any = loaded.model
    if isinstance(model, CLIP):
        return ids
    pad = 0 if loaded.tokenizer.pad is None else loaded.tokenizer.pad
    widths = ((0, 0), (0, model.num_positions - ids.shape[1]))
    return np.pad(ids, widths, constant_values=pad)


def _read_image(loaded: Pretrained, model: Any, given: Any) -> tuple[np.ndarray, Axis]:
    """Pixels as the model takes them, `[1, y, x, ch]`, and its patches."""
    name = str(given) if isinstance(given, str | os.PathLike) else "the image"
    if isinstance(given, str | os.PathLike) and not Path(given).expanduser().is_file():
        told = "is a folder" if Path(given).expanduser().is_dir() else "does not exist"
        raise UserError(f"{name}: no image, it {told}")
    pixels = prepare_image(loaded, given, name)
    rows, columns = model.grid()
    height, width = as_pair(model.patch_size)
    words = [f"row {y + 1}, column {x + 1}" for y in range(rows) for x in range(columns)]
    first: list[str] = []
    if isinstance(model, CLIP) or (isinstance(model, ViT) and model.pooling.startswith("cls")):
        first.append("class token")
    if isinstance(model, ViT):
        first += ["distillation token"] * (model.num_placed() - len(first))
        first += [f"register {i + 1}" for i in range(model.num_registers)]
    shown = show_pixels(loaded, pixels[0])[: rows * height, : columns * width]
    return pixels, Axis("image", (*first, *words), shown, (rows, columns), len(first))


def show_pixels(loaded: Pretrained, pixels: np.ndarray) -> np.ndarray:
    """What the model takes as something to look at, uint8 `[y, x, 3]`."""
    mean, std = (getattr(loaded.processor, name, None) for name in ("mean", "std"))
    if mean is None or std is None:
        low, high = pixels.min(), pixels.max()
        pixels = (pixels - low) / max(float(high - low), 1e-12)
    else:
        pixels = pixels * np.asarray(std) + np.asarray(mean)
    shown = np.round(pixels.clip(0, 1) * 255).astype(np.uint8)
    return shown.repeat(3, axis=-1) if shown.shape[-1] == 1 else shown[..., :3]
