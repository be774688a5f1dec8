"""How often a kernel goes round loops for one element: what is a sum of sums is cheap up to a point, and then stored between."""

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

MOST_TURNS = 128  # for one element, from which on the sums in it are stored instead of taken anew (not measured)

Turns = dict[fx.Node, int]  # the sums in a value that are not in memory -> the turns that one takes


def turns_of(node: fx.Node, sources: Iterable[fx.Node], known: Mapping[fx.Node, Turns]) -> Turns:
    """The sums in a value that is made of `sources`, whose own sums are `known`.

    What a sum reads is computed in each of its turns, but for sums in it that are the same in all turns.
    """
    if not is_reduction(node):
        return {one: turns for source in sources for one, turns in known.get(source, {}).items()}
    extent = _extent(node)
    once: Turns = {}
    in_each: Turns = {}
    for source in sources:
        for one, turns in known.get(source, {}).items():
            is_same_in_all = width(one) * extent <= width(source)
            (once if is_same_in_all else in_each)[one] = turns
    at_once = ACROSS if width(node) == 1 else 1
    return {**once, node: -(-extent // at_once) * (1 + sum(in_each.values()))}


def _extent(node: fx.Node) -> int:
    """How many elements, or products of two, are summed for one element."""
    factor = cast(fx.Node, node.args[-2] if node.target in PRODUCTS else node.args[0])
    if node.target in PRODUCTS or node.target is aten.bmm.default:
        return int(factor.meta["val"].shape[-1])
    return max(width(factor) // max(width(node), 1), 1)
