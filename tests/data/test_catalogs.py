"""Gettext catalogs of installed packages: counts, cleanliness, and no sentence in two splits."""

import importlib.metadata
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from zoo.config import DataConfig, UserError
from zoo.data import catalogs
from zoo.data.sources import open_raw

PO = r"""
msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8\n"

msgid "Save"
msgstr "{save}"

msgctxt "verb"
msgid "Open"
msgstr "{open}"

msgid "%(n)d file"
msgid_plural "%(n)d files"
msgstr[0] "%(n)d {file}"
msgstr[1] "%(n)d {file}s"

#, fuzzy
msgid "Close"
msgstr "guess"

msgid "Untranslated"
msgstr ""

#~ msgid "Old"
#~ msgstr "alt"
"""


def take_all(source):
    return source.take(np.arange(len(source)))


def test_without_the_reader_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "polib", None)
    with pytest.raises(UserError, match=r"polib.* not installed: pip install 'zoo-jax\[demo\]'"):
        open_raw(DataConfig("gettext:en-de"))


@pytest.fixture
def packages(monkeypatch, tmp_path):
    """Two packages with catalogs, as importlib.metadata shows them."""
    pytest.importorskip("polib", reason="the extra demo is not installed")
    words = {
        "de": {"save": "Sichern", "open": "Öffnen", "file": "Datei"},
        "pt_BR": {"save": "Salvar", "open": "Abrir", "file": "arquivo"},
        "zh_Hans": {"save": "保存", "open": "打开", "file": "文件"},
    }
    files = {}
    for package, locales in {"django": words, "wagtail": {"de": words["de"]}}.items():
        files[package] = []
        for locale, forms in locales.items():
            path = tmp_path / package / "locale" / locale / "LC_MESSAGES" / "django.po"
            path.parent.mkdir(parents=True)
            text = PO
            for key, word in forms.items():
                text = text.replace("{" + key + "}", word)
            path.write_text(text, encoding="utf-8")
            files[package].append(path)

    class Entry(str):
        def locate(self):
            return self

    def distribution(name):
        if name not in files:
            raise importlib.metadata.PackageNotFoundError(name)
        return SimpleNamespace(files=[Entry(path) for path in files[name]])

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.setattr(importlib.metadata, "distributions", list)
    monkeypatch.setattr(catalogs, "_tenth", lambda text: {"Save": 0, "Open": 1}.get(text, 5))
    return files


def test_pairs_are_cleaned_and_written_once(packages):
    dataset = open_raw(DataConfig("gettext:en-de"))
    found = {
        split: list(zip(*(take_all(s)[f] for f in ("source", "target")), strict=True))
        for split, s in dataset.splits.items()
    }
    assert found == {
        "train": [("%(n)d file", "%(n)d Datei")],
        "val": [("Open", "Öffnen")],
        "test": [("Save", "Sichern")],
    }
    assert dataset.notes == ("sentence pairs: 3 of django",)
    back = take_all(open_raw(DataConfig("gettext:zh-en")).splits["test"])
    assert (back["source"], back["target"]) == (["保存"], ["Save"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("en-pt", r"no catalog in 'pt' \(did you mean 'pt_BR'"),
        ("de-fr", "write 'gettext:en-LANGUAGE'"),
        ("en", "write 'gettext:en-LANGUAGE'"),
    ],
)
def test_languages_that_are_not_there(packages, name, message):
    with pytest.raises(UserError, match=message):
        open_raw(DataConfig(f"gettext:{name}"))


def test_without_catalogs_the_extra_is_named(packages):
    packages.clear()
    for name in ("en-de", "languages"):
        with pytest.raises(UserError, match=r"installed: pip install 'zoo-jax\[demo\]'"):
            open_raw(DataConfig(f"gettext:{name}"))


@pytest.fixture
def real(request):
    pytest.importorskip("polib", reason="the extra demo is not installed")
    if not catalogs.find_catalogs("django"):
        pytest.skip("django is not installed (extra demo)")


def test_real_pairs(real):
    for language, count in (("de", 826), ("fr", 856), ("zh", 839)):  # django 5.2
        dataset = open_raw(DataConfig(f"gettext:en-{language}"))
        assert int(dataset.notes[0].split()[2]) == pytest.approx(count, rel=0.1)
        english = [set(take_all(s)["source"]) for s in dataset.splits.values()]
        assert not english[0] & (english[1] | english[2])
        assert not english[1] & english[2]
        sizes = [len(s) for s in dataset.splits.values()]
        assert sizes[1] + sizes[2] == pytest.approx(sum(sizes) * 0.2, rel=0.2)


@pytest.mark.slow
def test_real_languages_can_be_told_apart(real):
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.naive_bayes import MultinomialNB

    dataset = open_raw(DataConfig("gettext:languages"))
    assert dataset.num_classes > 60
    texts = {split: take_all(source) for split, source in dataset.splits.items()}
    every = [text for part in texts.values() for text in part["text"]]
    assert len(set(every)) == len(every) > 30_000
    grams = HashingVectorizer(analyzer="char", ngram_range=(1, 3), alternate_sign=False, norm=None)
    model = MultinomialNB(alpha=0.01)
    model.fit(grams.transform(texts["train"]["text"]), texts["train"]["label"])
    found = model.predict(grams.transform(texts["test"]["text"]))
    accuracy = (found == texts["test"]["label"]).mean()
    assert accuracy > 0.7, accuracy
