"""The libraries that generated code calls: matrix products, a library for each dtype, and functions that move rows."""

from __future__ import annotations

from importlib.resources import files

import torch

from ..arguments import Function
from ..lower.loops import Outer, Product
from .cpp import TYPES

FUNCTIONS = ("product", "outer", "pack")
OF_FLOATS = (torch.float32, torch.float64)
WIDEST = 32  # columns of a panel of a packed weight, at most
DEEPEST = 32  # rows of a panel of bfloat16, of which there are so many or a multiple


def source_of(dtype: torch.dtype) -> str:
    """The source of the library of products of a dtype."""
    if dtype == torch.bfloat16:
        return joined(torch.float32, "half.hpp", "product.hpp", "block_bfloat16.hpp", "product_bfloat16.cpp")
    return joined(dtype, "product.hpp", "product.cpp")


def rows_source() -> str:
    """The source of the library that moves rows."""
    return files(__package__).joinpath("rows.cpp").read_text(encoding="utf-8")


def joined(dtype: torch.dtype, *names: str) -> str:
    """Files of this folder, one after the other, with T as the type of this dtype."""
    texts = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in names)
    return "\n".join([f"using T = {TYPES[dtype]};", *texts])


def function_of(name: str, dtype: torch.dtype) -> Function:
    """One of the `FUNCTIONS` for a dtype, under the name by which generated code calls it."""
    return Function(name if dtype in OF_FLOATS else f"{name}_{str(dtype)[6:]}")


def library_of(function: Function, floats: torch.dtype) -> torch.dtype:
    """The dtype of the library that has a function; functions without a dtype in their name are in that of `floats`."""
    return floats if function.name in FUNCTIONS else torch.bfloat16


def dtype_of(statement: Product | Outer) -> torch.dtype:
    """The dtype of the values that a product multiplies."""
    dtype: torch.dtype = statement.out.array.meta["val"].dtype
    return dtype


def packed_size(n: int, k: int, dtype: torch.dtype) -> int:
    """How many elements a weight [k, n] has when it is packed."""
    return (n + -n % WIDEST) * (k + (-k % DEEPEST if dtype == torch.bfloat16 else 0))
