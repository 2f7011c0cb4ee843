"""Gettext catalogs of installed packages: sentence pairs, and the language of a sentence.

The catalogs come with the wheels of django, JupyterLab's language packs, wagtail and spyder; they
are read as files, no package is imported. What is in one split is in no other: a hash of the
English sentence decides.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from zoo.config import DataConfig, UserError, nearest
from zoo.data.sources import ArraySource, Dataset, Source, text_array

PACKAGES = ("django", "wagtail", "spyder")
PACKS = "jupyterlab-language-pack-"
LOCALE = re.compile(r"([A-Za-z]{2,3}(?:[_-]\w+)?)/LC_MESSAGES/[^/]+\.(po|mo)")
CHINESE = {"zh": ("zh", "zh_hans", "zh_cn")}
FEWEST = 50  # sentences of a language that is told from others
PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|%[a-z]|\{\w*\}|<[^>]*>|&\w+;")


def open_gettext(name: str, config: DataConfig) -> Dataset:
    """`gettext:en-de` (fields source and target) and `gettext:languages` (text and label).

    Raises UserError when the catalogs or the package that reads them are not installed, or have no
    such language.
    """
    try:
        import polib  # noqa: F401
    except ImportError:
        raise UserError(_missing(name, "polib, which reads catalogs, is not")) from None
    if name == "languages":
        return _open_languages()
    first, dash, second = name.partition("-")
    if not dash or (first == "en") == (second == "en"):
        raise UserError(
            f"data.source='gettext:{name}': write 'gettext:en-LANGUAGE', 'gettext:LANGUAGE-en' or "
            "'gettext:languages'"
        )
    return _open_pairs(name, second if first == "en" else first, first == "en")


def _missing(name: str, what: str) -> str:
    return f"gettext:{name}: {what} installed: pip install 'zoo-jax[demo]'"


def _open_pairs(name: str, language: str, from_english: bool) -> Dataset:
    """Translations from or into English of all installed packages."""
    packs = sorted(
        d.name for d in importlib.metadata.distributions() if d.name.lower().startswith(PACKS)
    )
    catalogs = {package: find_catalogs(package) for package in (*PACKAGES, *packs)}
    if not any(catalogs.values()):
        raise UserError(_missing(name, "no package with catalogs is"))
    wanted = _codes(language)
    pairs: dict[tuple[str, str], None] = {}
    counts = {}
    for package, files in catalogs.items():
        before = len(pairs)
        there = {locale.lower() for locale, _ in files}
        chosen = next((code for code in wanted if code in there), None)
        for locale, path in files:
            if locale.lower() == chosen:
                pairs |= dict.fromkeys(read_catalog(path))
        counts[package] = len(pairs) - before
    if not pairs:
        every = {locale for files in catalogs.values() for locale, _ in files} - {"en"}
        raise UserError(f"gettext:{name}: no catalog in {language!r}{nearest(language, every)}")
    english, other = zip(*pairs, strict=True)
    names = ("source", "target") if from_english else ("target", "source")
    columns = dict(zip(names, (english, other), strict=True))
    columns = {field: columns[field] for field in ("source", "target")}
    found = ", ".join(f"{count:,} of {package}" for package, count in counts.items() if count)
    return _split(f"gettext:{name}", english, columns, (f"sentence pairs: {found}",))


def _codes(language: str) -> tuple[str, ...]:
    """The locales of a language: 'de' is also in de_DE, but not in de_CH."""
    code = language.lower().replace("-", "_")
    return CHINESE.get(code, (code, f"{code}_{code}"))


def _open_languages() -> Dataset:
    """django's sentences in all its languages; regions of a language are one class.

    A sentence that two languages share is left out, and so is one that is nothing but English.
    """
    catalogs = find_catalogs("django")
    if not catalogs:
        raise UserError(_missing("languages", "django is not"))
    english: dict[str, str] = {}  # sentence -> the English one that it translates
    languages: defaultdict[str, set[str]] = defaultdict(set)  # sentence -> who says it
    for locale, path in catalogs:
        language = re.split("[_-]", locale)[0].lower()
        for source, target in read_catalog(path, untranslated=language == "en"):
            if any(c.isalpha() for c in PLACEHOLDER.sub("", target)):
                languages[target].add("en" if target == source else language)
                english.setdefault(target, source)
    kept = [text for text, spoken in languages.items() if len(spoken) == 1]
    label_of = {text: next(iter(languages[text])) for text in kept}
    sizes = Counter(label_of.values())
    kept = [text for text in kept if sizes[label_of[text]] >= FEWEST]
    names = tuple(sorted({label_of[text] for text in kept}))
    numbers = {language: i for i, language in enumerate(names)}
    labels = np.array([numbers[label_of[text]] for text in kept], np.int32)
    note = f"label: {len(names)} languages ({', '.join(names[:10])}, ...)"
    dataset = _split(
        "gettext:languages", [english[t] for t in kept], {"text": kept, "label": labels}, (note,)
    )
    return Dataset(dataset.name, dataset.splits, len(names), names, notes=dataset.notes)


def find_catalogs(package: str) -> list[tuple[str, Any]]:
    """(locale, path) of every catalog of an installed package: the .po file, else the .mo file."""
    try:
        files = importlib.metadata.distribution(package).files or ()
    except importlib.metadata.PackageNotFoundError:
        return []
    found: dict[str, tuple[str, Any]] = {}
    for file in sorted(files, key=str):
        match = LOCALE.search(str(file))
        if match:  # .mo is before .po
            found[str(file)[:-3]] = (match[1].replace("-", "_"), file.locate())
    return list(found.values())


def read_catalog(path: Any, untranslated: bool = False) -> Iterator[tuple[str, str]]:
    """(English, translation) of a catalog, of plurals the first form; fuzzy and empty ones left
    out. With `untranslated` the translation of English is itself."""
    import polib

    read: Callable[[str], Any] = polib.pofile if str(path).endswith(".po") else polib.mofile
    for entry in read(str(path)):
        target = entry.msgstr or entry.msgstr_plural.get(0, "")
        target = entry.msgid if untranslated else target
        if entry.msgid and target and not entry.obsolete and "fuzzy" not in entry.flags:
            yield entry.msgid, target


def _split(
    name: str, english: Iterable[str], columns: dict[str, Any], notes: tuple[str, ...]
) -> Dataset:
    """A tenth of the English sentences is 'val', a tenth 'test', whatever their case and spaces."""
    places = np.array([_tenth(sentence) for sentence in english])
    arrays = {
        field: values if isinstance(values, np.ndarray) else text_array(values)
        for field, values in columns.items()
    }
    splits: dict[str, Source] = {
        split: ArraySource({field: values[chosen] for field, values in arrays.items()})
        for split, chosen in (
            ("train", places > 1),
            ("val", places == 1),
            ("test", places == 0),
        )
    }
    return Dataset(name, splits, notes=notes)


def _tenth(sentence: str) -> int:
    """0 to 9, by the letters and signs of a sentence."""
    same = " ".join(sentence.casefold().split())
    return int.from_bytes(hashlib.sha256(same.encode()).digest()[:8], "big") % 10
