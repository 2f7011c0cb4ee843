import numpy as np
import pytest
from PIL import Image

from zoo.evaluation.confusion import draw_confusion


@pytest.mark.parametrize("classes", [6, 40, 300])
def test_picture(classes, tmp_path):
    """A dark diagonal on light ground, whatever the names; a class without labels is no error."""
    names = [f"class $x_{i}$ 猫 with a long name that goes on" for i in range(classes)]
    matrix = np.diag(np.arange(classes) * 7_000.0)
    matrix[-1, 0] = 1
    draw_confusion(matrix, names, tmp_path / "confusion.png")
    image = Image.open(tmp_path / "confusion.png").convert("RGB")
    assert max(image.size) < 3_000
    blue = np.asarray(image)[..., 2] > np.asarray(image)[..., 0].astype(int) + 60
    rows, columns = np.nonzero(blue[:, : int(image.width * 0.8)])  # beside the colour bar
    assert np.corrcoef(rows, columns)[0, 1] > 0.9
