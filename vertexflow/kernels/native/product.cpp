// Matrix products of few rows with a weight that many steps share. It stands behind product.hpp, in a library of its own.
//
// A weight is packed once for all steps, in panels of as many columns as two registers hold, [panel][k][wide]. A tile of the
// result, some rows of one panel, stays in registers while k goes by: one load of a panel's row serves all rows of the tile,
// and a team is split by panels first, so that each thread finds its own in its cache again at the next step.
#include <omp.h>

#include <algorithm>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, registers = 32;
#elif defined(__AVX__)
constexpr int vector_bytes = 32, registers = 16;
#else
constexpr int vector_bytes = 16, registers = 16;
#endif
typedef T Vector __attribute__((vector_size(vector_bytes), aligned(sizeof(T)), may_alias));
constexpr int lanes = vector_bytes / sizeof(T), wide = 2 * lanes;
constexpr int tall = registers == 32 ? 12 : 6;  // two registers a row, and room for a panel's row

template <int rows>
inline void tile(Long k, const T* a, Long lda, const T* panel, bool adds, T* out, Long ldo, Long columns) {
    Vector sum[rows][2] = {};
    for (Long p = 0; p < k; ++p) {
        const Vector left = *reinterpret_cast<const Vector*>(panel + p * wide);
        const Vector right = *reinterpret_cast<const Vector*>(panel + p * wide + lanes);
#pragma GCC unroll 12
        for (int i = 0; i < rows; ++i) {
            sum[i][0] += a[i * lda + p] * left;
            sum[i][1] += a[i * lda + p] * right;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; ++i) {
        T* const to = out + i * ldo;
        if (columns == wide) {
            Vector* const whole = reinterpret_cast<Vector*>(to);
            whole[0] = adds ? whole[0] + sum[i][0] : sum[i][0];
            whole[1] = adds ? whole[1] + sum[i][1] : sum[i][1];
        } else {
            T some[wide];
            std::memcpy(some, sum[i], sizeof some);
            for (Long j = 0; j < columns; ++j) to[j] = adds ? to[j] + some[j] : some[j];
        }
    }
}

template <int most>
inline void tile_of(Long rows, Long k, const T* a, Long lda, const T* panel, bool adds, T* out, Long ldo, Long columns) {
    if constexpr (most > 0) {
        if (rows == most)
            tile<most>(k, a, lda, panel, adds, out, ldo, columns);
        else
            tile_of<most - 1>(rows, k, a, lda, panel, adds, out, ldo, columns);
    }
}

inline void unpacked_product(Long rows, const T* a, Long lda, const Weight& w, bool adds, T* out, Long ldo) {
    const Long thread = omp_get_thread_num(), team = omp_get_num_threads();
    const Long first = w.n * thread / team, stop = w.n * (thread + 1) / team;
    for (Long i = 0; i < rows; ++i) {
        T* const to = out + i * ldo;
        const T* const from = a + i * lda;
        if (w.transposed) {
            for (Long j = first; j < stop; ++j) {
                const T* const with = w.plain + j * w.k;
                T sum = 0;
#pragma omp simd reduction(+ : sum)
                for (Long p = 0; p < w.k; ++p) sum += from[p] * with[p];
                to[j] = adds ? to[j] + sum : sum;
            }
        } else {
            if (!adds) std::fill(to + first, to + std::max(first, stop), T(0));
            for (Long p = 0; p < w.k; ++p) {
                const T* const with = w.plain + p * w.n;
                const T x = from[p];
#pragma omp simd
                for (Long j = first; j < stop; ++j) to[j] += x * with[j];
            }
        }
    }
}

}  // namespace

extern "C" void pack(const Weight& w) {
#pragma omp for schedule(static)
    for (Long first = 0; first < w.n; first += wide) {
        T* const to = w.packed + first * w.k;
        const Long columns = std::min<Long>(wide, w.n - first);
        for (Long p = 0; p < w.k; ++p)
            for (Long j = 0; j < wide; ++j)
                to[p * wide + j] = j >= columns ? 0 : w.transposed ? w.plain[(first + j) * w.k + p] : w.plain[p * w.n + first + j];
    }
}

extern "C" void product(Long rows, const T* a, Long lda, const Weight& w, bool adds, T* out, Long ldo) {
    if (!w.packed) return unpacked_product(rows, a, lda, w, adds, out, ldo);
    const Long blocks = (rows + tall - 1) / tall, items = (w.n + wide - 1) / wide * blocks;
    const Long thread = omp_get_thread_num(), team = omp_get_num_threads();
    for (Long item = items * thread / team; item < items * (thread + 1) / team; ++item) {
        const Long column = item / blocks * wide, block = item % blocks;
        const Long start = rows * block / blocks, stop = rows * (block + 1) / blocks;  // of nearly the same height
        tile_of<tall>(stop - start, w.k, a + start * lda, lda, w.packed + column * w.k, adds, out + start * ldo + column, ldo,
                      std::min<Long>(wide, w.n - column));
    }
}
