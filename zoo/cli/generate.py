"""`zoo generate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from zoo.cli.words import DONE, asks_help, pick_one, print_json, split_flags, to_number
from zoo.config import UserError

GENERATE_HELP = """\
usage: zoo generate SOURCE --prompt=TEXT [--prompt=TEXT ...] [--NAME=VALUE ...]

Goes on from a text (GPT-2, Llama, a run of causal_lm), or answers it (T5, Marian).
SOURCE: a run's folder, a published folder or file, OWNER/NAME on the hub.

  --prompt=TEXT --file=FILE      texts, each a prompt; of FILE, '-' for stdin, each line
  --max_new_tokens=64 --min_new_tokens=0              64, or what the longest leaves
  --temperature=0.8              draws; without it the likeliest token is taken
  --top_k=50 --top_p=0.9 --min_p=0.05 --seed=0        of drawing
  --num_beams=4 --length_penalty=1.0 --early_stopping=True|False|never
  --num_return=3                 so many samples or beams of each prompt
  --repetition_penalty=1.2
  --stop=TEXT [--stop=TEXT ...]  ends a text; \\n is a new line
  --draft=SOURCE                 a smaller model guesses ahead, the text stays the same
  --batch_size=8
  --stream                       text as it comes, for one prompt
  --json                         an object a line: prompt, text, tokens, logprobs, reason, score"""

NUMBERS: dict[str, type[int] | type[float]] = {
    **dict.fromkeys(("max_new_tokens", "min_new_tokens", "top_k", "num_beams"), int),
    **dict.fromkeys(("num_return", "draft_tokens", "seed", "batch_size"), int),
    **dict.fromkeys(("temperature", "top_p", "min_p", "repetition_penalty"), float),
    "length_penalty": float,
}
WORDS = ("prompt", "file", "stop", "draft", "early_stopping")


def generate(argv: Sequence[str]) -> int:
    """`zoo generate SOURCE --prompt=TEXT`."""
    if asks_help(argv):
        print(GENERATE_HELP)
        return DONE
    words, flags = split_flags(argv, [*NUMBERS, *WORDS], ["stream", "json"])
    if len(words) != 1:
        told = f"; a text is given as --prompt={words[1]!r}" if words else ": zoo generate SOURCE"
        raise UserError(f"zoo generate takes one source{told}")
    prompts = read_prompts(flags)
    given = {name: to_number(flags, name, kind) for name, kind in NUMBERS.items()}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    stopping = pick_one(flags, "early_stopping")
    if stopping is not None:
        options["early_stopping"] = stopping
    options["stop"] = tuple(text.replace("\\n", "\n") for text in flags.get("stop", ()))
    options["draft"] = pick_one(flags, "draft")
    if "stream" in flags:
        if len(prompts) > 1 or "json" in flags:
            raise UserError("--stream is for one prompt, and not with --json")
        options["stream"] = lambda _, text: print(text, end="", flush=True)
    from zoo.generation import generate

    made = generate(words[0], prompts, **options)
    if "json" in flags:
        for prompt, generation in zip(prompts, made, strict=True):
            for one in (generation, *generation.others):
                print_json(to_row(prompt, one))
    elif "stream" in flags:
        print()
    else:
        show(prompts, made)
    return DONE


def read_prompts(flags: dict[str, list[str]]) -> list[str]:
    """The texts of `--prompt` and the lines of `--file`. Raises UserError where there are none."""
    prompts = list(flags.get("prompt", ()))
    for name in flags.get("file", ()):
        try:
            if name == "-":
                text = sys.stdin.read()
                text.encode()  # bytes that are none are let through at the standard input
            else:
                with open(name, encoding="utf-8") as file:
                    text = file.read()
        except OSError as error:
            raise UserError(f"--file={name}: {error.strerror}") from None
        except UnicodeError:
            raise UserError(f"--file={name} is no UTF-8 text") from None
        prompts += [line for line in text.splitlines() if line.strip()]
    if not prompts:
        raise UserError("there is no prompt: --prompt=TEXT, or --file=FILE with one a line")
    return prompts


def show(prompts: Sequence[str], made: Sequence[Any]) -> None:
    """A single text alone, as a pipe wants it; of several, each below its prompt."""
    for prompt, generation in zip(prompts, made, strict=True):
        texts = [one.text for one in (generation, *generation.others)]
        if len(prompts) > 1:
            print(f"> {prompt}")
        for i, text in enumerate(texts):
            print(text if len(texts) == 1 else f"[{i + 1}] {text}")


def to_row(prompt: str, generation: Any) -> dict[str, Any]:
    """A generation as JSON holds it."""
    return {
        "prompt": prompt,
        "text": generation.text,
        "tokens": generation.tokens.tolist(),
        "logprobs": [round(float(x), 6) for x in generation.logprobs],
        "reason": generation.reason,
        "score": round(generation.score, 6),
    }
