// Rows that move between the order of a batch and that of its schedule, as bytes. Called as generated code is: with arguments
// and steps, lines of seven numbers, of which the first two say which rows.
#include <algorithm>
#include <cstdint>
#include <cstring>

using Index = std::int32_t;
using Long = std::int64_t;

namespace {

template <class Move>
void each_row(const Index* steps, Long count, Long bytes, Move move) {
    for (const Index* step = steps; step < steps + 7 * count; step += 7) {
        const Long start = step[0], stop = step[1];
#pragma omp parallel for schedule(static) if ((stop - start) * bytes > (1 << 16))
        for (Long row = start; row < stop; ++row) move(row);
    }
}

}  // namespace

// The row `from_index[i]` of `from`, whose rows begin `stride` bytes apart, becomes row `to_index[i]`; without an index, row i.
extern "C" void copy(Long* a, const Index* steps, Long count) {
    char* const to = (char*)a[0];
    const char* const from = (const char*)a[1];
    const Index *const to_index = (const Index*)a[2], *const from_index = (const Index*)a[3];
    const Long bytes = a[4], stride = a[5];
    each_row(steps, count, bytes, [=](Long i) {
        const Long to_row = to_index ? to_index[i] : i, from_row = from_index ? from_index[i] : i;
        std::memcpy(to + to_row * bytes, from + from_row * stride, bytes);
    });
}

// Row `index[i]` of `from` becomes row i, for all i or for those that `which` names.
extern "C" void gather(Long* a, const Index* steps, Long count) {
    char* const to = (char*)a[0];
    const char* const from = (const char*)a[1];
    const Index *const index = (const Index*)a[2], *const which = (const Index*)a[3];
    const Long bytes = a[4];
    each_row(steps, count, bytes, [=](Long at) {
        const Long i = which ? which[at] : at;
        std::memcpy(to + i * bytes, from + index[i] * bytes, bytes);
    });
}

// Rows become zero; those that `index` names, if there is one.
extern "C" void zero(Long* a, const Index* steps, Long count) {
    char* const to = (char*)a[0];
    const Index* const index = (const Index*)a[1];
    const Long bytes = a[2];
    each_row(steps, count, bytes, [=](Long i) { std::memset(to + (index ? index[i] : i) * bytes, 0, bytes); });
}

namespace {

// Element j of what parents sent to a row: `sent` [.., width] at places[row], or, with offset, the sum of those at
// places[offset[row]] .. places[offset[row + 1] - 1]; twice, by slot and by edge, each of which may be missing.
template <class X>
inline X received(const Long* by_slot, Long row, Long width, Long j) {
    X total = 0;
    for (const Long* by = by_slot; by <= by_slot + 3; by += 3) {
        const X* const sent = (const X*)by[0];
        const Index *const places = (const Index*)by[1], *const offset = (const Index*)by[2];
        X sum = 0;
        if (by[0])
            for (Long at = offset ? offset[row] : row, end = offset ? offset[row + 1] : row + 1; at < end; ++at)
                sum += sent[places[at] * width + j];
        total += sum;
    }
    return total;
}

// What parents sent to each of the rows.
template <class X>
void receive_rows(Long* a, const Index* steps, Long count) {
    X* const to = (X*)a[0];
    const Long width = a[1], first = a[2];
    each_row(steps, count, width * sizeof(X), [=](Long i) {
        for (Long j = 0; j < width; ++j) to[i * width + j] = received<X>(a + 3, first + i, width, j);
    });
}

// The same, added to rows of `to` that `index` names, perhaps more than once, of those rows that `which` names: threads divide
// the columns.
template <class X>
void add_rows(Long* a, const Index* steps, Long count) {
    X* const to = (X*)a[0];
    const Index *const index = (const Index*)a[1], *const which = (const Index*)a[2];
    const Long width = a[3], first = a[4];
    const Long* const by_slot = a + 5;
    const X* const sent = (const X*)by_slot[0];
    const Index* const places = (const Index*)by_slot[1];
    const bool has_one_place = by_slot[0] && !by_slot[2] && !by_slot[3];
    constexpr Long part = 256 / sizeof(X);
    for (const Index* step = steps; step < steps + 7 * count; step += 7) {
        const Long start = step[0], stop = step[1];
#pragma omp parallel for schedule(static) if ((stop - start) * width > (1 << 16))
        for (Long column = 0; column < width; column += part) {
            const Long end = std::min(column + part, width);
            for (Long at = start; at < stop; ++at) {
                const Long i = which ? which[at] : at;
                X* const row = to + (index ? index[i] : i) * width;
                if (has_one_place) {
                    const X* const from = sent + places[first + i] * width;
#pragma omp simd
                    for (Long j = column; j < end; ++j) row[j] += from[j];
                } else {
                    for (Long j = column; j < end; ++j) row[j] += received<X>(by_slot, first + i, width, j);
                }
            }
        }
    }
}

}  // namespace

extern "C" void receive_float32(Long* a, const Index* steps, Long count) { receive_rows<float>(a, steps, count); }
extern "C" void receive_float64(Long* a, const Index* steps, Long count) { receive_rows<double>(a, steps, count); }
extern "C" void add_float32(Long* a, const Index* steps, Long count) { add_rows<float>(a, steps, count); }
extern "C" void add_float64(Long* a, const Index* steps, Long count) { add_rows<double>(a, steps, count); }
