"""With a draft: the same text, token by token, in fewer passes."""

import numpy as np
import pytest
from random_sources import make_source

import zoo
from zoo.config import UserError
from zoo.models.rotary import RotaryScaling

SIZES = {"width": 8, "depth": 1, "num_heads": 2, "hidden": 16}
LLAMA = {**SIZES, "vocab_size": 12, "num_kv_heads": 1, "window": 4}
POSITIONS = 22  # the longest prompt, 13 tokens and 3 guesses
DECODER = zoo.create_model("llama3_8b", **LLAMA, num_positions=POSITIONS)
T5 = zoo.create_model("t5_small", **SIZES, head_dim=4, vocab_size=12)
SPECIALS = {"eos_token_id": [0, 3], "decoder_start_token_id": 1}
SOURCES = {
    "decoder": make_source(DECODER, 3, **SPECIALS),
    "encoder-decoder": make_source(T5, 1, **SPECIALS),
}
# Other sizes, another form: what it says is hardly ever right.
DRAFTS = {
    "decoder": make_source(zoo.create_model("gpt2", **SIZES, vocab_size=12, num_positions=24), 4),
    "encoder-decoder": make_source(T5.clone(width=4), 5),
}
PROMPTS = [np.array([1, 4, 2, 2, 11, 7]), np.array([9]), np.array([4, 1])]
RULES = [
    {"min_new_tokens": 9, "repetition_penalty": 1.5},
    {},
    {"temperature": 1.3, "seed": [3, 1, 4]},
]
# (source, draft, rules): another draft, hardly ever right, and the model itself, always right.
FEW = [("decoder", "other", 0), ("decoder", "itself", 0), ("encoder-decoder", "other", 1)]
REST = [
    (name, draft, rules)
    for name in SOURCES
    for draft in ("other", "itself")
    for rules in range(3)
    if (name, draft, rules) not in FEW
]


def check(source, draft, count, **how):
    """Returns the passes."""
    plain = zoo.generate(source, PROMPTS, **how)
    drafted = zoo.generate(source, PROMPTS, draft=draft, draft_tokens=count, **how)
    for one, other in zip(drafted, plain, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
        assert (one.reason, other.passes) == (other.reason, None)
    longest = max(len(g.tokens) for g in plain)
    assert drafted[0].passes <= longest
    return drafted[0].passes, longest


SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in REST]


@pytest.mark.parametrize(("name", "draft", "rules"), [*FEW, *SLOW])
def test_the_text_is_the_models_own(name, draft, rules):
    source = SOURCES[name]
    other = source if draft == "itself" else DRAFTS[name]
    passes, longest = check(source, other, 3, max_new_tokens=13, **RULES[rules])
    assert longest > 4
    if draft == "itself":  # four tokens come of each pass
        assert passes == -(-longest // 4)


def test_guesses_need_positions():
    source = SOURCES["decoder"]
    with pytest.raises(UserError, match="max_new_tokens=13 and draft_tokens=4 pass the model's 22"):
        zoo.generate(source, PROMPTS, max_new_tokens=13, draft=source)


GPT2 = {**SIZES, "vocab_size": 12, "num_positions": 16}
REFUSED = {
    "the draft has 13 tokens, the source 12": zoo.create_model("gpt2", **GPT2 | {"vocab_size": 13}),
    "the draft: a prompt of 6 tokens and max_new": zoo.create_model("gpt2", **GPT2),
    "the draft is an encoder-decoder, the source a decoder": T5,
}


@pytest.mark.parametrize("message", REFUSED)
def test_drafts_that_do_not_fit(message):
    draft = make_source(REFUSED[message], 0, decoder_start_token_id=1)
    how = {"max_new_tokens": 13, "draft": draft, "draft_tokens": 3}
    with pytest.raises(UserError, match=message):
        zoo.generate(SOURCES["decoder"], PROMPTS, **how)


def test_dynamic_rotary_positions():
    scaling = RotaryScaling("dynamic", 2.0, 11)
    source = make_source(DECODER.clone(rotary_scaling=scaling), 0)
    with pytest.raises(UserError, match="dynamic rotary positions"):
        zoo.generate(source, PROMPTS, draft=DRAFTS["decoder"])


def test_no_draft_of_beams():
    with pytest.raises(UserError, match="a draft guesses one text, not beams"):
        zoo.generate(SOURCES["decoder"], PROMPTS, draft=DRAFTS["decoder"], num_beams=2)
