// The rows of a schedule: every vertex gets a row, every step a slice of rows, and index arrays say who reads what.
#pragma once

#include <algorithm>

#include "common.hpp"
#include "order.hpp"

namespace vertexflow {

// A bucket is a step to be: vertices of one step number, with or without children, and of one kind. `step` [V] holds step
// numbers 0 .. num_steps - 1, in which children come first, and holds bucket numbers afterwards.
struct Buckets {
    Index count = 0;
    Index num_leaves = 0;
    Indices start, end;  // of each bucket's rows

    Buckets(const Structure& s, Index* step, Index num_steps, Patience& patience) {
        // Between a step's leaves and its inner vertices is nothing that one waits for; all leaves' rows come first.
        const std::int64_t numbers = std::int64_t{num_steps} * 2 * s.num_kinds;
        std::vector<std::int64_t> used;
        const auto number = [&](Index v) {
            const bool inner = s.offset[v + 1] > s.offset[v];
            return (std::int64_t{step[v]} * 2 + inner) * s.num_kinds + (s.kind ? s.kind[v] : 0);
        };
        if (numbers <= std::min(2 * std::int64_t{s.num_vertices} + 64, std::int64_t{1} << 30)) {
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
        start.assign(count, 0);
        for (Index v = 0; v < s.num_vertices; ++v) ++start[step[v]];
        end = start;
        Index row = 0;
        for (const char inner : {0, 1}) {
            if (inner) num_leaves = row;
            for (Index b = 0; b < count; ++b)
                if (inner_[b] == inner) {
                    start[b] = row;
                    row += end[b];
                    end[b] = row;
                }
            patience.tick(count);
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

// Calls `visit` for every vertex, parents before children, graph after graph in the order given.
template <class Visit>
void parents_first(const Structure& s, const Index* graph_offset, const Indices& graphs, Patience& patience, Visit visit) {
    if (s.numbering != Numbering::mixed) {
        for (const Index g : graphs) {
            const Index first = graph_offset[g], last = graph_offset[g + 1];
            for (Index i = first; i < last; ++i) {
                patience.tick();
                visit(s.numbering == Numbering::rising ? first + last - 1 - i : i);
            }
        }
        return;
    }
    const Indices order = topological(s, Parents(s, patience), patience);
    Indices graph_of(s.num_vertices), next(graphs.size()), grouped(s.num_vertices);
    Index at = 0;
    for (const Index g : graphs) {
        next[g] = at;
        at += graph_offset[g + 1] - graph_offset[g];
        std::fill(graph_of.begin() + graph_offset[g], graph_of.begin() + graph_offset[g + 1], g);
    }
    for (auto v = order.rbegin(); v != order.rend(); ++v) {
        patience.tick();
        grouped[next[graph_of[*v]]++] = *v;
    }
    for (const Index v : grouped) {
        patience.tick();
        visit(v);
    }
}

// Puts the vertices into rows; every bucket is filled from its end. Graphs with the last steps come first; in a graph,
// parents come before children, and a vertex's children are placed one after the other, so that siblings of one bucket are
// neighbours, and a step of chains or of complete trees reads a slice of rows. What belongs to a graph is handled together:
// it is in the cache. `graph_offset`: graph g has the vertices graph_offset[g] .. graph_offset[g + 1] - 1.
inline void place(const Structure& s, const Index* bucket, const Buckets& buckets, const Index* graph_offset,
                  Index num_graphs, Index slots, const Rows& out, Patience& patience) {
    const Index n = s.num_vertices, none = n + s.num_external, first_inner = buckets.num_leaves;
    const Index positions = static_cast<Index>(std::int64_t{n - first_inner} * slots);
    Indices free = buckets.end, last(num_graphs), graphs(num_graphs);
    for (Index g = 0; g < num_graphs; ++g) {
        last[g] = *std::max_element(bucket + graph_offset[g], bucket + graph_offset[g + 1]);
        graphs[g] = num_graphs - 1 - g;
    }
    std::stable_sort(graphs.begin(), graphs.end(), [&](Index a, Index b) { return last[a] > last[b]; });
    std::fill(out.row, out.row + n, Index{-1});
    const bool forest = !out.parent_offset;
    if (forest) std::fill(out.parent_edge, out.parent_edge + none, positions);
    const auto put = [&](Index v) {
        const Index row = --free[bucket[v]];
        out.order[row] = v;
        return out.row[v] = row;
    };
    parents_first(s, graph_offset, graphs, patience, [&](Index v) {
        const Index row = out.row[v] < 0 ? put(v) : out.row[v];  // a root, or placed by a parent
        const Index first = s.offset[v], last_edge = s.offset[v + 1];
        if (first == last_edge) return;
        Index* const read = out.child_rows + std::int64_t{row - first_inner} * slots;
        if (last_edge - first < slots || s.slot[last_edge - 1] >= slots) std::fill(read, read + slots, none);
        for (Index e = last_edge - 1; e >= first; --e) {
            const Index c = s.child[e], slot = s.slot[e];
            const Index below = c >= n ? c : out.row[c] < 0 ? put(c) : out.row[c];  // externals keep their numbers
            if (slot >= slots) continue;  // read by an edge list instead
            read[slot] = below;
            if (forest) out.parent_edge[below] = static_cast<Index>(read - out.child_rows) + slot;
        }
    });
    if (forest) return;
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

// Who is read from row to row, an entry an edge: for vertices of any number of children. All arrays are in one piece: offset
// [V - L + 1], edge [E], child_row [E], parent_offset [V + X + 1], parent_edge [E]. Row L + i has the entries offset[i] ..
// offset[i + 1] - 1, with the number of the edge and the row of the child; row r is read by the entries
// parent_edge[parent_offset[r]] .. parent_edge[parent_offset[r + 1] - 1], in ascending order.
inline void edge_lists(const Structure& s, const Index* order, const Index* row, Index leaves, Index* out, Patience& patience) {
    const Index n = s.num_vertices, total = n + s.num_external;
    Index* const offset = out;
    Index* const edge = offset + (n - leaves) + 1;
    Index* const child_row = edge + s.num_edges;
    Index* const parent_offset = child_row + s.num_edges;
    Index* const parent_edge = parent_offset + total + 1;
    std::fill(parent_offset, parent_offset + total + 1, Index{0});
    Index at = 0;
    for (Index r = leaves; r < n; ++r) {
        patience.tick();
        offset[r - leaves] = at;
        for (Index e = s.offset[order[r]]; e < s.offset[order[r] + 1]; ++e, ++at) {
            edge[at] = e;
            child_row[at] = s.child[e] < n ? row[s.child[e]] : s.child[e];
            ++parent_offset[child_row[at] + 1];
        }
    }
    offset[n - leaves] = at;
    for (Index r = 0; r < total; ++r) parent_offset[r + 1] += parent_offset[r];
    for (Index i = 0; i < at; ++i) parent_edge[parent_offset[child_row[i]]++] = i;
    for (Index r = total; r > 0; --r) parent_offset[r] = parent_offset[r - 1];
    parent_offset[0] = 0;
}

// Whether no vertex is consumed more than once.
inline bool is_forest(const Structure& s) {
    std::vector<char> consumed(std::size_t(s.num_vertices) + s.num_external, 0);
    char twice = 0;
    for (Index e = 0; e < s.num_edges; ++e) {
        twice |= consumed[s.child[e]];
        consumed[s.child[e]] = 1;
    }
    return !twice;
}

}  // namespace vertexflow
