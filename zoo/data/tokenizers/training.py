"""Learning a tokenizer from texts: byte-level BPE, WordPiece, Unigram.

The same texts give the same tokenizer. The `tokenizers` library walks through hash tables in an
order that differs from run to run; where that would show, what it depends on is set in order here.
"""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

from zoo.config import UserError
from zoo.data.tokenizers.files import from_wordpiece_vocab, make_byte_level
from zoo.data.tokenizers.json_tokenizer import END_OF_TEXT, SPACE, JsonTokenizer

BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
T5_TOKENS = ("<pad>", "</s>", "<unk>")
MOST_CHARACTERS = 1000  # of a WordPiece alphabet, as in BERT's own
_PENALTY = 1e-4  # between the scores of characters that no piece was learned for


def train_bpe(texts: Iterable[str], vocab_size: int) -> JsonTokenizer:
    """Byte-level BPE as in GPT-2 (Radford et al. 2019), learned from texts."""
    from tokenizers import models, pre_tokenizers, trainers

    backend = make_byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(iter(texts), trainer)
    return JsonTokenizer(backend.to_str())


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> JsonTokenizer:
    """WordPiece with BERT's special tokens, template and lower-casing (Devlin et al. 2019).

    `texts` are read twice. The pieces are merged by their counts, as in BPE. Raises UserError when
    the characters alone are more than `vocab_size`.
    """
    from tokenizers import Tokenizer, models, trainers

    like = json_backend(from_wordpiece_vocab("[UNK]", {}))
    backend: Any = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = like.normalizer, like.pre_tokenizer
    first, later = find_characters(texts, backend)
    # Given as special tokens, the characters have ids in their order, not in a hash table's.
    known = [*BERT_TOKENS, *first, *(f"##{c}" for c in later)]
    if len(known) > vocab_size:
        raise UserError(
            f"a vocabulary of {vocab_size} tokens is too small for the {len(known)} characters and "
            "special tokens of these texts"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=known,
        initial_alphabet=first,
        limit_alphabet=len(first),
        show_progress=False,
    )
    backend.train_from_iterator(iter(texts), trainer)
    ids = backend.get_vocab()
    return from_wordpiece_vocab("\n".join(sorted(ids, key=ids.__getitem__)), {})


def find_characters(texts: Iterable[str], backend: Any) -> tuple[list[str], list[str]]:
    """The most frequent characters of normalised texts, sorted: all, and those inside words."""
    counts: collections.Counter[str] = collections.Counter()
    pairs: set[tuple[str, str]] = set()
    for text in texts:
        normal = backend.normalizer.normalize_str(text)
        counts.update(normal)
        pairs.update(itertools.pairwise(normal))
    split = backend.pre_tokenizer.pre_tokenize_str
    words = [c for c in counts if split(c)]  # no white space
    frequent = sorted(words, key=lambda c: (-counts[c], c))[:MOST_CHARACTERS]
    joined = {b for a, b in pairs if len(split(a + b)) == 1 and split(a) and split(b)}
    return sorted(frequent), sorted(joined.intersection(frequent))


def train_unigram(texts: Iterable[str], vocab_size: int, sentinels: int = 0) -> JsonTokenizer:
    """Unigram (Kudo 2018) with T5's special tokens and template (Raffel et al. 2020).

    White space counts as one space. `sentinels` are added behind the `vocab_size` tokens,
    `<extra_id_0>` last, as in T5. Raises UserError when the texts have too few words for it.
    """
    import tokenizers
    from tokenizers import (
        Regex,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    backend: Any = tokenizers.Tokenizer(models.Unigram())
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), *spaces])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    backend.decoder = decoders.Metaspace(SPACE, prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=list(T5_TOKENS),
        unk_token="<unk>",
        show_progress=False,
    )
    try:
        backend.train_from_iterator(iter(texts), trainer)
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"no Unigram vocabulary of {vocab_size} tokens: {error}") from None
    pieces = set_in_order(json.loads(backend.to_str())["model"]["vocab"])
    vocab = [*((token, 0.0) for token in T5_TOKENS), *pieces]
    backend.model = models.Unigram(vocab, T5_TOKENS.index("<unk>"), False)
    backend.add_special_tokens(list(T5_TOKENS))
    backend.add_special_tokens([f"<extra_id_{i}>" for i in reversed(range(sentinels))])
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", T5_TOKENS.index("</s>"))]
    )
    return JsonTokenizer(json.dumps(json.loads(backend.to_str())))


def set_in_order(vocab: list[Any]) -> list[tuple[str, float]]:
    """The learned pieces, the best first, equally good ones by their text.

    The library gives characters that no piece was learned for the lowest score plus 0, 1, 2 ...
    times a small penalty, in an order of its own, and sums in any order: that is undone.
    """
    scores = {text: score for text, score in vocab if text not in T5_TOKENS}
    lowest = min(scores.values(), default=0.0)
    leftover = []
    for text, score in scores.items():
        place = (score - lowest) / _PENALTY
        if len(text) == 1 and place < len(scores) and abs(place - round(place)) < 1e-6:
            leftover.append(text)
    scores |= {text: lowest + _PENALTY * i for i, text in enumerate(sorted(leftover))}
    rounded = ((text, round(score, 6)) for text, score in scores.items())
    return sorted(rounded, key=lambda piece: (-piece[1], piece[0]))


def json_backend(tokenizer: JsonTokenizer) -> Any:
    """A `tokenizers.Tokenizer` of one's own to change."""
    import tokenizers

    return tokenizers.Tokenizer.from_str(tokenizer.to_json())


TRAINERS: dict[str, Callable[..., JsonTokenizer]] = {
    "bpe": train_bpe,
    "wordpiece": train_wordpiece,
    "unigram": train_unigram,
}


def train_tokenizer(
    kind: str, texts: Iterable[str], vocab_size: int, sentinels: int = 0
) -> JsonTokenizer:
    """A tokenizer of this kind; `texts` are read more than once.

    Raises UserError on a size that is too small, and on sentinels of another kind than unigram.
    """
    least = 257 if kind == "bpe" else 10  # bytes and the end
    if vocab_size < least:
        raise UserError(f"a {kind} tokenizer of {vocab_size} tokens: {least} are the least")
    if kind == "unigram":
        return train_unigram(texts, vocab_size, sentinels)
    if sentinels:
        raise UserError(f"sentinels are for unigram, not for {kind}")
    return TRAINERS[kind](texts, vocab_size)
