"""`zoo.fill_mask`: what stands in the place of a text's mask tokens (Devlin et al. 2019)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError
from zoo.data.tokenizers.json_tokenizer import MASKS
from zoo.models.mlp import MLP
from zoo.pretrained import Pretrained
from zoo.pretrained.family import head_of
from zoo.use.batches import Item, Portion, Prepared, bind
from zoo.use.inputs import collect_items
from zoo.use.jobs import Job, need_tokenizer, open_source, plan_texts

BATCH_SIZE = 8  # the logits of all tokens are there at once


class Token(NamedTuple):
    """A token as a text, its id, and how likely it is."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True)
class Filled:
    """A text and, for each of its mask tokens in turn, the likeliest tokens there."""

    input: str
    text: str = ""
    masks: tuple[tuple[Token, ...], ...] = ()
    note: str | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is empty."""
        out: dict[str, Any] = {"input": self.input}
        if self.masks:
            out |= {"text": self.text, "masks": [[t._asdict() for t in m] for m in self.masks]}
        told = {"note": self.note, "problem": self.problem}
        return out | {k: v for k, v in told.items() if v is not None}


def fill_mask(
    source: Any,
    texts: Any,
    top: int = 5,
    *,
    tokenizer: Any = None,
    batch_size: int = BATCH_SIZE,
) -> list[Filled]:
    """The `top` likeliest tokens for each mask token of each text.

    `texts` are strings with the tokenizer's mask token in them ('[MASK]', RoBERTa's '<mask>'), or
    `pathlib.Path` of files with a text a line; `source` and `tokenizer` as in `zoo.predict`.

    Several masks of a text are filled each by itself, the others staying masked. Raises UserError
    on a source without a head for this, and on a text without a mask token.
    """
    filler = make_filler(open_source(source, tokenizer), top)
    return list(filler.stream(filler.collect(texts), batch_size))


@dataclass(frozen=True)
class MaskedTexts:
    """Batches of tokens, each with the `places` of its mask tokens, `[b, m]`."""

    feed: Callable[[Sequence[Item]], Prepared]
    mask: int

    def __call__(self, items: Sequence[Item]) -> Prepared:
        made = self.feed(items)
        portions = [Portion(p.rows, self._add_places(p.arrays)) for p in made.portions]
        return Prepared(portions, made.problems, made.notes)

    def _add_places(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A power of two of them, so that there are few programs; those too many are at -1."""
        found = [np.flatnonzero(row == self.mask) for row in arrays["tokens"]]
        most = max(max(map(len, found)), 1)
        places = np.full((len(found), 1 << (most - 1).bit_length()), -1, np.int32)
        for row, where in zip(places, found, strict=True):
            row[: len(where)] = where
        return {**arrays, "places": places}


class Masked(NamedTuple):
    """A model and how many tokens are wanted of it."""

    model: Any
    top: int


def find_tokens(masked: Masked, params: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
    """`ids` and `probabilities` `[b, m, top]` of the likeliest tokens at `places` `[b, m]`."""
    more = {"types": batch["types"]} if "types" in batch else {}
    logits, _ = masked.model.apply(
        {"params": params}, batch["tokens"], mask=batch["token_mask"], **more
    )
    places = batch["places"]
    there = jnp.take_along_axis(logits, jnp.maximum(places, 0)[..., None], axis=1)
    probabilities, ids = jax.lax.top_k(jax.nn.softmax(there), masked.top)
    return {"ids": ids, "probabilities": probabilities, "places": places}


@dataclass(frozen=True)
class Filler:
    """A source ready to fill in."""

    job: Job
    tokenizer: Any
    mask: str

    def collect(self, texts: Any) -> list[Item]:
        """The texts, named. Raises UserError on one without a mask token; a line of a file is
        passed over."""
        return [self._check(item) for item in collect_items(texts, self.job.wanted)]

    def _check(self, item: Item) -> Item:
        text = " ".join(np.ravel(item.content)) if item.problem is None else self.mask
        if self.mask in text:
            return item
        other = next((mask for mask in MASKS if mask in text), None)
        why = f"no mask token in it: write {self.mask!r}" + (f", not {other!r}" if other else "")
        if item.file:
            return dataclasses.replace(item, problem=why)
        raise UserError(f"{item.shown}: {why}")

    def stream(self, items: Sequence[Item], batch_size: int = BATCH_SIZE) -> Iterator[Filled]:
        """The answers, in order, as they are made."""
        for done in self.job.run(items, batch_size):
            masks: tuple[tuple[Token, ...], ...] = ()
            problem, text = done.problem, done.item.content
            if problem is None:
                real = done.output["places"] >= 0
                rows = zip(
                    done.output["ids"][real], done.output["probabilities"][real], strict=True
                )
                masks = tuple(self._name(*row) for row in rows)
                problem = None if masks else "the text was cut before its mask token"
            shown = text if isinstance(text, str) else " ".join(text or ())
            yield Filled(done.item.name, shown, masks, done.note, problem)

    def _name(self, ids: np.ndarray, probabilities: np.ndarray) -> tuple[Token, ...]:
        pairs = zip(ids.tolist(), probabilities.tolist(), strict=True)
        return tuple(Token(self.tokenizer.show(i), i, p) for i, p in pairs)


def make_filler(loaded: Pretrained, top: int = 5) -> Filler:
    """The way from texts to tokens of a source. Raises UserError as `fill_mask` does."""
    name, head, model = loaded.card.source, head_of(loaded.model), loaded.model
    if head != "masked_lm":
        right = {"lm": "zoo generate", "none": "zoo embed"}.get(head, "zoo predict")
        right = "zoo predict" if isinstance(model, MLP) else right
        raise UserError(f"{name} has no head for masked tokens (head {head!r}): see {right} {name}")
    if top < 1:
        raise UserError(f"top={top} must be at least 1")
    tokenizer = need_tokenizer(loaded)
    if tokenizer.mask is None:
        raise UserError(f"{name}: its tokenizer has no mask token")
    wanted, make_feed = plan_texts(loaded)
    masked = Masked(model, min(top, model.vocab_size))  # type: ignore[attr-defined]
    job = Job(
        wanted,
        lambda size: MaskedTexts(make_feed(size), tokenizer.mask),
        bind(find_tokens, masked, loaded.params),
    )
    return Filler(job, tokenizer, tokenizer.token(tokenizer.mask))
