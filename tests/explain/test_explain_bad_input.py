"""What a careless user gives: one line each."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from explain_cases import PICTURE, TEXT, load
from PIL import Image

import zoo
from zoo.cli import main
from zoo.config import UserError
from zoo.models import create_model


def explain(name, given, **options):
    return zoo.explain(load(name) if isinstance(name, str) else name, given, **options)


NO_TOKENIZER = dataclasses.replace(load("decoder"), tokenizer=None)
NO_PROCESSOR = dataclasses.replace(load("vit"), processor=None)
MLP = dataclasses.replace(load("vit"), model=create_model("mlp"))
NO_START = dataclasses.replace(
    load("t5"), card=dataclasses.replace(load("t5").card, config={"bos_token_id": None})
)


@pytest.mark.parametrize(
    ("source", "given", "options", "told"),
    [
        (
            "decoder",
            TEXT,
            {"method": "atention"},
            r"'atention' \(did you mean 'attention'\?",
        ),
        ("decoder", TEXT, {"baseline": "zero"}, "a baseline is for the method 'integrated'"),
        ("decoder", TEXT, {"method": "rollout", "residual": 1.5}, "should be a share"),
        ("decoder", TEXT, {"target": "b"}, "takes one input, no --target"),
        ("decoder", "", {}, "the text is empty"),
        ("decoder", "a cat at " * 9, {}, "the text is 81 tokens, the model has 24 positions"),
        ("decoder", "A cat", {}, "alphabet of 24 characters lacks 'A'"),
        ("decoder", PICTURE, {}, "takes a text, not ndarray"),
        (NO_TOKENIZER, TEXT, {}, "tests/decoder has no tokenizer, which a text needs"),
        ("t5", TEXT, {}, "takes two inputs: give --target"),
        (NO_START, TEXT, {"target": "a"}, "names no token that targets begin with"),
        (MLP, PICTURE, {}, "takes models of images, texts or both, no MLP"),
        ("mixer", PICTURE, {}, "a Mixer has no attention"),
        (NO_PROCESSOR, PICTURE, {}, "does not tell how its images are prepared"),
        ("vit", "there/is_none.png", {}, "there/is_none.png: no image, it does not exist"),
        ("vit", ".", {}, "no image, it is a folder"),
        ("vit", __file__, {}, "it is no image"),
        ("vit", np.zeros((8, 8), np.float32), {}, "array of float32: a picture is bytes"),
        ("vit", Image.fromarray(np.zeros((8, 8), np.float32)), {}, "its pixels are floats"),
        ("vit", {"an": "object"}, {}, "the image: an array of shape .* is no picture"),
        ("headless", TEXT, {"method": "lens"}, r"\(head 'none'\) has none of classes or tokens"),
    ],
)
def test_before_the_model_runs(source, given, options, told):
    with pytest.raises(UserError, match=told) as caught:
        explain(source, given, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "given", "options", "told"),
    [
        ("decoder", TEXT, {"output": "cat"}, r"should be one token, it is 3: \['c', 'a', 't'\]"),
        ("decoder", TEXT, {"place": 11}, "--place=11: the text has the places 0 to 10"),
    ],
)
def test_after_the_model_ran(source, given, options, told):
    with pytest.raises(UserError, match=told) as caught:
        explain(source, given, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "given", "options", "told"),
    [
        ("encoder", TEXT, {"method": "gradient"}, "write the mask token there, or give --place"),
        ("encoder", TEXT, {"output": "a"}, "which place"),
        ("headless", TEXT, {"output": "a"}, "no output to choose from"),
        ("headless", TEXT, {"method": "gradient"}, "ends in a vector"),
        ("vit", PICTURE, {"output": "clas 3"}, "no class 'clas 3' .*did you mean 'class 3'"),
        ("vit", PICTURE, {"output": 5}, "no class '5' .*choose from: class 0"),
        ("vit", PICTURE, {"place": 1}, "--place is for models with an output at each token"),
        ("vit", PICTURE, {"method": "integrated", "baseline": "blak"}, "did you mean 'black'"),
        ("vit", PICTURE, {"method": "integrated", "baseline": "zero"}, "is unknown"),
        ("decoder", TEXT, {"method": "integrated", "baseline": "pad"}, "has no such token"),
    ],
)
def test_after_a_larger_part_ran(source, given, options, told):
    with pytest.raises(UserError, match=told) as caught:
        explain(source, given, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a"], "zoo explain takes a source and one input"),
        (["a", "b"], "give --out=page.html"),
        (["a", "b", "--out=x.txt"], "must end in .html"),
        (["a", "b", "--out=there/x.html"], "there is no folder there"),
        (["a", "b", "--out=x.html", "--methd=lens"], "no flag --methd (did you mean 'method'?)"),
        (["a", "b", "--out=x.html", "--method=lense"], "did you mean 'lens'?"),
        (["a", "b", "--out=x.html", "--place=first"], "is not a whole number"),
        (["nowhere", "b", "--out=x.html"], "there is no nowhere"),
    ],
)
def test_wrong_words(words, told, capsys):
    assert main(["explain", *words]) == 2
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1
