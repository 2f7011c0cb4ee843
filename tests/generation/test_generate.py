"""`zoo.generate` on a small decoder of bytes: draws, seeds, stop strings, streams, refusals."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import zoo
from zoo.cli import main
from zoo.config import UserError
from zoo.data.tokenizers import ByteTokenizer, CharTokenizer
from zoo.generation.decode import advance
from zoo.generation.sampling import Rules, choose, forbid, narrow
from zoo.generation.stop import settle

SIZES = {"width": 16, "depth": 2, "num_heads": 2, "vocab_size": 257, "num_positions": 64}
MODEL = zoo.create_model("gpt2", **SIZES)


def make_noise(model):
    random = np.random.default_rng(0)
    noise = lambda x: jnp.asarray(0.5 * random.normal(size=x.shape), x.dtype)
    return jax.tree.map(noise, jax.eval_shape(lambda: zoo.init_params(model)))


@functools.cache
def noisy_params():
    return make_noise(MODEL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "gpt2"
    zoo.save_pretrained(MODEL, noisy_params(), path, tokenizer=ByteTokenizer())
    return str(path)


@pytest.fixture(scope="module")
def loaded(folder):
    return zoo.load_pretrained(folder)


@jax.jit
def run_whole(params, tokens):
    return MODEL.apply({"params": params}, tokens)[0]


def next_logits(tokens):
    """By the model without a cache."""
    row = np.zeros((1, 24), np.int32)
    row[0, : len(tokens)] = tokens
    return np.asarray(run_whole(noisy_params(), row)[0, len(tokens) - 1], np.float64)


def test_greedy_is_the_likeliest_token_each_time(loaded):
    """Prompts of three lengths in one batch; log-probabilities; the same one at a time."""
    prompts = ["To be, or not", "x", "abc"]
    made = zoo.generate(loaded, prompts, max_new_tokens=5)
    for prompt, one in zip(prompts, made, strict=True):
        row = list(prompt.encode())
        for token, logprob in zip(one.tokens, one.logprobs, strict=True):
            logits = next_logits(row)
            assert token == logits.argmax()
            assert logprob == pytest.approx(logits[token] - np.log(np.exp(logits).sum()), abs=1e-4)
            row.append(int(token))
        assert one.reason == ("end" if row[-1] == 256 else "length")
        assert one.score == pytest.approx(one.logprobs.sum(), abs=1e-5)
    alone = zoo.generate(loaded, prompts[1], max_new_tokens=5)[0]
    np.testing.assert_array_equal(alone.tokens, made[1].tokens)


def test_draws_have_the_distribution_of_the_model(loaded):
    """Chi-square over 2,000 draws of the token after a prompt, temperature and top_k as by hand."""
    settings = {"temperature": 0.7, "top_k": 6, "max_new_tokens": 1, "num_return": 2000}
    (made,) = zoo.generate(loaded, "Hamlet", batch_size=2048, seed=1, **settings)
    counts = np.bincount([int(g.tokens[0]) for g in (made, *made.others)], minlength=257)
    logits = next_logits(list(b"Hamlet")) / 0.7
    kept = np.argsort(-logits)[:6]
    expected = np.exp(logits[kept] - logits.max())
    assert counts.sum() == counts[kept].sum() == 2000
    found = stats.chisquare(counts[kept], 2000 * expected / expected.sum())
    assert found.pvalue > 1e-3


LOGITS = np.log(np.array([[0.4, 0.25, 0.2, 0.1, 0.05]], np.float32))


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 9}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.6}, [0, 1]),
        ({"top_p": 0.7}, [0, 1, 2]),
        ({"top_p": 0.01}, [0]),
        ({"min_p": 0.3}, [0, 1, 2]),
        ({"top_k": 4, "top_p": 0.85, "min_p": 0.6}, [0, 1]),
    ],
    ids=str,
)
def test_what_may_be_drawn(rules, kept):
    """By hand; what is drawn of it has the distribution of what is left (chi-square)."""
    made = Rules(np.array([4]), temperature=np.float32(1), **rules)
    scores = np.asarray(narrow(jnp.asarray(LOGITS), made))[0]
    assert np.flatnonzero(np.isfinite(scores)).tolist() == kept
    keys = jax.random.split(jax.random.key(3), 4000)
    rows = jnp.tile(LOGITS, (4000, 1))
    drawn = np.asarray(choose(rows, made, jnp.int32(0), None, keys)[0])
    counts, shares = (
        np.bincount(drawn, minlength=5)[kept],
        np.exp(LOGITS[0][kept].astype(np.float64)),
    )
    assert counts.sum() == 4000
    if len(kept) > 1:
        assert stats.chisquare(counts, 4000 * shares / shares.sum()).pvalue > 1e-3


def test_what_is_forbidden():
    """No end before its time, a banned token, a first token, seen ones made less likely."""
    seen = jnp.array([[True, False, False, True, False]])
    banned = np.array([False, True, False, False, False])
    scores = jnp.array([[2.0, 1.0, 0.5, -1.0, 3.0]])
    rules = Rules(np.array([4, 2]), np.int32(2), banned, None, np.float32(2.0))
    never = -np.inf
    early, late = (np.asarray(forbid(scores, rules, count, seen))[0] for count in (1, 2))
    np.testing.assert_array_equal(early, [1.0, never, never, -2.0, never])
    np.testing.assert_array_equal(late, [1.0, never, 0.5, -2.0, 3.0])
    forced = forbid(scores, Rules(np.array([4]), first=np.int32(3)), 0, None)
    assert np.isfinite(np.asarray(forced)[0]).tolist() == [False, False, False, True, False]


def test_a_row_draws_by_its_own_seed(loaded):
    """Whatever stands beside it; other seeds draw otherwise; samples of one prompt differ."""
    settings = {"temperature": 1.0, "max_new_tokens": 8}
    both = zoo.generate(loaded, ["abc", "abcdefg"], seed=[5, 6], **settings)
    for prompt, seed, one in zip(("abc", "abcdefg"), (5, 6), both, strict=True):
        (alone,) = zoo.generate(loaded, prompt, seed=[seed], **settings)
        np.testing.assert_array_equal(alone.tokens, one.tokens)
    (other,) = zoo.generate(loaded, "abc", seed=[7], **settings)
    assert other.tokens.tolist() != both[0].tokens.tolist()
    (many,) = zoo.generate(loaded, "abc", seed=5, num_return=3, **settings)
    assert len({tuple(g.tokens) for g in (many, *many.others)}) == 3


def test_one_program_serves_a_bucket(loaded):
    """Neither another prompt or number of tokens nor another temperature compiles anew."""
    zoo.generate(loaded, "a", max_new_tokens=3, temperature=1.0)
    before = advance._cache_size()
    for length, count, heat in ((2, 4, 0.5), (9, 16, 0.9), (16, 7, 2.0)):
        zoo.generate(loaded, "b" * length, max_new_tokens=count, temperature=heat)
    assert advance._cache_size() == before
    zoo.generate(loaded, "b" * 17, max_new_tokens=3, temperature=1.0)
    assert advance._cache_size() == before + 1


def test_a_stream_tells_the_text_piece_by_piece(loaded):
    settings = {"max_new_tokens": 12, "temperature": 1.0, "seed": 2}
    told = {0: "", 1: ""}
    pieces = []

    def tell(number, text):
        told[number] += text
        pieces.append(text)

    made = zoo.generate(loaded, ["abc", "Hamlet"], stream=tell, **settings)
    assert [told[0], told[1]] == [g.text for g in made]
    assert len(pieces) > 4
    whole = zoo.generate(loaded, ["abc", "Hamlet"], **settings)
    assert [g.text for g in whole] == [g.text for g in made]


def test_a_stop_string_ends_a_text(loaded):
    """Cut before it; tokens as far as the one that completes it; also in a stream."""
    (free,) = zoo.generate(loaded, "abc", max_new_tokens=24, temperature=1.0, seed=4)
    stop = free.text[10:12]
    where = free.text.index(stop)
    told = []
    for stream in (None, lambda _, text: told.append(text)):
        settings = {"max_new_tokens": 24, "temperature": 1.0, "seed": 4, "stop": stop}
        (made,) = zoo.generate(loaded, "abc", stream=stream, **settings)
        assert (made.text, made.reason) == (free.text[:where], "stop")
        assert ByteTokenizer().decode(made.tokens).endswith(stop)
        assert len(made.tokens) == len(made.logprobs) < len(free.tokens)
    assert "".join(told) == made.text


@pytest.mark.parametrize(
    ("text", "stop", "ended", "settled"),
    [
        ("abc", (), False, "abc"),
        ("abcEN", ("END",), False, "abc"),
        ("abcEN", ("END",), True, "abcEN"),
        ("abcENDx", ("END", "x"), False, "abc"),
        ("ab\ufffd", (), False, "ab"),
        ("aa", ("ab", "aab"), False, ""),
    ],
)
def test_what_a_stream_may_tell(text, stop, ended, settled):
    assert settle(text, stop, ended) == settled


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": "x" * 64}, "a prompt has 64 tokens and the model 64 positions"),
        ({"prompts": "x" * 60, "max_new_tokens": 9}, "at most 4 are left"),
        ({"prompts": [np.array([3, 257])]}, "prompt 0 has token 257, the model has 257 tokens"),
        ({"prompts": [np.array([], int)]}, "prompt 0 is empty"),
        ({"prompts": [["a"]]}, "prompt 0 is neither a text nor a row of token ids"),
        ({"stop": ""}, "a stop string is empty"),
        ({"temprature": 1}, "no setting 'temprature' (did you mean 'temperature'?)"),
        ({"temperature": -1}, "temperature=-1.0 should be at least 0"),
        ({"top_k": 3}, "top_k is for sampling: set temperature above 0"),
        ({"top_p": 1.5, "temperature": 1}, "top_p=1.5 should be above 0 and at most 1"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens=9 is more than"),
        ({"num_return": 2}, "num_return=2 of 1 beam: raise num_beams"),
        ({"num_beams": 2, "temperature": 1.0}, "beams take the likeliest"),
        ({"length_penalty": 2.0}, "are for beams: set num_beams too"),
        ({"seed": [1, 2]}, "2 seeds for 1 prompts"),
        ({"seed": 2**70}, "is no whole number of 64 bits"),
        ({"batch_size": 0}, "batch_size=0 should be at least 1"),
        ({"prompts": [3, 5]}, "a row of token ids stands in a list of rows"),
        ({"prompts": [[-5, 6]]}, "prompt 0 has token -5, the model has 257 tokens"),
        ({"prompts": [[]]}, "prompt 0 is empty"),
        ({"prompts": "a\udcffb"}, "bytes that are no UTF-8"),
        ({"num_beams": 2, "length_penalty": float("nan")}, "should be a finite number"),
        ({"min_new_tokens": 70}, "at most 61 are left"),
        ({"num_return": 2, "temperature": 1.0, "stream": print}, "a stream tells one text"),
    ],
)
def test_refusals(loaded, settings, message):
    with pytest.raises(UserError) as error:
        zoo.generate(loaded, **{"prompts": "abc", **settings})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_stop_string_that_can_never_occur(tmp_path):
    model = zoo.create_model("gpt2", **{**SIZES, "vocab_size": 3})
    tokenizer = CharTokenizer("abc")
    zoo.save_pretrained(model, make_noise(model), tmp_path / "gpt2", tokenizer=tokenizer)
    with pytest.raises(
        UserError, match="can never occur: the tokenizer's alphabet of 3 characters lacks 'd'"
    ):
        zoo.generate(str(tmp_path / "gpt2"), "abc", stop="bad")


def test_who_does_not_generate(tmp_path, folder, capsys):
    """Encoders, classifiers, sources without a tokenizer: one line, exit code 2."""
    small = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 16, "vocab_size": 30}
    encoder = zoo.create_model("bert_tiny", **small, head="masked_lm", pooler=False)
    zoo.save_pretrained(encoder, make_noise(encoder), tmp_path / "bert")
    zoo.save_pretrained(MODEL, noisy_params(), tmp_path / "bare")
    classifier = MODEL.clone(head="sequence")
    zoo.save_pretrained(classifier, make_noise(classifier), tmp_path / "classifier")
    for source, message in (
        (tmp_path / "bert", "a model of class Encoder does not generate text: use zoo fill"),
        (tmp_path / "bare", "the source has no tokenizer"),
        (tmp_path / "classifier", "the source has the head 'sequence', generating needs 'lm'"),
        (tmp_path / "nothing", "there is no"),
    ):
        assert main(["generate", str(source), "--prompt=abc"]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_the_command(folder, loaded, capsys, tmp_path):
    """Text alone for a pipe; JSON with the numbers; a stream; a file of prompts."""
    (made,) = zoo.generate(loaded, "abc", max_new_tokens=6)
    assert main(["generate", folder, "--prompt", "abc", "--max_new_tokens=6"]) == 0
    assert capsys.readouterr().out == f"{made.text}\n"
    assert main(["generate", folder, "--prompt=abc", "--max_new_tokens=6", "--stream"]) == 0
    assert capsys.readouterr().out == f"{made.text}\n"
    (tmp_path / "prompts.txt").write_text("abc\n\nHamlet\n")
    words = ["generate", folder, f"--file={tmp_path / 'prompts.txt'}", "--max_new_tokens=6"]
    assert main([*words, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == ["abc", "Hamlet"]
    assert rows[0]["tokens"] == made.tokens.tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no prompt"),
        (["--prompt"], "--prompt needs a value"),
        (["--prompt=a", "b"], "takes one source; a text is given as --prompt='b'"),
        (["--prompt=a", "--max_new_tokens=x"], "--max_new_tokens='x' is not a whole number"),
        (["--prompt=a", "--temp=1"], "no flag --temp"),
        (["--file=nowhere.txt"], "--file=nowhere.txt: No such file"),
        (["--prompt=a", "--prompt=b", "--stream"], "--stream is for one prompt"),
        (["--prompt=a", "--early_stopping=maybe"], "early_stopping='maybe' is not"),
    ],
)
def test_mistakes_in_the_command(folder, capsys, words, message):
    assert main(["generate", folder, *words]) == 2
    assert message in capsys.readouterr().err
