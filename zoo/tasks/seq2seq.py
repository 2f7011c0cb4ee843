"""A target from a source, each token from those before it: translation, and T5's spans."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zoo.config import UserError
from zoo.tasks.cross_entropy import is_best, score_tokens
from zoo.tasks.supervised import argument, call_model, init_model


@dataclass(frozen=True)
class SequenceToSequence:
    """Softmax cross-entropy of each real token of `target` `[b, t]`, its end token among them,
    given `source` `[b, s]` and the tokens before it; `source_mask` and `target_mask` are true where
    a token is.

    The decoder reads the target behind `begin`, by default the token that the weights of
    `init_from` begin with, else what the tokenizer names (`choose_begin`). `label_smoothing` is the
    share of the target that is spread over all tokens alike (Szegedy et al. 2016; 0.1 in Vaswani et
    al. 2017, 0 in T5): of what is trained on, in no metric. Metrics are the loss in nats a token,
    perplexity, the accuracy of tokens, all with the true tokens before each, and bits a byte where
    the tokenizer tells its bytes.
    """

    head: ClassVar[str] = "lm"  # of models that have several

    model: nn.Module
    token_bytes: np.ndarray | None
    end: int
    begin: int | None = argument(None)
    label_smoothing: float = argument(0.0)

    @staticmethod
    def num_outputs(info: Any) -> int:
        """The vocabulary. Raises UserError when the data is no text."""
        if info.tokenizer is None:
            raise UserError(f"task.name='seq2seq', but {info.name} is no text")
        return info.tokenizer.vocab_size

    @classmethod
    def create(
        cls, model: nn.Module, info: Any, begin: int | None = None, label_smoothing: float = 0.0
    ) -> SequenceToSequence:
        """Raises UserError on arguments out of their range, and where no token can begin."""
        size = cls.num_outputs(info)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"task.arguments.label_smoothing={label_smoothing} is not in [0, 1)")
        if begin is None:
            begin = choose_begin(info.tokenizer)
        if begin is None or info.tokenizer.end is None:
            raise UserError(
                "the tokenizer has no token that targets begin or end with "
                "(data.tokenizer='bpe:8000' has one)"
            )
        places = int(
            getattr(model, "target_vocab_size", None) or getattr(model, "vocab_size", None) or size
        )
        if not 0 <= begin < places:
            raise UserError(f"task.arguments.begin={begin}: tokens are 0 to {places - 1} here")
        return cls(model, info.tokenizer.token_bytes, info.tokenizer.end, begin, label_smoothing)

    @property
    def special_tokens(self) -> dict[str, int]:
        """What generation has to know, as config.json of transformers names it."""
        assert self.begin is not None
        return {"decoder_start_token_id": self.begin, "eos_token_id": self.end}

    def init(self, key: jax.Array) -> dict[str, Any]:
        return init_model(self.model, key)

    def loss(
        self, params: Any, batch: dict[str, Any], key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Summed cross-entropy, in training smoothed; `weight` counts targets."""
        logits, counts = self._run(params, batch, key), count_targets(batch)
        losses, log_z = score_tokens(logits, batch["target"])
        correct = is_best(logits, batch["target"])
        sums = {"loss": (losses * counts).sum(), "correct": (correct * counts).sum()}
        sums["weight"] = counts.sum()
        if self.token_bytes is not None:
            sums["bytes"] = self._count_bytes(batch, counts).sum()
        loss_sum = sums["loss"]
        if key is not None and self.label_smoothing:
            share = self.label_smoothing
            spread = log_z - logits.mean(axis=-1)  # the loss of a target that is all tokens alike
            loss_sum = (1 - share) * loss_sum + share * (spread * counts).sum()
        return loss_sum, sums

    def _run(self, params: Any, batch: dict[str, Any], key: jax.Array | None) -> jax.Array:
        """Logits `[b, t, v]` of each token of the target."""
        begin = jnp.full_like(batch["target"][:, :1], self.begin)
        target = jnp.concatenate([begin, batch["target"][:, :-1]], axis=1)
        # No mask of the target: what is filled up lies behind it, where the decoder does not look.
        more = {"target": target, "source_mask": batch["source_mask"]}
        return call_model(self.model, params, batch["source"], key, **more)[0]

    def _count_bytes(self, batch: dict[str, Any], counts: jax.Array) -> jax.Array:
        """Bytes that each target stands for, `[b, t]`."""
        return jnp.asarray(self.token_bytes, jnp.float32)[batch["target"]] * counts

    def observe(self, params: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
        """Of each row `loss`, in nats summed over its targets, `num_tokens`, how many they are,
        `num_correct`, how many of them are the likeliest token, and `num_bytes`, what they stand
        for, where the tokenizer tells."""
        logits, counts = self._run(params, batch, None), count_targets(batch)
        losses, _ = score_tokens(logits, batch["target"])
        out = {"loss": (losses * counts).sum(axis=1), "num_tokens": counts.sum(axis=1)}
        out["num_correct"] = (is_best(logits, batch["target"]) * counts).sum(axis=1)
        if self.token_bytes is not None:
            out["num_bytes"] = self._count_bytes(batch, counts).sum(axis=1)
        return out

    def summarise(self, sums: dict[str, Any]) -> dict[str, float]:
        loss = float(sums["loss"] / sums["weight"])
        out = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        out["accuracy"] = float(sums["correct"] / sums["weight"])
        if "bytes" in sums:
            out["bits_per_byte"] = float(sums["loss"] / sums["bytes"].clip(1) / math.log(2))
        return out

    def predict(self, params: Any, batch: dict[str, Any]) -> jax.Array:
        """The likeliest token at each place of `target`, `[b, t]`, given the true ones before it;
        `zoo.generate` writes whole targets."""
        return self._run(params, batch, None).argmax(-1)


def choose_begin(tokenizer: Any) -> int | None:
    """The token that targets begin with: the first there is of those that begin a text, fill a row
    up (T5, Marian) and end a text (byte-level BPE has no other)."""
    known = (getattr(tokenizer, name, None) for name in ("begin", "pad", "end"))
    return next((token for token in known if token is not None), None)


def count_targets(batch: dict[str, Any]) -> jax.Array:
    """1 where a target counts, `[b, t]`: a real token of a real row."""
    return batch["target_mask"] * batch["mask"].astype(jnp.float32)[:, None]
