"""The library of products: right for any shape, however the work is split, and the same bits for any number of threads."""

from __future__ import annotations

import ctypes

import pytest
import torch

from vertexflow.kernels.native import build
from vertexflow.kernels.native.products import source_of

WAYS = {"the best": [], "AVX": ["__AVX512F__"], "plain": ["__AVX512F__", "__AVX__"]}  # what the machine is not to have
IN_A_TEAM = """
extern "C" void products(Long threads, const Weight& w, Long rows, const T* a, Long lda, const T* bias, T* out, Long ldo) {
#pragma omp parallel num_threads(threads)
    {
        if (w.packed) pack(w);
#pragma omp barrier
        product(rows, a, lda, w, bias, out, ldo);
    }
}
extern "C" void outers(Long threads, Long rows, const T* a, Long lda, Long n, const T* b, Long ldb, Long k, T* out,
                       Long adds) {
#pragma omp parallel num_threads(threads)
    outer(rows, a, lda, n, b, ldb, k, out, adds);
}
"""


class Weight(ctypes.Structure):
    """As in product.hpp."""

    _fields_ = (
        ("plain", ctypes.c_void_p),
        ("packed", ctypes.c_void_p),
        ("transposed", ctypes.c_bool),
        ("n", ctypes.c_long),
        ("k", ctypes.c_long),
    )


@pytest.fixture(params=[(torch.float32, way) for way in WAYS] + [(torch.float64, "the best")], ids=str)
def library(request):
    dtype, way = request.param
    lines = [f"#undef {name}" for name in WAYS[way]]
    library = build.load("\n".join([*lines, source_of(dtype), IN_A_TEAM]), contract=True)
    library.dtype = dtype
    return library


def at(tensor):
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def long(*numbers):
    return map(ctypes.c_long, numbers)


def between_nan(rows, columns, dtype, beside=3):
    """Random numbers, and NaN beside them, which nobody is to read."""
    whole = torch.full((rows, columns + beside), torch.nan, dtype=dtype)
    whole[:, :columns] = torch.randn(rows, columns, dtype=dtype)
    return whole


@pytest.mark.parametrize(
    ("rows", "n", "k"),
    [
        (0, 5, 7),
        (1, 1, 1),
        (1, 224, 40),
        (2, 224, 65),
        (3, 224, 9),
        (3, 33, 31),
        (7, 19, 12),
        (13, 70, 64),
        (77, 35, 100),
        (12, 32, 40),
        (700, 20, 30),
        (90, 64, 5000),
        (600, 60, 3000),
    ],
)
@pytest.mark.parametrize("is_transposed", [True, False], ids=["transposed", "plain"])
@pytest.mark.cases(1)
def test_rows_times_a_weight(library, is_transposed, rows, n, k):
    dtype = library.dtype
    a, bias = between_nan(rows, k, dtype), torch.randn(n, dtype=dtype)
    weight = torch.randn(*((n, k) if is_transposed else (k, n)), dtype=dtype)
    wanted = a[:, :k].double() @ (weight.t() if is_transposed else weight).double()
    size = (n + -n % 32) * k
    for has_room in (True, False):
        for added in (None, bias):
            results = []
            for threads in (1, 2, 3):
                room, out = (torch.full(shape, torch.nan, dtype=dtype) for shape in ((size,), (rows, n + 3)))
                given = ctypes.byref(Weight(at(weight), at(room) if has_room else None, is_transposed, n, k))
                library.products(
                    *long(threads), given, *long(rows), at(a), *long(k + 3), at(added), at(out), *long(n + 3)
                )
                assert out[:, n:].isnan().all()
                results.append(out[:, :n])
            epsilon = torch.finfo(dtype).eps
            total = wanted if added is None else wanted + added.double()
            torch.testing.assert_close(results[0].double(), total, rtol=epsilon * 8, atol=epsilon * 4 * k)
            assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    ("rows", "n", "k"), [(0, 5, 7), (1, 1, 1), (3, 33, 31), (31, 2, 64), (64, 64, 40), (600, 300, 100), (300, 500, 33)]
)
@pytest.mark.cases(1)
def test_a_sum_over_rows(library, rows, n, k):
    dtype = library.dtype
    a, b = between_nan(rows, n, dtype), between_nan(rows, k, dtype, beside=5)
    results, epsilon = [], torch.finfo(dtype).eps
    for threads in (1, 2, 3):
        out = torch.full((n, k), torch.nan, dtype=dtype)
        arguments = (*long(threads, rows), at(a), *long(n + 3, n), at(b), *long(k + 5, k), at(out))
        library.outers(*arguments, *long(0))
        results.append(out.clone())
        library.outers(*arguments, *long(1))  # the same once more
        torch.testing.assert_close(out, 2 * results[-1], rtol=epsilon * 8, atol=epsilon * 8 * max(rows, 1))
    wanted = a[:, :n].double().t() @ b[:, :k].double()
    torch.testing.assert_close(results[0].double(), wanted, rtol=epsilon * 8, atol=epsilon * 4 * max(rows, 1))
    assert all(torch.equal(results[0], other) for other in results[1:])
