"""From text to tokens: what becomes of the text fields of a dataset.

By the fields that are there:

- `text` alone is a corpus: windows of one long row of tokens, or packed documents.
- `text` (and `text_pair`) with a label: rows for an encoder.
- `source` and `target`: pairs for an encoder-decoder.
- `prompt` and `completion`: rows for a decoder, in which only the completion is a target.
- `words`, `question` and `context`, `question` and `choices`: see zoo/data/annotated.py.

The tokens are made once, into a file of the cache named after the text and the tokenizer.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.config import DataConfig, UserError
from zoo.data import annotated
from zoo.data.buckets import Buckets, make_buckets
from zoo.data.documents import CorpusPart
from zoo.data.packing import pack_tokens
from zoo.data.sources import Dataset, Source, hash_tokenizer
from zoo.data.token_annotations import TokenSpans
from zoo.data.token_file import (
    LISTS,
    Encode,
    TokenFile,
    flatten,
    hash_texts,
    make_token_file,
    read_texts,
)
from zoo.data.token_sources import TokenPairs, TokenPrompts, TokenRows, TokenWindows
from zoo.data.tokenizers import Tokenizer, is_file, make_tokenizer

KINDS = (
    *annotated.KINDS,
    ("source", "target"),
    ("prompt", "completion"),
    ("text", "text_pair"),
    ("text",),
)
WIDE = 2**32  # numbers that are no tokens lie in the file too


def find_text(dataset: Dataset) -> tuple[str, ...]:
    """The text fields that are turned into tokens; none where there are none."""
    first = dataset.splits["train"].take(np.array([0]))
    texts = [
        name
        for name, values in first.items()
        if isinstance(values[0], str | (list | tuple) if name in LISTS else str)
    ]
    return next((kind for kind in KINDS if set(kind) <= set(texts)), ())


@dataclass(frozen=True)
class Texts:
    """The texts of some sources, one by one, as often as they are asked for."""

    sources: Sequence[Source]
    fields: Sequence[str]

    def __iter__(self) -> Iterator[str]:
        for source in self.sources:
            for chunk in read_texts(source, self.fields):
                for texts in chunk:
                    yield from (" ".join(texts),) if self.fields == ("words",) else flatten(texts)


def learn_tokenizer(datasets: Sequence[Dataset], config: DataConfig) -> Tokenizer:
    """The tokenizer of `data.tokenizer` for datasets of text with the same fields; it learns from
    the training texts, 'chars' from all. A synthetic twin needs no files: one that is read from
    files becomes that of bytes."""
    if config.source.startswith("synthetic:") and (
        config.tokenizer in ("gpt2", "init_from") or is_file(config.tokenizer)
    ):
        config = dataclasses.replace(config, tokenizer="bytes")
    splits = [s for d in datasets for s in (d.splits if config.tokenizer == "chars" else ["train"])]
    sources = [d.splits[s] for d in datasets for s in d.splits if s in splits]
    return make_tokenizer(config, Texts(sources, find_text(datasets[0])))


def encode_text(
    dataset: Dataset, config: DataConfig, tokenizer: Tokenizer | None = None
) -> Dataset:
    """The dataset with tokens in the place of its text, or as it is where it has none.

    Raises UserError where settings do not fit the kind of text, a split is too short, or the cache
    cannot be written.
    """
    fields = find_text(dataset)
    if not fields:
        return dataset
    corpus = fields == ("text",) and "label" not in dataset.shapes
    windows = corpus or "context" in fields
    for key, fits in (("packing", corpus), ("stride", windows), ("buckets", not corpus)):
        if getattr(config, key) and not fits:
            kind = "rows of one length" if corpus else f"{' and '.join(fields)}, no corpus"
            raise UserError(f"data.{key}: {dataset.name} is {kind}")
    if tokenizer is None:
        tokenizer = learn_tokenizer([dataset], config)
    encoder = _Encoder(dataset, config, tokenizer, fields)
    return encoder.encode_corpus() if corpus else encoder.encode_examples()


class _Encoder:
    """One dataset on its way from text to tokens."""

    def __init__(
        self, dataset: Dataset, config: DataConfig, tokenizer: Tokenizer, fields: tuple[str, ...]
    ):
        self.dataset, self.config, self.tokenizer, self.fields = dataset, config, tokenizer, fields
        self.identity = hash_tokenizer(tokenizer)
        self.digest = hashlib.sha256(self.identity.encode())
        self.notes: list[str] = []
        self.files: dict[int, TokenFile] = {}  # the parts of one text share its tokens

    def _make_file(
        self,
        source: Source,
        fields: Sequence[str],
        encode: Encode,
        content: str,
        kind: str = "",
        most: int = 0,
    ) -> TokenFile:
        """The file in the cache; `most` is above its numbers where these are not tokens alone."""
        key = f"{content[:24]}-{self.identity[:24]}{kind}"
        most = max(most, self.tokenizer.vocab_size)
        return make_token_file(source, fields, encode, most, key, self.config)

    def encode_corpus(self) -> Dataset:
        """Windows, or packed documents; of a mixture and other sources of several, each alone."""
        splits = {
            split: each_part(source, functools.partial(self._encode_documents_of, split))
            for split, source in self.dataset.splits.items()
        }
        return self._finish(splits)

    def _encode_documents_of(self, split: str, source: Source) -> Source:
        length, root = self.config.length, source
        while isinstance(root, CorpusPart):
            root = root.documents
        if id(root) not in self.files:
            content = hash_texts(root, ["text"])
            self.digest.update(f"{split}:{content}".encode())
            file = self._make_file(root, ["text"], self._encode_documents, content)
            self.files[id(root)] = file
        tokens = cut_part(source, self.files[id(root)])
        if self.config.packing:
            packed = pack_tokens(tokens, length, self.config)
            self.notes.append(
                f"split {split!r}: {packed.num_pieces:,} documents (or pieces of them) in "
                f"{len(packed):,} rows of {length:,} tokens, {packed.efficiency:.1%} filled"
            )
            enough = len(packed) > 0
        else:
            enough = len(tokens) > length
        if not enough:
            raise UserError(
                f"{self.dataset.name}: split {split!r} has {len(tokens)} tokens, too few for a "
                f"window of data.length={length}"
            )
        if self.config.packing:
            return packed
        train = split == "train"
        return (
            TokenWindows(tokens, length, self.config.stride or length, True)
            if train
            else (TokenWindows(tokens, length, length, False))
        )

    def encode_examples(self) -> Dataset:
        """Rows, pairs or prompts, split by split; of a mixture, source by source."""
        splits = {}
        for split, source in self.dataset.splits.items():
            encode = functools.partial(self._encode_examples_of, split)
            mixed = hasattr(source, "make_order")
            splits[split] = each_part(source, encode) if mixed else encode(source)
        return self._finish(splits)

    def _encode_examples_of(self, split: str, source: Source) -> Source:
        make: Callable[[str, Source], tuple[Any, np.ndarray]] = {
            "source": self._make_pairs,
            "prompt": self._make_prompts,
            "text": self._make_rows,
            "words": self._make_tags,
            "context": self._make_spans,
            "choices": self._make_choices,
        }[next(f for f in ("context", "choices", self.fields[0]) if f in self.fields)]
        others = gather_others(source)
        for name, values in others.items():
            self.digest.update(f"{split}:{name}:{values.dtype}:{values.shape}".encode())
            self.digest.update(np.ascontiguousarray(values).tobytes())
        examples, sizes = make(split, source)
        if isinstance(examples, TokenSpans):
            others = {name: values[examples.owners] for name, values in others.items()}
        buckets: Buckets | None = None
        if self.config.buckets and split == "train":
            buckets = make_buckets(sizes, self.config.buckets, self.config)
        return dataclasses.replace(examples, others=others, buckets=buckets)

    def _finish(self, splits: dict[str, Source]) -> Dataset:
        return dataclasses.replace(
            self.dataset,
            splits=splits,
            fingerprint=self.digest.hexdigest(),
            tokenizer=self.tokenizer,
            notes=(*self.dataset.notes, *self.notes),
        )

    def _hash(self, split: str, source: Source, fields: Sequence[str]) -> str:
        content = hash_texts(source, fields)
        self.digest.update(f"{split}:{','.join(fields)}:{content}".encode())
        return content

    def _make_rows(self, split: str, source: Source) -> tuple[TokenRows, np.ndarray]:
        length = self.config.length
        content = self._hash(split, source, self.fields)

        def encode(chunk: list[Any]) -> tuple[Sequence[np.ndarray], Sequence[int]]:
            return self.tokenizer.encode_rows(chunk, length)

        file = self._make_file(source, self.fields, encode, content, f"-rows{length}")
        pair, sizes = len(self.fields) > 1, np.diff(file.offsets)
        if full := int((sizes >= length).sum()):
            self.notes.append(
                f"split {split!r}: {full:,} of {len(sizes):,} texts fill all {length} tokens of "
                "data.length, what is longer is cut"
            )
        return TokenRows(length, {}, None, file, pair), sizes

    def _make_pairs(self, split: str, source: Source) -> tuple[TokenPairs, np.ndarray]:
        length, end = self.config.length, self.tokenizer.end
        if end is None:
            raise UserError(
                f"data.tokenizer={self.config.tokenizer!r} has no end token, which targets need"
            )

        def with_end(chunk: list[Any]) -> tuple[Sequence[np.ndarray], Sequence[int]]:
            rows = self.tokenizer.encode_batch(chunk)
            return [np.append(row[: length - 1], end) for row in rows], [0] * len(rows)

        def in_template(chunk: list[Any]) -> tuple[Sequence[np.ndarray], Sequence[int]]:
            return self.tokenizer.encode_rows(chunk, length)

        files = []
        for field in self.fields:
            template = field == "source" and self.tokenizer.has_template
            encode = in_template if template else with_end
            content = self._hash(split, source, [field])
            kind = f"-{'rows' if template else 'ended'}{length}"
            files.append(self._make_file(source, [field], encode, content, kind))
        sizes = np.maximum(*(np.diff(file.offsets) for file in files))
        return TokenPairs(length, {}, None, *files), sizes

    def _make_prompts(self, split: str, source: Source) -> tuple[TokenPrompts, np.ndarray]:
        length = self.config.length
        content = self._hash(split, source, self.fields)
        begin = find_begin(self.tokenizer)

        def encode(chunk: list[Any]) -> tuple[Sequence[np.ndarray], Sequence[int]]:
            prompts = self.tokenizer.encode_batch([prompt for prompt, _ in chunk])
            completions = self._encode_documents([completion for _, completion in chunk])[0]
            return join_prompts([*zip(prompts, completions, strict=True)], begin, length + 1)

        file = self._make_file(source, self.fields, encode, content, f"-prompts{length}")
        return TokenPrompts(length, {}, None, file), np.diff(file.offsets) - 1

    def _make_tags(self, split: str, source: Source) -> tuple[Any, np.ndarray]:
        length, content = self.config.length, self._hash(split, source, self.fields)
        encode = annotated.encode_words(self.tokenizer, length)
        file = self._make_file(source, self.fields, encode, content, f"-words{length}", WIDE)
        count = self.dataset.num_classes or 0
        return self._with_note(annotated.make_tags(source, file, length, split, count), file, 2)

    def _make_spans(self, split: str, source: Source) -> tuple[Any, np.ndarray]:
        length, stride = self.config.length, self.config.stride
        if stride and stride >= length:
            raise UserError(
                f"data.stride={stride}: windows of data.length={length} tokens would leave out "
                "what lies between them (default: half of what fits)"
            )
        content = self._hash(split, source, self.fields)
        encode = annotated.encode_contexts(self.tokenizer, length, stride)
        kind = f"-windows{length}-{stride or 'half'}"
        file = self._make_file(source, self.fields, encode, content, kind, WIDE)
        return self._with_note(annotated.make_spans(source, file, length, split), file, 3)

    def _with_note(
        self, made: tuple[Any, str], file: TokenFile, lines: int
    ) -> tuple[Any, np.ndarray]:
        examples, note = made
        self.notes += [note] if note else []
        for values in examples.identity:
            self.digest.update(np.ascontiguousarray(values).tobytes())
        return examples, np.diff(file.offsets) // lines

    def _make_choices(self, split: str, source: Source) -> tuple[Any, np.ndarray]:
        length, fields = self.config.length, self.fields

        def make_file() -> TokenFile:
            content = self._hash(split, source, fields)
            encode = annotated.encode_choices(self.tokenizer, length)
            return self._make_file(source, fields, encode, content, f"-choices{length}")

        made = annotated.make_choices(source, make_file, length, gather_others(source)["label"])
        sizes = np.diff(made.rows.tokens.offsets).reshape(-1, made.num_choices)
        return made, sizes.max(axis=1)

    def _encode_documents(self, chunk: list[str]) -> tuple[list[np.ndarray], list[int]]:
        """Texts, each with the end token behind it where there is one."""
        rows = self.tokenizer.encode_batch(chunk)
        if self.tokenizer.end is not None:
            rows = [np.append(row, self.tokenizer.end) for row in rows]
        return rows, [0] * len(rows)


def each_part(source: Source, encode: Callable[[Source], Source]) -> Source:
    """A source that is made of `sources` (a mixture) around the encoded ones; another encoded."""
    parts = getattr(source, "sources", None)
    if parts is None:
        return encode(source)
    made: Any = source
    return dataclasses.replace(made, sources=tuple(each_part(part, encode) for part in parts))


def cut_part(source: Source, tokens: TokenFile) -> TokenFile:
    """The tokens of a corpus, or of the part that a source is of it."""
    if not isinstance(source, CorpusPart):
        return tokens
    whole = cut_part(source.documents, tokens)
    cut = len(whole) - round(len(whole) * source.fraction)
    return whole.part(cut, len(whole)) if source.held else whole.part(0, cut)


def gather_others(source: Source) -> dict[str, np.ndarray]:
    """The fields that are no text, whole."""
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(source), 4096):
        examples = source.take(np.arange(start, min(start + 4096, len(source))))
        texts = {*annotated.BESIDE, *(name for kind in KINDS for name in kind)}
        parts.append({k: np.asarray(v) for k, v in examples.items() if k not in texts})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def find_begin(tokenizer: Tokenizer) -> np.ndarray:
    """The token that the tokenizer's template puts before a text, `[1]`, or `[0]` of none."""
    around = tokenizer.encode_rows([""], 8)[0][0] if tokenizer.has_template else np.zeros(0, int)
    begins = len(around) > 0 and tokenizer.begin is not None and around[0] == tokenizer.begin
    return around[:1] if begins else around[:0]


def join_prompts(
    rows: Sequence[tuple[np.ndarray, np.ndarray]], begin: np.ndarray, room: int
) -> tuple[list[np.ndarray], list[int]]:
    """Prompts and completions in rows of at most `room` tokens, and where completions begin.

    Too long a prompt loses its beginning; a completion that leaves no room for a token before it,
    its end.
    """
    joined, marks = [], []
    for prompt, completion in rows:
        kept = completion[: room - 1]
        left = room - len(kept)
        first = begin[: left - min(len(prompt), 1)]  # a token of the prompt itself comes first
        fits = left - len(first)
        before = np.concatenate([first, prompt[max(len(prompt) - fits, 0) :]])
        joined.append(np.concatenate([before, kept]).astype(np.int32))
        marks.append(len(before))
    return joined, marks
