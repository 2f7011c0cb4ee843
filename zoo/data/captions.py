"""Texts for images that have classes: the name of the class, in a sentence, in some language."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from zoo.config import DataConfig, UserError
from zoo.data.ops import OPS, Op, read_ops
from zoo.data.sources import Dataset, Examples
from zoo.data.tokenizers import make_tokenizer


@OPS.register("caption")
@dataclass(frozen=True)
class Caption(Op):
    """Gives `tokens` `[n, t]` and `token_mask`, which is true where one is real: a text of the
    `label` of each image, beside it.

    `names` are lists of names in the order of the classes, a list a language (by default one list,
    the data's own names); `templates` are sentences with `{}` in the place of the name. Which list
    and which sentence is drawn for each example: in training anew every time, in evaluation by its
    place. `length` is that of a row in tokens, by default of the longest text; what is longer is
    refused. Rows are filled up with the tokenizer's padding token, 0 where it has none.
    """

    num_draws: ClassVar[int] = 2
    field: ClassVar[str] = "label"
    in_evaluation: ClassVar[bool] = True
    names: tuple[tuple[str, ...], ...] = ()
    templates: tuple[str, ...] = ("{}",)
    length: int = 0
    table: Any = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for template in self.templates or ("",):
            if template.count("{}") != 1:
                raise UserError(f"template {template!r} should hold one {{}}, the name's place")
        if self.length < 0:
            raise UserError(f"length={self.length} must be at least 0")

    def fit(self, dataset: Dataset) -> Caption:
        """With the tokens of every text. Raises UserError where the data has no classes to name."""
        if "tokens" in dataset.shapes:
            raise UserError(f"{dataset.name} has texts of its own")
        if dataset.tokenizer is None:
            raise UserError(f"{dataset.name} was opened without a tokenizer: set data.source")
        texts = [*self.write(dataset)]
        rows, _ = dataset.tokenizer.encode_rows(texts, 2**20)
        sizes = np.array([len(row) for row in rows])
        length = self.length or int(sizes.max())
        if sizes.max() > length:
            raise UserError(
                f"{texts[sizes.argmax()]!r} is {sizes.max()} tokens: set length to as many"
            )
        mask = np.arange(length) < sizes[:, None]
        tokens = np.full(mask.shape, dataset.tokenizer.pad or 0, np.int32)
        tokens[mask] = np.concatenate(rows)
        shape = (-1, len(self.templates), dataset.num_classes or 0, length)
        op = dataclasses.replace(self)
        object.__setattr__(op, "table", (tokens.reshape(shape), mask.reshape(shape)))
        return op

    def write(self, dataset: Dataset) -> Iterator[str]:
        """The texts: language by language, template by template, class by class.

        Raises UserError on data without classes or without names for them, and on other than a name
        a class.
        """
        count = dataset.num_classes
        if not count or dataset.shapes.get("label") != ():
            raise UserError(f"{dataset.name} has no classes, one an example")
        if not self.names and len(dataset.class_names) != count:
            raise UserError(f"{dataset.name} does not name its classes: give names=[['zero', ...]]")
        for names in self.names:
            if len(names) != count:
                shown = ", ".join(names[:3])
                raise UserError(
                    f"names={shown}, ...: {len(names)} names, {dataset.name} has {count} classes"
                )
        own = tuple(str(name).replace("_", " ") for name in dataset.class_names)
        for names, template in itertools.product(self.names or (own,), self.templates):
            yield from (template.replace("{}", name) for name in names)

    def __call__(self, examples: Examples, uniform: np.ndarray | None) -> Examples:
        if "label" not in examples:  # images alone, of which somebody wants to know more
            return examples
        assert self.table is not None
        assert uniform is not None
        tokens, mask = self.table
        language, template = (uniform * tokens.shape[:2]).astype(int).T
        chosen = language, template, np.asarray(examples["label"])
        return {**examples, "tokens": tokens[chosen], "token_mask": mask[chosen]}


def add_tokenizer(dataset: Dataset, config: DataConfig, tokenizer: Any = None) -> Dataset:
    """The dataset with the tokenizer of `data.tokenizer` where an operation makes texts of its
    labels, which a tokenizer that learns learns from; another dataset as it is.

    Raises UserError as `Caption.write`.
    """
    found = [op for op in read_ops(config.transform) if isinstance(op, Caption)]
    if not found or dataset.tokenizer is not None:
        return dataset
    try:
        texts = list(found[0].write(dataset))
    except UserError as error:
        raise UserError(f"data.transform: caption: {error}") from None
    return dataclasses.replace(dataset, tokenizer=tokenizer or make_tokenizer(config, texts))
