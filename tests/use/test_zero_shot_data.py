"""`zoo eval` of CLIP and SigLIP on folders of pictures, against transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from published import copy_twin, write_towers

import zoo
from zoo.cli import main
from zoo.config import UserError

CLASSES = ("big_dog", "cat", "red_mat")


def make_folder(folder):
    """Two noisy pictures a class, under the class's name."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (12 + i, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parity
@pytest.mark.parametrize("name", ["clip_published", "siglip_pixels"])
def test_zero_shot_on_data(tmp_path, name):
    torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[parity]'")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    folder = copy_twin(name, tmp_path / name)
    tokenizer, processor = write_towers(transformers, folder, name)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    pictures = make_folder(tmp_path / "pictures")
    texts = [f"a {label.replace('_', ' ')}" for label in CLASSES]
    padding = {"padding": "max_length", "max_length": 10} if name[0] == "s" else {"padding": True}
    tokens = tokenizer(texts, return_tensors="pt", **padding)
    if name[0] == "s":
        tokens.pop("attention_mask")
    tokens.pop("token_type_ids", None)
    images = [
        Image.open(p).convert("RGB") for c in CLASSES for p in sorted((pictures / c).iterdir())
    ]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = model(pixel_values=pixels, **tokens).logits_per_image.numpy()
    label = np.repeat(np.arange(3), 2)
    found = zoo.evaluate(folder, f"folder:{pictures}", template="a {}", samples=20, by="label")
    np.testing.assert_allclose(found.records["logits"], logits, atol=2e-5)
    np.testing.assert_array_equal(found.records["label"], label)
    assert found.classes == CLASSES
    assert found.metrics["accuracy"].value == (logits.argmax(1) == label).mean()
    if name[0] == "c":
        expected = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(label))
        assert found.metrics["loss"].value == pytest.approx(float(expected), abs=1e-5)
        assert "template" not in str(found.notes)
    other = zoo.evaluate(folder, f"folder:{pictures}", template="a {}", samples=20, batch_size=4)
    np.testing.assert_allclose(other.records["logits"], logits, atol=2e-5)
    against = zoo.evaluate(folder, f"folder:{pictures}", samples=20, against=str(folder)).against
    assert against.metrics["accuracy"].p_value == 1.0
    command = ["eval", str(folder), f"--data=folder:{pictures}", "--template=a {}", "--samples=20"]
    assert main([*command, f"--out={tmp_path / 'eval.json'}"]) == 0
    written = json.loads((tmp_path / "eval.json").read_text())
    assert written["metrics"]["accuracy"]["value"] == found.metrics["accuracy"].value
    with pytest.raises(UserError, match=r"should hold one {}"):
        zoo.evaluate(folder, f"folder:{pictures}", template="cat")
    with pytest.raises(UserError, match="takes images; embedded:wine has features, label"):
        zoo.evaluate(folder, "embedded:wine")
    with pytest.raises(UserError, match="give --data"):
        zoo.evaluate(folder)
    with pytest.raises(UserError, match="labels: 2 names for the 3 classes"):
        zoo.evaluate(folder, f"folder:{pictures}", labels=["a", "b"])
