"""Tokens that know where in their text they stand, and windows of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PlacedTokens:
    """A text, or a pair, as `ids` `[t]` in the tokenizer's template.

    `owners` `[t]` say which text a token is of, 0 or 1, and -1 of the template's own; `places`
    `[t, 2]` the characters of that text it stands for, from the first to behind the last. At `mark`
    sentence B begins, which is the end where the tokenizer tells no sentences apart.
    """

    ids: np.ndarray
    owners: np.ndarray
    places: np.ndarray
    mark: int

    def __len__(self) -> int:
        return len(self.ids)

    def windows(self, owner: int, most: int, step: int) -> list[PlacedTokens]:
        """The row with at most `most` tokens of one of its texts, of these each window's first
        `step` behind that of the window before; the last window holds the text's end."""
        mine = np.flatnonzero(self.owners == owner)
        count = 1 + max(-(-(len(mine) - most) // step), 0)
        out = []
        for first in range(0, count * step, step):
            kept = np.ones(len(self), bool)
            kept[mine[:first]] = kept[mine[first + most :]] = False
            out.append(
                PlacedTokens(
                    self.ids[kept],
                    self.owners[kept],
                    self.places[kept],
                    int(kept[: self.mark].sum()),
                )
            )
        return out

    def cut(self, owner: int, most: int) -> PlacedTokens:
        """The row with only the first `most` tokens of one of its texts."""
        over = (self.owners == owner).sum() > most
        return self.windows(owner, most, len(self))[0] if over else self
