"""How many turns of loops a kernel takes for one element: sums of sums are computed in place up to a limit, and else stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import fx

from ..lower.elements import is_reduction
from ..lower.views import width
from ..operations import PRODUCTS
from .tiles import ACROSS

aten = torch.ops.aten

MOST_TURNS = 128  # for one element; beyond that, the sums in it are stored instead of computed again (not measured)

Turns = dict[fx.Node, int]  # the sums in a value that are not in memory, and the turns that each takes


def turns_of(node: fx.Node, sources: Iterable[fx.Node], turns_of_source: Mapping[fx.Node, Turns]) -> Turns:
    """The sums in a value that is computed from `sources`, given the sums in each source.

    The terms of a sum are computed in each of its turns, except for inner sums that are the same in all turns.
    """
    if not is_reduction(node):
        return {inner_sum: turns for source in sources for inner_sum, turns in turns_of_source.get(source, {}).items()}
    extent = _extent(node)
    once: Turns = {}
    in_each: Turns = {}
    for source in sources:
        for inner_sum, turns in turns_of_source.get(source, {}).items():
            is_same_in_all = width(inner_sum) * extent <= width(source)
            (once if is_same_in_all else in_each)[inner_sum] = turns
    at_once = ACROSS if width(node) == 1 else 1
    return {**once, node: -(-extent // at_once) * (1 + sum(in_each.values()))}


def _extent(node: fx.Node) -> int:
    """How many terms are summed for one element."""
    factor = cast(fx.Node, node.args[-2] if node.target in PRODUCTS else node.args[0])
    if node.target in PRODUCTS or node.target is aten.bmm.default:
        return int(factor.meta["val"].shape[-1])
    return max(width(factor) // max(width(node), 1), 1)
