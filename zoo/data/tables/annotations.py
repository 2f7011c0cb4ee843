"""Columns of lists and of answers: words with tags, questions with choices or places in a text.

What has to do with more than one column (as many tags as words, an answer that is in its context)
is checked where tokens are made, in zoo/data/annotated.py, for sources of the user's own too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.config import DataError
from zoo.data.tables.cells import Strings, Table, describe_value, to_list


def read_lists(table: Table, column: str) -> Strings:
    """A column of lists of texts. Raises UserError with the line of a value that is none."""
    import pyarrow as pa

    kind = pa.large_list(pa.large_string())
    values = table.columns[column]
    listed = to_list(values)
    for row, texts in enumerate(listed):
        wrong: Any = texts
        if isinstance(texts, list):
            wrong = next((text for text in texts if not isinstance(text, str)), None)
            if wrong is None and None not in texts:
                continue
        among = "holds" if isinstance(texts, list) else "is"
        raise DataError(
            f"{table.origin.name(row)}: column {column!r} {among} {describe_value(wrong)}, not "
            f"{'only texts' if isinstance(texts, list) else 'a list of texts'}"
        )
    return Strings(pa.chunked_array([pa.array(listed, kind)]))


def read_choice(table: Table, column: str) -> np.ndarray:
    """The number of the right choice, int32 `[n]`, from 0. Raises UserError with the line of a
    value that is no whole number."""
    out = np.zeros(len(table), np.int32)
    for row, value in enumerate(to_list(table.columns[column])):
        text = str(value).strip()
        if isinstance(value, bool) or not text.removeprefix("-").isdecimal():
            raise DataError(
                f"{table.origin.name(row)}: column {column!r} is {describe_value(value)}, not the "
                "number of a choice, counted from 0"
            )
        out[row] = int(text)
    return out


def read_answers(table: Table, plan: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Answers as SQuAD writes them, `{"text": [...], "answer_start": [...]}`, of none empty lists:
    of the column `answers`, or of `answer` and `answer_start`.

    Raises UserError with the line of an answer without its place, and of what is no answer.
    """
    if "answers" in plan:
        column = plan["answers"][0]
        values = to_list(table.columns[column])
        for row, value in enumerate(values):
            if not (isinstance(value, dict) and {"text", "answer_start"} <= value.keys()):
                raise DataError(
                    f"{table.origin.name(row)}: column {column!r} is {describe_value(value)}, not "
                    "{'text': [...], 'answer_start': [...]}"
                )
        return np.fromiter(values, object, len(values))
    columns = plan["answer"][0], plan["answer_start"][0]
    out = np.empty(len(table), object)
    pairs = zip(*(to_list(table.columns[column]) for column in columns), strict=True)
    for row, (text, start) in enumerate(pairs):
        if text in (None, ""):
            out[row] = {"text": [], "answer_start": []}
            continue
        if not isinstance(text, str) or not str(start).strip().removesuffix(".0").isdecimal():
            column, value, wanted = (
                (columns[1], start, "the place of its first character, counted from 0")
                if isinstance(text, str)
                else (columns[0], text, "text")
            )
            raise DataError(
                f"{table.origin.name(row)}: column {column!r} is {describe_value(value)}, not "
                f"{wanted}"
            )
        out[row] = {"text": [text], "answer_start": [int(float(start))]}
    return out
