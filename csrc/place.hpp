// The rows of a schedule: every vertex gets a row, every step a slice of rows, and index arrays say who reads what.
#pragma once

#include <algorithm>

#include "common.hpp"

namespace vertexflow {

// Refuses arrays that do not describe a structure. `slots`: how many slots a vertex has.
inline void check(const Structure& s, Index slots, Patience& patience) {
    if (s.offset[0] != 0 || s.offset[s.num_vertices] != s.num_edges) throw Malformed("offset", 0);
    for (Index v = 0; v < s.num_vertices; ++v)
        if (s.offset[v + 1] < s.offset[v] || s.offset[v + 1] > s.num_edges) throw Malformed("offset", v);
    const Index numbers = checked(std::int64_t{s.num_vertices} + s.num_external, "too large");
    for (Index v = 0; v < s.num_vertices; ++v) {
        patience.tick();
        Index before = -1;
        for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e) {
            if (s.child[e] < 0 || s.child[e] >= numbers) throw Malformed("child", e, v);
            if (s.slot[e] <= before) throw Malformed("slot order", e, v);  // sorted by slot, none twice
            before = s.slot[e];
        }
        if (before >= slots) throw Malformed("slots", s.offset[v + 1] - 1, v);
        if (s.kind && (s.kind[v] < 0 || s.kind[v] >= s.num_kinds)) throw Malformed("kind", v);
    }
}

// A bucket is a step to be: vertices of one step number, with or without children, and of one kind. `step` [V] holds step
// numbers 0 .. num_steps - 1, in which children come first, and holds bucket numbers afterwards.
struct Buckets {
    Index count = 0;
    Index num_leaves = 0;
    Indices end;  // of each bucket's rows; before `place` has run, its first free row

    Buckets(const Structure& s, Index* step, Index num_steps, Patience& patience) {
        // Between a step's leaves and its inner vertices is nothing that one waits for; all leaves' rows come first.
        const std::int64_t numbers = std::int64_t{num_steps} * 2 * s.num_kinds;
        std::vector<std::int64_t> used;
        const auto number = [&](Index v) {
            const bool inner = s.offset[v + 1] > s.offset[v];
            return (std::int64_t{step[v]} * 2 + inner) * s.num_kinds + (s.kind ? s.kind[v] : 0);
        };
        if (numbers <= 2 * std::int64_t{s.num_vertices} + 64) {
            count = static_cast<Index>(numbers);
            for (Index v = 0; v < s.num_vertices; ++v) step[v] = static_cast<Index>(number(v));
        } else {  // many kinds, few of them in a step: number those that there are
            used.reserve(s.num_vertices);
            for (Index v = 0; v < s.num_vertices; ++v) used.push_back(number(v));
            std::sort(used.begin(), used.end());
            used.erase(std::unique(used.begin(), used.end()), used.end());
            count = static_cast<Index>(used.size());
            for (Index v = 0; v < s.num_vertices; ++v)
                step[v] = static_cast<Index>(std::lower_bound(used.begin(), used.end(), number(v)) - used.begin());
        }
        inner_.resize(count);
        for (Index b = 0; b < count; ++b)
            inner_[b] = static_cast<char>((used.empty() ? b : used[b]) / s.num_kinds % 2);
        end.assign(count, 0);
        for (Index v = 0; v < s.num_vertices; ++v) {
            patience.tick();
            ++end[step[v]];
        }
        Index row = 0;
        for (const char inner : {0, 1}) {
            if (inner) num_leaves = row;
            for (Index b = 0; b < count; ++b)
                if (inner_[b] == inner) {
                    const Index size = end[b];
                    end[b] = row;
                    row += size;
                }
        }
    }

    bool inner(Index bucket) const { return inner_[bucket]; }

  private:
    std::vector<char> inner_;
};

// What a schedule is made of; V vertices, X external ones, L leaves, K slots, E edges.
struct Rows {
    Index* order;          // [V], the vertex of each row
    Index* row;            // [V], the row of each vertex
    Index* child_rows;     // [(V - L) * K], row of the child in each slot; external i is row V + i, none is V + X
    Index* parent_edge;    // in a forest [V + X], where in child_rows each row is read, (V - L) * K if nowhere; else [E]
    Index* parent_offset;  // in a forest null; else [V + X + 1], the slice of parent_edge of each row
};

// Puts the vertices into rows from the last step down. The children of a step are placed in the order in which its rows
// read them, so that siblings of one bucket are neighbours, and a step of a chain or of a complete tree reads a slice.
// `starts` [count]: first row of each bucket.
inline void place(const Structure& s, const Index* bucket, Buckets& buckets, Index slots, const Rows& out,
                  const Index* starts, Patience& patience) {
    const Index n = s.num_vertices, none = n + s.num_external, first_inner = buckets.num_leaves;
    const Index positions = static_cast<Index>(std::int64_t{n - first_inner} * slots);
    std::fill(out.row, out.row + n, Index{-2});  // consumed by nobody, as far as is known
    for (Index e = 0; e < s.num_edges; ++e)
        if (s.child[e] < n) out.row[s.child[e]] = -1;
    for (Index v = 0; v < n; ++v)
        if (out.row[v] == -2) {
            out.row[v] = buckets.end[bucket[v]]++;
            out.order[out.row[v]] = v;
        }
    std::fill(out.child_rows, out.child_rows + positions, none);
    if (!out.parent_offset) std::fill(out.parent_edge, out.parent_edge + none, positions);
    for (Index b = buckets.count - 1; b >= 0; --b) {
        if (!buckets.inner(b)) continue;
        for (Index r = starts[b]; r < buckets.end[b]; ++r) {  // all of them are placed: their parents are done
            patience.tick();
            const Index v = out.order[r];
            const Index base = (r - first_inner) * slots;
            for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e) {
                const Index c = s.child[e];
                Index read = c;  // externals keep their numbers
                if (c < n) {
                    read = out.row[c];
                    if (read < 0) {
                        read = out.row[c] = buckets.end[bucket[c]]++;
                        out.order[read] = c;
                    }
                }
                out.child_rows[base + s.slot[e]] = read;
                if (!out.parent_offset) out.parent_edge[read] = base + s.slot[e];
            }
        }
    }
    if (!out.parent_offset) return;
    std::fill(out.parent_offset, out.parent_offset + none + 1, Index{0});
    for (Index p = 0; p < positions; ++p)
        if (out.child_rows[p] < none) ++out.parent_offset[out.child_rows[p] + 1];
    for (Index r = 0; r < none; ++r) out.parent_offset[r + 1] += out.parent_offset[r];
    for (Index p = 0; p < positions; ++p)  // ascending positions, so that sums have a fixed order
        if (out.child_rows[p] < none) out.parent_edge[out.parent_offset[out.child_rows[p]]++] = p;
    for (Index r = none; r > 0; --r) out.parent_offset[r] = out.parent_offset[r - 1];
    out.parent_offset[0] = 0;
}

// The first of `count` numbers if they are consecutive and below `end`; else -1.
inline Index consecutive(const Index* numbers, std::int64_t count, Index end) {
    if (count == 0) return -1;
    for (std::int64_t i = 0; i < count; ++i)
        if (numbers[i] >= end || numbers[i] != numbers[0] + i) return -1;
    return numbers[0];
}

// Whether no vertex is consumed more than once. `seen` [V + X] is scratch.
inline bool is_forest(const Structure& s, Indices& seen) {
    seen.assign(s.num_vertices + s.num_external, 0);
    for (Index e = 0; e < s.num_edges; ++e)
        if (seen[s.child[e]]++) return false;
    return true;
}

}  // namespace vertexflow
