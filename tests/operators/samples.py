"""The samples of PyTorch's operator database, and what PyTorch itself says of each: does it treat rows alike?

The tensors of a sample are taken as they are, with their first dimension as rows. A sample *treats rows alike* if the operator
gives, for one row at a time, the rows of what it gives for all of them at once. Every other sample *mixes* rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

Call = Callable[[list[Tensor]], list[Tensor]]
ALIKE, MIXING, RANDOM = "alike", "mixing", "random"
EXACT, ROUGH = {"rtol": 1e-9, "atol": 1e-9}, {"rtol": 1e-4, "atol": 1e-5}  # one row is as all rows to rounding
# These do not look at sizes and indices: of one row, they read outside memory, or another number, in plain PyTorch.
UNCHECKED = {
    "_batch_norm_with_update", "_native_batch_norm_legit", "native_batch_norm",
    "_unsafe_masked_index", "_unsafe_masked_index_put_accumulate", "_segment_reduce",
}  # fmt: skip
# Without a dimension, these would take away the rows' own dimension where there is one row.
SQUEEZES = {"squeeze", "squeeze_", "squeeze_copy"}
MOST_ROWS, MOST_ELEMENTS = 30, 20_000  # larger samples show nothing that smaller ones do not


@dataclass(frozen=True)
class Sample:
    """One call of an operator. `kind` is ALIKE, MIXING, or RANDOM: treats rows alike, but its numbers differ each time.

    `call` takes `tensors`, or others of the same number and trailing shapes, and returns the results that are tensors.
    Those numbered in `rows` have a row for each vertex; the others are the same for all vertices.
    """

    operator: str
    dtype: torch.dtype  # of its first tensor
    number: int
    kind: str
    call: Call
    tensors: tuple[Tensor, ...]
    rows: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        return len(self.tensors[self.rows[0]])

    @property
    def title(self) -> str:
        return f"{self.operator}[{str(self.dtype)[6:]}, {self.number}]"


@cache
def operators() -> dict[str, tuple[Any, Callable[..., Any]]]:
    """Every entry of the database and its function, by name and variant, in the order of the alphabet; in-place variants, too."""
    from torch.testing._internal import common_methods_invocations as database  # which takes seconds

    # The database would draw the same random numbers in every call.
    database.wrapper_set_seed = lambda function, *args, **kwargs: function(*args, **kwargs)
    named = {}
    for one in database.op_db:
        if one.name not in UNCHECKED:
            name = f"{one.name}.{one.variant_test_name}".rstrip(".")
            named[name] = one, one.op
            if one.inplace_variant is not None and not one.variant_test_name:
                named[f"{name}_"] = one, one.inplace_variant
    return dict(sorted(named.items()))


def samples(name: str, most: int | None = None, dtype: torch.dtype = torch.float64) -> Iterator[Sample]:
    """The samples of an operator that have at least two rows; with `most`, as many of each kind at most, of different shapes.

    An operator that has no floating point numbers is sampled in integers or booleans where float64 is asked for.
    """
    operator, function = operators()[name]
    counts: dict[str, int] = {}
    seen = set()
    for number, given in enumerate(itertools.islice(_drawn(operator, dtype), most and 20 * most)):
        if name.endswith("_") and given.broadcasts_input:
            continue
        leaves, form = tree_flatten((given.input, given.args, given.kwargs))
        at = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        tensors = tuple(leaves[place].detach().clone().requires_grad_(leaves[place].requires_grad) for place in at)
        if not tensors or not _has_rows(tensors) or (name in SQUEEZES and len(leaves) == 1):
            continue
        shown = str([tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in leaves])
        if most is not None and shown in seen:
            continue
        seen.add(shown)
        call = _caller(function, leaves, form, at)
        kind, rows = classify(call, tensors)
        if kind == ALIKE and "empty" in name:  # whatever lies in memory
            kind = RANDOM
        if kind is None or (most is not None and counts.get(kind, 0) >= most):
            continue
        counts[kind] = counts.get(kind, 0) + 1
        yield Sample(name, tensors[0].dtype, number, kind, call, tensors, rows)


def _drawn(operator: Any, dtype: torch.dtype) -> Iterator[Any]:
    wanted = [dtype] if dtype != torch.float64 else [dtype, torch.int64, torch.bool]
    supported = operator.supported_dtypes("cpu")
    chosen = next((one for one in wanted if one in supported), None)
    if chosen is None:
        return
    torch.manual_seed(0)
    try:
        yield from operator.sample_inputs(
            "cpu", chosen, requires_grad=chosen.is_floating_point and operator.supports_autograd
        )
    except Exception:  # a few operators have no samples without a GPU
        return


def _has_rows(tensors: tuple[Tensor, ...]) -> bool:
    return (
        all(one.layout == torch.strided and one.numel() <= MOST_ELEMENTS for one in tensors)
        and tensors[0].dim() > 0
        and 2 <= len(tensors[0]) <= MOST_ROWS
    )


def _caller(operator: Any, leaves: list[Any], form: Any, at: list[int]) -> Call:
    def call(tensors: list[Tensor]) -> list[Tensor]:
        given = list(leaves)
        for place, tensor in zip(at, tensors, strict=True):
            given[place] = tensor
        first, args, kwargs = tree_unflatten(given, form)
        return [leaf for leaf in tree_flatten(operator(first, *args, **kwargs))[0] if isinstance(leaf, Tensor)]

    return call


def classify(call: Call, tensors: tuple[Tensor, ...]) -> tuple[str | None, tuple[int, ...]]:
    """The kind of a sample (None: it cannot be called, or returns no tensor), and which tensors have rows."""
    others = [at for at in range(1, len(tensors)) if tensors[at].dim() and len(tensors[at]) == len(tensors[0])]
    whole, again = _results(call, tensors), _results(call, tensors, seed=1)
    if not whole or not again:
        return None, ()
    random = not all(
        _equal(a, b) for a, b in zip(whole, again, strict=True) if a.shape == b.shape and a.layout == torch.strided
    )
    for count in range(len(others), -1, -1):
        for chosen in itertools.combinations(others, count):
            if _treats_alike(call, tensors, (0, *chosen), whole, random):
                return RANDOM if random else ALIKE, (0, *chosen)
    return MIXING, (0, *others)


def _treats_alike(
    call: Call,
    tensors: tuple[Tensor, ...],
    rows: tuple[int, ...],
    whole: list[Tensor],
    random: bool,
) -> bool:
    count = len(tensors[0])
    if not all(value.layout == torch.strided and value.dim() and len(value) == count for value in whole):
        return False
    for row in range(count):
        results = _results(call, [one[row : row + 1] if at in rows else one for at, one in enumerate(tensors)])
        if results is None or len(results) != len(whole):
            return False
        for result, value in zip(results, whole, strict=True):
            if result.shape != (1, *value.shape[1:]) or result.dtype != value.dtype:
                return False
            close = ROUGH if value.dtype in (torch.float32, torch.complex64) else EXACT
            if not random and not _equal(result[0], value[row], **close):
                return False
    return True


def _results(call: Call, tensors: Any, seed: int = 0) -> list[Tensor] | None:
    torch.manual_seed(seed)
    try:
        with torch.no_grad():
            return call([one.detach().clone() for one in tensors])
    except Exception:
        return None


def _equal(one: Tensor, other: Tensor, rtol: float = 0.0, atol: float = 0.0) -> bool:
    """Whether two tensors of one shape have the same numbers; NaN is NaN."""
    if one.is_complex():
        one, other = torch.view_as_real(one.resolve_conj()), torch.view_as_real(other.resolve_conj())
    return torch.allclose(one.double(), other.double(), rtol, atol, equal_nan=True)
