// Numbers of half precision. They lie in memory; computing is in float, whose numbers are rounded to theirs: to the nearest, of
// two the even one.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

// A call that is not inlined keeps a loop from being vectorised.
#define always inline __attribute__((always_inline))

struct bfloat16 {
    std::uint16_t bits;
};
struct float16 {
    std::uint16_t bits;
};

namespace {

template <class X>
constexpr bool is_half = std::is_same_v<X, bfloat16> || std::is_same_v<X, float16>;

always std::uint32_t bits_of(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
always float float_of(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

template <class X>
always X widened(X x) {
    return x;
}
always float widened(bfloat16 x) { return float_of(std::uint32_t(x.bits) << 16); }
always float widened(float16 x) {
    const float size = float_of(std::uint32_t(x.bits & 0x7fff) << 13) * 0x1p112f;  // the exponent counts from 15, not from 127
    const std::uint32_t infinite = size >= 65536.0f ? 0x7f800000u : 0u;
    return float_of(bits_of(size) | infinite | std::uint32_t(x.bits & 0x8000) << 16);
}

// The nearest number of X.
template <class X>
always float rounded(float x) {
    constexpr int cut = std::is_same_v<X, bfloat16> ? 16 : 13;  // bits
    constexpr std::uint32_t less = (1u << (cut - 1)) - 1;
    const std::uint32_t bits = bits_of(x);
    float result = float_of((bits + less + (bits >> cut & 1)) & ~(2 * less + 1));
    if constexpr (std::is_same_v<X, float16>) {
        const float size = std::fabs(x), steps = (size + 0.5f) - 0.5f;  // of 2^-24, which is all that small ones have
        result = size < 0x1p-14f ? std::copysign(steps, x) : size < 65520.0f ? result : std::copysign(INFINITY, x);
    }
    return x != x ? NAN : result;
}

// A number of X as it lies in memory.
template <class X>
always X narrowed(float x) {
    const std::uint32_t bits = bits_of(x);
    if constexpr (std::is_same_v<X, bfloat16>) return {std::uint16_t(bits >> 16)};
    const float size = std::fabs(x);
    const std::uint32_t whole = size < 65536.0f ? (bits_of(size) - (112u << 23)) >> 13 : x != x ? 0x7e00u : 0x7c00u;
    const std::uint32_t small = std::uint32_t(std::int32_t(size < 1.0f ? size * 0x1p24f : 0.0f));
    return {std::uint16_t((size < 0x1p-14f ? small : whole) | (bits >> 16 & 0x8000))};
}

}  // namespace
