"""The tokenizer that lies beside weights."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from zoo.config import UserError
from zoo.data.tokenizers import JsonTokenizer, from_gpt2_files, read_tokenizer
from zoo.pretrained.sources import read_json

PAD_SIGLIP = (
    "tokenizer: SigLIP reads a text's last place: pad texts to all of num_positions with the "
    "tokenizer's padding token and give no mask, batch() does not"
)


def find_tokenizer(folder: epath.Path, config: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """(tokenizer or None, lines for the report): tokenizer.json, GPT-2's pair, BERT's vocab.txt.

    Raises UserError on a file that is none.
    """
    try:
        kind = config.get("model_type")
        tokenizer, told = _read_tokenizer(folder, kind)
        if tokenizer is not None and str(kind).startswith("siglip"):
            told = (*told, PAD_SIGLIP)
        return tokenizer, told
    except UserError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{folder}: no tokenizer can be made of its vocabulary: {line}") from None


def _read_tokenizer(folder: epath.Path, kind: Any) -> tuple[Any, tuple[str, ...]]:
    if (folder / "tokenizer.json").exists():
        return read_tokenizer(folder), ()
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        parts = [(folder / name).read_text() for name in ("vocab.json", "merges.txt")]
        if str(kind).startswith("clip"):
            return from_clip_files(*parts), ()
        return from_gpt2_files(*parts), ()
    if (folder / "vocab.txt").exists() and kind == "bert":
        told = folder / "tokenizer_config.json"
        settings = read_json(told) if told.exists() else {}
        return from_wordpiece_vocab((folder / "vocab.txt").read_text(), settings), ()
    for name in ("spiece.model", "tokenizer.model", "vocab.txt"):
        if (folder / name).exists():
            return None, (f"{name}: not read as a tokenizer; a tokenizer.json would be",)
    return None, ()


def from_clip_files(vocab: str, merges: str) -> JsonTokenizer:
    """CLIP's tokenizer (Radford et al. 2021): bytes of lower-cased words, each ended by '</w>'.

    Texts are cleaned as transformers does it (NFC, white space), not by OpenAI's `ftfy`.
    """
    import tokenizers
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

    ids, start, end = json.loads(vocab), "<|startoftext|>", "<|endoftext|>"
    pairs = [(a, b) for a, _, b in (x.partition(" ") for x in merges.splitlines()[1:]) if b]
    backend = tokenizers.Tokenizer(models.BPE(ids, pairs, end_of_word_suffix="</w>", unk_token=end))
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    backend.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.NFC(), spaces, normalizers.Lowercase()]
    )
    # Contractions, words, single digits, other signs.
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    backend.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # The end of a word is a space of the text.
    backend.decoder = decoders.Sequence(  # type: ignore[assignment]
        [
            decoders.ByteLevel(),
            decoders.Replace(Regex("</w>$"), ""),
            decoders.Replace("</w>", " "),
        ]
    )
    backend.add_special_tokens([start, end])
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{start} $A {end}",
        special_tokens=[(start, ids[start]), (end, ids[end])],
    )
    return JsonTokenizer(json.dumps(json.loads(backend.to_str())))


def from_wordpiece_vocab(vocab: str, settings: dict[str, Any]) -> JsonTokenizer:
    """BERT's tokenizer (Devlin et al. 2019) from vocab.txt and tokenizer_config.json."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    # Not `splitlines`: a token may be a line separator of Unicode's.
    ids = {token: i for i, token in enumerate(vocab.removesuffix("\n").split("\n"))}
    backend = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    lower = bool(settings.get("do_lower_case", True))
    backend.normalizer = normalizers.BertNormalizer(  # type: ignore[assignment]
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
        lowercase=lower,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    backend.decoder = decoders.WordPiece()  # type: ignore[assignment]
    backend.add_special_tokens(
        [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in ids]
    )
    if "[CLS]" in ids and "[SEP]" in ids:
        backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
        )
    return JsonTokenizer(json.dumps(json.loads(backend.to_str())))
