"""A run on an image folder: broken images stop it, or are told of, masked and counted."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config
from etils import epath
from PIL import Image

import zoo
from zoo.checkpoint import Checkpoints
from zoo.config import DataConfig, UserError
from zoo.train.build import build
from zoo.tree import leaves_below

DATA = DataConfig(transform="decode|resize((8, 8))|normalize")


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 9)):
        for i in range(count):
            path = tmp_path / split / "ab"[i % 2] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (10 + i % 3, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    (tmp_path / "train/a/04.png").write_bytes(b"torn")
    (tmp_path / "test/b/01.png").write_bytes(b"")
    return tmp_path


def make_config(folder, **keys):
    keys = {"source": f"folder:{folder}", **keys}
    config = small_config(data=dataclasses.replace(DATA, **keys))
    return dataclasses.replace(config, log=dataclasses.replace(config.log, progress=True))


def test_a_broken_image_stops_a_run(folder):
    with pytest.raises(
        UserError, match=r"broken image .*04\.png: it is no image .data.skip_broken"
    ):
        zoo.fit(make_config(folder))


def test_a_broken_image_of_the_last_evaluation_loses_no_checkpoint(folder):
    """The last save is under way when the test split is read: the process waits for it."""
    (folder / "train/a/04.png").unlink()
    config = make_config(folder)
    with pytest.raises(UserError, match=r"broken image .*01\.png: it is empty"):
        zoo.fit(config, folder / "run")
    checkpoints = Checkpoints(epath.Path(folder / "run" / "checkpoints"))
    assert checkpoints.last_step() == config.train.num_steps
    assert leaves_below("params", checkpoints.restore_leaves())


def test_broken_images_are_told_once_and_counted(folder, capsys):
    result = zoo.fit(make_config(folder, skip_broken=True))  # 6 steps of 16: 4.8 epochs of 20
    told = [x for x in capsys.readouterr().out.splitlines() if "passed over" in x]
    assert told == [
        f"passed over a broken image: {folder}/train/a/04.png: it is no image",
        f"passed over a broken image: {folder}/test/b/01.png: it is empty",
    ]
    stream = result.parts.stream
    skipped = sum(int((stream[i]["mask"] == 0).sum()) for i in range(6))
    assert skipped in (4, 5)
    assert sum(row["skipped"] for row in result.history if row["split"] == "train") == skipped
    assert result.metrics["test"]["skipped"] == 1
    # The metrics are of the eight sound images alone.
    test = result.parts.dataset.splits["test"]
    images = [np.asarray(Image.open(test.name(i)).resize((8, 8), 2)) for i in range(9) if i != 5]
    assert test.name(5).endswith("01.png")
    labels = np.array([0] * 5 + [1] * 3)
    inputs = (np.stack(images) / 255 - 0.5) / 0.5
    logits = result.model.apply({"params": result.params}, jnp.asarray(inputs, jnp.float32))[0]
    assert result.metrics["test"]["accuracy"] == pytest.approx((logits.argmax(-1) == labels).mean())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"transform": "decode|normalize"}, r"^data.transform: images of different sizes .*resize"),
        (
            {"transform": "decode|random_resized_crop(8)|normalize"},
            r"^data.eval_transform: images of different sizes reach the batch, 10 x 12 x 3 and",
        ),
        (
            {"eval_transform": "decode|resize((9, 9))|normalize"},
            "split 'test' become 9 x 9 x 3, those of 'train' 8 x 8 x 3",
        ),
        (
            {"transform": "decode|resize((8, 8))|normalize((0, 1))"},
            "mean has 2 numbers, the images have 3 channels",
        ),
        ({"eval_transform": "normalize"}, "^data.eval_transform: 'normalize': .* encoded"),
    ],
)
def test_operations_that_do_not_fit_the_images(folder, keys, message):
    with pytest.raises(UserError, match=message):
        build(make_config(folder, **keys))


def test_the_quick_twin_of_a_folder():
    parts = build(make_config("x", source="synthetic:folder:/no/such/folder"))
    assert parts.dataset.num_classes == 10
    assert parts.stream[0]["image"].shape == (1, 16, 8, 8, 3)
