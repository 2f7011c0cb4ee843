"""What a run's folder says beside its weights: how an example reaches the model, what comes out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from zoo.config import Config, DataConfig, TaskConfig, UserError
from zoo.config.parse import set_values
from zoo.config.show import flatten
from zoo.data import Dataset, Op, choose_ops
from zoo.data.decode import Decode
from zoo.data.images import CentralCrop, Resize, as_pair
from zoo.data.ops import Normalize
from zoo.data.seen import recall_dataset
from zoo.data.tokenizers.files import read_json_file
from zoo.pretrained.processor import Processor
from zoo.pretrained.sources import Source, read_json
from zoo.tasks.classification import has_several

CONFIG_FILE, DATA_FILE = RECIPE_FILES = ("config.json", "data.json")


@dataclass(frozen=True)
class Recipe:
    """The data and task of a run: `dataset` is the data as it is remembered, `ops` are the
    operations of its evaluation, which goes by `eval_batch_size` examples."""

    data: DataConfig
    task: TaskConfig
    dataset: Dataset
    ops: tuple[Op, ...]
    eval_batch_size: int

    def column_names(self, field: str) -> tuple[str, ...]:
        """The columns of a table that became a field; none where the data was no table."""
        return tuple(self.dataset.columns.get(field, ()))


def has_recipe(source: Source) -> bool:
    """Is this a run's folder, or a copy of one in our own layout, or an adapter of one's task?"""
    folder = source.folder
    if source.layout != "zoo" or folder is None or not source.own_task:
        return False
    return all((folder / file).exists() for file in RECIPE_FILES)


def find_recipe(source: Source) -> Recipe | None:
    """A run's; None of other sources. Raises UserError as `read_recipe` does."""
    return read_recipe(source.folder) if source.folder and has_recipe(source) else None


def read_recipe(folder: epath.Path) -> Recipe:
    """From config.json, data.json and tokenizer.json of a run's folder.

    Raises UserError on a config of another version, an operation that cannot be imported, and
    statistics that an older zoo did not keep.
    """
    try:
        values = flatten(read_json(folder / CONFIG_FILE))
        groups = ("data", "task", "train")
        kept = {k: v for k, v in values.items() if k.partition(".")[0] in groups}
        config: Config = set_values(Config(), kept)
        file = folder / "tokenizer.json"
        tokenizer = read_json_file(file) if file.exists() else None
        dataset = recall_dataset(read_json(folder / DATA_FILE), tokenizer)
        ops = choose_ops(config.data, dataset)[1]
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    return Recipe(config.data, config.task, dataset, ops, config.train.eval_batch_size)


def read_labels(folder: epath.Path) -> dict[str, Any]:
    """The names of a run's classes, as config.json of transformers tells them; {} of none."""
    names = read_json(folder / DATA_FILE).get("class_names") or ()
    if not names:
        return {}
    ids = {str(name): i for i, name in enumerate(names)}
    return {"id2label": {str(i): str(name) for i, name in enumerate(names)}, "label2id": ids}


def keep_meaning(source: Source) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What config.json of transformers can say of a run's outputs, and lines on what it cannot."""
    try:
        recipe = find_recipe(source)
    except UserError as error:
        return {}, (f"task: not told ({error})",)
    classifies = recipe is not None and recipe.task.name == "classification"
    if recipe is not None and classifies and has_several(recipe.dataset):
        return {"problem_type": "multi_label_classification"}, ()
    if recipe is None or recipe.task.name != "regression":
        return {}, ()
    line = ""
    if recipe.task.arguments.get("standardize", True):
        mean, deviation = (x.reshape(-1).tolist() for x in recipe.dataset.statistics["label"])
        line = f"outputs: values are deviation {deviation} times the output plus mean {mean}"
    return {"problem_type": "regression"}, (line,) if line else ()


def to_processor(recipe: Recipe, size: tuple[int, int], num_channels: int) -> Processor:
    """The operations of evaluation on images of any size, as a processor.

    The crop of `resize(a)|central_crop(b)` rounds a side otherwise than the operations, by a pixel
    at most. Raises UserError where they are no such resize, crop and normalisation.
    """
    steps = [op for op in recipe.ops if op.field == "image" and not isinstance(op, Decode)]
    mean, std = (0.0,) * num_channels, (1.0,) * num_channels
    if steps and isinstance(steps[-1], Normalize):
        last: Any = steps.pop()
        mean, std = (_widen(x, num_channels) for x in (last.mean, last.std))
    interpolation, crop = "bilinear", None
    if steps and isinstance(steps[0], Resize):
        first: Any = steps.pop(0)
        interpolation = first.interpolation
        if isinstance(first.size, int):
            crop = _find_crop(steps, first.size, size)
            steps = steps[1:]
    if steps:
        raise UserError(f"no processor says {recipe.data.transform!r}: it resizes and normalises")
    return Processor(size, mean, std, interpolation, crop)


def _find_crop(steps: Sequence[Op], short: int, size: tuple[int, int]) -> float:
    """The part of a short side that a central crop behind `resize(short)` keeps."""
    if not steps or not isinstance(steps[0], CentralCrop) or as_pair(steps[0].size) != size:
        raise UserError("no processor says resize(N) without a central crop of the model's size")
    side = min(size)
    share = side / short
    return share if math.floor(side / share) == short else math.nextafter(share, 0)


def _widen(value: float | tuple[float, ...], count: int) -> tuple[float, ...]:
    """A number a channel."""
    return value if isinstance(value, tuple) else (float(value),) * count
