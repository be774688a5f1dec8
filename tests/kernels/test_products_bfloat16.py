"""The library of products of bfloat16, by each of its ways: AMX, AVX512-BF16, and floats in registers of several widths."""

from __future__ import annotations

import ctypes

import pytest
import torch

from vertexflow.kernels.native import build
from vertexflow.kernels.native.products import packed_size, source_of

WAYS = {  # what the compiler says this machine has, and is not to use
    "the best": [],
    "AVX512-BF16": ["__AMX_BF16__"],
    "AVX-512": ["__AMX_BF16__", "__AVX512BF16__"],
    "AVX": ["__AMX_BF16__", "__AVX512BF16__", "__AVX512F__"],
    "plain": ["__AMX_BF16__", "__AVX512BF16__", "__AVX512F__", "__AVX__"],
}
ROWS, COLUMNS, INNER = (0, 1, 17, 33, 70), (1, 33, 64), (1, 2, 31, 64, 95)


class Weight(ctypes.Structure):
    """As in product.hpp."""

    _fields_ = (
        ("plain", ctypes.c_void_p),
        ("packed", ctypes.c_void_p),
        ("transposed", ctypes.c_bool),
        ("n", ctypes.c_long),
        ("k", ctypes.c_long),
    )


@pytest.fixture(params=WAYS)
def library(request):
    lines = [f"#undef {name}" for name in WAYS[request.param]]
    return build.load("\n".join([*lines, source_of(torch.bfloat16)]), contract=True)


def at(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def long(*numbers):
    return map(ctypes.c_long, numbers)


def assert_close(actual, expected, size):
    """One rounding of half precision, and those of sums of `size` numbers in float."""
    torch.testing.assert_close(actual.double(), expected, rtol=2**-8, atol=1e-5 * max(size, 1))


@pytest.mark.parametrize("is_transposed", [True, False], ids=["transposed", "plain"])
@pytest.mark.cases(1)
def test_rows_times_a_weight(library, is_transposed):
    """Packed and not, with a bias and without; what lies beside rows is NaN, and is neither read nor written."""
    for rows in ROWS:
        for n in COLUMNS:
            for k in INNER:
                a, out = (torch.full((rows, size + 3), torch.nan, dtype=torch.bfloat16) for size in (k, n))
                a[:, :k] = torch.randn(rows, k)
                weight = torch.randn(n, k) if is_transposed else torch.randn(k, n)
                weight, bias = weight.to(torch.bfloat16), torch.randn(n).to(torch.bfloat16)
                size = packed_size(n, k, torch.bfloat16)
                room = torch.full((size + 32,), torch.nan, dtype=torch.bfloat16)
                room = room[-room.data_ptr() % 64 // 2 :][:size]
                matrix = weight.t() if is_transposed else weight
                for packed, added in ((at(room), None), (at(room), bias), (None, bias), (None, None)):
                    given = ctypes.byref(Weight(at(weight), packed, is_transposed, n, k))
                    if packed:
                        library.pack_bfloat16(given)
                    beside = None if added is None else at(added)
                    library.product_bfloat16(
                        *long(rows), at(a), *long(k + 3), given, beside, at(out), *long(n + 3)
                    )  # fmt: skip
                    wanted = a[:, :k].double() @ matrix.double() + (0 if added is None else added.double())
                    assert_close(out[:, :n], wanted, k)
                    assert out[:, n:].isnan().all()


@pytest.mark.parametrize(
    ("rows", "n", "k"), [(0, 5, 7), (1, 1, 1), (3, 33, 31), (31, 2, 64), (64, 64, 40), (600, 300, 1100), (1100, 40, 33)]
)
def test_a_sum_over_rows(library, rows, n, k):
    a, b = (torch.full((rows, size + 5), torch.nan, dtype=torch.bfloat16) for size in (n, k))
    a[:, :n], b[:, :k] = torch.randn(rows, n), torch.randn(rows, k)
    out = torch.full((n, k), torch.nan, dtype=torch.bfloat16)
    arguments = (*long(rows), at(a), *long(n + 5, n), at(b), *long(k + 5, k), at(out))
    library.outer_bfloat16(*arguments, *long(0))
    wanted = a[:, :n].double().t() @ b[:, :k].double()
    assert_close(out, wanted, rows)
    before = out.double()
    library.outer_bfloat16(*arguments, *long(1))  # the same once more
    assert_close(out, before + wanted, rows)
