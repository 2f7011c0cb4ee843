"""`zoo.embed`: texts, images or rows to vectors.

How a vector is made of a model's tokens, where sentence-transformers' files beside the weights do
not say it:

- encoders (BERT and its kin) and the encoder of T5 and BART: the mean over the real tokens;
- decoders: the last real token, the only one that has seen all others;
- CLIP and SigLIP, together or a tower alone: their projection, as in their comparison;
- other vision models: what their head reads (`pooled`: the class token, or the mean of patches);
- an MLP: its last hidden layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zoo.config import UserError, nearest
from zoo.models.clip import TextTower, TwoTowers
from zoo.models.decoder import Decoder
from zoo.models.encoder import Encoder
from zoo.models.mae import MAE
from zoo.models.mlp import MLP
from zoo.models.seq2seq import Seq2Seq
from zoo.models.transformer import Transformer
from zoo.pretrained import Pretrained
from zoo.use.batches import BATCH_SIZE, Item, bind
from zoo.use.inputs import Wanted, collect_for_towers, collect_items
from zoo.use.jobs import Job, open_source, plan_images, plan_recipe, plan_texts
from zoo.use.zero_shot import encode_texts, plan_tower_texts

POOLINGS = ("mean", "first", "last", "max")  # of tokens
OF_IMAGES = ("pooled", "mean", "first")


@dataclass(frozen=True)
class Embedding:
    """The vector of one input, or what is wrong with that."""

    input: str
    vector: Any = None  # `[d]`
    note: str | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is empty."""
        out: dict[str, Any] = {"input": self.input}
        if self.vector is not None:
            out["vector"] = self.vector.tolist()
        told = {"note": self.note, "problem": self.problem}
        return out | {k: v for k, v in told.items() if v is not None}


@dataclass(frozen=True)
class Embedder:
    """A source ready to embed: a job a kind of input; two towers have two."""

    jobs: Mapping[str, Job]

    def collect(self, inputs: Any) -> list[Item]:
        """The inputs, named. Raises UserError as `collect_items` does."""
        wanted = {takes: job.wanted for takes, job in self.jobs.items()}
        if len(wanted) > 1:
            return collect_for_towers(inputs, wanted)
        return collect_items(inputs, next(iter(wanted.values())))

    def stream(self, items: Sequence[Item], batch_size: int = BATCH_SIZE) -> Iterator[Embedding]:
        """The vectors, in order, as they are made; of two towers when all are."""
        if len(self.jobs) == 1:
            yield from _run(next(iter(self.jobs.values())), items, batch_size)
            return
        found = {
            takes: _run(job, [item for item in items if item.takes == takes], batch_size)
            for takes, job in self.jobs.items()
        }
        yield from [next(found[item.takes]) for item in items]


def _run(job: Job, items: Sequence[Item], batch_size: int) -> Iterator[Embedding]:
    for done in job.run(items, batch_size) if items else ():
        yield Embedding(done.item.name, done.output, done.note, done.problem)


def embed(
    source: Any,
    inputs: Any,
    *,
    pooling: str | None = None,
    normalize: bool = True,
    tokenizer: Any = None,
    batch_size: int = BATCH_SIZE,
) -> Float[np.ndarray, "n d"]:
    """A vector for each input, float32.

    Args:
      source: as in `zoo.predict`.
      inputs: as in `zoo.predict`; of CLIP and SigLIP strings are texts, and pictures are
        `pathlib.Path`, Pillow's or arrays.
      pooling: of texts 'mean', 'first', 'last' or 'max' of the tokens, of images 'pooled' (what the
        head reads), 'mean' or 'first'; by default as the source's files say, or the family's usual
        one (see the top of this file).
      normalize: makes each vector's length 1, so that a product of two is their cosine.
      tokenizer, batch_size: as in `zoo.predict`.

    Raises UserError on a source that makes no vectors, and on an input that cannot be read.
    """
    embedder = make_embedder(open_source(source, tokenizer), pooling, normalize)
    made = list(embedder.stream(embedder.collect(inputs), batch_size))
    wrong = next((one for one in made if one.problem is not None), None)
    if wrong is not None:
        raise UserError(f"{wrong.input}: {wrong.problem}")
    return np.stack([one.vector for one in made])


@dataclass(frozen=True)
class Body:
    """A model without its head, and how a vector is made of what it gives."""

    model: Any
    pooling: str
    normalize: bool


def make_embedder(
    loaded: Pretrained, pooling: str | None = None, normalize: bool = True
) -> Embedder:
    """The way from inputs to vectors of a source. Raises UserError as `embed` does."""
    model: Any = loaded.model
    known = known_poolings(model, loaded.card.source)
    if pooling is not None and pooling not in known:
        which = ", ".join(known) or "none: its projection is the vector"
        hint = nearest(pooling, known) if known else ""
        raise UserError(f"pooling={pooling!r}: {loaded.card.source} has {which}{hint}")
    if isinstance(model, TwoTowers):
        images = plan_images(loaded)
        body = Body(model, "", normalize)
        compute = bind(embed_images, body, loaded.params)
        compute_texts = bind(embed_tower_texts, body, loaded.params)
        wanted = Wanted("text", loaded.card.source)
        texts = Job(wanted, lambda n: plan_tower_texts(loaded, model)(n), compute_texts)
        return Embedder({"image": Job(*images, compute), "text": texts})  # images need no tokenizer
    return Embedder({"": _make_job(loaded, pooling, normalize)})


def _make_job(loaded: Pretrained, pooling: str | None, normalize: bool) -> Job:
    """Of a model that takes one kind of inputs."""
    model, params, recipe = loaded.model, loaded.params, loaded.card.recipe
    if isinstance(model, TextTower):
        wanted = Wanted("text", loaded.card.source)
        compute = bind(embed_tower_texts, Body(model, "", normalize), params)
        return Job(wanted, plan_tower_texts(loaded, model), compute)
    if isinstance(model, MAE):  # its encoder sees the whole picture
        model, params = model.encoder(), params["encoder"]
        loaded = replace(loaded, model=model, params=params)
    vision = hasattr(model, "image_size")
    if vision or isinstance(model, MLP):
        wanted, make_feed = plan_recipe(loaded, recipe) if recipe else plan_images(loaded)
        compute = bind(embed_images, Body(model, pooling or "pooled", normalize), params)
        return Job(wanted, make_feed, compute)
    told = loaded.card.pooling if pooling is None else None
    usual = "last" if isinstance(model, Decoder) else "mean"
    mode = pooling or (told.mode if told else usual)
    wanted, make_feed = plan_texts(loaded, told.longest if told else None)
    body: Any = model.clone(head="none") if hasattr(model, "head") else model
    return Job(wanted, make_feed, bind(embed_texts, Body(body, mode, normalize), params))


def known_poolings(model: Any, name: str) -> tuple[str, ...]:
    """What `pooling` may be. Raises UserError on a model that makes no vectors."""
    if isinstance(model, Encoder | Decoder | Seq2Seq | Transformer):
        return POOLINGS
    if isinstance(model, TwoTowers | TextTower):
        return ()
    if isinstance(model, MLP):
        return ("pooled",)
    if hasattr(model, "image_size"):
        return OF_IMAGES
    raise UserError(f"{name}: embed knows no {type(model).__name__}")


def finish(body: Body, vectors: jax.Array) -> jax.Array:
    """`[b, d]` in float32, of length 1 where that is wanted."""
    vectors = vectors.astype(jnp.float32)
    if not body.normalize:
        return vectors
    length = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.maximum(length, 1e-12)


def embed_texts(body: Body, params: Any, batch: Mapping[str, Any]) -> jax.Array:
    """The tokens of a model without its head, pooled over the real ones: `[b, d]`."""
    tokens, mask, variables = batch["tokens"], batch["token_mask"], {"params": params}
    if isinstance(body.model, Seq2Seq | Transformer):
        # The encoder's side; what the decoder would make of one token, nobody reads.
        first = tokens[:, :1]
        x = body.model.apply(variables, tokens, first, source_mask=mask)[1]["encoded"]
    else:
        more = {"types": batch["types"]} if "types" in batch else {}
        x = body.model.apply(variables, tokens, mask=mask, **more)[0]
    return finish(body, pool(x, mask, body.pooling))


def pool(x: Float[jax.Array, "b t d"], mask: jax.Array, mode: str) -> Float[jax.Array, "b d"]:
    """One vector of the real tokens of each row."""
    if mode == "first":
        return x[:, 0]
    if mode == "last":
        places = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
        return jnp.take_along_axis(x, places[:, None, None], axis=1)[:, 0]
    real = mask[..., None]
    if mode == "max":
        return jnp.where(real, x, -jnp.inf).max(axis=1)
    return (x * real).sum(axis=1) / real.sum(axis=1)


def embed_images(body: Body, params: Any, batch: Mapping[str, Any]) -> jax.Array:
    """`[b, d]` of images, or of an MLP's rows."""
    variables = {"params": params}
    if isinstance(body.model, TwoTowers):
        out, _ = body.model.apply(variables, batch["image"], method="encode_image")
        return finish(body, out)
    inputs = batch["image"] if "image" in batch else batch["features"]
    out, aux = body.model.apply(variables, inputs)
    if isinstance(body.model, MLP):
        return finish(body, aux["hidden"])
    if body.pooling == "pooled":
        # A projection, as of CLIP's image tower alone, is what it was trained to compare by.
        projected = getattr(body.model, "head_bias", True) is False
        return finish(body, out if projected else aux["pooled"])
    rows, columns = body.model.grid()
    tokens = aux["encoded"]  # the patches stand last
    patches = tokens[:, tokens.shape[1] - rows * columns :]
    return finish(body, tokens[:, 0] if body.pooling == "first" else patches.mean(axis=1))


def embed_tower_texts(body: Body, params: Any, batch: Mapping[str, Any]) -> jax.Array:
    """`[b, d]` of texts by a text tower."""
    return finish(body, encode_texts(body.model, params, batch))
