"""A source with its settings, ready for prompts: batches, streams, stop strings, text."""

from __future__ import annotations

import bisect
import dataclasses
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from zoo.config import UserError
from zoo.generation.beams import Options, search
from zoo.generation.decode import State, advance, count_words, start
from zoo.generation.prompts import (
    Prompts,
    choose_lengths,
    crosses_over,
    encode_prompts,
    fit_new_tokens,
    pad_prompts,
)
from zoo.generation.settings import Settings, find_specials, make_rules
from zoo.generation.speculative import Pair, advance_drafted, start_drafted
from zoo.generation.stop import check_stop, find_stop, settle
from zoo.models import max_tokens
from zoo.models.decoder import Decoder
from zoo.pretrained import load_pretrained
from zoo.tree import unstack_layers

LOOK_EVERY = 8  # tokens between two looks for a stop string
Stream = Callable[[int, str], None]


@dataclass(frozen=True)
class Generation:
    """What was generated for a prompt."""

    text: str | None  # without the prompt and without a stop string; None without a tokenizer
    tokens: Int[np.ndarray, " n"]  # the end among them, where it came to one
    logprobs: Float[np.ndarray, " n"]  # natural logarithms under the model itself, before any rule
    reason: str  # why it ended: 'end', 'stop' or 'length'
    score: float  # of beams: log-probability / length ** length_penalty; else the sum of logprobs
    others: tuple[Generation, ...] = ()  # the rest of `num_return`, best first
    passes: int | None = None  # with a draft: of the model, over all rows that went on together


def open_source(source: Any) -> Any:
    """A loaded source. Raises UserError on a model that does not generate."""
    loaded = source if hasattr(source, "params") else load_pretrained(source)
    model, name = loaded.model, type(loaded.model).__name__
    if not isinstance(model, Decoder) and not crosses_over(model):
        head = getattr(model, "head", None)
        verb = "zoo fill" if head == "masked_lm" else "zoo predict or zoo embed"
        raise UserError(f"a model of class {name} does not generate text: use {verb}")
    if model.head != "lm":
        raise UserError(f"the source has the head {model.head!r}, generating needs 'lm'")
    return loaded


def choose_limit(settings: Settings, loaded: Any) -> Settings:
    """Of a run on pairs a text has by default as many tokens as its targets could have."""
    if settings.max_new_tokens is not None or not crosses_over(loaded.model):
        return settings
    recipe = loaded.card.recipe
    if recipe is None or recipe.task.name != "seq2seq":
        return settings
    most = max(recipe.data.length, settings.min_new_tokens)
    places = max_tokens(loaded.model)
    most = most if places is None else min(most, places - 1)
    return dataclasses.replace(settings, max_new_tokens=most)


def unroll(model: Any, params: Any) -> tuple[Any, Any]:
    """Model and parameters with layers of their own: a scan would copy the cache at every token."""
    if not model.scan_layers:
        return model, params
    return model.clone(scan_layers=False), unstack_layers(params)


def check_seed(seed: Any) -> int | list[int]:
    """A seed, or one a prompt, as ints of 64 bits. Raises UserError on anything else."""
    try:
        made = np.asarray([operator.index(one) for one in np.atleast_1d(seed)], np.int64)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"seed={seed!r} is no whole number of 64 bits, nor a row of them") from None
    return int(made[0]) if np.ndim(seed) == 0 else made.tolist()


def make_keys(seed: int | Sequence[int], prompts: Sequence[int], copies: Sequence[int]) -> Any:
    """One random key a row: of its prompt and its copy, or of its own seed and its copy."""
    places = np.array(prompts, np.uint32)
    if isinstance(seed, int):
        seeds = np.full(len(places), seed, np.int64)
    else:
        seeds, places = np.asarray(seed, np.int64)[places], 0 * places
    return _fold_keys(seeds.astype(np.uint32), places, np.array(copies, np.uint32))


@jax.jit
def _fold_keys(seeds: Any, places: Any, copies: Any) -> Any:
    def fold(seed: Any, place: Any, copy: Any) -> Any:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), place), copy)

    return jax.vmap(fold)(seeds, places, copies)


@dataclass(frozen=True)
class Batch:
    """Prompts worked on together, and the number of each among all."""

    rows: list[np.ndarray]
    numbers: list[int]

    @property
    def size(self) -> int:
        """Rows of the compiled program: a power of two."""
        return 1 << (len(self.rows) - 1).bit_length()


class Writer:
    """A source with settings, ready for prompts."""

    def __init__(self, source: Any, settings: Settings, draft: Any = None):
        loaded = open_source(source)
        self.settings, self.tokenizer = choose_limit(settings, loaded), loaded.tokenizer
        self.model, self.params = unroll(loaded.model, loaded.params)
        self.crosses = crosses_over(self.model)
        told = {**loaded.card.config, **loaded.card.generation}
        self.specials = find_specials(told, self.tokenizer, self.crosses)
        check_stop(settings.stop, self.tokenizer)
        self.pair = None if draft is None else self._open_draft(draft)

    def _open_draft(self, draft: Any) -> tuple[Pair, Pair]:
        """The models and the parameters of the source and a draft. Raises UserError on a draft of
        another kind or of other tokens."""
        if self.settings.num_beams > 1:
            raise UserError("a draft guesses one text, not beams: leave draft out, or num_beams")
        scaling = getattr(self.model, "rotary_scaling", None)
        if scaling is not None and scaling.kind == "dynamic":
            raise UserError("a draft and dynamic rotary positions, which change with every guess")
        loaded = open_source(draft)
        if crosses_over(loaded.model) != self.crosses:
            kinds = ["a decoder", "an encoder-decoder"]
            raise UserError(
                f"the draft is {kinds[not self.crosses]}, the source {kinds[self.crosses]}"
            )
        ours, theirs = count_words(self.model), count_words(loaded.model)
        if ours != theirs:
            raise UserError(
                f"the draft has {theirs:,} tokens, the source {ours:,}: a draft speaks in the same"
            )
        mine, other = self.tokenizer, loaded.tokenizer
        if mine is not None and other is not None and mine.to_json() != other.to_json():
            raise UserError("the draft's tokenizer is not the source's: a draft speaks in the same")
        model, params = unroll(loaded.model, loaded.params)
        return Pair(self.model, model), Pair(self.params, params)

    def write(
        self, prompts: Sequence[Any], seed: Any, batch_size: int, stream: Stream | None
    ) -> list[Generation]:
        """The generations of the prompts; those of like lengths are worked on together."""
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} should be at least 1")
        seed = check_seed(seed)
        if not isinstance(seed, int) and len(seed) != len(prompts):
            raise UserError(f"{len(seed)} seeds for {len(prompts)} prompts: give one, or one each")
        if stream is not None and self.settings.num_beams > 1:
            raise UserError("beams are known when all have ended: leave stream out, or num_beams")
        if stream is not None and self.settings.num_return > 1:
            raise UserError("a stream tells one text of a prompt: leave stream out, or num_return")
        if stream is not None and self.tokenizer is None:
            raise UserError("stream: the source has no tokenizer, so there is no text to tell")
        rows = encode_prompts(prompts, self.model, self.tokenizer)
        self.limit = self._fit_new_tokens(rows)
        vocabulary = count_words(self.model)
        self.rules = make_rules(self.settings, self.specials, vocabulary, self.limit)
        copies = self.settings.num_return if self.settings.num_beams == 1 else 1
        order = sorted(range(len(rows) * copies), key=lambda i: len(rows[i // copies]))
        made: dict[int, Generation] = {}
        for begin in range(0, len(order), batch_size):
            here = order[begin : begin + batch_size]
            batch = Batch([rows[i // copies] for i in here], [i // copies for i in here])
            keys = None
            if self.rules.temperature is not None:
                # The rows that fill a batch up are the last one again, as its prompt is.
                rows_of = [*here, *[here[-1]] * (batch.size - len(here))]
                keys = make_keys(
                    seed, [i // copies for i in rows_of], [i % copies for i in rows_of]
                )
            made |= zip(here, self._write_batch(batch, keys, stream), strict=True)
        groups = [[made[i * copies + j] for j in range(copies)] for i in range(len(rows))]
        return [dataclasses.replace(g[0], others=(*g[0].others, *g[1:])) for g in groups]

    def _write_batch(self, batch: Batch, keys: Any, stream: Stream | None) -> list[Generation]:
        length, room = self._choose_lengths(batch.rows)
        prompts = pad_prompts(batch.rows, length, batch.size, self.specials.begin)
        if self.settings.num_beams > 1:
            return self._search(batch, prompts, room)
        return self._decode(batch, self._start(prompts, keys, room), stream)

    def _fit_new_tokens(self, rows: Sequence[np.ndarray]) -> int:
        """How many there may be; with a draft, of both models."""
        limit = self._fit(rows, self.settings.max_new_tokens)
        if limit < self.settings.min_new_tokens:  # nobody said how many at most
            limit = self._fit(rows, self.settings.min_new_tokens)
        return limit

    def _fit(self, rows: Sequence[np.ndarray], asked: int | None) -> int:
        if self.pair is None:
            return fit_new_tokens(self.model, rows, asked)
        slack = self.settings.draft_tokens
        ours = fit_new_tokens(self.model, rows, asked, slack)
        try:
            return min(ours, fit_new_tokens(self.pair[0].draft, rows, asked, slack))
        except UserError as error:
            raise UserError(f"the draft: {error}") from None

    def _choose_lengths(self, rows: Sequence[np.ndarray]) -> tuple[int, int]:
        """Those of the bucket; with a draft, what both models have positions for."""
        if self.pair is None:
            return choose_lengths(self.model, rows, self.limit)
        needed = self.limit + self.settings.draft_tokens
        ours, theirs = (choose_lengths(model, rows, needed) for model in self.pair[0])
        return min(ours[0], theirs[0]), min(ours[1], theirs[1])

    def _start(self, prompts: Prompts, keys: Any, room: int) -> State:
        if self.pair is None:
            return start(self.model, self.params, self.rules, prompts, keys, room)
        return start_drafted(*self.pair, self.rules, prompts, keys, room)

    def _advance(self, state: State, limit: int) -> State:
        if self.pair is None:
            return advance(self.model, self.params, self.rules, state, limit, self.crosses)
        static = (self.settings.draft_tokens, self.crosses)
        return advance_drafted(*self.pair, self.rules, state, limit, *static)

    def _search(self, batch: Batch, prompts: Prompts, room: int) -> list[Generation]:
        """Beams, in one dispatch; stop strings are looked for in what came out."""
        settings = self.settings
        options = Options(np.int32(self.limit), np.float32(settings.length_penalty))
        static = (room, settings.num_beams, settings.early_stopping)
        ended = jax.device_get(
            search(self.model, self.params, self.rules, prompts, options, *static)
        )
        made = []
        for i, row in enumerate(batch.rows):
            best = [
                self._finish(row, ended.tokens[i, j, :n], ended.logprobs[i, j, :n], score)
                for j, n in enumerate(ended.lengths[i, : settings.num_return])
                if (score := float(ended.scores[i, j])) > -np.inf  # there may be fewer texts
            ]
            made.append(dataclasses.replace(best[0], others=tuple(best[1:])))
        return made

    def _decode(self, batch: Batch, state: State, stream: Stream | None) -> list[Generation]:
        """All in one dispatch, or with looks at the text between them."""
        limit, told = self.limit, [""] * len(batch.rows)
        ahead = 1 if self.pair is None else 1 + self.settings.draft_tokens
        stride = ahead if stream else LOOK_EVERY if self.settings.stop else limit
        for count in range(stride, limit + stride, stride):
            state = self._advance(state, min(count, limit))
            done = np.array(state.done)
            if stride < limit:
                texts = self._read_rows(batch, state)
                done[: len(texts)] |= [find_stop(t, self.settings.stop) is not None for t in texts]
                state = state._replace(done=done)
                ended = [bool(over) or count >= limit for over in done[: len(texts)]]
                told = self._tell(stream, batch, told, texts, ended)
            if done.all():
                break
        tokens, logprobs, lengths = jax.device_get((state.tokens, state.logprobs, state.lengths))
        passes = None if state.passes is None else int(state.passes)
        return [
            dataclasses.replace(
                self._finish(row, tokens[i, : lengths[i]], logprobs[i, : lengths[i]]), passes=passes
            )
            for i, row in enumerate(batch.rows)
        ]

    def _read_rows(self, batch: Batch, state: State) -> list[str]:
        """The text of each row so far."""
        tokens, lengths = jax.device_get((state.tokens, state.lengths))
        return [self.read(row, tokens[i, : lengths[i]]) for i, row in enumerate(batch.rows)]

    def _tell(
        self,
        stream: Stream | None,
        batch: Batch,
        told: list[str],
        texts: list[str],
        ended: list[bool],
    ) -> list[str]:
        """Passes on what is settled and not told yet; returns what is told now."""
        if stream is None:
            return told
        settled = [settle(t, self.settings.stop, e) for t, e in zip(texts, ended, strict=True)]
        for number, before, now in zip(batch.numbers, told, settled, strict=True):
            if len(now) > len(before):
                stream(number, now[len(before) :])
        return settled

    def read(self, prompt: np.ndarray, tokens: np.ndarray) -> str:
        """The text of tokens that follow a prompt (SentencePiece: a first space is kept)."""
        if self.crosses:
            return self.tokenizer.decode(tokens)
        before = self.tokenizer.decode(prompt)
        whole = self.tokenizer.decode([*prompt, *tokens])
        return whole[len(before) :] if whole.startswith(before) else self.tokenizer.decode(tokens)

    def _finish(
        self, prompt: np.ndarray, tokens: Any, logprobs: Any, score: float | None = None
    ) -> Generation:
        """Cuts a row where a stop string is complete; the score of a beam is of all of it."""
        stop, text = self.settings.stop, None
        reason = "end" if len(tokens) and tokens[-1] in self.specials.ends else "length"
        if self.tokenizer is not None:
            text = self.read(prompt, tokens)
            place = find_stop(text, stop)
            if place is not None:
                counts = range(len(tokens) + 1)
                holds = lambda n: find_stop(self.read(prompt, tokens[:n]), stop) is not None  # noqa: E731
                count = bisect.bisect_left(counts, True, key=holds)
                text, reason = text[:place], "stop"
                tokens, logprobs = tokens[:count], logprobs[:count]
        score = float(np.sum(logprobs)) if score is None else score
        return Generation(text, tokens, logprobs, reason, score)
