// What generated kernels are made of, after half.hpp, product.hpp and team.hpp; it stands in front of each of them. T is float or
// double.
// Rows are split over the threads of a team, always in the same way: what a thread reads of its own rows needs no barrier.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

struct Step {
    Index start, stop, reads_from, read_at, group, edge_start, edge_stop;
};

namespace {

// Elements up to which one thread computes a step, or what is computed once: two threads save less than what it takes them to
// wait for each other, and to read what the other one has in its cache.
constexpr Long serial = 16384, serial_once = 262144;
constexpr Long pays_packing = 16;  // rows from which on a packed weight is worth its packing

// Whether a step, of as many elements for each row or edge, is worth several threads.
inline bool pays_threads(const Step& step, Long elements, Long most) {
    return (step.stop - step.start + step.edge_stop - step.edge_start) * elements > most;
}

// out [count, slots, width] = rows of `from`.
template <class X>
inline void gather(const X* from, const Index* rows, Long count, Long slots, Long width, X* out) {
#pragma omp for schedule(static) nowait
    for (Long i = 0; i < count; ++i)
        for (Long at = i * slots; at < (i + 1) * slots; ++at)
            std::memcpy(out + at * width, from + rows[at] * width, width * sizeof(X));
}

// Who reads a row: the places offset[r] .. offset[r + 1] - 1; without offset, the one place.
template <class X>
struct Parents {
    const X* sent;
    const Index* places;
    const Index* offset;
};

template <class X>
inline void add_parents(const Parents<X>& from, Long row, Long width, X* out) {
    if (width == 1) {
        X sum = *out;
        for (Long p = from.offset[row]; p < from.offset[row + 1]; ++p) sum += from.sent[from.places[p]];
        *out = sum;
        return;
    }
    for (Long p = from.offset[row]; p < from.offset[row + 1]; ++p) {
        const X* const sent = from.sent + from.places[p] * width;
#pragma omp simd
        for (Long j = 0; j < width; ++j) out[j] += sent[j];
    }
}

// A row of half precision is added up in float, and rounded once.
template <class X>
inline void receive_half(const Parents<X>& placed, const Parents<X>& listed, const X* outside, Long row, Long width, X* out) {
    for (Long first = 0; first < width; first += 64) {
        const Long count = std::min<Long>(64, width - first);
        float sum[64] = {};
        const auto add = [&](const X* from, Long row) {
#pragma omp simd
            for (Long j = 0; j < count; ++j) sum[j] += widened(from[row * width + first + j]);
        };
        for (const Parents<X>& parents : {placed, listed}) {
            if (!parents.sent) continue;
            const Long begin = parents.offset ? parents.offset[row] : row, end = parents.offset ? parents.offset[row + 1] : row + 1;
            for (Long p = begin; p < end; ++p) add(parents.sent, parents.places[p]);
        }
        if (outside) add(outside, row);
#pragma omp simd
        for (Long j = 0; j < count; ++j) out[first + j] = narrowed<X>(rounded<X>(sum[j]));
    }
}

// The gradient of the state of rows [first, first + count): what parents sent, by slot and by edge, and what comes from
// outside; each may be missing.
template <class X>
inline void receive(const Parents<X>& placed, const Parents<X>& listed, const X* outside, Long first, Long count, Long width, X* out) {
#pragma omp for schedule(static) nowait
    for (Long i = 0; i < count; ++i) {
        X* const to = out + i * width;
        if constexpr (is_half<X>) {
            receive_half(placed, listed, outside, first + i, width, to);
        } else {
            if (placed.sent && !placed.offset)
                std::memcpy(to, placed.sent + placed.places[first + i] * width, width * sizeof(X));
            else
                std::fill(to, to + width, X(0));
            if (placed.sent && placed.offset) add_parents(placed, first + i, width, to);
            if (listed.sent) add_parents(listed, first + i, width, to);
            if (outside)
                for (Long j = 0; j < width; ++j) to[j] += outside[(first + i) * width + j];
        }
    }
}

// a * b + c, in one rounding where that costs nothing. Other expressions are rounded at each operation, as PyTorch's are:
// a * a - b * b of equal numbers is zero, and its root no NaN.
always float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

always double fused(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fma(a, b, c);
#else
    return a * b + c;
#endif
}

// The exponential to within two units in the last place, in a form that vectorises (Cody and Waite's reduction, a
// polynomial of degree six on [-ln 2 / 2, ln 2 / 2]). Beyond the bounds it is infinite, or zero; NaN stays NaN.
always float fast_exp(float x) {
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

// e^x as 2^k (1 + r + r^2 q), with a polynomial of degree four for q, for x between -87 and 89.
struct PowerOfE {
    float r, q;
    std::uint32_t k;  // as it is in the exponent of a float

    always explicit PowerOfE(float x) {
        const float rounder = 12582912.0f;  // as in fast_exp
        const float sum = fused(x, 1.44269504f, rounder), n = sum - rounder;
        r = fused(n, 2.12194440e-4f, fused(n, -0.693359375f, x));
        q = fused(1.38145394e-3f, r, 8.36874545e-3f);
        q = fused(q, r, 4.16683890e-2f);
        q = fused(q, r, 1.66665211e-1f);
        q = fused(q, r, 4.99999940e-1f);
        std::memcpy(&k, &sum, 4);
        k <<= 23;
    }

    // x 2^k, for x a power of two
    always float times(float x) const {
        std::uint32_t bits;
        std::memcpy(&bits, &x, 4);
        bits += k;
        std::memcpy(&x, &bits, 4);
        return x;
    }
};

// 1 + e^-x
always float one_and_power(float x) {
    float y = -x;
    y = y > 89.0f ? 89.0f : y;
    y = y < -86.0f ? -86.0f : y;
    const PowerOfE power(y);
    const float half = fused(fused(power.q, power.r, 1.0f), power.r, 1.0f) * power.times(0.5f);  // 2^128 is no float
    return fused(half, 2.0f, 1.0f);
}

always float sigmoid(float x) { return 1.0f / one_and_power(x); }
always float silu(float x) { return x / one_and_power(x); }

// By e^-2x - 1 near zero, and away from it as 1 less something small: derivatives ask for 1 - tanh^2. Both have one denominator.
always float tanh_of(float x) {
    const float z = std::fabs(x);
    const PowerOfE power(-2.0f * (z > 10.0f ? 10.0f : z));
    const float scale = power.times(1.0f), fraction = fused(power.q * power.r, power.r, power.r);
    const float less = fused(fraction, scale, scale - 1.0f), whole = fused(fraction, scale, scale);
    const bool far = z > 0.55f;
    // The numerator and what it is taken from are chosen, and not the result, for which compilers would divide twice.
    const float numerator = far ? 2.0f * whole : less, from = far ? 1.0f : 0.0f;
    return std::copysign(from - numerator / (less + 2.0f), x);  // of -0, -0
}

// The logarithm: mantissa and exponent apart, a polynomial of degree eight on [1 / sqrt 2, sqrt 2] (coefficients of Cephes, logf).
always float log_of(float x) {
    const bool small = x < 1.17549435e-38f;  // subnormal
    const float y = small ? x * 8388608.0f : x;
    std::int32_t bits;
    std::memcpy(&bits, &y, 4);
    const std::int32_t down = (bits & 0x7fffff) < 0x3504f3 ? 0 : 1;  // the mantissa is below sqrt 2, or else halved
    const std::int32_t scaled = (bits & 0x7fffff) | ((127 - down) << 23);
    float m;
    std::memcpy(&m, &scaled, 4);
    m -= 1.0f;
    const float e = float((bits >> 23) - 127 + down - (small ? 23 : 0));
    const float z = m * m;
    float p = 7.0376836292e-2f;
    p = fused(p, m, -1.1514610310e-1f);
    p = fused(p, m, 1.1676998740e-1f);
    p = fused(p, m, -1.2420140846e-1f);
    p = fused(p, m, 1.4249322787e-1f);
    p = fused(p, m, -1.6668057665e-1f);
    p = fused(p, m, 2.0000714765e-1f);
    p = fused(p, m, -2.4999993993e-1f);
    p = fused(p, m, 3.3333331174e-1f);
    p = p * m * z;
    p = fused(e, -2.12194440e-4f, p);
    p = fused(-0.5f, z, p);
    float result = fused(e, 0.693359375f, m + p);
    result = x == INFINITY ? x : result;
    result = x == 0.0f ? -INFINITY : result;
    return x < 0.0f || x != x ? NAN : result;
}

// log(1 + x): what was rounded away of 1 + x is made up for (Kahan, in the manual of the HP-15C).
always float log1p_of(float x) {
    const float u = 1.0f + x, d = u - 1.0f;
    const float log_u = log_of(u);
    return d == 0.0f ? x : u == INFINITY ? log_u : log_u * (x / d);
}

// The error function, odd and 1 from 4 on: a quotient of polynomials (coefficients of Eigen, erf of floats).
always float erf_of(float x) {
    const float y = x > 4.0f ? 4.0f : x < -4.0f ? -4.0f : x;
    const float s = y * y;
    float p = -2.72614225801306e-10f;
    p = fused(p, s, 2.77068142495902e-8f);
    p = fused(p, s, -2.10102402082508e-6f);
    p = fused(p, s, -5.69250639462346e-5f);
    p = fused(p, s, -7.34990630326855e-4f);
    p = fused(p, s, -2.95459980854025e-3f);
    p = fused(p, s, -1.60960333262415e-2f);
    float q = -1.45660718464996e-5f;
    q = fused(q, s, -2.13374055278905e-4f);
    q = fused(q, s, -1.68282697438203e-3f);
    q = fused(q, s, -7.37332916720468e-3f);
    q = fused(q, s, -1.42647390514189e-2f);
    return y * p / q;
}

always float exp_of(float x) { return fast_exp(x); }
always double log_of(double x) { return std::log(x); }
always double log1p_of(double x) { return std::log1p(x); }
always double erf_of(double x) { return std::erf(x); }
always double exp_of(double x) { return std::exp(x); }
always double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
always double silu(double x) { return x / (1.0 + std::exp(-x)); }
always double tanh_of(double x) { return std::tanh(x); }
template <class X>
always X relu(X x) {
    return x < 0 ? X(0) : x;  // NaN stays, and so does -0
}
template <class X>
always X larger(X a, X b) {
    return a != a ? a : b != b ? b : a > b ? a : b;
}
template <class X>
always X smaller(X a, X b) {
    return a != a ? a : b != b ? b : a < b ? a : b;
}
#pragma omp declare reduction(most:float:omp_out = larger(omp_out, omp_in)) initializer(omp_priv = -INFINITY)
#pragma omp declare reduction(most:double:omp_out = larger(omp_out, omp_in)) initializer(omp_priv = -INFINITY)
#pragma omp declare reduction(least:float:omp_out = smaller(omp_out, omp_in)) initializer(omp_priv = INFINITY)
#pragma omp declare reduction(least:double:omp_out = smaller(omp_out, omp_in)) initializer(omp_priv = INFINITY)

template <class X>
always X sign_of(X x) {
    return X((x > 0) - (x < 0));  // of NaN, 0
}
// Integers wrap around.
template <class X>
using Unsigned = std::make_unsigned_t<X>;
template <class X>
always X plus(X a, X b) {
    return X(Unsigned<X>(a) + Unsigned<X>(b));
}
template <class X>
always X minus(X a, X b) {
    return X(Unsigned<X>(a) - Unsigned<X>(b));
}
template <class X>
always X minus(X a) {
    return X(Unsigned<X>(0) - Unsigned<X>(a));
}
template <class X>
always X times(X a, X b) {
    return X(std::uint64_t(a) * std::uint64_t(b));
}
template <class X>
always X shifted_left(X a, X by) {
    return by < 0 || by >= X(8 * sizeof(X)) ? X(0) : X(Unsigned<X>(a) << by);
}
template <class X>
always X shifted_right(X a, X by) {
    return by < 0 || by >= X(8 * sizeof(X)) ? X(a < 0 ? -1 : 0) : X(a >> by);
}
template <class X>
always X size_of(X x) {
    return x < 0 ? minus(x) : x;
}
// The greatest common divisor, which may be negative where one of them has no positive counterpart, as in PyTorch.
template <class X>
inline X gcd_of(X a, X b) {
    for (a = size_of(a), b = size_of(b); a != 0;) {
        const X rest = X(b % a);
        b = a;
        a = rest;
    }
    return b;
}
// Orthogonal polynomials of a degree below 2^63, `first` being that of degree 1, by their recurrences.
enum Recurrence { chebyshev, hermite_h, hermite_he, laguerre, legendre };
template <Recurrence name, class X>
inline X polynomial(X x, X first, X degree) {
    const Long n = Long(degree);
    X before = 1, last = n < 1 ? X(1) : first;
    for (Long k = 1; k < n && last == last; ++k) {
        X next;
        if constexpr (name == chebyshev) next = (x + x) * last - before;
        if constexpr (name == hermite_h) next = (x + x) * last - X(2 * k) * before;
        if constexpr (name == hermite_he) next = x * last - X(k) * before;
        if constexpr (name == laguerre) next = ((X(2 * k) + (X(1) - x)) * last - X(k) * before) / X(k + 1);
        if constexpr (name == legendre) next = (X(2 * k + 1) * x * last - X(k) * before) / X(k + 1);
        before = last;
        last = next;
    }
    return last;
}
// Quotients and remainders, of floating point numbers as PyTorch has them; integers are never divided by zero.
template <class X>
always X fmod_of(X a, X b) {
    if constexpr (std::is_floating_point_v<X>)
        return std::fmod(a, b);
    else
        return b == X(-1) ? X(0) : X(a % b);
}
template <class X>
always X remainder_of(X a, X b) {
    const X rest = fmod_of(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? X(rest + b) : rest;
}
template <class X>
always X trunc_divided(X a, X b) {
    if constexpr (std::is_floating_point_v<X>)
        return std::trunc(a / b);
    else
        return b == X(-1) ? minus(a) : X(a / b);
}
template <class X>
always X floor_divided(X a, X b) {
    if constexpr (std::is_floating_point_v<X>) {
        if (b == 0) return a / b;
        const X rest = std::fmod(a, b);
        X whole = (a - rest) / b;
        if (rest != 0 && (b < 0) != (rest < 0)) whole -= 1;
        if (whole == 0) return std::copysign(X(0), a / b);
        const X below = std::floor(whole);
        return whole - below > X(0.5) ? below + 1 : below;
    } else {
        return X(trunc_divided(a, b) - (a % b != 0 && (a < 0) != (b < 0)));
    }
}

// Random numbers in [0, 1) of a seed, a stream, a row and a column; each bit of the hash depends on all of what is hashed (Wellons,
// "Prospecting for hash functions", 2018).
always std::uint32_t mixed(std::uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}
template <class X>
always X uniform(std::uint64_t seed, std::uint32_t stream, Long row, Long column) {
    const std::uint32_t of_row = mixed(std::uint32_t(row) + mixed(stream ^ std::uint32_t(seed))) ^ std::uint32_t(seed >> 32);
    return X(std::int32_t(mixed(std::uint32_t(column) + of_row) >> 8)) * X(5.9604644775390625e-8);  // 24 bits
}

// A place moved into [0, bound).
inline Long clip(Long at, Long bound) { return at < 0 ? 0 : at < bound ? at : bound - 1; }

}  // namespace
