"""The page docs/your_own.md: its files are written out and trained, without a fork."""

import pathlib
import re
import sys

import pytest

import zoo
from zoo.config import make_config

PAGE = pathlib.Path("docs/your_own.md").read_text()


def test_the_page_works(tmp_path, monkeypatch):
    for name, text in re.findall(r"```python title=\"([\w.]+)\"\n(.*?)```", PAGE, re.S):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    config = make_config("my_recipe.py", {"log.progress": "False", "log.tensorboard": "False"})
    result = zoo.fit(config, tmp_path / "run")
    sys.modules.pop("my_parts", None)
    assert result.metrics["test"]["accuracy"] > 0.9
    assert type(result.model).__name__ == "TwoLayers"
    assert result.metrics["test"]["margin"] == pytest.approx(result.metrics["test"]["margin"])
