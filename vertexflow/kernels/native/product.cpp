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
constexpr Long deep = 128, beside = 16;         // rows, and tiles, that an outer product takes at a time
constexpr Long across = (beside + 1) * tall;    // room beside the last of them; no power of two
constexpr Long abreast = 262144 / (deep * wide * sizeof(T)), high = (deep + 1) * wide;  // panels at a time, and how far apart
constexpr Long near = 49152;                   // elements of the left operand that stay in a cache beside a panel

// Rows of `a` lie `lda` apart; if transposed, its columns do. `bias`, of these columns, may be `out` itself: then it adds.
struct Operands {
    Long height, k;
    const T* a;
    Long lda;
    const T* panel;
    Long ld_panel;
    const T* bias;
    Long ld_bias;
    T* out;
    Long ldo, columns;
};

// What three or four rows read of a panel, compilers load once more for each of them, more than there are ways to load.
#if defined(__AVX__)
#define IN_A_REGISTER(value) asm("" : "+v"(value))
#else
#define IN_A_REGISTER(value) static_cast<void>(value)
#endif

template <int rows, bool transposed, int panels = 1>
inline void tile(const Operands& o) {
    constexpr int vectors = 2 * panels;
    Vector sum[rows][vectors] = {};
    const T* const a = o.a;
    const Long lda = o.lda, apart = o.k * wide;  // from one packed panel to the next
    for (Long p = 0; p < o.k; ++p) {
        Vector with[vectors];
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) with[j] = *reinterpret_cast<const Vector*>(o.panel + j / 2 * apart + p * o.ld_panel + j % 2 * lanes);
        if constexpr (!transposed && panels == 1 && (rows == 3 || rows == 4))
            for (Vector& each : with) IN_A_REGISTER(each);
#pragma GCC unroll 12
        for (int i = 0; i < rows; ++i) {
            const T x = transposed ? a[p * lda + i] : a[i * lda + p];
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) sum[i][j] += x * with[j];
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; ++i) {
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
template <bool transposed, int most = tall>
inline void tile_of(const Operands& o) {
    if constexpr (most > 0) {
        if (o.height == most)
            tile<most, transposed>(o);
        else
            tile_of<transposed, most - 1>(o);
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

constexpr Long soon = 8;  // rows ahead of which lines of the cache are fetched: rows lie too far apart to be foreseen

inline void fetch(const T* from, Long count) {
    for (Long j = 0; j < count; j += Long(64 / sizeof(T))) __builtin_prefetch(from + j);
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

inline T sum_of(const Vector& terms) {
    T parts[lanes];
    std::memcpy(parts, &terms, sizeof parts);
    for (int by = lanes / 2; by; by /= 2)
        for (int i = 0; i < by; ++i) parts[i] += parts[i + by];
    return parts[0];
}

// Some rows times some columns of a transposed weight, [columns, k], which are read as they lie: a sum in a register for each.
template <int rows, int columns>
inline void dots(const T* a, Long lda, const T* with, Long k, const T* bias, T* out, Long ldo) {
    Vector sum[rows][columns] = {};
    Long p = 0;
    for (; p + lanes <= k; p += lanes) {
        Vector of_column[columns];
#pragma GCC unroll 8
        for (int j = 0; j < columns; ++j) of_column[j] = *reinterpret_cast<const Vector*>(with + j * k + p);
#pragma GCC unroll 4
        for (int i = 0; i < rows; ++i) {
            const Vector x = *reinterpret_cast<const Vector*>(a + i * lda + p);
#pragma GCC unroll 8
            for (int j = 0; j < columns; ++j) sum[i][j] += x * of_column[j];
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < columns; ++j) {
            T all = sum_of(sum[i][j]);
            for (Long q = p; q < k; ++q) all += a[i * lda + q] * with[j * k + q];
            out[i * ldo + j] = bias ? bias[j] + all : all;
        }
}

// Columns [first, stop): those of a block meet all rows, four at a time.
template <int columns>
inline void columns_of(Long& first, Long stop, Long rows, const T* a, Long lda, const Weight& w, const T* bias, T* out, Long ldo) {
    for (; first + columns <= stop; first += columns) {
        const T *const with = w.plain + first * w.k, *const add = bias ? bias + first : nullptr;
        Long i = 0;
        for (; i + 4 <= rows; i += 4) dots<4, columns>(a + i * lda, lda, with, w.k, add, out + i * ldo + first, ldo);
        if (rows - i == 3) dots<3, columns>(a + i * lda, lda, with, w.k, add, out + i * ldo + first, ldo);
        if (rows - i == 2) dots<2, columns>(a + i * lda, lda, with, w.k, add, out + i * ldo + first, ldo);
        if (rows - i == 1) dots<1, columns>(a + i * lda, lda, with, w.k, add, out + i * ldo + first, ldo);
    }
}

inline void unpacked_product(Long rows, const T* a, Long lda, const Weight& w, const T* bias, T* out, Long ldo) {
    const Long thread = omp_get_thread_num(), team = omp_get_num_threads();
    if (w.transposed) {
        const Long eights = (w.n + 7) / 8, stop = std::min(w.n, eights * (thread + 1) / team * 8);
        Long first = eights * thread / team * 8;  // so that a column is in a block of so many however many threads there are
        if (rows < 3) columns_of<8>(first, stop, rows, a, lda, w, bias, out, ldo);  // sums enough to go on with
        columns_of<registers == 32 ? 4 : 2>(first, stop, rows, a, lda, w, bias, out, ldo);
        columns_of<1>(first, stop, rows, a, lda, w, bias, out, ldo);
        return;
    }
    const Long panels = (w.n + wide - 1) / wide, stop = std::min(w.n, panels * (thread + 1) / team * wide);
    for (Long column = panels * thread / team * wide; column < stop; column += wide) {
        const T* const add = bias ? bias + column : nullptr;
        if (column + wide <= w.n) {
            for (Long start = 0; start < rows; start += tall)
                tile_of<false>({std::min<Long>(tall, rows - start), w.k, a + start * lda, lda, w.plain + column, w.n, add, 0,
                         out + start * ldo + column, ldo, wide});
            continue;
        }
        for (Long i = 0; i < rows; ++i)
            for (Long j = column; j < w.n; ++j) {
                T sum = 0;
                for (Long p = 0; p < w.k; ++p) sum += a[i * lda + p] * w.plain[p * w.n + j];
                out[i * ldo + j] = bias ? bias[j] + sum : sum;
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
        const Operands of = {rows, w.k, a, lda, w.packed + column * w.k, wide, bias ? bias + column : nullptr, 0, out + column, ldo, wide};
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
                for (Long i = 0; i < height; ++i) __builtin_prefetch(out + (start + i) * ldo + column, 1);
                tile_of<false>({height, w.k, a + start * lda, lda, w.packed + column * w.k, wide, bias ? bias + column : nullptr, 0,
                         out + start * ldo + column, ldo, std::min<Long>(wide, w.n - column)});
            }
        }
}

extern "C" void outer(Long rows, const T* a, Long lda, Long n, const T* b, Long ldb, Long k, T* out, bool adds) {
    if (!rows && adds) return;
    const Long blocks = (n + tall - 1) / tall, panels = (k + wide - 1) / wide;
    const Long thread = omp_get_thread_num(), team = omp_get_num_threads();
    const bool by_panels = k > n && panels >= team;  // else by blocks
    const Long first_block = by_panels ? 0 : blocks * thread / team, last_block = by_panels ? blocks : blocks * (thread + 1) / team;
    const Long first_panel = by_panels ? panels * thread / team : 0, last_panel = by_panels ? panels * (thread + 1) / team : panels;
    const Long pieces = std::max<Long>(1, (rows + deep - 1) / deep);
    alignas(vector_bytes) T left[deep * across], right[abreast * high];  // columns of `a`, and panels of `b`, which stay in a cache
    for (Long begin = first_panel; begin < last_panel; begin += abreast)
        for (Long piece = 0; piece < pieces; ++piece) {
            const Long end = std::min(begin + abreast, last_panel), column = begin * wide, columns_of_b = std::min(end * wide, k) - column;
            const Long from = rows * piece / pieces, depth = rows * (piece + 1) / pieces - from;
            for (Long p = 0; p < depth; ++p) {
                const T* const row = b + (from + p) * ldb + column;
                if (p + soon < depth) fetch(row + soon * ldb, columns_of_b);
                for (Long j = 0; j < columns_of_b; j += wide)
                    copy<wide>(std::min<Long>(wide, columns_of_b - j), row + j, right + j / wide * high + p * wide);
            }
            for (Long first = first_block; first < last_block; first += beside) {
                const Long count = std::min(last_block - first, beside);
                Long at[beside + 1];  // where tiles begin
                for (Long i = 0; i <= count; ++i) at[i] = n * (first + i) / blocks;
                const Long columns_of_a = at[count] - at[0];
                for (Long p = 0; p < depth; ++p) {
                    const T* const row = a + (from + p) * lda + at[0];
                    T* const to = left + p * across;
                    if (p + soon < depth) fetch(row + soon * lda, columns_of_a);
                    std::memcpy(to, row, columns_of_a * sizeof(T));
                }
                for (Long panel = begin; panel < end; ++panel)
                    for (Long i = 0; i < count; ++i) {
                        T* const to = out + at[i] * k + panel * wide;
                        for (Long row = at[i]; row < at[i + 1]; ++row) __builtin_prefetch(to + (row - at[i]) * k, 1);
                        tile_of<true>({at[i + 1] - at[i], depth, left + at[i] - at[0], across, right + (panel - begin) * high, wide,
                                          piece || adds ? to : nullptr, k, to, k, std::min<Long>(wide, k - panel * wide)});
                    }
            }
        }
}
