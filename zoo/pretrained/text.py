"""The tokenizer that lies beside weights."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from zoo.config import UserError
from zoo.data.tokenizers import JsonTokenizer, from_gpt2_files, make_byte_bpe, read_tokenizer
from zoo.pretrained.sentencepiece_file import make_backend, parse_sentencepiece
from zoo.pretrained.sources import read_json

# `model_type` of the families that write a vocabulary as BERT does, and as RoBERTa does.
BERT_LIKE = ("bert", "electra", "distilbert")
ROBERTA_LIKE = ("roberta", "bart")
PAD_SIGLIP = (
    "tokenizer: SigLIP reads a text's last place: pad texts to all of num_positions with the "
    "tokenizer's padding token and give no mask, batch() does not"
)


def find_tokenizer(folder: epath.Path, config: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """(tokenizer or None, lines for the report): tokenizer.json, the pair of GPT-2, RoBERTa or
    CLIP, BERT's vocab.txt, SentencePiece's model.

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
    settings = _read_settings(folder)
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        vocab, merges = (folder / "vocab.json").read_text(), (folder / "merges.txt").read_text()
        if kind in ROBERTA_LIKE:
            return from_roberta_files(vocab, merges, settings), ()
        if str(kind).startswith("clip"):
            return from_clip_files(vocab, merges), ()
        if kind == "gpt2":
            return from_gpt2_files(vocab, merges), ()
    if (folder / "vocab.txt").exists() and kind in BERT_LIKE:
        return from_wordpiece_vocab((folder / "vocab.txt").read_text(), settings), ()
    for name in ("spiece.model", "tokenizer.model"):
        if (folder / name).exists() and kind in TEMPLATES:
            try:
                return from_sentencepiece((folder / name).read_bytes(), str(kind), settings), ()
            except UserError as error:
                raise UserError(f"{folder / name}: {error}") from None
    for name in ("spiece.model", "tokenizer.model", "vocab.txt", "vocab.json", "source.spm"):
        if (folder / name).exists():  # another family's way of splitting words, or none we know
            return None, (f"{name}: not read as a tokenizer; a tokenizer.json would be",)
    return None, ()


def _read_settings(folder: epath.Path) -> dict[str, Any]:
    """tokenizer_config.json, with the tokens of added_tokens.json among its own."""
    told, added = folder / "tokenizer_config.json", folder / "added_tokens.json"
    settings = read_json(told) if told.exists() else {}
    if added.exists() and "added_tokens_decoder" not in settings:
        rows = {str(i): {"content": token} for token, i in read_json(added).items()}
        settings["added_tokens_decoder"] = rows
    return settings


def from_roberta_files(vocab: str, merges: str, settings: dict[str, Any]) -> JsonTokenizer:
    """RoBERTa's tokenizer (Liu et al. 2019) from vocab.json, merges.txt, tokenizer_config.json.

    `<s> A </s>` and `<s> A </s></s> B </s>`, all of one type. As in the published tokenizer.json,
    `<mask>` takes the space before it along.
    """
    from tokenizers import AddedToken, pre_tokenizers, processors

    ids, space = json.loads(vocab), bool(settings.get("add_prefix_space", False))
    backend = make_byte_bpe(vocab, merges)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    names = [t for t in ("<s>", "<pad>", "</s>", "<unk>", "<mask>") if t in ids]
    backend.add_special_tokens(
        [AddedToken(t, lstrip=t == "<mask>", normalized=False) for t in names]
    )
    end, start = (("</s>", ids["</s>"]), ("<s>", ids["<s>"]))
    backend.post_processor = processors.RobertaProcessing(end, start, add_prefix_space=space)
    return JsonTokenizer(backend.to_str())


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


# `model_type` -> what stands around a text and around a pair. BOS and EOS are the file's own; a
# decoder's settings say whether it wants them.
_DECODER = ("BOS $A EOS", "BOS $A EOS BOS $B EOS")
TEMPLATES = {
    "t5": ("$A </s>", "$A </s> $B </s>"),
    "mt5": ("$A </s>", "$A </s> $B </s>"),
    "albert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    **dict.fromkeys(("llama", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text"), _DECODER),
}


def from_sentencepiece(data: bytes, kind: str, settings: dict[str, Any]) -> JsonTokenizer:
    """SentencePiece's model file with what transformers' tokenizer of this `model_type` adds.

    `settings` are tokenizer_config.json's. T5 has 100 sentinels behind its pieces, `<extra_id_0>`
    the last of all (Raffel et al. 2020). Raises UserError on what is no such file, and on added
    tokens whose ids do not follow.
    """
    from tokenizers import normalizers, processors

    backend = make_backend(parse_sentencepiece(data))
    rows = settings.get("added_tokens_decoder", {})
    added = {int(i): _text(row) for i, row in rows.items()}
    if kind == "t5" and not added:
        size, count = backend.get_vocab_size(), settings.get("extra_ids", 100)
        added = {size + i: f"<extra_id_{count - 1 - i}>" for i in range(count)}
    for i, token in sorted(added.items()):
        if i >= backend.get_vocab_size():
            backend.add_special_tokens([token])
        if backend.token_to_id(token) != i:
            raise UserError(f"the added token {token!r} should be {i}, which does not follow")
    if kind == "albert" and settings.get("do_lower_case", True):
        steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        if not settings.get("keep_accents", False):
            steps += [normalizers.NFKD(), normalizers.StripAccents()]
        steps += [normalizers.Lowercase(), backend.normalizer]
        backend.normalizer = normalizers.Sequence(steps)  # type: ignore[assignment]
    marks = {
        "BOS": _text(settings.get("bos_token") or "<s>"),
        "EOS": _text(settings.get("eos_token") or "</s>"),
    }
    wanted = {
        "BOS": settings.get("add_bos_token", True),
        "EOS": settings.get("add_eos_token", False),
    }
    templates = []
    for template in TEMPLATES[kind]:
        words = [w for w in template.split() if wanted.get(w, True)]
        templates.append([marks.get(w, w) for w in words])
    special = {w.partition(":")[0] for template in templates for w in template if w[0] != "$"}
    ids = {token: backend.token_to_id(token) for token in special}
    if None in ids.values():
        missing = sorted(token for token, i in ids.items() if i is None)
        raise UserError(f"the vocabulary has no {', '.join(missing)}, which stand around a text")
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=templates[0], pair=templates[1], special_tokens=list(ids.items())
    )
    return JsonTokenizer(json.dumps(json.loads(backend.to_str())))


def _text(token: Any) -> str:
    """A token as the settings tell it: its text, or a table with its `content`."""
    return str(token["content"] if isinstance(token, dict) else token)
