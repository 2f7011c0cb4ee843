"""`zoo.predict`: labels with probabilities, or values, for pictures, texts and rows of tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError
from zoo.models import CLASSES
from zoo.models.clip import TextTower, TwoTowers
from zoo.models.mlp import MLP
from zoo.models.transformer import Transformer
from zoo.pretrained import Pretrained
from zoo.pretrained.family import head_of
from zoo.pretrained.recipe import Recipe
from zoo.tasks import make_task
from zoo.use.batches import BATCH_SIZE, Done, Item, bind
from zoo.use.inputs import collect_items
from zoo.use.jobs import Job, open_source, plan_images, plan_recipe, plan_texts
from zoo.use.predictions import Prediction, rank

Fields = dict[str, Any]  # of a Prediction


@dataclass(frozen=True)
class Predictor:
    """A source ready to predict: `read` makes the fields of a Prediction of an item's outputs."""

    job: Job
    read: Callable[[Item, Any], Fields]

    def stream(self, items: Sequence[Item], batch_size: int = BATCH_SIZE) -> Iterator[Prediction]:
        """The predictions, in order, as they are made."""
        for done in self.job.run(items, batch_size):
            yield self._read(done)

    def _read(self, done: Done) -> Prediction:
        fields = self.read(done.item, done.output) if done.problem is None else {}
        return Prediction(done.item.name, **fields, note=done.note, problem=done.problem)


def predict(
    source: Any,
    inputs: Any,
    *,
    top: int | None = 5,
    labels: Sequence[str] | None = None,
    template: str | None = None,
    tokenizer: Any = None,
    batch_size: int = BATCH_SIZE,
) -> list[Prediction]:
    """What a trained or published model says of each input.

    Args:
      source: what `zoo.load_pretrained` takes (a run's workdir, a published folder, a hub id), or
        what it returned.
      inputs: of a vision model files, folders, Pillow images or arrays `[y, x(, ch)]` of bytes; of
        a text model strings, pairs of strings, or `pathlib.Path` of files of texts; of a model of
        rows arrays `[n, d]`, dicts by column, or files of tables. One by itself is a list of one.
      top: how many labels, the likeliest first; None is all.
      labels: names of the classes, as many as there are; of CLIP and SigLIP the texts that each
        picture is compared with.
      template: of CLIP and SigLIP what is made of a label, such as 'a photo of a {}'.
      tokenizer: in the place of the source's own: a tokenizer, or a file of one.
      batch_size: inputs that go through the model together (the last ones filled up).

    A run's inputs are treated by the operations of its evaluation, a published model's by its own
    processor and tokenizer. A file that cannot be read is a Prediction whose `problem` says why.
    Raises UserError, in one line, on a source without a head for this, and on inputs of another
    kind.
    """
    loaded = open_source(source, tokenizer)
    predictor = make_predictor(loaded, top, labels, template)
    return list(predictor.stream(collect_items(inputs, predictor.job.wanted), batch_size))


def make_predictor(
    loaded: Pretrained,
    top: int | None = 5,
    labels: Sequence[str] | None = None,
    template: str | None = None,
) -> Predictor:
    """The way from inputs to predictions of a source. Raises UserError as `predict` does."""
    if top is not None and top < 1:
        raise UserError(f"top={top} must be at least 1")
    if isinstance(loaded.model, TwoTowers):
        from zoo.use.zero_shot import make_zero_shot

        return make_zero_shot(loaded, top, labels, template)
    if template is not None:
        raise UserError(f"template is for CLIP and SigLIP, {loaded.card.source} is neither")
    recipe = loaded.card.recipe
    if recipe is not None:
        return _predict_run(loaded, recipe, top, labels)
    refuse_others(loaded)
    return _predict_published(loaded, top, labels)


def refuse_others(loaded: Pretrained) -> None:
    """Raises UserError, with the right verb, where a model has no head that predicts."""
    name, model, head = loaded.card.source, loaded.model, head_of(loaded.model)
    embeds = f"zoo embed {name} gives its vectors"
    told = {
        "lm": f"writes text: zoo generate {name} --prompt=...",
        "masked_lm": f"fills in masked tokens: zoo fill {name} --prompt=...",
        "replaced_token": "tells replaced tokens, which is no prediction of a text",
        "multiple_choice": "chooses between answers, which zoo predict does not",
        "none": f"has no head to predict with; {embeds}",
        "pixels": f"paints hidden patches, which is no prediction; {embeds}",
    }
    if isinstance(model, MLP):
        return
    if isinstance(model, TextTower) or not getattr(model, "head_bias", True):
        head = "none"  # a projection
    if head in told:
        raise UserError(f"{name} {told[head]}")


def _predict_run(
    loaded: Pretrained, recipe: Recipe, top: int | None, labels: Sequence[str] | None
) -> Predictor:
    """By the run's own task."""
    name, dataset = loaded.card.source, recipe.dataset
    if recipe.task.name in ("causal_lm", "seq2seq"):
        raise UserError(f"{name} writes text: zoo generate {name} --prompt=...")
    if recipe.task.name == "multiple_choice":
        raise UserError(f"{name} chooses between answers, which zoo predict does not")
    if recipe.task.name in ("masked_lm", "replaced_token"):
        refuse_others(loaded)
    if recipe.task.name in ("span", "token_classification"):
        from zoo.use.spans import make_run_reader

        return make_run_reader(loaded, recipe, top, labels)
    wanted, make_feed = plan_recipe(loaded, recipe)
    task = make_task(recipe.task, {"model": loaded.model}, dataset)
    names = rename(run_names(loaded.model, dataset), labels, name)
    columns = recipe.column_names("label") or recipe.column_names("value") or ("value",)

    def read(item: Item, output: np.ndarray) -> Fields:
        if names and output.shape == (len(names),):
            return {"labels": rank(output, names, top)}
        return {"values": name_values(output, columns)}

    return Predictor(Job(wanted, make_feed, bind(predict_task, task, loaded.params)), read)


def run_names(model: Any, dataset: Any) -> tuple[str, ...]:
    """The classes of a run, none of a regression; numbers where the model was given others."""
    count = dataset.num_classes or 0
    outputs = getattr(model, "num_classes", getattr(model, "num_outputs", count))
    if count and outputs == count and dataset.class_names:
        return dataset.class_names
    return tuple(map(str, range(outputs if count else 0)))


def predict_task(task: Any, params: Any, batch: Mapping[str, Any]) -> Any:
    """A run's task on a batch, as in its evaluation."""
    return task.predict(params, dict(batch))


@dataclass(frozen=True)
class Scored:
    """A published classifier and what its logits mean."""

    model: Any
    scores: Literal["softmax", "sigmoid", "value"]
    start: int = 0  # of an encoder-decoder the first token of the target


def compute_scores(scored: Scored, params: Any, batch: Mapping[str, Any]) -> jax.Array:
    """Probabilities or values `[b, c]`."""
    logits = run_published(scored, params, batch)
    if scored.scores == "softmax":
        return jax.nn.softmax(logits)
    return jax.nn.sigmoid(logits) if scored.scores == "sigmoid" else logits


def run_published(scored: Scored, params: Any, batch: Mapping[str, Any]) -> jax.Array:
    """The outputs of a published model."""
    model, variables = scored.model, {"params": params}
    if "image" in batch:
        return model.apply(variables, batch["image"])[0]
    tokens, mask = batch["tokens"], batch["token_mask"]
    if isinstance(model, Transformer):  # BART reads its own source again, shifted by one
        first = jnp.full_like(tokens[:, :1], scored.start)
        shifted = jnp.concatenate([first, tokens[:, :-1]], axis=1)
        return model.apply(variables, tokens, shifted, source_mask=mask, target_mask=mask)[0]
    more = {"types": batch["types"]} if "types" in batch else {}
    return model.apply(variables, tokens, mask=mask, **more)[0]


def _predict_published(
    loaded: Pretrained, top: int | None, labels: Sequence[str] | None
) -> Predictor:
    """By the head, and the labels of config.json."""
    model: Any = loaded.model
    if type(model) not in CLASSES.values() or not hasattr(model, "num_classes"):
        raise UserError(f"{loaded.card.source}: predict knows no {type(model).__name__}")
    head, config = head_of(model), loaded.card.config
    if head in ("span", "token"):
        from zoo.use.spans import make_span_reader

        return make_span_reader(loaded, top, labels)
    vision = hasattr(model, "image_size")
    wanted, make_feed = plan_images(loaded) if vision else plan_texts(loaded)
    kind = find_scores(config.get("problem_type"), model.num_classes)
    scored = Scored(model, kind, config.get("decoder_start_token_id", 0))
    names = rename(label_names(loaded, model.num_classes), labels, loaded.card.source)

    def read(item: Item, output: np.ndarray) -> Fields:
        if kind == "value":
            return {"values": name_values(output, names if labels else ("value",))}
        return {"labels": rank(output, names, top)}

    return Predictor(Job(wanted, make_feed, bind(compute_scores, scored, loaded.params)), read)


def find_scores(problem: str | None, count: int) -> Literal["softmax", "sigmoid", "value"]:
    """What logits become, as in transformers: by config.json's `problem_type`, else by number."""
    if problem == "regression":
        return "value"
    if problem == "multi_label_classification" or (problem is None and count == 1):
        return "sigmoid"
    return "softmax"


def label_names(loaded: Pretrained, count: int) -> tuple[str, ...]:
    """The classes as id2label names them; their numbers where it does not name as many."""
    names = {int(i): str(name) for i, name in loaded.card.config.get("id2label", {}).items()}
    if sorted(names) != list(range(count)):
        return tuple(map(str, range(count)))
    return tuple(names[i] for i in range(count))


def rename(names: Sequence[str], labels: Sequence[str] | None, source: str) -> tuple[str, ...]:
    """The user's names of the classes. Raises UserError where they are not as many."""
    if labels is None:
        return tuple(names)
    if len(labels) != len(names):
        raise UserError(f"labels: {len(labels)} names for the {len(names)} classes of {source}")
    return tuple(map(str, labels))


def name_values(output: np.ndarray, columns: Sequence[str]) -> dict[str, float]:
    """Values `[k]` by their columns; numbered where these are not as many."""
    values = np.ravel(output).tolist()
    if len(columns) != len(values):
        columns = [f"{columns[0]}.{i}" for i in range(len(values))]
    return dict(zip(columns, values, strict=True))
