// What generated kernels are made of, after product.hpp; it stands in front of each of them. T is float or double.
// Rows are split over the threads of a team, always in the same way: what a thread reads of its own rows needs no barrier.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

struct Step {
    Index start, stop, reads_from, read_at, group, edge_start, edge_stop;
};

namespace {

constexpr Long serial = 1024;      // elements a step from which on threads are worth waking
constexpr Long pays_packing = 32;  // rows from which on a packed weight is worth its packing

// out [count, slots, width] = rows of `from`.
inline void gather(const T* from, const Index* rows, Long count, Long slots, Long width, T* out) {
#pragma omp for schedule(static) nowait
    for (Long i = 0; i < count; ++i)
        for (Long at = i * slots; at < (i + 1) * slots; ++at)
            std::memcpy(out + at * width, from + rows[at] * width, width * sizeof(T));
}

// Who reads a row: the places offset[r] .. offset[r + 1] - 1; without offset, the one place.
struct Parents {
    const T* sent;
    const Index* places;
    const Index* offset;
};

inline void add_parents(const Parents& from, Long row, Long width, T* out) {
    for (Long p = from.offset[row]; p < from.offset[row + 1]; ++p) {
        const T* const sent = from.sent + from.places[p] * width;
#pragma omp simd
        for (Long j = 0; j < width; ++j) out[j] += sent[j];
    }
}

// The gradient of the state of rows [first, first + count): what parents sent, by slot and by edge, and what comes from
// outside; each may be missing.
inline void receive(const Parents& placed, const Parents& listed, const T* outside, Long first, Long count, Long width, T* out) {
#pragma omp for schedule(static) nowait
    for (Long i = 0; i < count; ++i) {
        T* const to = out + i * width;
        if (placed.sent && !placed.offset)
            std::memcpy(to, placed.sent + placed.places[first + i] * width, width * sizeof(T));
        else
            std::fill(to, to + width, T(0));
        if (placed.sent && placed.offset) add_parents(placed, first + i, width, to);
        if (listed.sent) add_parents(listed, first + i, width, to);
        if (outside)
            for (Long j = 0; j < width; ++j) to[j] += outside[(first + i) * width + j];
    }
}

// a * b + c, in one rounding where that costs nothing. Other expressions are rounded at each operation, as PyTorch's are:
// a * a - b * b of equal numbers is zero, and its root no NaN.
inline float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

inline double fused(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fma(a, b, c);
#else
    return a * b + c;
#endif
}

// The exponential to within two units in the last place, in a form that vectorises (Cody and Waite's reduction, a
// polynomial of degree six on [-ln 2 / 2, ln 2 / 2]). Beyond the bounds it is infinite, or zero; NaN stays NaN.
inline float fast_exp(float x) {
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    const float rounder = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer, in its lowest bits
    const float sum = fused(x, 1.44269504f, rounder), n = sum - rounder;
    float r = fused(n, -0.693359375f, x);
    r = fused(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = fused(p, r, 1.3981999507e-3f);
    p = fused(p, r, 8.3334519073e-3f);
    p = fused(p, r, 4.1665795894e-2f);
    p = fused(p, r, 1.6666665459e-1f);
    p = fused(p, r, 5.0000001201e-1f);
    p = fused(p * r, r, r) + 1.0f;
    std::int32_t bits;
    std::memcpy(&bits, &sum, 4);
    const std::int32_t k = bits - 0x4B400000, half = k >> 1;  // in two factors: 2^k may be subnormal, or overflow
    const std::int32_t low = (half + 127) << 23, high = (k - half + 127) << 23;
    float a, b;
    std::memcpy(&a, &low, 4);
    std::memcpy(&b, &high, 4);
    return p * a * b;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }
inline float silu(float x) { return x / (1.0f + fast_exp(-x)); }

inline float tanh_of(float x) {
    const float z = std::fabs(x);
    const float e = fast_exp(2.0f * (z > 10.0f ? 10.0f : z));
    const float far = 1.0f - 2.0f / (e + 1.0f);
    const float s = x * x;
    float p = -5.70498872745e-3f;
    p = fused(p, s, 2.06390887954e-2f);
    p = fused(p, s, -5.37397155531e-2f);
    p = fused(p, s, 1.33314422036e-1f);
    p = fused(p, s, -3.33332819422e-1f);
    const float near = fused(p * s, z, z);
    return std::copysign(z < 0.625f ? near : far, x);  // of -0, -0
}

inline float exp_of(float x) { return fast_exp(x); }
inline double exp_of(double x) { return std::exp(x); }
inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
inline double silu(double x) { return x / (1.0 + std::exp(-x)); }
inline double tanh_of(double x) { return std::tanh(x); }
template <class X>
inline X relu(X x) {
    return x < 0 ? X(0) : x;  // NaN stays, and so does -0
}
template <class X>
inline X larger(X a, X b) {
    return a != a ? a : b != b ? b : a > b ? a : b;
}
template <class X>
inline X smaller(X a, X b) {
    return a != a ? a : b != b ? b : a < b ? a : b;
}

}  // namespace
