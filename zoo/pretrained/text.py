"""The tokenizer that lies beside weights."""

from __future__ import annotations

from typing import Any

from etils import epath

from zoo.config import UserError
from zoo.data.tokenizers.files import read_folder
from zoo.pretrained.sources import read_json

PAD_SIGLIP = (
    "tokenizer: SigLIP reads a text's last place: pad texts to all of num_positions with the "
    "tokenizer's padding token and give no mask; batch() does not, zoo.predict and zoo.embed do"
)


def find_tokenizer(folder: epath.Path, config: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """(tokenizer or None, lines for the report): tokenizer.json, the pair of GPT-2, RoBERTa or
    CLIP, BERT's vocab.txt, SentencePiece's model.

    Raises UserError on a file that is none.
    """
    try:
        kind = config.get("model_type")
        tokenizer, told = read_folder(folder, kind)
        if tokenizer is not None and str(kind).startswith("siglip"):
            told = (*told, PAD_SIGLIP)
        return tokenizer, told
    except UserError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{folder}: no tokenizer can be made of its vocabulary: {line}") from None


def find_pad_token(folder: epath.Path) -> str | None:
    """The token that texts are padded with, by the settings of transformers' tokenizer; None where
    they do not say it."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        told = read_json(folder / name).get("pad_token") if (folder / name).exists() else None
        if told:
            return str(told["content"] if isinstance(told, dict) else told)
    return None
