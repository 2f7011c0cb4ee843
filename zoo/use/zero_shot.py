"""Pictures compared with the user's own labels: CLIP (Radford et al. 2021), SigLIP (Zhai et al.
2023).

CLIP chooses among the labels (a softmax over them); SigLIP says of each label by itself whether it
fits (a sigmoid), so its probabilities need not add up to one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from zoo.config import UserError
from zoo.models.clip import SigLIP, TwoTowers, normalise
from zoo.pretrained import Pretrained
from zoo.use.batches import Item, bind
from zoo.use.jobs import Job, find_longest, need_tokenizer, plan_images
from zoo.use.predict import Fields, Predictor
from zoo.use.predictions import rank
from zoo.use.texts import TokenBatches


def make_zero_shot(
    loaded: Pretrained, top: int | None, labels: Sequence[str] | None, template: str | None
) -> Predictor:
    """Raises UserError without labels, on the same one twice, and on a template without a place."""
    name = loaded.card.source
    if not labels:
        raise UserError(f"{name} compares images with labels of yours: labels='a cat,a dog'")
    texts = fill_template(labels, template)
    wanted, make_feed = plan_images(loaded)
    compute = bind(compare_images, loaded.model, (loaded.params, embed_labels(loaded, texts)))

    def read(item: Item, output: np.ndarray) -> Fields:
        return {"labels": rank(output, labels, top)}

    return Predictor(Job(wanted, make_feed, compute), read)


def fill_template(labels: Sequence[str], template: str | None) -> list[str]:
    """The text of each label. Raises UserError on the same one twice, and on a template without a
    place."""
    twice = next((label for label in labels if list(labels).count(label) > 1), None)
    if twice is not None:
        raise UserError(f"labels: {twice!r} is named twice")
    template = "{}" if template is None else template
    if template.count("{}") != 1:
        raise UserError(f"template={template!r} should hold one {{}}, the label's place")
    return [template.replace("{}", label) for label in labels]


def embed_labels(loaded: Pretrained, texts: Sequence[str]) -> jax.Array:
    """Embeddings `[q, c]` of length 1. Raises UserError on a text that is too long."""
    feed = plan_tower_texts(loaded, loaded.model)(len(texts))
    made = feed([Item(text, text) for text in texts])
    for row, note in made.notes.items():
        raise UserError(f"label {texts[row]!r} is too long, it would be {note}")
    out: Any = [None] * len(texts)
    compute = bind(encode_texts, loaded.model, loaded.params)
    for portion in made.portions:
        vectors = np.asarray(normalise(compute(portion.arrays)))
        for row, vector in zip(portion.rows, vectors, strict=False):
            out[row] = vector
    return jax.numpy.asarray(np.stack(out))


def plan_tower_texts(loaded: Pretrained, model: Any) -> Any:
    """How texts reach a text tower: SigLIP's is read at its last place, so its texts are padded to
    all of its positions."""
    tokenizer, longest = need_tokenizer(loaded), find_longest(model)
    whole = is_whole(model)
    pad = find_pad(loaded) if whole else 0
    return lambda size: TokenBatches(tokenizer, longest, size, False, whole, pad)


def find_pad(loaded: Pretrained) -> int:
    """The token that texts are padded with, as the tokenizer's settings or the config name it."""
    tokenizer, name = loaded.tokenizer, loaded.card.pad_token
    found = tokenizer.find(name) if name and hasattr(tokenizer, "find") else None
    if found is None:
        found = loaded.card.config.get("pad_token_id", tokenizer.pad)
    if found is None:
        raise UserError(f"{loaded.card.source}: no file tells the padding token of its tokenizer")
    return int(found)


def is_whole(model: Any) -> bool:
    """Do texts fill all positions of this model, so that no mask is given?"""
    return isinstance(model, SigLIP) or getattr(model, "pooling", "") == "last"


def encode_texts(model: Any, params: Any, batch: Mapping[str, Any]) -> jax.Array:
    """Embeddings `[b, c]` of texts, not normalised, by two towers or the text tower alone."""
    method = "encode_text" if isinstance(model, TwoTowers) else None
    mask = None if is_whole(model) else batch["token_mask"]
    out, _ = model.apply({"params": params}, batch["tokens"], mask=mask, method=method)
    return out


def compare_images(model: Any, params: Any, batch: Mapping[str, Any]) -> jax.Array:
    """Probabilities `[b, q]` of images for the labels' embeddings, which come with `params`."""
    logits = score_images(model, params, batch)
    return jax.nn.sigmoid(logits) if isinstance(model, SigLIP) else jax.nn.softmax(logits)


def score_images(model: Any, params: Any, batch: Mapping[str, Any]) -> jax.Array:
    """Logits `[b, q]`, as `compare_images`."""
    params, texts = params

    def compare(model: Any, images: Any) -> jax.Array:
        image, _ = model.encode_image(images)
        return model._compare(normalise(image) @ texts.T)

    return model.apply({"params": params}, batch["image"], method=compare)
