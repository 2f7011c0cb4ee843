"""What a careless user gives to predict and embed, and the one line that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from published import copy_twin, name_labels, write_wordpiece

import zoo
from zoo.cli import main
from zoo.config import UserError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text classifier `bert`, a vision model `vit`, and inputs."""
    root = tmp_path_factory.mktemp("place")
    bert = copy_twin("bert_classifier", root / "bert", **name_labels("a", "b", "c"))
    write_wordpiece(bert, 50)
    write_wordpiece(copy_twin("bert_answerer", root / "answers"), 50)
    copy_twin("vit_classifier", root / "vit")
    copy_twin("clip_published", root / "clip")
    copy_twin("cliptext_projected", root / "cliptext")
    copy_twin("mae_pixels", root / "mae")
    copy_twin("dinov2_headless", root / "dino")
    for name in ("gpt2_lm", "t5_v1", "bert_masked_lm", "electra_discriminator"):
        copy_twin(name, root / name)
    (root / "empty").mkdir()
    (root / "texts.txt").write_text("the cat\n")
    (root / "none.txt").write_text("\n\n")
    (root / "odd.csv").write_text("one,two\n1,2\n")
    Image.new("RGB", (8, 8)).save(root / "picture.png")
    Image.new("F", (8, 8)).save(root / "floats.tif")
    (root / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return root


MISTAKES = [
    ("predict bert", "name files, or give --text"),
    ("predict nowhere picture.png", "there is no nowhere"),
    ("predict vit pictures.png", "no such file: pictures.png (did you mean 'picture.png'?)"),
    ("predict vit empty", "the folder empty holds no file of images (.jpg,"),
    ("predict bert empty", "the folder empty holds no file of texts (.txt, .csv,"),
    ("predict vit texts.txt", "texts.txt is text, vit takes images"),
    ("predict bert picture.png", "picture.png is an image, bert takes texts"),
    ("predict vit --text=hello", "--text='hello': vit takes images, no texts"),
    ("predict vit picture.png --top=0", "top=0 must be at least 1"),
    ("predict vit picture.png --top=two", "--top='two' is not a whole number"),
    ("predict vit picture.png --batch_size=0", "batch_size=0 must be at least 1"),
    ("predict vit picture.png --labels=a,b", "2 names for the 5 classes of vit"),
    ("predict vit picture.png --labels=names.txt", "--labels: no such file: names.txt"),
    ("predict vit picture.png --labels=,", "--labels=',' names no label"),
    ("predict vit picture.png --template=x", "template is for CLIP and SigLIP"),
    ("predict vit picture.png --json=no/x.jsonl", "cannot write no/x.jsonl: No such file"),
    ("predict bert --text=a --text=b --pair=c", "2 and 1 were given"),
    ("predict bert --text=a --tokenizer=t.json", "tokenizer: there is no t.json"),
    ("predict answers --text=why", "answers takes pairs of texts (of a question"),
    ("predict gpt2_lm --text=a", "gpt2_lm writes text: zoo generate gpt2_lm"),
    ("predict t5_v1 --text=a", "t5_v1 writes text: zoo generate t5_v1"),
    ("predict bert_masked_lm --text=a", "zoo fill bert_masked_lm"),
    ("predict electra_discriminator --text=a", "tells replaced tokens"),
    ("predict dino picture.png", "dino has no head to predict with; zoo embed dino"),
    ("predict mae picture.png", "zoo embed mae"),
    ("predict cliptext --text=a", "zoo embed cliptext"),
    ("predict clip picture.png", "clip compares images with labels of yours"),
    ("predict clip picture.png --labels=a,b,a", "'a' is named twice"),
    ("predict clip picture.png --labels=a --template=cat", "should hold one {}"),
    ("predict clip picture.png --labels=a,b", "clip has no tokenizer: give one"),
    ("embed clip --text=a", "clip has no tokenizer: give one"),
    ("embed bert --text=a --pooling=maen", "(did you mean 'mean'?)"),
    ("embed bert --text=a --out=x.csv", "should end in .npz, .npy, .jsonl"),
    ("embed clip picture.png --pooling=mean", "its projection is the vector"),
    ("embed gpt2_lm --text=a", "gpt2_lm has no tokenizer"),
    ("fill bert --prompt", "--prompt needs a value"),
    ("fill bert", "the text is missing"),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_one_line(place, monkeypatch, capsys, words, told):
    monkeypatch.chdir(place)
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("predict vit floats.tif cut.jpg", "floats.tif: its pixels are floats, of no stated range"),
        ("predict vit cut.jpg", "left out: cut.jpg: "),
        ("predict bert none.txt", "none.txt: it holds no inputs"),
        ("predict bert odd.csv", "odd.csv: cannot tell which column is the input (one, two)"),
    ],
)
def test_files_that_cannot_be_read_are_left_out(place, monkeypatch, capsys, words, told):
    monkeypatch.chdir(place)
    assert main(words.split()) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.splitlines()[-1].endswith("inputs left out")


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (np.zeros((8, 8, 3), np.float32), "an array of float32: a picture is bytes"),
        ([np.zeros((8, 8, 2), np.uint8)], "is no picture"),
        ([{"image": 1}], "takes images, not dict"),
        ([], "no inputs: .*vit takes images"),
        ([b"nonsense"], "input 0: it is no image"),
    ],
)
def test_a_wrong_object_is_an_error(place, inputs, told):
    with pytest.raises(UserError, match=told):
        zoo.predict(place / "vit", inputs)


@pytest.mark.parametrize("inputs", [3, [("a", "b", "c")], {"words": "a"}, [None]])
def test_what_is_no_text(place, inputs):
    with pytest.raises(UserError, match=r"bert takes texts, not"):
        zoo.predict(place / "bert", inputs)
