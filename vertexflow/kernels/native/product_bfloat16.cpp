// Products of matrices of bfloat16: added up in float, rounded once. It stands behind product.hpp, half.hpp and block_bfloat16.hpp, in a
// library of its own.
//
// The right operand is packed in panels of 32 columns, [panel][k / 2][32][2], with zeros up to a multiple of 32 rows. A team is
// split by panels first: each thread finds its own in its cache again at the next step.
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

namespace {

// An outer product takes so many rows, columns of `a` and columns of `b` at a time: their pieces, and sums, stay in a cache.
constexpr Long stretch = 512, strip = 256, span = 1024;

constexpr Long up_to(Long n, Long multiple) { return (n + multiple - 1) / multiple * multiple; }

// Two rows side by side: `count` numbers of each and zeros up to `wide`; there may be none, or one.
inline void interleave(const bfloat16* first, const bfloat16* second, Long count, Pair* to) {
    constexpr bfloat16 zero = {0};
    if (count == wide && second) {
#pragma omp simd
        for (Long j = 0; j < wide; ++j) to[j] = pair(first[j], second[j]);
    } else {
        for (Long j = 0; j < wide; ++j) to[j] = j < count ? pair(first ? first[j] : zero, second ? second[j] : zero) : 0;
    }
}

// to[q, r] = from[r, q], for 16 rows and 16 pairs: fewer are there, and others zero.
inline void turn(Long rows, Long numbers, const bfloat16* from, Long ld, Pair* to, Long ld_to) {
#if defined(__AVX512F__)
    if (rows == 16 && numbers == 32) {
        __m512i row[16], at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (int r = 0; r < 16; ++r) row[r] = _mm512_loadu_si512(from + r * ld);
#pragma GCC unroll 4
        for (int by = 1; by < 16; by *= 2) {  // squares of so many rows and columns change places
            const __m512i step = _mm512_set1_epi32(by);
            const __mmask16 other = _mm512_test_epi32_mask(at, step);
            const __m512i upper = _mm512_mask_add_epi32(at, other, at, _mm512_set1_epi32(16 - by));
            const __m512i lower = _mm512_mask_add_epi32(_mm512_add_epi32(at, step), other, at, _mm512_set1_epi32(16));
#pragma GCC unroll 16
            for (int r = 0; r < 16; ++r)
                if (!(r & by)) {
                    const __m512i one = row[r], two = row[r + by];
                    row[r] = _mm512_permutex2var_epi32(one, upper, two);
                    row[r + by] = _mm512_permutex2var_epi32(one, lower, two);
                }
        }
        for (int r = 0; r < 16; ++r) _mm512_storeu_si512(to + r * ld_to, row[r]);
        return;
    }
#endif
    for (Long q = 0; q < 16; ++q)
        for (Long r = 0; r < 16; ++r) {
            const bfloat16* const at = from + r * ld + 2 * q;
            to[q * ld_to + r] = r >= rows || 2 * q >= numbers ? 0 : 2 * q + 1 < numbers ? pair(at[0], at[1]) : at[0].bits;
        }
}

// A row of sums as bfloat16, after a row of numbers is added if there is one.
inline void finish(const float* sum, const bfloat16* bias, Long count, bfloat16* out) {
#pragma omp simd
    for (Long j = 0; j < count; ++j)
        out[j] = narrowed<bfloat16>(rounded<bfloat16>(bias ? sum[j] + widened(bias[j]) : sum[j]));
}

inline void unpacked_product(Long rows, const bfloat16* a, Long lda, const WeightOf<bfloat16>& w, const bfloat16* bias, bfloat16* out,
                             Long ldo) {
    const Long thread = omp_get_thread_num(), team = omp_get_num_threads();
    const Long stop = w.n * (thread + 1) / team;
    for (Long first = w.n * thread / team; first < stop; first += wide) {
        const Long count = std::min(wide, stop - first);
        for (Long i = 0; i < rows; ++i) {
            const bfloat16* const from = a + i * lda;
            float sum[wide] = {};
            if (w.transposed) {
                for (Long j = 0; j < count; ++j) {
                    const bfloat16* const with = w.plain + (first + j) * w.k;
                    float total = 0;
#pragma omp simd reduction(+ : total)
                    for (Long p = 0; p < w.k; ++p) total += widened(from[p]) * widened(with[p]);
                    sum[j] = total;
                }
            } else {
                for (Long p = 0; p < w.k; ++p) {
                    const bfloat16* const with = w.plain + p * w.n + first;
                    const float x = widened(from[p]);
#pragma omp simd
                    for (Long j = 0; j < count; ++j) sum[j] += x * widened(with[j]);
                }
            }
            finish(sum, bias ? bias + first : nullptr, count, out + i * ldo + first);
        }
    }
}

// Memory in lines of the cache.
struct Freed {
    void operator()(void* memory) const { std::free(memory); }
};
template <class X>
std::unique_ptr<X[], Freed> room_for(Long count) {
    void* const memory = std::aligned_alloc(64, std::size_t(up_to(count * Long(sizeof(X)), 64)));
    if (!memory) throw std::bad_alloc();
    return std::unique_ptr<X[], Freed>(static_cast<X*>(memory));
}

}  // namespace

extern "C" void pack_bfloat16(const WeightOf<bfloat16>& w) {
    const Long pairs = up_to(w.k, deep) / 2;
#pragma omp for schedule(static)
    for (Long first = 0; first < w.n; first += wide) {
        Pair* const to = reinterpret_cast<Pair*>(w.packed) + first * pairs;
        const Long columns = std::min(wide, w.n - first);
        for (Long p = 0; p < pairs; ++p) {
            const Long row = 2 * p;
            if (!w.transposed) {
                const bfloat16* const at = w.plain + row * w.n + first;
                interleave(row < w.k ? at : nullptr, row + 1 < w.k ? at + w.n : nullptr, columns, to + p * wide);
            } else if (p % 16 == 0) {
                for (Long j = 0; j < wide; j += 16)
                    turn(std::clamp<Long>(columns - j, 0, 16), std::clamp<Long>(w.k - row, 0, 32), w.plain + (first + j) * w.k + row,
                         w.k, to + p * wide + j, wide);
            }
        }
    }
}

extern "C" void product_bfloat16(Long rows, const bfloat16* a, Long lda, const WeightOf<bfloat16>& w, const bfloat16* bias, bfloat16* out,
                                 Long ldo) {
    if (!w.packed) return unpacked_product(rows, a, lda, w, bias, out, ldo);
    const Long blocks = (rows + tall - 1) / tall, items = (w.n + wide - 1) / wide * blocks, pairs = up_to(w.k, deep) / 2;
    const Long thread = omp_get_thread_num(), team = omp_get_num_threads();
    alignas(64) float sum[tall * wide];
    Blocks on;
    for (Long item = items * thread / team; item < items * (thread + 1) / team; ++item) {
        const Long column = item / blocks * wide, start = item % blocks * tall, height = std::min(tall, rows - start);
        on.block(height, {a + start * lda, lda, w.k, reinterpret_cast<const Pair*>(w.packed) + column * pairs, sum, false});
        const Long count = std::min(wide, w.n - column);
        for (Long i = 0; i < height; ++i)
            finish(sum + i * wide, bias ? bias + column : nullptr, count, out + (start + i) * ldo + column);
    }
}

extern "C" void outer_bfloat16(Long rows, const bfloat16* a, Long lda, Long n, const bfloat16* b, Long ldb, Long k, bfloat16* out,
                               bool adds) {
    const Long tiles = (n + tall - 1) / tall, thread = omp_get_thread_num(), team = omp_get_num_threads();
    const Long begin = tiles * thread / team * tall, end = std::min(n, tiles * (thread + 1) / team * tall);
    if (begin >= end) return;
    constexpr Long ld_left = stretch + deep;  // rows beside each other are not in the same lines of the cache
    const Long most = up_to(std::min(strip, end - begin), tall), columns = up_to(std::min(span, k), wide);
    const auto left = room_for<bfloat16>(most * ld_left);
    const auto sums = room_for<float>(most * columns);  // [panel][columns of a][wide]
    alignas(64) Pair panel[stretch / 2 * wide];
    Blocks on;
    for (Long first = begin; first < end; first += strip) {
        const Long height = std::min(strip, end - first), padded = up_to(height, tall);
        for (Long start = 0; start < k; start += span) {
            const Long width = std::min(span, k - start);
            for (Long from = 0; from < rows || from == 0; from += stretch) {
                const Long depth = std::min(stretch, rows - from), whole = up_to(depth, deep);
                const auto pairs_of = [&](const bfloat16* x, Long ld, Long row, Long count, Pair* to) {
                    const bfloat16* const at = x + (from + row) * ld;
                    interleave(row < depth ? at : nullptr, row + 1 < depth ? at + ld : nullptr, count, to);
                };
                for (Long row = 0; row < whole; row += 32)
                    for (Long j = 0; j < padded; j += wide) {
                        Pair both[16 * wide];
                        for (Long q = 0; q < 16; ++q)
                            pairs_of(a + first + j, lda, row + 2 * q, std::min(wide, height - j), both + q * wide);
                        for (Long half = 0; half < wide; half += 16)
                            turn(16, 32, reinterpret_cast<const bfloat16*>(both + half), 2 * wide,
                                 reinterpret_cast<Pair*>(left.get() + (j + half) * ld_left + row), ld_left / 2);
                    }
                for (Long column = 0; column < width; column += wide) {
                    for (Long row = 0; row < whole; row += 2)
                        pairs_of(b + start + column, ldb, row, std::min(wide, width - column), panel + row / 2 * wide);
                    for (Long j = 0; j < padded; j += tall)
                        on.block(tall, {left.get() + j * ld_left, ld_left, whole, panel, sums.get() + column * padded + j * wide, from > 0});
                }
            }
            for (Long i = 0; i < height; ++i)
                for (Long column = 0; column < width; column += wide) {
                    bfloat16* const to = out + (first + i) * k + start + column;
                    finish(sums.get() + column * padded + i * wide, adds ? to : nullptr, std::min(wide, width - column), to);
                }
        }
    }
}
