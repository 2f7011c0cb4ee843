"""Pages in a real browser: drawn, not blank, without an error on the console."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from explain_cases import PICTURE, TEXT, load
from PIL import Image

import zoo

pytestmark = pytest.mark.slow
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1160, 1400
# Nothing of it asks the network for anything.
QUIET = ("disable-background-networking", "disable-component-update", "disable-sync")
FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", *QUIET)


@pytest.fixture(scope="module")
def browser():
    """Its path, or a skip."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip("no browser: apt-get install -y chromium")
    return found


def take(browser, page, folder, tries=6):
    """The picture `[y, x, 3]` of a page, its elements after its script ran, and the console.

    Chromium's virtual time does not wait for the threads that unpack codes and decode pictures: on
    a busy machine about one look in ten comes too early, so that an unready page is opened again.
    """
    flags = [f"--{flag}" for flag in (*FLAGS, "hide-scrollbars", "virtual-time-budget=8000")]
    flags += [f"--window-size={WIDTH},{HEIGHT}", "--enable-logging=stderr", "--dump-dom"]
    for i in range(tries):
        places = [f"--user-data-dir={folder}/profile{i}", f"--screenshot={folder}/shot.png"]
        words = [browser, *flags, *places, page.as_uri()]
        run = subprocess.run(words, capture_output=True, text=True, timeout=180)
        console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
        if console or 'data-ready="true"' in run.stdout:
            break
    with Image.open(folder / "shot.png") as image:
        return np.asarray(image.convert("RGB")).astype(int), run.stdout, console


@pytest.mark.parametrize(
    ("name", "given", "options", "canvases"),
    [
        ("vit", PICTURE, {}, 3),  # the picture, the overlay, all heads
        ("decoder", TEXT, {}, 2),  # the matrix, all heads
        ("t5", TEXT, {"target": "a & <b>"}, 6),
        ("decoder", TEXT, {"method": "lens"}, 0),
        ("vit", PICTURE, {"method": "integrated"}, 0),
    ],
)
def test_a_page_is_drawn(browser, tmp_path, name, given, options, canvases):
    page = tmp_path / "page.html"
    zoo.explain(load(name), given, out=page, **options)
    shot, text, console = take(browser, page, tmp_path)
    assert shot.shape == (HEIGHT, WIDTH, 3)
    assert not console
    assert 'data-ready="true"' in text
    assert text.count("<canvas") == canvases
    if canvases:
        assert "Needs a script" not in text
    # White and grey of an empty page have no colour; text is dark; what is shown is red.
    red = (shot[..., 0] - shot[..., 2] > 60).mean()
    assert red > 0.002
    assert (shot.sum(-1) < 200).mean() > 0.003
    assert len(np.unique(shot.reshape(-1, 3), axis=0)) > 50
