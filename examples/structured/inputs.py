"""What `Alignment` reads beside the scores, of texts and recordings of any length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .models import IMPOSSIBLE


@dataclass(frozen=True)
class Texts:
    """The texts with blanks around their letters, a row a frame of all recordings: [frames, positions].

    Attributes:
        letter: int64, the letter at each position; 0 for a blank, and behind the end of a text.
        leap: 0 where the blank before may be left out, else `IMPOSSIBLE`; without rows for first frames.
        is_end: 0 at the last letter and the blank after it, else `IMPOSSIBLE`.
    """

    letter: Tensor
    leap: Tensor
    is_end: Tensor

    def read(self, log_probabilities: Tensor) -> dict[str, Tensor]:
        """The inputs of `Alignment`; `log_probabilities` [frames, letters]."""
        score = log_probabilities.gather(1, self.letter)
        return {"score": score, "leap": self.leap.to(score), "is_end": self.is_end.to(score)}


def spread(texts: Sequence[Tensor], frames: Sequence[int]) -> Texts:
    """`Texts` of texts [letters], which have no blank (0), and of how many frames each recording has."""
    positions = positions_of(texts)
    letter = torch.zeros(len(texts), positions, dtype=torch.int64)
    may_leap, is_end = torch.zeros(2, len(texts), positions, dtype=torch.bool)
    for row, text in enumerate(texts):
        last = 2 * len(text) - 1
        letter[row, 1 : last + 1 : 2] = text
        may_leap[row, 3 : last + 1 : 2] = text[1:] != text[:-1]
        is_end[row, last : last + 2] = True
    count = torch.tensor(frames)
    leap, end = (torch.where(mask, 0.0, IMPOSSIBLE) for mask in (may_leap, is_end))
    return Texts(*(rows.repeat_interleave(n, 0) for rows, n in ((letter, count), (leap, count - 1), (end, count))))


def positions_of(texts: Sequence[Tensor]) -> int:
    """How many entries the state of `Alignment` has: the letters of the longest text, with blanks around them."""
    return 2 * max(map(len, texts)) + 1
