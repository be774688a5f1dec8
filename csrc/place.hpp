// The rows of a schedule: every vertex gets a row, every step a slice of rows, and index arrays say who reads what.
#pragma once

#include <algorithm>

#include "common.hpp"
#include "order.hpp"

namespace vertexflow {

// The rows of one kind: those of vertices without children, then the others, which read `slots` children each; `position`
// is where in child_rows they begin.
struct Group {
    Index start = 0, inner = 0, end = 0, slots = 0, position = 0;
};

// A bucket is a step to be: vertices of one step number, with or without children, and of one kind. `step` [V] holds step
// numbers 0 .. num_steps - 1, in which children come first, and holds bucket numbers afterwards.
struct Buckets {
    Index count = 0;
    Index positions = 0;        // of child_rows
    Indices start, end;         // of each bucket's rows
    std::vector<Group> groups;  // of each kind, in their order

    // `slots`: how many each kind reads.
    Buckets(const Structure& s, Index* step, Index num_steps, const Index* slots, Patience& patience) {
        // Between a step's leaves and its inner vertices is nothing that one waits for; a kind's leaves' rows come first.
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
        section_.resize(count);
        start.assign(count, 0);
        for (Index b = 0; b < count; ++b) {
            const std::int64_t name = used.empty() ? b : used[b];
            section_[b] = static_cast<Index>(name % s.num_kinds * 2 + name / s.num_kinds % 2);
        }
        for (Index v = 0; v < s.num_vertices; ++v) ++start[step[v]];
        end = start;
        // Rows in order of kind, then leaves before others, then steps: a kind's rows and its leaves' are slices.
        Indices sections(2 * std::size_t(s.num_kinds) + 1, 0);
        for (Index b = 0; b < count; ++b) sections[section_[b] + 1] += end[b];
        for (std::size_t i = 1; i < sections.size(); ++i) sections[i] += sections[i - 1];
        groups.resize(s.num_kinds);
        for (Index k = 0; k < s.num_kinds; ++k) {
            groups[k] = {sections[2 * k], sections[2 * k + 1], sections[2 * k + 2], slots[k], positions};
            const std::int64_t rows = groups[k].end - groups[k].inner;
            positions = checked(positions + rows * slots[k], "too many slots");
        }
        for (Index b = 0; b < count; ++b) {
            start[b] = sections[section_[b]];
            end[b] = sections[section_[b]] += end[b];
        }
        patience.tick(count);
    }

    bool inner(Index bucket) const { return section_[bucket] % 2; }
    const Group& group(Index bucket) const { return groups[section_[bucket] / 2]; }

    // Where in child_rows an inner row's children are.
    std::int64_t position(Index bucket, Index row) const {
        const Group& of = group(bucket);
        return of.position + std::int64_t{row - of.inner} * of.slots;
    }

  private:
    Indices section_;  // of each bucket: twice its kind, and one more if it has children
};

// What a schedule is made of; V vertices, X external ones, P positions of child_rows, E edges.
struct Rows {
    Index* order;          // [V], the vertex of each row
    Index* row;            // [V], the row of each vertex
    Index* child_rows;     // [P], row of the child in each slot; external i is row V + i, none is V + X
    Index* parent_edge;    // in a forest [V + X], where in child_rows each row is read, P if nowhere; else [E]
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
                  Index num_graphs, const Rows& out, Patience& patience) {
    const Index n = s.num_vertices, none = n + s.num_external, positions = buckets.positions;
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
        Index* const read = out.child_rows + buckets.position(bucket[v], row);
        const Index slots = buckets.group(bucket[v]).slots;
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
// [V - L + 1], edge [E], child_row [E], parent_offset [V + X + 1], parent_edge [E]. The i-th of the rows with children has
// the entries offset[i] .. offset[i + 1] - 1, with the number that the user gave the edge and the row of the child; row r is read by the
// entries parent_edge[parent_offset[r]] .. parent_edge[parent_offset[r + 1] - 1], in ascending order.
inline void edge_lists(const Structure& s, const Index* order, const Index* row, Index leaves, Index* out, Patience& patience) {
    const Index n = s.num_vertices, total = n + s.num_external;
    Index* const offset = out;
    Index* const edge = offset + (n - leaves) + 1;
    Index* const child_row = edge + s.num_edges;
    Index* const parent_offset = child_row + s.num_edges;
    Index* const parent_edge = parent_offset + total + 1;
    std::fill(parent_offset, parent_offset + total + 1, Index{0});
    Index at = 0, inner = 0;
    for (Index r = 0; r < n; ++r) {
        patience.tick();
        if (s.offset[order[r]] == s.offset[order[r] + 1]) continue;
        offset[inner++] = at;
        for (Index e = s.offset[order[r]]; e < s.offset[order[r] + 1]; ++e, ++at) {
            edge[at] = s.edge ? s.edge[e] : e;
            child_row[at] = s.child[e] < n ? row[s.child[e]] : s.child[e];
            ++parent_offset[child_row[at] + 1];
        }
    }
    offset[inner] = at;
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
