"""What a run leaves in the hands of who started it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from zoo.config import UserError
from zoo.data import ArraySource, array_inputs, read_eval
from zoo.data.token_sources import pad_rows
from zoo.parallel import place_batch
from zoo.train.build import Parts
from zoo.train.seeds import Spread


@dataclass(frozen=True)
class Result:
    """A trained model.

    `params` are those that were evaluated (the average where there is one); `metrics` are the last
    of each split; `history` the rows this process wrote. Of several seeds `params` are those of
    the first, `metrics` the means, and `spreads` has values, deviation and interval of each metric.
    """

    model: nn.Module
    params: Any
    metrics: dict[str, dict[str, float]]
    history: list[dict[str, Any]]
    parts: Parts
    _all_params: Any = field(repr=False)  # also of what stands beside the model
    spreads: dict[str, dict[str, Spread]] = field(default_factory=dict)  # of each split measured

    def predict(self, inputs: Any) -> np.ndarray:
        """Predictions for inputs like those trained on: probabilities `[n, c]` or values `[n, k]`.

        `inputs` is `[n, y, x(, ch)]` or `[n, d]`, before any operation of `data.eval_transform`; of
        a model of labelled texts, strings or pairs of them; of one that writes text, tokens
        `[n, t]`, whose next one is predicted. Raises UserError on inputs of another kind or shape.
        """
        if self.parts.config.task.name == "seq2seq":
            raise UserError("the run answers texts: zoo.generate(WORKDIR, texts)")
        if not hasattr(self.parts.task, "predict"):
            name = self.parts.config.task.name
            raise UserError(f"a run of {name} predicts nothing of an input by itself")
        if "token_mask" in self.parts.dataset.shapes:
            return self._predict(self._encode(inputs))
        if self.parts.dataset.tokenizer:
            return self._predict({"tokens": np.asarray(inputs, np.int32)})
        arrays = array_inputs(inputs)
        for name, values in arrays.items():
            wanted = self.parts.dataset.shapes.get(name)
            if wanted != values.shape[1:]:
                raise UserError(
                    f"predict was given {name} of shape {values.shape[1:]}, not {wanted}"
                )
        return self._predict(arrays)

    def _encode(self, inputs: Any) -> dict[str, np.ndarray]:
        """Texts, or pairs of them, as rows like those trained on; what is too long is cut."""
        dataset = self.parts.dataset
        if len(dataset.shapes["tokens"]) > 1:
            raise UserError("the run chooses between answers, which predict does not")
        pair, length = "types" in dataset.shapes, dataset.shapes["tokens"][0]
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        fits = [
            (isinstance(x, (tuple, list)) and len(x) == 2 and all(isinstance(s, str) for s in x))
            if pair
            else isinstance(x, str)
            for x in texts
        ]
        if not texts or not all(fits):
            raise UserError(f"predict takes {'pairs of texts' if pair else 'texts'} here")
        rows, marks = dataset.tokenizer.encode_rows(
            [tuple(x) for x in texts] if pair else texts, length
        )
        return pad_rows(rows, marks, length, pair)

    def _predict(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        parts, out = self.parts, []
        for batch in read_eval(
            ArraySource(arrays), parts.eval_ops, parts.eval_batch_size, parts.eval_rows
        ):
            placed = place_batch(batch, parts.programs.batch_sharding)
            out.append(jax.device_get(parts.programs.predict(self._all_params, placed)))
        return np.concatenate(out)[: len(next(iter(arrays.values())))]
