"""Graphs whose vertices are on several ranks: they run the calls of models themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arguments import Arguments
    from .outputs import Outputs


class OnRanks(ABC):
    """What a model is called with in the place of a `GraphBatch`, where the rest of the graphs is on other ranks."""

    @abstractmethod
    def run(self, model: Any, call: Arguments) -> Outputs:
        """The outputs of a call, of the vertices that are here."""
