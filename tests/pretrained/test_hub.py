"""A hub id, as far as it goes without a network: the library's own cache, in its offline mode."""

import shutil

from conftest import run_command
from twins import FOLDER

COMMIT = "0" * 40


def test_a_hub_id_comes_from_the_cache_in_offline_mode(tmp_path):
    place = tmp_path / "hub" / "models--someone--small-bert"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    shutil.copytree(FOLDER / "bert_headless", place / "snapshots" / COMMIT)
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    words = ("-m", "zoo", "convert", "someone/small-bert", str(tmp_path / "ours"))
    done = run_command(*words, env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ours" / "model.safetensors").exists()
    missing = run_command(*words[:3], "someone/other", str(tmp_path / "more"), env=env)
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: there is no folder someone/other here, and the hub")
    assert missing.stderr.count("\n") == 1
