"""`zoo.generate`: text from decoders and encoder-decoders, compiled for a bucket of lengths.

The package is not named after the function: `zoo.generate` would be the one or the other, by what
was imported first.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from typing import Any

from zoo.config import UserError, nearest
from zoo.config.parse import convert
from zoo.generation.settings import Settings
from zoo.generation.writer import Generation, Stream, Writer

__all__ = ["Generation", "Settings", "generate"]


def generate(
    source: Any,
    prompts: str | Sequence[Any],
    *,
    seed: int | Sequence[int] = 0,
    batch_size: int = 8,
    stream: Stream | None = None,
    draft: Any = None,
    **settings: Any,
) -> list[Generation]:
    """Goes on from prompts (decoders), or answers them (encoder-decoders).

    Args:
      source: what `zoo.load_pretrained` takes, or what it returned.
      prompts: a text or several; rows of token ids are taken as they are.
      seed: of samples; several are one a prompt. What a row draws depends on its own seed alone.
      batch_size: rows worked on together.
      stream: called with (number of the prompt, piece of text) as the text comes; not with beams,
        which are known when all have ended, nor with more than one sample of a prompt.
      draft: a smaller source with the same tokens, which guesses `draft_tokens` at a time; what
        comes out is what `source` alone would say, in fewer passes (Leviathan et al. 2023). Not
        with beams.
      **settings: fields of `Settings`: `max_new_tokens`, `temperature`, `num_beams`, `stop`, ...
        Beams do not know of `stop`: their texts are cut afterwards.

    Returns one `Generation` a prompt. Raises UserError on a source that does not generate, prompts
    that do not fit it, and settings that make no sense together.
    """
    hints = typing.get_type_hints(Settings)
    if isinstance(settings.get("stop"), str):
        settings["stop"] = (settings["stop"],)
    for name, value in settings.items():
        if name not in hints:
            raise UserError(f"generate has no setting {name!r}{nearest(name, hints)}")
        settings[name] = convert(value, hints[name], name)
    writer = Writer(source, Settings(**settings), draft)
    if isinstance(prompts, str):
        prompts = [prompts]
    elif not isinstance(prompts, Iterable):
        raise UserError(f"prompts are a text, or a list of texts or token ids, not {prompts!r}")
    batch_size = convert(batch_size, int, "batch_size")
    return writer.write(list(prompts), seed, batch_size, stream)
