"""Each method on small models: against finite differences, brute force, shorter models."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from explain_cases import PICTURE, TEXT, TOKENIZER, load

import zoo
from zoo.explanation.attending import find_gradients, order_calls, run_attention
from zoo.explanation.integrated import TOLERANCE, integrate, make_path, make_reader
from zoo.explanation.lens import read_layers
from zoo.explanation.outputs import choose_output
from zoo.explanation.probe import MovedAttention
from zoo.explanation.subject import make_subject

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("t5", "encoder", "vit")]

LLAMA = pytest.param("llama", marks=pytest.mark.slow)


@functools.cache
def prepare(name: str):
    """A case with its subject and what is explained of it."""
    given = PICTURE if name == "vit" else TEXT
    subject = make_subject(load(name), given, "a dog" if name == "t5" else None)
    run = jax.jit(lambda p, x: subject.apply(p, x)[0])
    outputs = np.asarray(run(subject.params, subject.inputs))
    return subject, choose_output(subject, outputs, None, 3 if name == "encoder" else None), outputs


def test_maps_are_the_model_s_own_and_sum_to_one():
    loaded = load("decoder")
    found = zoo.explain(loaded, TEXT)
    weights = found.part("attention").weights
    tokens = jnp.asarray(TOKENIZER.encode(TEXT))[None]
    logits, aux = jax.jit(loaded.model.apply)({"params": loaded.params}, tokens)
    np.testing.assert_allclose(weights, aux["attention"][:, 0], atol=1e-6)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    chances = jax.nn.softmax(logits[0, -1])
    assert found.output.index == int(chances.argmax())
    assert found.output.probability == pytest.approx(float(chances.max()), rel=1e-4)
    assert found.predictions[0] == (found.output.label, found.output.probability)
    assert found.part("attention").start == len(TEXT) - 1


@pytest.mark.slow
def test_a_pair_has_three_maps():
    found = zoo.explain(load("t5"), TEXT, target="a dog")
    cross = found.part("cross")
    assert cross.weights.shape == (2, 2, 6, len(TEXT))
    assert cross.queries.words == (*"a dog", "(next)")  # rows by what is predicted there
    for name in ("cross", "encoder", "decoder"):
        np.testing.assert_allclose(found.part(name).weights.sum(-1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradient", "lens"])
def test_scanned_layers_are_explained_alike(method):
    one, other = (zoo.explain(load("llama", scanned), TEXT, method=method) for scanned in (0, 1))
    for part, twin in zip(one.parts, other.parts, strict=True):
        name = "probabilities" if method == "lens" else "weights"
        name = name if hasattr(part, name) else "values"
        np.testing.assert_allclose(getattr(part, name), getattr(twin, name), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["decoder", *(pytest.param(name, marks=pytest.mark.slow) for name in ("llama", "t5"))]
)
def test_gradients_of_attention_against_finite_differences(name):
    subject, choice, outputs = prepare(name)
    weights = run_attention(subject).weights
    gradients = find_gradients(subject, choice, weights)

    @jax.jit
    def score(moves):
        attend = MovedAttention(order_calls(subject.kind, moves))
        model = subject.model.clone(attend=attend)
        return choice.score(subject.apply(subject.params, subject.inputs, model)[0])[0]

    still = {key: jnp.zeros(x.shape) for key, x in weights.items()}
    assert float(score(still)) == pytest.approx(float(choice.score(outputs)[0]), abs=1e-4)
    random = np.random.default_rng(0)
    way = {key: jnp.asarray(random.normal(size=x.shape), "f") for key, x in weights.items()}
    step = 3e-4
    ends = [score(jax.tree.map(lambda x, s=s: s * step * x, way)) for s in (-1, 1)]
    expected = float(ends[1] - ends[0]) / (2 * step)
    found = sum(float((gradients[key] * way[key]).sum()) for key in way)
    assert found == pytest.approx(expected, rel=1e-2)
    # Of a decoder only the last place's row counts in the last layer.
    last = gradients["cross" if name == "t5" else "attention"][-1]
    assert np.abs(last[:, -1]).max() > 0
    assert np.abs(last[:, :-1]).max() == 0


@pytest.mark.slow
def test_relevance_is_nought_where_nothing_is_looked_at():
    found = zoo.explain(load("decoder"), TEXT, method="gradient")
    matrix = found.part("attention").weights[0, 0]
    np.testing.assert_array_equal(matrix, np.tril(matrix))
    np.testing.assert_allclose(found.part("attention_scores").values, matrix[-1], rtol=1e-5)


@pytest.mark.slow
def test_integrated_gradients_of_pixels_against_a_plain_sum():
    subject, choice, outputs = prepare("vit")
    start, end, _ = make_path(subject, "white")
    assert float(start["images"].min()) == 1  # white, normalised
    path = integrate(make_reader(subject, choice), subject.params, start, end)
    assert path.gap <= TOLERANCE
    assert path.at_end == pytest.approx(float(choice.score(outputs)[0]), abs=1e-4)

    def score(image):
        logits = subject.apply(subject.params, {"images": image[None]})[0][0]
        return logits[choice.output.index] - logits.mean()

    steps = 512
    places = (np.arange(steps) + 0.5) / steps
    way = end["images"] - start["images"]
    gradient = jax.jit(lambda a: jax.grad(score)(start["images"] + a * way))
    mean = jax.lax.map(gradient, jnp.asarray(places, jnp.float32)).mean(0)
    expected = np.asarray((mean * way).sum(-1))
    found = path.attributions["images"]
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["decoder", *SLOW[:2]])
def test_integrated_gradients_of_tokens_are_complete(name):
    subject, choice, outputs = prepare(name)
    start, end, told = make_path(subject, None)
    path = integrate(make_reader(subject, choice), subject.params, start, end)
    assert path.gap <= TOLERANCE
    assert path.at_end == pytest.approx(float(choice.score(outputs)[0]), abs=1e-4)
    assert set(path.attributions) == ({"source", "target"} if name == "t5" else {"tokens"})
    assert "zeros" in told[0]  # this tokenizer has neither mask nor padding
    if name != "decoder":
        return
    # The baseline is the model with an embedding of zeros: its output is no longer tied to it here.
    params = {**subject.params, "embed": {"embedding": 0 * subject.params["embed"]["embedding"]}}
    logits, _ = jax.jit(subject.apply)(params, subject.inputs)
    _, aux = jax.jit(subject.apply)(params, subject.inputs)
    scale, bias = (subject.params["norm"][key] for key in ("scale", "bias"))
    hidden = aux["hidden"][-1, 0, -1]
    hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5) * scale + bias
    logits = subject.params["embed"]["embedding"] @ hidden
    expected = logits[choice.output.index] - logits.mean()
    assert path.at_start == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("name", ["decoder", *SLOW])
def test_the_lens_reads_each_layer_as_a_model_that_ends_there_does(name):
    subject, _, outputs = prepare(name)
    count = outputs.shape[-1]
    _, layers = read_layers(subject, count)
    found = np.zeros_like(layers.probabilities)
    np.put_along_axis(found, layers.indices, layers.probabilities, axis=-1)
    chances = np.asarray(jax.nn.softmax(outputs[0], axis=-1)).reshape(-1, count)
    np.testing.assert_allclose(found[-1], chances, atol=1e-5)
    np.testing.assert_allclose(layers.followed[-1], chances.max(-1), atol=1e-5)
    assert len(found) == 3  # the embedding, and two layers
    # The model without its last layer, with the same parameters.
    field = "decoder_depth" if name == "t5" else "depth"
    shorter = subject.model.clone(**{field: 1})
    logits, _ = jax.jit(lambda p, x: subject.apply(p, x, shorter))(subject.params, subject.inputs)
    expected = np.asarray(jax.nn.softmax(logits[0], axis=-1)).reshape(-1, count)
    np.testing.assert_allclose(found[1], expected, atol=1e-5)


@pytest.mark.slow
def test_another_output_can_be_explained():
    loaded = load("vit")
    labels = {
        "id2label": {str(i): name for i, name in enumerate(("cat", "dog", "ox", "eel", "ant"))}
    }
    loaded = dataclasses.replace(loaded, card=dataclasses.replace(loaded.card, config=labels))
    scores = {}
    for wanted in ("ox", 2, "eel"):
        found = zoo.explain(loaded, PICTURE, method="gradient", output=wanted)
        scores[wanted] = found.part("attention_scores").values
        assert found.output.label == ("eel" if wanted == "eel" else "ox")
    np.testing.assert_array_equal(scores["ox"], scores[2])
    assert np.abs(scores["ox"] - scores["eel"]).max() > 1e-4
    text = zoo.explain(load("decoder"), TEXT, method="integrated", output="q")
    assert text.output.label == "q"
