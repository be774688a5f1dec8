// Matrix products for many rows of one step, or few rows of each of many. It stands behind product.hpp, in a library of its own.
//
// The right operand is packed in panels of as many columns as two registers hold, [panel][k][wide]; a weight once for all
// steps. A tile of the result, some rows of one panel, stays in registers while k goes by: one load of a panel's row serves
// all rows of the tile. A team is split by panels first: each thread finds its own in its cache again at the next step. Where
// there are more rows than columns it is split by rows. As many rows as fit into a cache meet all panels before the next ones do.
// However it is split, an element of the result is the same sum in the same order.
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <utility>

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
constexpr Long deep = 128, beside = 32;         // rows, and tiles, that an outer product takes at a time
constexpr Long across = (beside + 1) * tall;     // room beside the last of them; no power of two
constexpr Long near = 49152;                    // elements of the left operand that stay in a cache beside a panel

// Rows of `a` lie `lda` apart; if transposed, its columns do. `bias`, of these columns, may be `out` itself: then it adds.
// The first `height` rows of the tile are written.
struct Operands {
    Long height, k;
    const T* a;
    Long lda;
    const T* panel;
    const T* bias;
    Long ld_bias;
    T* out;
    Long ldo, columns;
};

template <int rows, bool transposed, int panels = 1>
inline void tile(const Operands& o) {
    constexpr int vectors = 2 * panels;
    Vector sum[rows][vectors] = {};
    const T* const a = o.a;
    const Long lda = o.lda, apart = o.k * wide;
    for (Long p = 0; p < o.k; ++p) {
        Vector with[vectors];
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) with[j] = *reinterpret_cast<const Vector*>(o.panel + j / 2 * apart + p * wide + j % 2 * lanes);
#pragma GCC unroll 12
        for (int i = 0; i < rows; ++i) {
            const T x = transposed ? a[p * lda + i] : a[i * lda + p];
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) sum[i][j] += x * with[j];
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; ++i) {
        if (transposed && i >= o.height) break;
        T* const to = o.out + i * o.ldo;
        const T* const add = o.bias + i * o.ld_bias;
        if (o.columns == wide) {
            Vector* const whole = reinterpret_cast<Vector*>(to);
            const Vector* const more = reinterpret_cast<const Vector*>(add);
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) whole[j] = o.bias ? more[j] + sum[i][j] : sum[i][j];
        } else {
            T some[wide];
            std::memcpy(some, sum[i], sizeof some);
            for (Long j = 0; j < o.columns; ++j) to[j] = o.bias ? add[j] + some[j] : some[j];
        }
    }
}

// A tile of a height that is known when it runs.
template <int most = tall>
inline void tile_of(const Operands& o) {
    if constexpr (most > 0) {
        if (o.height == most)
            tile<most, false>(o);
        else
            tile_of<most - 1>(o);
    }
}

// Few rows times whole panels, several at once: each sum waits for itself, and there are others to go on with.
template <int rows, int abreast = rows * 4 <= tall ? 4 : 2>
inline void few_rows(Operands o, Long panels) {
    for (; panels >= abreast; panels -= abreast) {
        tile<rows, false, abreast>(o);
        o.panel += abreast * wide * o.k;
        o.bias += o.bias ? abreast * wide : 0;
        o.out += abreast * wide;
    }
    if constexpr (abreast > 1) few_rows<rows, abreast / 2>(o, panels);
}

// `count` elements, and zeros up to `most`.
template <int most>
inline void copy(Long count, const T* from, T* to) {
    if (count == most) {
        std::memcpy(to, from, most * sizeof(T));
    } else {
        for (Long j = 0; j < most; ++j) to[j] = j < count ? from[j] : 0;
    }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLES
// Rows i and i + by of squares of so many rows and columns exchange what lies off the diagonal.
template <int by, std::size_t... at>
inline void exchange(Vector& one, Vector& two, std::index_sequence<at...>) {
    const Vector first = one, second = two;
    one = __builtin_shufflevector(first, second, (at & by ? lanes + at - by : at)...);
    two = __builtin_shufflevector(first, second, (at & by ? lanes + at : at + by)...);
}

template <int by = 1>
inline void transpose(Vector (&rows)[lanes]) {
    if constexpr (by < lanes) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i)
            if (!(i & by)) exchange<by>(rows[i], rows[i + by], std::make_index_sequence<lanes>());
        transpose<2 * by>(rows);
    }
}
#endif
#endif

// to [columns, rows], `wide` apart, is from [rows, columns] from the other side.
inline void turn(Long rows, Long columns, const T* from, Long ld, T* to) {
#if defined(SHUFFLES)
    if (rows == lanes && columns == lanes) {
        Vector square[lanes];
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) square[i] = *reinterpret_cast<const Vector*>(from + i * ld);
        transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) *reinterpret_cast<Vector*>(to + i * wide) = square[i];
        return;
    }
#endif
    for (Long i = 0; i < rows; ++i)
        for (Long j = 0; j < columns; ++j) to[j * wide + i] = from[i * ld + j];
}

inline void unpacked_product(Long rows, const T* a, Long lda, const Weight& w, const T* bias, T* out, Long ldo) {
    const Long thread = omp_get_thread_num(), team = omp_get_num_threads();
    const Long first = w.n * thread / team, stop = w.n * (thread + 1) / team;
    for (Long i = 0; i < rows; ++i) {
        T* const to = out + i * ldo;
        const T* const from = a + i * lda;
        for (Long j = first; j < stop; ++j) to[j] = bias ? bias[j] : 0;
        if (w.transposed) {
            for (Long j = first; j < stop; ++j) {
                const T* const with = w.plain + j * w.k;
                T sum = 0;
#pragma omp simd reduction(+ : sum)
                for (Long p = 0; p < w.k; ++p) sum += from[p] * with[p];
                to[j] += sum;
            }
        } else {
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
        if (!w.transposed) {
            for (Long p = 0; p < w.k; ++p) copy<wide>(columns, w.plain + p * w.n + first, to + p * wide);
            continue;
        }
        if (columns < wide) std::fill(to, to + wide * w.k, T(0));
        for (Long start = 0; start < w.k; start += lanes)  // a line of the cache from each row
            for (Long j = 0; j < columns; j += lanes)
                turn(std::min<Long>(lanes, columns - j), std::min<Long>(lanes, w.k - start), w.plain + (first + j) * w.k + start, w.k,
                     to + start * wide + j);
    }
}

extern "C" void product(Long rows, const T* a, Long lda, const Weight& w, const T* bias, T* out, Long ldo) {
    if (!w.packed) return unpacked_product(rows, a, lda, w, bias, out, ldo);
    const Long thread = omp_get_thread_num(), team = omp_get_num_threads();
    const Long blocks = (rows + tall - 1) / tall, panels = (w.n + wide - 1) / wide, many = std::max<Long>(1, near / (tall * w.k));
    if (rows < 4 && w.n % wide == 0) {  // four rows have sums enough
        const Long start = panels * thread / team, column = start * wide, count = panels * (thread + 1) / team - start;
        const Operands of = {rows, w.k, a, lda, w.packed + column * w.k, bias ? bias + column : nullptr, 0, out + column, ldo, wide};
        if (rows == 1) few_rows<1>(of, count);
        if (rows == 2) few_rows<2>(of, count);
        if (rows == 3) few_rows<3>(of, count);
        return;
    }
    const bool by_rows = rows > w.n && blocks >= 8 * team;
    const Long items = by_rows ? blocks : blocks * panels, begin = items * thread / team, end = items * (thread + 1) / team;
    const Long first = by_rows ? begin : 0, last = by_rows ? end : blocks;
    for (Long from = first; from < last; from += many)
        for (Long panel = by_rows ? 0 : begin / blocks; panel < panels && (by_rows || panel * blocks < end); ++panel) {
            const Long to = std::min(from + many, last), column = panel * wide;
            const Long skipped = by_rows ? 0 : begin - panel * blocks, stop = by_rows ? to : std::min(to, end - panel * blocks);
            for (Long block = std::max(from, skipped); block < stop; ++block) {
                const Long start = rows * block / blocks, height = rows * (block + 1) / blocks - start;  // nearly all the same
                tile_of({height, w.k, a + start * lda, lda, w.packed + column * w.k, bias ? bias + column : nullptr, 0,
                         out + start * ldo + column, ldo, std::min<Long>(wide, w.n - column)});
            }
        }
}

extern "C" void outer(Long rows, const T* a, Long lda, Long n, const T* b, Long ldb, Long k, T* out, bool adds) {
    if (!rows && adds) return;
    const Long blocks = (n + tall - 1) / tall, panels = (k + wide - 1) / wide;
    const Long thread = omp_get_thread_num(), team = omp_get_num_threads();
    const bool by_panels = k > n && panels >= team;  // else by blocks
    const Long end = by_panels ? blocks : blocks * (thread + 1) / team;
    const Long first_panel = by_panels ? panels * thread / team : 0, last_panel = by_panels ? panels * (thread + 1) / team : panels;
    alignas(vector_bytes) T left[deep * across], right[deep * wide];  // columns of `a`, and a panel of `b`
    for (Long first = by_panels ? 0 : blocks * thread / team; first < end; first += beside) {
        const Long count = std::min(end - first, beside);
        Long at[beside + 1];  // where tiles begin
        for (Long i = 0; i <= count; ++i) at[i] = n * (first + i) / blocks;
        const Long columns_of_a = at[count] - at[0];
        for (Long from = 0; from < rows || from == 0; from += deep) {
            const Long depth = std::min(deep, rows - from);
            for (Long p = 0; p < depth; ++p) {
                T* const to = left + p * across;
                std::memcpy(to, a + (from + p) * lda + at[0], columns_of_a * sizeof(T));
                std::fill(to + columns_of_a, to + columns_of_a + tall, T(0));  // the last tile may be less tall
            }
            for (Long panel = first_panel; panel < last_panel; ++panel) {
                const Long column = panel * wide, columns = std::min<Long>(wide, k - column);
                for (Long p = 0; p < depth; ++p) copy<wide>(columns, b + (from + p) * ldb + column, right + p * wide);
                for (Long i = 0; i < count; ++i) {
                    T* const to = out + at[i] * k + column;
                    tile<tall, true>({at[i + 1] - at[i], depth, left + at[i] - at[0], across, right, from || adds ? to : nullptr, k, to, k,
                                      columns});
                }
            }
        }
    }
}
