"""How the inputs of one source go through its model: what it takes, what makes batches of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from zoo.config import UserError
from zoo.data.ops import find_kind
from zoo.data.tokenizers import read_tokenizer
from zoo.models import max_tokens
from zoo.models.encoder import Encoder
from zoo.pretrained import Pretrained, load_pretrained
from zoo.pretrained.recipe import Recipe
from zoo.use.batches import Done, Item, Prepared, choose_size, run_items
from zoo.use.images import ProcessedImages, RecipeImages, decoder_of
from zoo.use.inputs import Wanted
from zoo.use.rows import FeatureRows
from zoo.use.texts import WINDOW, RecipeTexts, TokenBatches

Prepare = Callable[[Sequence[Item]], Prepared]


@dataclass(frozen=True)
class Job:
    """What is done to each input: `make_feed(size)` makes batches of that many rows, `compute` runs
    the model on one."""

    wanted: Wanted
    make_feed: Callable[[int], Prepare]
    compute: Callable[[Any], Any]

    def run(self, items: Sequence[Item], batch_size: int) -> Iterator[Done]:
        """The outputs for every item, in order. Raises UserError on a batch of none."""
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        size = choose_size(len(items), batch_size)
        # Texts are sorted by length, many at a time.
        window = size * (WINDOW if self.wanted.takes == "text" else 1)
        return run_items(items, self.make_feed(size), self.compute, window)


def open_source(source: Any, tokenizer: Any = None) -> Pretrained:
    """A source, loaded unless it is. `tokenizer` is a tokenizer, or a file of one, that takes the
    place of the source's own."""
    loaded = source if isinstance(source, Pretrained) else load_pretrained(source)
    if tokenizer is None:
        return loaded
    if isinstance(tokenizer, str | os.PathLike):
        try:
            tokenizer = read_tokenizer(tokenizer)
        except UserError as error:
            raise UserError(str(error).removeprefix("data.")) from None
    return dataclasses.replace(loaded, tokenizer=tokenizer)


def plan_recipe(loaded: Pretrained, recipe: Recipe) -> tuple[Wanted, Callable[[int], Prepare]]:
    """Inputs as the run's evaluation treats them. Raises UserError on data that is a corpus."""
    name, dataset = loaded.card.source, recipe.dataset
    if "image" in dataset.shapes:
        kind, shape = str(find_kind(dataset)), dataset.shapes["image"]
        wanted = Wanted("image", name, recipe.column_names("image"))
        return wanted, lambda size: RecipeImages(recipe.ops, kind, shape, name, size)
    if "features" in dataset.shapes:
        (width,) = dataset.shapes["features"]
        wanted = Wanted("features", name, recipe.column_names("features"), width)
        return wanted, lambda size: FeatureRows(recipe.ops, size)
    if "token_mask" not in dataset.shapes:
        raise UserError(f"{name} was trained on {', '.join(dataset.shapes)}: no input of its own")
    pair, length = "types" in dataset.shapes, dataset.shapes["tokens"][-1]
    fields = ("text", "text_pair", "words", "question", "context")
    columns = tuple(column for field in fields for column in recipe.column_names(field))
    tokenizer = dataset.tokenizer
    return (
        Wanted("text", name, columns, pairs=pair),
        lambda size: RecipeTexts(tokenizer, recipe.ops, length, pair, size),
    )


def plan_images(loaded: Pretrained) -> tuple[Wanted, Callable[[int], Prepare]]:
    """Pictures through the processor of a published source. Raises UserError where it has none."""
    name, processor, model = loaded.card.source, loaded.processor, loaded.model
    if processor is None:
        raise UserError(f"{name} does not tell how its images are prepared: it has no processor")
    decode = decoder_of(model.num_channels, name)  # type: ignore[attr-defined]
    return Wanted("image", name), lambda size: ProcessedImages(processor, decode, size)


def prepare_image(loaded: Pretrained, picture: Any, name: str) -> Float[np.ndarray, "1 y x ch"]:
    """One picture as the source's model takes it: a path, Pillow's, an array of bytes.

    Raises UserError, that begins with `name`, on what is no picture or not one for this model.
    """
    recipe = loaded.card.recipe
    wanted, make_feed = plan_recipe(loaded, recipe) if recipe else plan_images(loaded)
    if wanted.takes != "image":
        raise UserError(f"{name}: {loaded.card.source} takes {wanted.takes}, no image")
    made = make_feed(1)([Item(name, picture)])
    for problem in made.problems.values():
        raise UserError(f"{name}: {problem}")
    return made.portions[0].arrays["image"]


def plan_texts(
    loaded: Pretrained, longest: int | None = None
) -> tuple[Wanted, Callable[[int], Prepare]]:
    """Texts as tokens of a published source. Raises UserError where it has no tokenizer."""
    tokenizer, model = need_tokenizer(loaded), loaded.model
    most = min(find_longest(model), longest or 2**30)
    types = isinstance(model, Encoder) and model.num_types > 1
    return Wanted("text", loaded.card.source), lambda size: TokenBatches(
        tokenizer, most, size, types
    )


def need_tokenizer(loaded: Pretrained) -> Any:
    """The source's tokenizer. Raises UserError where there is none that can be read."""
    if loaded.tokenizer is not None:
        return loaded.tokenizer
    told = next((line for line in loaded.report if "not read as a tokenizer" in line), "")
    why = f" ({told})" if told else ""
    raise UserError(
        f"{loaded.card.source} has no tokenizer{why}: give one, --tokenizer=tokenizer.json"
    )


def find_longest(model: Any) -> int:
    """The most tokens that a model takes; a bound of ours where it has none."""
    most = max_tokens(model)
    return getattr(model, "num_positions", 512) if most is None else most
