"""What one start has compiled, the next takes from disk."""

import os
import pathlib
import subprocess
import sys

from zoo.compilation import FOLDER, keep_compiled

ROOT = pathlib.Path(__file__).parent.parent
RECIPE = ["--config", "configs/mlp_digits.py:quick", "--config.log.progress=False"]


def train(workdir, cache, **variables):
    """One start of a run; what lies in the cache after it."""
    words = [sys.executable, "train.py", *RECIPE, f"--config.data.cache={cache}"]
    kept = {k: v for k, v in os.environ.items() if k != FOLDER}
    env = {**kept, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **variables}
    done = subprocess.run(
        [*words, "--workdir", workdir], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files = (cache / "compiled").rglob("*-cache")
    return {path.name: path.stat().st_mtime_ns for path in files}


def test_a_second_start_compiles_nothing(tmp_path):
    cache = tmp_path / "cache"
    first = train(tmp_path / "one", cache)
    second = train(tmp_path / "two", cache)
    assert len(first) > 1
    assert second == first
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("one", "two")]
    assert rows[0] == rows[1]


def test_where_nothing_can_be_written_it_trains_all_the_same(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "compiled").write_text("not a folder")
    kept = train(tmp_path / "one", tmp_path / "cache")
    assert not kept
    assert (tmp_path / "one" / "metrics.jsonl").exists()


def test_the_users_own_word_is_kept(monkeypatch):
    for own in ("", "/somewhere"):
        monkeypatch.setenv(FOLDER, own)
        keep_compiled(None)
        assert os.environ[FOLDER] == own
    monkeypatch.delenv(FOLDER)
    keep_compiled("gs://bucket/cache")
    assert os.environ[FOLDER].startswith("gs://bucket/cache/compiled/")
