"""Predictions from a run's folder are those of its evaluation, whatever the data was."""

from __future__ import annotations

import csv
import json
import pathlib

import numpy as np
import pytest
from conftest import small_config
from PIL import Image

import zoo
from zoo.cli import main
from zoo.config import DataConfig, ModelConfig, TaskConfig, UserError
from zoo.use.inputs import collect_items
from zoo.use.predict import make_predictor

COLOURS = {"red": (200, 40, 30), "green": (30, 180, 60), "blue": (40, 60, 220)}


def probabilities(predictions, names):
    """`[n, c]` in the order of the classes."""
    return np.array([[dict(p.labels)[name] for name in names] for p in predictions])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run on the digits, which are arrays, and pictures of some of its test examples."""
    root = tmp_path_factory.mktemp("digits")
    data = DataConfig("embedded:digits", transform="shift(1)|normalize(0.5, 0.5)")
    result = zoo.fit(small_config(data=data), root / "run")
    examples = result.parts.dataset.splits["test"].take(np.arange(21))
    (root / "png").mkdir()
    for number, image in enumerate(examples["image"]):
        Image.fromarray(image[..., 0]).save(root / "png" / f"{number:02}.png")
    return root, result, examples["image"]


def test_pictures_as_files_are_what_was_evaluated(digits):
    root, result, images = digits
    names = [str(i) for i in range(10)]
    expected = result.predict(images)
    files = zoo.predict(root / "run", root / "png", top=None)
    assert [p.input for p in files] == sorted(map(str, (root / "png").iterdir()))
    np.testing.assert_allclose(probabilities(files, names), expected, atol=1e-6)
    loaded = zoo.load_pretrained(root / "run")
    for inputs in (images, list(images[..., 0]), [Image.fromarray(x[..., 0]) for x in images]):
        found = zoo.predict(loaded, inputs, top=None, batch_size=8)
        np.testing.assert_allclose(probabilities(found, names), expected, atol=1e-6)
    # However many, in batches of 8 they are one program.
    predictor = make_predictor(loaded)
    items = collect_items(np.repeat(images, 3, axis=0), predictor.job.wanted)
    before = predictor.job.compute.func._cache_size()
    assert len(list(predictor.stream(items, 8))) == 63
    assert predictor.job.compute.func._cache_size() == before > 0
    best = zoo.predict(loaded, images)
    assert [int(p.label) for p in best] == expected.argmax(1).tolist()
    assert all(len(p.labels) == 5 for p in best)
    assert np.diff([x.probability for x in best[0].labels]).max() <= 0


def test_the_command_line_says_the_same(digits, tmp_path, capsys):
    root, result, images = digits
    (tmp_path / "broken.png").write_bytes(b"no picture")
    words = ["predict", str(root / "run"), str(root / "png"), str(tmp_path / "broken.png")]
    assert main([*words, "--top=10", f"--json={tmp_path}/out.jsonl"]) == 3
    told = capsys.readouterr().err
    assert f"left out: {tmp_path}/broken.png: it is no image\n1 of 22 inputs left out\n" in told
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    found = [
        [dict(map(dict.values, row["labels"]))[str(c)] for c in range(10)] for row in rows[:-1]
    ]
    np.testing.assert_allclose(found, result.predict(images), atol=1e-6)
    assert rows[-1] == {"input": f"{tmp_path}/broken.png", "problem": "it is no image"}
    assert main([*words[:2], str(root / "png" / "00.png"), "--top=1"]) == 0
    label, number = capsys.readouterr().out.splitlines()[1].split()
    expected = result.predict(images[:1])[0]
    assert (label, number) == (str(expected.argmax()), f"{expected.max():.4f}")


def test_other_pictures_are_made_to_fit_and_said_so(digits, tmp_path):
    root, _, images = digits
    grey = Image.fromarray(images[0][..., 0])
    large = np.repeat(np.repeat(images[0], 4, 0), 4, 1)
    (large_one, plain) = zoo.predict(root / "run", [large, images[0]], top=None)
    assert large_one.note == "resized to 8 x 8, what the run was trained on"
    assert plain.note is None
    # A colour picture of greys is that grey picture; over nothing, white is seen.
    clear = Image.new("RGBA", (8, 8), (9, 9, 9, 0))
    white = np.full((8, 8), 255, np.uint8)
    pairs = ((grey.convert("RGB"), images[0]), (grey.convert("CMYK"), None), (clear, white))
    for picture, same in pairs:
        (found,) = zoo.predict(root / "run", picture, top=None)
        if same is not None:
            assert found.labels == zoo.predict(root / "run", same, top=None)[0].labels


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A run on a folder of pictures of several sizes."""
    root = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for name, colour in COLOURS.items():
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = random.integers(-30, 30, (12 + i, 20 - i, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95)
    transform = "decode|resize(10)|central_crop(8)|flip|normalize(0.5, 0.25)"
    config = small_config(
        model=ModelConfig("vit_s4", {"width": 16, "depth": 1, "num_heads": 2, "hidden": 32}),
        data=DataConfig(f"folder:{root}/data", transform=transform),
    )
    return root, zoo.fit(config, root / "run")


@pytest.mark.slow
def test_a_folder_of_pictures_is_classified_as_in_the_evaluation(colours):
    root, result = colours
    found = zoo.predict(root / "run", root / "data" / "test", batch_size=4)
    assert len(found) == 9
    right = [p.label == pathlib.Path(p.input).parent.name for p in found]
    assert np.mean(right) == pytest.approx(result.metrics["test"]["accuracy"])
    contents = result.parts.dataset.splits["test"].take(np.arange(9))["image"]
    by_bytes = zoo.predict(root / "run", list(contents), top=None)
    assert [dict(p.labels) for p in by_bytes] == [
        pytest.approx(dict(p.labels), abs=1e-6) for p in found
    ]


@pytest.mark.slow
def test_copies_keep_labels_and_pictures(colours, tmp_path):
    root, _ = colours
    files = root / "data" / "test"
    expected = zoo.predict(root / "run", files)
    zoo.convert(root / "run", tmp_path / "zoo", "zoo")
    for one, other in zip(zoo.predict(tmp_path / "zoo", files), expected, strict=True):
        assert dict(one.labels) == pytest.approx(dict(other.labels), abs=1e-6)
    assert zoo.convert(root / "run", tmp_path / "hf", "hf") == []
    told = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert told["size"] == {"shortest_edge": 10}
    assert told["crop_size"] == {"height": 8, "width": 8}
    assert told["image_std"] == [0.25] * 3
    names = json.loads((tmp_path / "hf" / "config.json").read_text())["id2label"]
    assert list(names.values()) == sorted(COLOURS)
    # A processor rounds the longer side down, the operations to the nearest: by a pixel.
    for one, other in zip(zoo.predict(tmp_path / "hf", files), expected, strict=True):
        assert dict(one.labels) == pytest.approx(dict(other.labels), abs=0.05)
    loaded = zoo.load_pretrained(root / "run")
    zoo.save_pretrained(
        loaded.model,
        loaded.params,
        tmp_path / "saved",
        processor=loaded.processor,
        card=loaded.card,
    )
    (one,) = zoo.predict(tmp_path / "saved", files / "red" / "0.jpg")
    (other,) = zoo.predict(tmp_path / "hf", files / "red" / "0.jpg")
    assert one.labels == other.labels


def write_csv(path, header, rows):
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """A regression on a table's columns, in their order of `data.columns`."""
    root = tmp_path_factory.mktemp("houses")
    random = np.random.default_rng(1)
    table = random.normal(size=(40, 3)) * [10, 0.1, 3] + [50, 0, 900]
    prices = table @ [2.0, 30.0, 0.5] + 5
    rows = [[*row, "somewhere", price] for row, price in zip(table, prices, strict=True)]
    header = ["rooms", "tilt", "area", "street", "price"]
    write_csv(root / "train.csv", header, rows[:30])
    write_csv(root / "test.csv", header, rows[30:])
    columns = {"features": ["area", "rooms", "tilt"], "value": "price"}
    config = small_config(
        data=DataConfig(f"csv:{root}", transform="standardize", columns=columns),
        task=TaskConfig("regression"),
    )
    return root, zoo.fit(config, root / "run"), table[30:]


def test_a_regression_answers_in_the_units_of_its_table(houses, tmp_path, capsys):
    root, result, table = houses
    inner = result.parts.dataset.splits["test"].take(np.arange(10))["features"]
    expected = result.predict(inner)[:, 0]
    # The file has other columns too, in another order, and none of the price.
    file = write_csv(
        tmp_path / "new.csv",
        ["tilt", "street", "area", "rooms"],
        [[b, "x", c, a] for a, b, c in table],
    )
    for inputs in (file, root / "test.csv", inner):
        found = [p.values["price"] for p in zoo.predict(root / "run", inputs)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    rooms, tilt, area = table[0]
    row = {"area": area, "tilt": tilt, "rooms": rooms, "street": "x"}
    (one,) = zoo.predict(root / "run", row)
    assert one.values == {"price": pytest.approx(expected[0], rel=1e-6)}
    zoo.convert(root / "run", tmp_path / "copy", "zoo")
    assert zoo.predict(tmp_path / "copy", row)[0].values == one.values
    assert main(["predict", str(root / "run"), str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["input", "price"]
    assert lines[1].split() == [
        f"{file}:2"[-60:] if len(f"{file}:2") <= 60 else lines[1].split()[0],
        f"{expected[0]:.6g}",
    ]


@pytest.mark.parametrize(
    ("header", "row", "told"),
    [
        (["rooms", "tilt"], [1, 2], "has no column 'area'"),
        (["rooms", "tilt", "areas"], [1, 2, 3], "has no column 'area' (did you mean 'areas'?)"),
        (
            ["rooms", "tilt", "area"],
            [1, "wide", 3],
            "line 2: column 'tilt' is 'wide' (str), not a number",
        ),
        (["rooms", "tilt", "area"], [1, "", 3], "line 2: column 'tilt' is empty, not a number"),
        (["rooms", "tilt", "area"], [1, 2], "line 2: 2 values, the header has 3"),
    ],
)
def test_a_wrong_table_is_named_and_the_rest_goes_on(houses, tmp_path, capsys, header, row, told):
    root, _, _ = houses
    wrong = write_csv(tmp_path / "wrong.csv", header, [row])
    assert main(["predict", str(root / "run"), str(wrong), str(root / "test.csv")]) == 3
    out, err = capsys.readouterr()
    assert told in err
    assert "1 of 11 inputs left out" in err
    assert len(out.splitlines()) == 11


def test_a_run_of_an_older_zoo_says_what_to_do(houses, tmp_path):
    root, _, table = houses
    zoo.convert(root / "run", tmp_path / "old", "zoo")
    values = json.loads((tmp_path / "old" / "data.json").read_text())
    for key in ("statistics", "shapes"):
        del values[key]
        (tmp_path / "old" / "data.json").write_text(json.dumps(values))
        with pytest.raises(UserError, match="the same training command once more"):
            zoo.predict(tmp_path / "old", table)
