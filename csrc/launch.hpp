// Launches of compiled kernels, step after step: what Python would do once for every kernel of every step.
#pragma once

#include <algorithm>
#include <array>

#include "common.hpp"

namespace vertexflow {

// cuLaunchKernel of the CUDA driver: function; programs in three dimensions; threads in three; bytes of shared memory;
// stream; where each argument lies; nothing more. 0: launched.
using Driver = int (*)(const void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);

// A kernel as it is compiled for programs of at least this size, or null.
struct Variant {
    std::int64_t rows, columns;  // for steps in which programs of this size keep all multiprocessors busy
    std::int64_t own_rows, own_columns;  // the size of its programs: less, if it would spill
    std::int64_t function, shared;
};

// One kernel of a step.
struct Launch {
    bool on_edges;
    std::int64_t columns;
    const Variant* variants;  // from large to small
    std::size_t num_variants;
    std::vector<std::uint64_t> words;  // its arguments, each in 8 bytes; the numbers of a step, and 8 bytes 0 twice, follow
};

// A step: a line of the schedule's table.
struct Line {
    Index start, stop, reads_from, read_at, group, edge_start, edge_stop;
};

struct Launches {
    std::vector<Launch> inner, leaf;  // of steps of vertices with children, and without
    Index num_leaves, group_start;
    int threads;
    std::int64_t multiprocessors;
    void* stream;
    Driver driver;

    static constexpr std::size_t numbers = 5, scratch = 2;  // Triton adds two pointers, which no kernel here needs

    // How many launches a step counts for.
    std::int64_t width() const { return static_cast<std::int64_t>(std::max({inner.size(), leaf.size(), std::size_t(1)})); }

    // Launch all from number `first` on (step * width() + kernel); returns the number of the first that could not be: its
    // variant is not compiled, or the driver refuses. `count * width()` if there is none.
    std::int64_t run(const Line* lines, std::int64_t count, std::int64_t first) {
        const std::int64_t wide = width();
        for (std::int64_t at = first; at < count * wide; ++at) {
            const Line& line = lines[at / wide];
            const bool is_inner = line.start >= num_leaves;
            std::vector<Launch>& launches = is_inner ? inner : leaf;
            if (static_cast<std::size_t>(at % wide) >= launches.size()) continue;
            Launch& launch = launches[at % wide];
            const Index rows = launch.on_edges ? line.edge_stop - line.edge_start : line.stop - line.start;
            if (rows > 0 && !start(launch, line, rows)) return at;
        }
        return count * wide;
    }

    std::vector<void*> places;  // where the arguments of the launch at hand lie

  private:
    static std::int64_t pieces(std::int64_t whole, std::int64_t piece) { return (whole + piece - 1) / piece; }

    bool start(Launch& launch, const Line& line, Index rows) {
        const Variant* variant = launch.variants;
        const Variant* const last = variant + launch.num_variants - 1;
        while (variant < last &&
               pieces(rows, variant->rows) * pieces(launch.columns, variant->columns) < multiprocessors)
            ++variant;
        if (!variant->function) return false;
        const std::array<Index, numbers> values = {line.start, line.start - num_leaves, group_start + line.start,
                                                   line.edge_start, rows};
        const std::size_t given = launch.words.size() - numbers - scratch;
        std::copy(values.begin(), values.end(), launch.words.begin() + static_cast<std::ptrdiff_t>(given));
        places.clear();
        for (std::uint64_t& word : launch.words) places.push_back(&word);
        return driver(reinterpret_cast<const void*>(variant->function),
                      static_cast<unsigned>(pieces(rows, variant->own_rows)),
                      static_cast<unsigned>(pieces(launch.columns, variant->own_columns)), 1,
                      static_cast<unsigned>(threads), 1, 1, static_cast<unsigned>(variant->shared), stream,
                      places.data(), nullptr) == 0;
    }
};

}  // namespace vertexflow
