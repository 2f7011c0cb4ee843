"""`zoo data show`: counts, and the training batch to the bit."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from zoo.cli import main
from zoo.config import make_config
from zoo.data import ArraySource, Dataset, open_dataset
from zoo.look import picture
from zoo.look import show as show_module
from zoo.look.bars import balance, histogram, make_edges
from zoo.look.picture import to_eye
from zoo.look.show import choose_ops, number_lines, profile_splits, read_batch
from zoo.look.source import make_source_config


def show(capsys, *words):
    assert main(["data", "show", *words]) == 0
    done = capsys.readouterr()
    assert done.err == ""
    assert "\x1b" not in done.out
    return done.out


def test_a_recipe(capsys, tmp_path, monkeypatch):
    seen = {}

    def draw(batch, dataset, path, ops):
        seen.update(batch)
        return "drawn"

    monkeypatch.setattr(show_module, "draw_batch", draw)
    recipe, moved = "configs/mlp_digits.py", "shift(2)|normalize(0.5, 0.5)"
    out = show(capsys, recipe, "--step=7", "--seed=3", f"--data.transform={moved}")
    lines = out.splitlines()
    assert lines[0] == "embedded:digits: 1,437 train, 360 test; 10 classes"
    assert "image  uint8  8x8x1  values 0 to 239" in lines
    (four,) = (line.split() for line in lines if line.startswith("4 "))
    assert (four[1:3], four[4:6]) == (["145", "10.1%"], ["36", "10.0%"])
    assert "training batch of step 7, seed 3: shift(2)|normalize(0.5, 0.5)" in lines
    assert lines[-1] == "picture: mlp_digits.png (drawn)"
    # Exactly what a run gets: its own stream, built as a run builds it.
    from zoo.train.build import build

    stream = build(make_config(recipe, {"seed": "3", "data.transform": moved})).stream
    wanted = stream.read(7, 1)
    assert set(seen) == set(wanted)
    for name, values in seen.items():
        np.testing.assert_array_equal(values, wanted[name][0])


def test_a_mixture_is_a_source(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "xy":
        (tmp_path / f"{name}.csv").write_text("a,label\n1,no\n2,yes\n")
    out = show(capsys, "--data.mixture={'csv:x.csv': 2, 'csv:y.csv': 1}")
    assert out.startswith("2 x csv:x.csv + 1 x csv:y.csv: 4 train; 2 classes\n")
    assert main(["data", "show", "--data.mixture={}"]) == 2
    assert "data.mixture is empty: name a SOURCE" in capsys.readouterr().err


def test_the_picture(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(picture, "MOST_IMAGES", 16)
    out = show(capsys, "embedded:digits", "--data.transform=normalize(0.3, 0.2)")
    assert "picture: embedded-digits.png (the first 16 of 64 images, normalize undone)" in out
    pixels = np.asarray(Image.open(tmp_path / "embedded-digits.png").convert("L"))
    config = make_source_config("embedded:digits", {})
    images = read_batch(config, open_dataset(config.data), (), 0, 0)[0]["image"][:16, ..., 0]
    # Two rows of eight. Each pixel of each digit is where it belongs, in its own grey.
    high, wide = pixels.shape
    for i, image in enumerate(images):
        for y, x in np.ndindex(8, 8):
            left = 0.03 + i % 8 * 1.06 + (x + 0.5) / 8
            top = 0.22 + i // 8 * 1.24 + (y + 0.5) / 8
            shown = pixels[int(top / 2.48 * high), int(left / 8.48 * wide)]
            assert shown == pytest.approx(255 * image[y, x], abs=2)


def test_for_the_eye_normalisation_is_undone():
    config = make_config("configs/vit_digits.py", {"data.transform": "normalize(0.5, 0.25)"})
    dataset = open_dataset(config.data)
    ops, _ = choose_ops(config, dataset)
    batch, _ = read_batch(config, dataset, ops, 0, 0)
    plain = make_config("configs/vit_digits.py", {"data.transform": ""})
    wanted = read_batch(plain, dataset, (), 0, 0)[0]["image"]
    assert batch["image"].min() == -2
    np.testing.assert_allclose(to_eye(batch["image"], ops)[0], wanted, atol=1e-6)
    # Of what nobody can undo the whole range is shown.
    shown, how = to_eye(batch["image"], ())
    assert (shown.min(), shown.max()) == (0, 1)
    assert how == "-2 to 2 shown as black to white"


def test_encoded_images_of_many_sizes(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "MOST_IMAGES", 4)
    out = show(capsys, "planted:clean_images", f"--out={tmp_path / 'x.png'}")
    assert "JPEG, PNG" in out or "PNG, JPEG" in out
    assert "image height, train: " in out
    assert "(made alike for the eye; to train, set data.transform" in out
    assert "64x128x128x3" in out
    assert (tmp_path / "x.png").exists()
    # Broken ones do not stop it.
    out = show(capsys, "planted:broken_images", f"--out={tmp_path / 'y.png'}")
    assert "test: 1 unreadable; zoo data check names them" in out


def test_tables(capsys):
    out = show(capsys, "embedded:diabetes")
    assert "label, train: 25 to 346, median 139, mean 151.6, 95 % up to 281.8" in out
    rows = [line.split() for line in out.splitlines()]
    arrays = open_dataset(make_config("configs/mlp_diabetes.py", {}).data).splits["train"]
    features = arrays.take(np.arange(len(arrays)))["features"].astype(np.float64)
    for i in (0, 8):
        (row,) = (r for r in rows if r and r[0] == str(i) and len(r) == 5)
        wanted = [f(features[:, i]) for f in (np.min, np.mean, np.std, np.max)]
        assert [float(cell) for cell in row[1:]] == pytest.approx(wanted, rel=1e-3)
    assert "not finite" in show(capsys, "planted:broken_table")


def test_texts(capsys, monkeypatch):
    out = show(capsys, "planted:clean_texts")
    assert "rows: 60 train, 20 val; 2 classes" in out
    lengths = ("text words, train: ", "text tokens, train: ")
    assert sum(line.startswith(lengths) for line in out.splitlines()) == 1
    # A corpus, decoded: the first token of a window is given, the others are predicted.
    monkeypatch.setenv("ZOO_DATA", "")
    out = show(capsys, "synthetic:embedded:stdlib", "--data.length=16")
    example = out.split("example 0\n  ")[1].splitlines()[0]
    assert len(example) == 17 + 2
    assert example[1] == "⟦"
    assert example[-1] == "⟧"


def test_lengths_are_in_what_tells_most():
    """In tokens where texts are cut, else in words, of a language without blanks in letters."""
    source = ArraySource({"text": np.array(["ab c"] * 9 + ["a b c d"] * 9, object)})
    spaced = ArraySource({"text": np.array(["東" * 90] * 9 + ["京" * 70] * 9, object)})
    for part, counter, title in [
        (source, None, "text words, train: 2 to 4, median 3"),
        (source, len, "text tokens, train: 4 to 7, median 5.5"),
        (spaced, None, "text characters, train: 70 to 90, median 80"),
    ]:
        dataset = Dataset("x", {"train": part}, fingerprint="x")
        (lines,) = number_lines(profile_splits(dataset, counter))
        assert lines[0].startswith(title)


def test_a_large_split_is_sampled(capsys, monkeypatch):
    monkeypatch.setattr(show_module, "MOST_EXAMPLES", 100)
    out = show(capsys, "embedded:diabetes")
    assert "train: what follows is of 100 examples chosen by chance" in out
    assert "test: what" not in out


def test_edges_hold_every_value():
    for values in ([0, 1], [0, 1, 2, 9], [1] * 100 + [5000], [3, 40], [0.5, 0.7], [5, 5], [0, 30]):
        edges = make_edges(np.array(values, float))
        assert len(edges) <= 11
        assert np.histogram(values, edges)[0].sum() == len(values)
        lines = histogram("x", {"train": np.array(values, float)})
        assert len(lines) == len(edges)


def test_of_many_classes_the_most_and_the_fewest():
    counts = list(range(100, 0, -1))
    lines = balance([f"c{i}" for i in range(100)], {"train": counts}, most=6)
    assert [line.split()[0] for line in lines] == [
        "label", "c0", "c1", "c2", "(94", "c97", "c98", "c99",
    ]  # fmt: skip


def test_bars_fit_the_console(monkeypatch):
    for columns in (80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = balance(["a" * 50, "b"], {"train": [1, 9], "val": [3, 1], "test": [5, 5]})
        assert max(map(len, lines)) <= columns


def test_tags_answers_and_choices(capsys, tmp_path):
    """Lists in fields, and of a batch the tokens that are to be told."""
    rows = {
        "tags": [{"words": ["Ann", "is"], "tags": ["PER", "O"]}, {"words": ["a"], "tags": ["O"]}],
        "spans": [
            {"question": "who?", "context": "it is Ann", "answer": "Ann", "answer_start": 6},
            {"question": "why?", "context": "it is", "answer": None, "answer_start": None},
        ],
        "choices": [{"question": "1?", "choices": ["one", "two"], "label": 1}] * 2,
    }
    outs = {}
    for name, examples in rows.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in examples))
        outs[name] = show(capsys, f"jsonl:{path}", "--data.length=16")
        assert main(["data", "check", f"jsonl:{path}"]) in (0, 3)
        assert "Traceback" not in capsys.readouterr().out
    assert "words  texts  1..2   'Ann' 'is'" in outs["tags"]
    assert re.search(r"^O +2  66.7%", outs["tags"], re.MULTILINE)
    assert "⟦A⟧nn ⟦i⟧s (10 tokens of padding)" in outs["tags"]
    assert "it is ⟦Ann⟧" in outs["spans"]
    assert "choice 1, text 2: two" in outs["choices"]
    assert "choices   texts  2      'one' 'two'" in outs["choices"]
