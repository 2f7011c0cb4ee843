"""Tokenizers read from files: tokenizer.json, pairs of GPT-2, RoBERTa and CLIP, vocab.txt of BERT,
models of SentencePiece, our own JSON."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from zoo.config import UserError
from zoo.data.tokenizers.json_tokenizer import END_OF_TEXT, JsonTokenizer
from zoo.data.tokenizers.plain import ByteTokenizer, CharTokenizer
from zoo.data.tokenizers.sentencepiece_file import (
    BPE,
    SentencePieceFile,
    make_backend,
    parse_sentencepiece,
)

# `model_type` of the families that write a vocabulary as BERT does, and as RoBERTa does.
BERT_LIKE = ("bert", "electra", "distilbert")
ROBERTA_LIKE = ("roberta", "bart")


def read_tokenizer(path: Any) -> Any:
    """A tokenizer from its file, or from a folder that holds one as `read_folder` finds it.

    Raises UserError when there is none or it cannot be read.
    """
    path = epath.Path(path).expanduser()
    if not path.exists():
        raise UserError(f"data.tokenizer: there is no {path}")
    try:
        if path.is_dir():
            return _read_any_folder(path)
        if path.suffix == ".model":
            return _read_model_file(path)
        if path.suffix == ".txt":
            return from_wordpiece_vocab(path.read_text(), _read_settings(path.parent))
        return read_json_file(path)
    except UserError as error:
        raise UserError(f"data.tokenizer: {error}") from None
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"data.tokenizer: {path} is no tokenizer: {_first_line(error)}") from None


def _read_any_folder(folder: epath.Path) -> Any:
    if (folder / "encoder.json").exists() and (folder / "vocab.bpe").exists():
        parts = [(folder / name).read_text() for name in ("encoder.json", "vocab.bpe")]
        return from_gpt2_files(*parts)
    told = folder / "config.json"
    kind = json.loads(told.read_text()).get("model_type") if told.exists() else None
    if kind is None:  # a vocabulary alone: the family that is known by such files
        kind = "bert" if (folder / "vocab.txt").exists() else "gpt2"
    tokenizer, lines = read_folder(folder, kind)
    if tokenizer is not None:
        return tokenizer
    for name in ("spiece.model", "tokenizer.model"):
        if (folder / name).exists():
            return _read_model_file(folder / name)
    if lines:
        raise UserError(f"{folder}: {lines[0]}")
    raise UserError(
        f"{folder} holds no tokenizer.json, vocab.txt, spiece.model, encoder.json with vocab.bpe, "
        "or vocab.json with merges.txt"
    )


def _read_model_file(path: epath.Path) -> JsonTokenizer:
    data = path.read_bytes()
    try:
        kind = find_family(parse_sentencepiece(data))
        return from_sentencepiece(data, kind, _read_settings(path.parent))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def find_family(file: SentencePieceFile) -> str:
    """Which family's special tokens a SentencePiece model without a config.json is given."""
    names = [piece.text for piece in file.pieces]
    if "[CLS]" in names and "[SEP]" in names:
        return "albert"
    if names[:2] == ["<pad>", "</s>"]:
        return "t5"
    if file.algorithm == BPE and "<s>" in names:
        return "llama"
    return "plain"


def read_json_file(path: epath.Path) -> Any:
    """A tokenizer.json, or the JSON of one of our own. Raises UserError on another file."""
    try:
        text = path.read_text()
        kind = json.loads(text).get("zoo")
        if kind == "bytes":
            return ByteTokenizer()
        if kind == "characters":
            return CharTokenizer(json.loads(text)["alphabet"])
        tokenizer = JsonTokenizer(text)
        assert tokenizer.vocab_size
        return tokenizer
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"{path} is no tokenizer: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_folder(folder: epath.Path, kind: Any) -> tuple[Any, tuple[str, ...]]:
    """(tokenizer or None, lines for a report) of the files in a folder: tokenizer.json, the pair of
    GPT-2, RoBERTa or CLIP, BERT's vocab.txt, SentencePiece's model.

    `kind` is the `model_type` of transformers' config.json, which says how the words are split.
    """
    if (folder / "tokenizer.json").exists():
        return read_json_file(folder / "tokenizer.json"), ()
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
    settings = json.loads(told.read_text()) if told.exists() else {}
    if added.exists() and "added_tokens_decoder" not in settings:
        rows = {str(i): {"content": token} for token, i in json.loads(added.read_text()).items()}
        settings["added_tokens_decoder"] = rows
    return settings


def from_gpt2_files(encoder: str, merges: str) -> JsonTokenizer:
    """The tokenizer of GPT-2's `encoder.json` and `vocab.bpe`, given their contents."""
    backend = make_byte_bpe(encoder, merges)
    backend.add_special_tokens([END_OF_TEXT])
    return JsonTokenizer(backend.to_str())


def make_byte_bpe(vocab: str, merges: str) -> Any:
    """The library's byte-level BPE of a vocabulary and its merges, without special tokens."""
    from tokenizers import models

    pairs = [(a, b) for a, _, b in (x.partition(" ") for x in merges.splitlines()[1:]) if b]
    return make_byte_level(models.BPE(json.loads(vocab), pairs))


def make_byte_level(model: Any) -> Any:
    """A `tokenizers.Tokenizer` that takes text as bytes."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    backend.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return backend


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
    "plain": ("$A", "$A $B"),
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
