// A block: up to 32 rows of bfloat16 times a panel of a packed matrix, added up in float. By AMX where the system lets a process use
// it, by AVX512-BF16, or by floats. It stands behind half.hpp.
//
// A panel has 32 columns and an even number of rows, a multiple of 32 where AMX reads it; two rows lie side by side, [k / 2][32][2].
#include <algorithm>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr Long wide = 32, deep = 32, tall = 32;  // columns of a panel, a multiple of its rows, and rows of a block

typedef std::uint32_t Pair __attribute__((may_alias, aligned(2)));  // two numbers, the first in the lower half

inline Pair pair(bfloat16 first, bfloat16 second) { return first.bits | Pair(second.bits) << 16; }

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, most_rows = 12;
#elif defined(__AVX__)
constexpr int vector_bytes = 32, most_rows = 4;
#else
constexpr int vector_bytes = 16, most_rows = 4;
#endif
constexpr int lanes = vector_bytes / 4;
typedef float Floats __attribute__((vector_size(vector_bytes), aligned(4), may_alias));
typedef std::uint32_t Pairs __attribute__((vector_size(vector_bytes), aligned(4), may_alias));

// What a block is made of: rows [rows, k] of `a`, which lie `lda` apart, times a panel; `sum` has `wide` columns, and is added to if
// there is `more`.
struct Factors {
    const bfloat16* a;
    Long lda, k;
    const Pair* panel;
    float* sum;
    bool more;
};

// sum += both numbers of each pair times those of another one.
inline void add_pair(Floats& sum, const Pairs& x, const Pairs& with) {
#if defined(__AVX512BF16__)
    sum = (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)with);
#else
    sum += (Floats)(x << 16) * (Floats)(with << 16);
    sum += (Floats)(x & 0xffff0000u) * (Floats)(with & 0xffff0000u);
#endif
}

template <int rows, class Read>
inline __attribute__((always_inline)) void add_pairs(Floats (&total)[rows][2], const Pair* row, const Read& pair_of) {
    const Pairs left = *reinterpret_cast<const Pairs*>(row), right = *reinterpret_cast<const Pairs*>(row + lanes);
#pragma GCC unroll 12
    for (int i = 0; i < rows; ++i) {
        const Pairs x = pair_of(i) - Pairs{};
        add_pair(total[i][0], x, left);
        add_pair(total[i][1], x, right);
    }
}

template <int rows>
inline void rows_of_block(const Factors& f) {
    for (Long column = 0; column < wide; column += 2 * lanes) {
        Floats total[rows][2] = {};
        float* const to = f.sum + column;
        if (f.more)
            for (int i = 0; i < rows; ++i) std::memcpy(total[i], to + i * wide, sizeof total[i]);
        const Pair* row = f.panel + column;
        for (Long p = 0; p + 1 < f.k; p += 2, row += wide)
            add_pairs<rows>(total, row, [&](int i) { return *reinterpret_cast<const Pair*>(f.a + i * f.lda + p); });
        if (f.k % 2) add_pairs<rows>(total, row, [&](int i) { return Pair(f.a[i * f.lda + f.k - 1].bits); });
        for (int i = 0; i < rows; ++i) std::memcpy(to + i * wide, total[i], sizeof total[i]);
    }
}

// Some rows of a block, of a number that is known when it runs.
template <int most = most_rows>
inline void some_rows(Long rows, const Factors& f) {
    if constexpr (most > 0) {
        if (rows == most)
            rows_of_block<most>(f);
        else
            some_rows<most - 1>(rows, f);
    }
}

#if defined(__AMX_BF16__)
// Whether this process may use the registers of AMX, which the system has to be asked for.
inline bool may_use_tiles() {
    constexpr long request = 0x1023, tiles = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool granted = syscall(SYS_arch_prctl, request, tiles) == 0;
    return granted;
}

struct Shapes {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {};
    std::uint8_t rows[16] = {};
};

// Tiles 0 and 1 are sums of the upper rows, 2 and 3 of the lower ones; 4 and 5 rows of `a`, 6 and 7 a piece of the panel.
inline void shape_tiles(Long rows) {
    Shapes shapes;
    const Long upper = rows < 16 ? rows : 16, lower = rows > 16 ? rows - 16 : 16;
    for (int tile = 0; tile < 8; ++tile) {
        shapes.bytes[tile] = 64;
        shapes.rows[tile] = std::uint8_t(tile > 5 ? 16 : tile == 2 || tile == 3 || tile == 5 ? lower : upper);
    }
    _tile_loadconfig(&shapes);
}

template <bool has_lower>
inline void add_piece(const bfloat16* a, Long lda, const Pair* panel) {
    _tile_loadd(6, panel, 4 * wide);
    _tile_loadd(4, a, 2 * lda);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, panel + 16, 4 * wide);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (has_lower) {
        _tile_loadd(5, a + 16 * lda, 2 * lda);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

template <bool has_lower>
inline void block_of_tiles(Long rows, const Factors& f) {
    float* const lower = f.sum + 16 * wide;
    if (f.more) {
        _tile_loadd(0, f.sum, 4 * wide);
        _tile_loadd(1, f.sum + 16, 4 * wide);
        if constexpr (has_lower) {
            _tile_loadd(2, lower, 4 * wide);
            _tile_loadd(3, lower + 16, 4 * wide);
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    const Long whole = f.k / deep * deep;
    for (Long p = 0; p < whole; p += deep) add_piece<has_lower>(f.a + p, f.lda, f.panel + p / 2 * wide);
    if (whole < f.k) {  // what is behind the last column is not ours
        bfloat16 rest[tall * deep] = {};
        for (Long i = 0; i < rows; ++i) std::copy(f.a + i * f.lda + whole, f.a + i * f.lda + f.k, rest + i * deep);
        add_piece<has_lower>(rest, deep, f.panel + whole / 2 * wide);
    }
    _tile_stored(0, f.sum, 4 * wide);
    _tile_stored(1, f.sum + 16, 4 * wide);
    if constexpr (has_lower) {
        _tile_stored(2, lower, 4 * wide);
        _tile_stored(3, lower + 16, 4 * wide);
    }
}
#endif

// Computes blocks, one after the other, on one thread.
class Blocks {
    Long shaped = 0;  // tiles are for so many rows

public:
    Blocks() = default;
    Blocks(const Blocks&) = delete;
    Blocks& operator=(const Blocks&) = delete;
    ~Blocks() {
#if defined(__AMX_BF16__)
        if (shaped) _tile_release();
#endif
    }

    void block(Long rows, const Factors& f) {
#if defined(__AMX_BF16__)
        if (may_use_tiles()) {
            if (shaped != rows) shape_tiles(shaped = rows);
            return rows > 16 ? block_of_tiles<true>(rows, f) : block_of_tiles<false>(rows, f);
        }
#endif
        for (Long i = 0; i < rows; i += most_rows)
            some_rows(std::min<Long>(most_rows, rows - i), {f.a + i * f.lda, f.lda, f.k, f.panel, f.sum + i * wide, f.more});
    }
};

}  // namespace
