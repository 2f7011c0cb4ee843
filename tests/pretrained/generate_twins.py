"""What transformers generates from a twin, in the form of ours."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any, NamedTuple

import numpy as np
from twins import CASES, Case

HEADS = ("LMHeadModel", "ForCausalLM", "ForConditionalGeneration", "MTModel")
GENERATING = {case.name: case for case in CASES if case.model.endswith(HEADS)}
# Their cache is made for as many layers as the encoder has; the decoder has more.
UNCACHED = ("t5_silu",)
# It has 12 positions, twice as many as it was trained on: prompts pass those, and so do texts.
SMALL = ("llama_dynamic_long",)
SHORT = (7, 4, 2, 1)
LENGTHS = (9, 6, 2, 1)  # of the prompts, longer than the windows


class Text(NamedTuple):
    """One that transformers generated."""

    tokens: list[int]
    logprobs: np.ndarray  # under the model itself
    score: float | None  # of beams


def crosses_over(case: Case) -> bool:
    """Is it an encoder-decoder?"""
    return case.inputs in ("pair", "shifted")


def make_prompts(case: Case) -> list[np.ndarray]:
    """Rows of tokens of several lengths."""
    random = np.random.default_rng(len(case.name))
    lengths = SHORT if case.name in SMALL else LENGTHS
    return [random.integers(3, case.arguments["vocab_size"], n) for n in lengths]


def make_generation(case: Case, **more: Any) -> dict[str, Any]:
    """A generation_config.json."""
    return {"pad_token_id": 0, "decoder_start_token_id": 0 if crosses_over(case) else None, **more}


def with_generation(loaded: Any, generation: dict[str, Any]) -> Any:
    """A loaded source that says this, and nothing of its own, of its special tokens."""
    told = {name: value for name, value in generation.items() if value is not None}
    card = dataclasses.replace(loaded.card, generation=told, config={})
    return dataclasses.replace(loaded, card=card)


def run_theirs(
    model: Any, case: Case, prompts: list[np.ndarray], generation: dict[str, Any], **options: Any
) -> list[list[Text]]:
    """`num_return_sequences` texts of each prompt."""
    import torch
    import transformers

    # A fresh one: dynamic rotary positions remember the longest text of the calls before.
    model = copy.deepcopy(model)
    model.generation_config = transformers.GenerationConfig(**generation)
    longest = max(map(len, prompts))
    rows = np.zeros((len(prompts), longest), np.int64)
    mask = np.zeros_like(rows)
    for i, prompt in enumerate(prompts):
        place = slice(len(prompt)) if crosses_over(case) else slice(longest - len(prompt), None)
        rows[i, place], mask[i, place] = prompt, 1
    with torch.no_grad():
        made = model.generate(
            input_ids=torch.tensor(rows),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
            use_cache=case.name not in UNCACHED,
            **options,
        )
    begin = 1 if crosses_over(case) else longest
    ends = generation.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    logits = torch.stack(made.logits).log_softmax(-1).numpy()
    parents = getattr(made, "beam_indices", None)
    scores = getattr(made, "sequences_scores", None)
    texts = []
    for i, tokens in enumerate(made.sequences[:, begin:].tolist()):
        ended = [n + 1 for n, token in enumerate(tokens) if token in ends]
        tokens = tokens[: ended[0] if ended else None]
        whose = [i] * len(tokens) if parents is None else parents[i, : len(tokens)].tolist()
        logprobs = [logits[n, row, t] for n, (row, t) in enumerate(zip(whose, tokens, strict=True))]
        score = None if scores is None else scores[i].item()
        texts.append(Text(tokens, np.array(logprobs), score))
    each = options.get("num_return_sequences", 1)
    return [texts[i : i + each] for i in range(0, len(texts), each)]


def choose_ends(texts: list[list[Text]]) -> list[int]:
    """Two tokens at which these texts would end at lengths as different as may be, and not all at
    once. Raises ValueError where they are all alike."""
    rows = [each[0].tokens for each in texts]

    def count_lengths(ends: tuple[int, int]) -> int:
        lengths = (next((i for i, t in enumerate(row) if t in ends), len(row)) for row in rows)
        return len({length for length in lengths if length})

    found = sorted({token for row in rows for token in row})
    best = max(itertools.combinations(found, 2), key=count_lengths)
    if count_lengths(best) < 2:
        raise ValueError("the texts are alike: choose another seed")
    return list(best)
