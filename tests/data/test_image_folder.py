"""Folders and tables of images: what is found, in which order, and what is said of mistakes."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from zoo.config import DataConfig, UserError
from zoo.data import TrainStream, open_dataset, parse_ops, read_ahead, read_eval
from zoo.data import apply as apply_module
from zoo.data.sources import ArraySource, Dataset, SubsetSource, name_example

TRANSFORM = "decode|random_resized_crop(12)|flip|color_jitter|randaugment|normalize|erase"
TREE = {
    "train": {"cat": ["a.png", "b.JPG", "sub/c.webp"], "dog": ["a.png", "d.png", "e.jpeg"]},
    "validation": {"dog": ["x.png"]},
    "test": {"cat": ["y.png"], "dog": ["z.png"]},
}


def draw(path, size=(20, 16)):
    """A picture of its own for each path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(path.name.encode()) + len(path.parent.name))
    pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    form = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else path.suffix[1:]
    Image.fromarray(pixels).save(path, form)
    return path


@pytest.fixture
def root(tmp_path):
    for split, classes in TREE.items():
        for name, files in classes.items():
            for i, file in enumerate(files):
                draw(tmp_path / split / name / file, (20 + i, 16))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".hidden").mkdir()
    return tmp_path


def open_folder(path, **keys):
    return open_dataset(DataConfig(f"folder:{path}", **keys))


def test_splits_classes_and_bytes(root):
    data = open_folder(root)
    assert list(data.splits) == ["train", "val", "test"]
    assert data.class_names == ("cat", "dog")
    train = data.splits["train"]
    assert [train.name(i).removeprefix(f"{root}/train/") for i in range(len(train))] == [
        "cat/a.png", "cat/b.JPG", "cat/sub/c.webp", "dog/a.png", "dog/d.png", "dog/e.jpeg",
    ]  # fmt: skip
    examples = train.take(np.array([4, 0]))
    assert examples["image"][0] == (root / "train/dog/d.png").read_bytes()
    assert examples["label"].tolist() == [1, 0]
    assert data.splits["val"].take(np.array([0]))["label"].tolist() == [1]


def test_a_folder_of_classes_alone_is_train(root):
    data = open_folder(root / "train", validation_fraction=0.34)
    assert {name: len(s) for name, s in data.splits.items()} == {"train": 3, "val": 3}
    held = data.splits["val"]
    assert isinstance(held, SubsetSource)
    assert name_example(held, 0).startswith(str(root / "train"))


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "plane"):
        draw(tmp_path / name / "a.png")
    assert open_folder(tmp_path).class_names == ("plane", "train")


def test_a_csv_of_paths_and_labels(root):
    rows = ["file,note,label,split", "train/cat/a.png,-,10,train", "train/dog/d.png,-,9,train"]
    (root / "labels.csv").write_text("\n".join([*rows, "test/cat/y.png,-,9,valid"]))
    data = open_dataset(DataConfig(f"csv:{root}/labels.csv"))
    assert data.class_names == ("9", "10")
    assert data.splits["train"].take(np.arange(2))["label"].tolist() == [1, 0]
    content = data.splits["val"].take(np.array([0]))["image"][0]
    assert content == (root / "test/cat/y.png").read_bytes()
    assert name_example(data.splits["val"], 0) == f"{root}/labels.csv:4"


def test_the_fingerprint_sees_names_sizes_and_bytes(root):
    first = open_folder(root).fingerprint
    assert open_folder(root).fingerprint == first
    content = bytearray((root / "train/cat/a.png").read_bytes())
    content[60] ^= 1
    (root / "train/cat/a.png").write_bytes(content)
    second = open_folder(root).fingerprint
    shutil.move(root / "train/cat/a.png", root / "train/cat/z.png")
    assert len({first, second, open_folder(root).fingerprint}) == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is empty: put a folder"),
        (["train.csv"], "no folder and no image: put a folder"),
        (["a.png"], "a.png belongs to no class"),
        (["a/b.png", "c.png"], "c.png belongs to no class"),
        (["a/x.png", "b/notes.txt"], "/b holds no image"),
        (["train/a/x.png", "more/a/x.png"], "'train' beside 'more', which is none"),
        (["train/a/x.png", "test/x.png"], "test/x.png belongs to no class"),
        (["train/x.png", "test/y.png"], "y.png belongs to no class"),
        (["train/a/x.png", "val/a/x.png", "valid/a/x.png"], "two folders of split 'val'"),
        (["train/cat/x.png", "test/cta/x.png"], "never shows .did you mean 'cat'"),
    ],
)
def test_mistakes_in_folders(tmp_path, files, message):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(UserError, match=message) as caught:
        open_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_listed_file_that_is_absent_is_a_broken_image(root):
    rows = ["path,label", *(f"train/dog/{name}.png,dog" for name in ("a", "b", "d"))]
    (root / "labels.csv").write_text("\n".join(rows))
    source = open_dataset(DataConfig(f"csv:{root}/labels.csv")).splits["train"]
    ops = parse_ops("decode|resize((8, 8))", open_dataset(DataConfig(f"csv:{root}/labels.csv")))
    with pytest.raises(UserError, match=r"labels.csv:3: .*No such file"):
        next(read_eval(source, ops, 3))
    batch = next(read_eval(source, ops, 3, skip_broken=True))
    assert batch["mask"].tolist() == [1, 0, 1]
    (root / "labels.csv").write_text("path,label\nno/a.png,dog\n")
    with pytest.raises(UserError, match=r"labels.csv:2: cannot read image .*no/a.png"):
        open_dataset(DataConfig(f"csv:{root}/labels.csv"))


def test_what_is_no_folder(root):
    with pytest.raises(UserError, match=r"'folder:/nowhere' is no folder$"):
        open_folder("/nowhere")
    (root / "labels.csv").write_text("path,label\n")
    with pytest.raises(UserError, match="for a table of paths and labels: 'csv:"):
        open_folder(root / "labels.csv")


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("", "are encoded files: begin with decode"),
        ("normalize", "write 'decode|normalize'"),
        ("decode|decode", "pixels after 'decode': leave it out"),
        ("decode|normalize|resize(8)", "after 'normalize' are floats: put it before"),
        ("decode('gray')", "did you mean 'grey'"),
        ("decode(background=256)", "not in 0..255"),
        ("decode|resize(8, 'cubic')", "did you mean 'bicubic'"),
    ],
)
def test_orders_that_cannot_work(root, transform, message):
    with pytest.raises(UserError, match=message.replace("|", r"\|").replace("(", r"\(")):
        parse_ops(transform, open_folder(root))


def test_decode_is_for_encoded_images():
    digits = open_dataset(DataConfig("synthetic:embedded:digits"))
    with pytest.raises(UserError, match=r"^data.eval_transform: 'decode'.*are pixels"):
        parse_ops("decode|normalize", digits, "data.eval_transform")


def make_stream(root, **changes):
    data = open_folder(root)
    fields = {"batch_size": 4, "num_steps": 6, "steps_per_block": 1, "seed": 3, **changes}
    return TrainStream(data.splits["train"], parse_ops(TRANSFORM, data), **fields)


def join(blocks):
    blocks = [blocks[i] for i in range(len(blocks))]
    return {k: np.concatenate([b[k] for b in blocks]) for k in blocks[0]}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_same_bits_for_any_threads_blocks_and_processes(root, monkeypatch):
    whole = join(make_stream(root))
    assert whole["image"].shape == (6, 4, 12, 12, 3)
    assert_same(whole, join(make_stream(root, steps_per_block=4)))
    shares = [join(make_stream(root, rows=rows)) for rows in (slice(1), slice(1, 4))]
    assert_same(whole, {k: np.concatenate([s[k] for s in shares], axis=1) for k in whole})
    for workers in (1, 10**6):  # threads as in the only process, and one as in one of many
        monkeypatch.setattr(apply_module, "_num_workers", workers)
        assert apply_module.num_threads() == max(len(os.sched_getaffinity(0)) // workers, 1)
        assert_same(whole, join(make_stream(root)))


def test_image_by_image_equals_operation_by_operation(root):
    data = open_folder(root)
    ops = parse_ops(TRANSFORM, data)
    examples = data.splits["train"].take(np.arange(6))
    draws = [np.random.default_rng(i).random((6, op.num_draws)) for i, op in enumerate(ops)]
    fused, broken = apply_module.apply_ops(ops, examples, draws)
    for op, uniform in zip(ops, draws, strict=True):
        examples = op(examples, uniform)
    np.testing.assert_array_equal(fused["image"], examples["image"])
    assert not broken


def test_encoded_bytes_of_any_source(root):
    folder = open_folder(root)
    train = folder.splits["train"]
    memory = ArraySource(train.take(np.arange(len(train))))
    column = Dataset("column", {"train": memory}, 2, fingerprint="-")
    mine = TrainStream(memory, parse_ops(TRANSFORM, column), 4, 6, seed=3)
    assert_same(join(make_stream(root)), join(mine))


def read_broken(root, num_workers, **keys):
    (root / "train/cat/a.png").write_bytes(b"torn")
    content = (root / "train/dog/e.jpeg").read_bytes()
    (root / "train/dog/e.jpeg").write_bytes(content[:300])
    stream = make_stream(root, num_steps=3, **keys)
    return list(read_ahead(stream, 0, num_workers=num_workers, prefetch=1))


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_broken_image_stops_the_reader(root, num_workers):
    with pytest.raises(UserError, match=r"broken image .*(a\.png: it is no|e\.jpeg: ).*skip_br"):
        read_broken(root, num_workers)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_broken_images_are_masked_and_named_when_asked(root, num_workers):
    blocks = read_broken(root, num_workers, skip_broken=True)
    mask = np.concatenate([b["mask"].ravel() for b in blocks])
    assert mask.sum() == 8  # two epochs of four sound ones
    images = np.concatenate([b["image"].reshape(4, -1) for b in blocks])
    assert np.isfinite(images).all()
    lines = [str(line) for b in blocks for line in b.get("broken", ())]
    assert len(lines) == 4
    stream = make_stream(root, num_steps=3, skip_broken=True)
    for i, block in enumerate(blocks):
        assert_same(block, stream[i])
    assert {line.split(": ")[0] for line in lines} == {
        str(root / "train/cat/a.png"),
        str(root / "train/dog/e.jpeg"),
    }


def test_broken_images_of_evaluation(root):
    data = open_folder(root)
    ops = parse_ops("decode|resize((8, 8))", data)
    (root / "train/dog/e.jpeg").unlink()  # the last: padding repeats it
    with pytest.raises(UserError, match=r"e\.jpeg: No such file"):
        list(read_eval(data.splits["train"], ops, 4))
    batches = list(read_eval(data.splits["train"], ops, 4, skip_broken=True))
    assert [b["mask"].tolist() for b in batches] == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert [len(b.get("broken", ())) for b in batches] == [0, 1]


def test_no_image_can_be_decoded(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"none of the first images .*x\.png: it is no image"):
        parse_ops("decode", open_folder(tmp_path))
