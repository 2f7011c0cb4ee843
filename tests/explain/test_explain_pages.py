"""The page: one file that asks for nothing else, holds what it says, and escapes every text."""

from __future__ import annotations

import base64
import html.parser
import json
import re
import zlib

import numpy as np
import pytest
from explain_cases import PICTURE, TEXT, load
from PIL import Image

import zoo
from zoo.config import UserError
from zoo.explanation import page
from zoo.explanation.colors import color_of, find_scale, lay_over
from zoo.explanation.result import Axis, Explanation, Lens, Maps, Output, Scores

WORDS = ("<s>", " a", " &", "</script>", "\n", "", " $x_1$", "'\"")
RANDOM = np.random.default_rng(0)


def make_explanation(part, predictions=(("<b>", 0.7), ("</b>", 0.3))) -> Explanation:
    output = Output("next token", "<b>", 1.5, 0.7, 3, 7)
    words = "".join(WORDS)
    return Explanation("lens", "a/<i>", "Decoder", words, output, predictions, (part,), ("5 > 4",))


def make_parts() -> dict[str, object]:
    axis = Axis("text", WORDS)
    image = Axis("image", ("class token", "1", "2", "3", "4"), PICTURE, (2, 2), 1)
    weights = RANDOM.dirichlet(np.ones(8), size=(2, 3, 8)).astype(np.float32)
    over = RANDOM.dirichlet(np.ones(5), size=(2, 1, 5)).astype(np.float32)
    words = tuple(tuple(("<s>", "&") for _ in WORDS) for _ in range(3))
    shares = np.tile(np.array([0.9, 0.1], np.float32), (3, 8, 1))
    return {
        "maps": Maps("attention", "Attention", axis, axis, weights, 7),
        "image": Maps("attention", "Attention", image, image, over, None),
        "scores": Scores("scores", "Scores", axis, RANDOM.normal(size=8).astype("f"), True),
        "pixels": Scores("pixels", "Pixels", image, RANDOM.normal(size=(8, 8)).astype("f"), True),
        "patches": Scores("patches", "Patches", image, np.arange(5).astype("f"), False),
        "lens": Lens("lens", "Lens", ("embedding", "1", "2"), WORDS, words, shares, shares[..., 0]),
    }


class Reader(html.parser.HTMLParser):
    """Tags with their attributes, and all text outside scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.mark.parametrize("name", ["maps", "image", "scores", "pixels", "patches", "lens"])
def test_a_page_of_each_part(tmp_path, name):
    found = make_explanation(make_parts()[name])
    files = found.write(tmp_path / "page.html")
    assert sorted(files) == sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["page.html", f"page_{found.parts[0].name}.png"]
    with Image.open(files[1]) as picture:
        assert min(picture.size) > 100
        assert np.asarray(picture.convert("L")).std() > 5
    text = files[0].read_text()
    read = Reader(text)
    assert read.open == []
    assert {tag for tag, _ in read.tags} & {"b", "i", "s"} <= {"b", "i"}  # ours, not the tokens'
    for told in ("a/<i>", "“<b>”", "5 > 4", "page_", "nostalgebraist 2020", "70.0 %"):
        assert told in read.text, told
    links = [value for _, given in read.tags for key, value in given.items() if key in LINKS]
    assert all(value.startswith("data:") for value in links)
    assert not re.search(r"https?:|url\(|@import|fetch\(", text)
    if name in ("pixels", "patches"):
        assert sum(value.startswith("data:image/png") for value in links) == 2
    if name in ("scores", "lens"):
        assert "<s>" in read.text
        assert "⏎" in read.text


LINKS = ("src", "href", "action", "data", "srcset")


def test_the_page_holds_the_weights(tmp_path):
    part = make_parts()["maps"]
    text = make_explanation(part).write(tmp_path / "page.html")[0].read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    (held,) = data["maps"]
    assert held["queries"]["words"] == list(WORDS)
    codes = np.frombuffer(zlib.decompress(base64.b64decode(held["codes"])), np.uint8)
    weights = (codes.reshape(held["shape"]) / 255.0) ** 2 * held["most"]
    np.testing.assert_allclose(weights, part.weights, atol=2 * held["most"] / 255)


def test_many_maps_are_averaged_and_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_CELLS", 100)
    text = make_explanation(make_parts()["maps"]).write(tmp_path / "page.html")[0].read_text()
    assert "the heads are averaged" in text
    assert '"shape":[2,1,8,8]' in text


def test_a_long_text_of_many_heads_is_a_small_page():
    axis = Axis("text", tuple(f" word{i}" for i in range(300)))
    scores = 4 * RANDOM.normal(size=(1, 1, 300, 300)).astype(np.float32)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    part = Maps("attention", "Attention", axis, axis, np.tile(weights, (12, 12, 1, 1)), 299)
    text = page.make_page(make_explanation(part), ["page.png"])
    assert len(text) < 20e6


def test_colours():
    assert color_of(0.0, 1.0, signed=True) == ("#ffffff", "#1b1b1b")
    assert color_of(2.0, 1.0, signed=True) == ("#b2182b", "#ffffff")
    assert color_of(-1.0, 1.0, signed=True)[0] == "#2166ac"
    assert color_of(0.0, 1.0, signed=False)[0] == "#ffffff"
    assert find_scale(np.zeros(3)) == 1
    assert find_scale(np.array([1.0, -3.0])) == 3
    picture = np.full((4, 4, 3), 100, np.uint8)
    values = np.array([[0.0, 1.0], [-1.0, 0.0]])
    over = lay_over(picture, values, 1.0, signed=True)
    assert (over[:2, :2] == 100).all()  # nothing there
    assert over[0, 3, 0] > 150 > over[0, 3, 2]  # red
    assert over[3, 0, 2] > 120 > over[3, 0, 0]  # blue


@pytest.mark.parametrize(
    ("name", "told"),
    [("page.htm", "must end in .html"), ("absent/page.html", "there is no folder")],
)
def test_a_page_that_cannot_be_written_is_told_before_anything_runs(tmp_path, name, told):
    with pytest.raises(UserError, match=told):
        zoo.explain(load("decoder"), TEXT, out=tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_takes_the_page_with_it(tmp_path):
    (tmp_path / "page_scores.png").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*page_scores\.png"):
        make_explanation(make_parts()["scores"]).write(tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
