// Which vertex depends on which: parents of every vertex, topological order, cycles, and the policies that need no more.
#pragma once

#include <algorithm>

#include "common.hpp"

namespace vertexflow {

// The parents of vertex v are parent[offset[v]] .. parent[offset[v + 1] - 1], in ascending order.
struct Parents {
    Indices offset, parent;

    explicit Parents(const Structure& s, Patience& patience) : offset(std::size_t(s.num_vertices) + 1, 0), parent(s.num_edges) {
        for (Index e = 0; e < s.num_edges; ++e) {
            patience.tick();
            if (s.child[e] < s.num_vertices) ++offset[s.child[e] + 1];
        }
        for (Index v = 0; v < s.num_vertices; ++v) offset[v + 1] += offset[v];
        Indices cursor(offset.begin(), offset.end() - 1);
        for (Index v = 0; v < s.num_vertices; ++v) {
            patience.tick();
            for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e)
                if (s.child[e] < s.num_vertices) parent[cursor[s.child[e]]++] = v;
        }
    }
};

// How many children each vertex still waits for.
inline Indices waiting_for(const Structure& s) {
    Indices waiting(s.num_vertices);
    for (Index v = 0; v < s.num_vertices; ++v)
        waiting[v] = static_cast<Index>(std::count_if(s.child + s.offset[v], s.child + s.offset[v + 1],
                                                      [&](Index c) { return c < s.num_vertices; }));
    return waiting;
}

// Children before parents (Kahn 1962). Vertices on a cycle, or above one, are missing at the end.
inline Indices topological(const Structure& s, const Parents& parents, Patience& patience) {
    Indices waiting = waiting_for(s), order;
    order.reserve(s.num_vertices);
    for (Index v = 0; v < s.num_vertices; ++v)
        if (waiting[v] == 0) order.push_back(v);
    for (std::size_t at = 0; at < order.size(); ++at) {
        patience.tick();
        const Index v = order[at];
        for (Index p = parents.offset[v]; p < parents.offset[v + 1]; ++p)
            if (--waiting[parents.parent[p]] == 0) order.push_back(parents.parent[p]);
    }
    return order;
}

// The vertices of one cycle, each a child of the next; empty if there is none.
inline Indices find_cycle(const Structure& s, Patience& patience) {
    const Parents parents(s, patience);
    const Indices order = topological(s, parents, patience);
    if (static_cast<Index>(order.size()) == s.num_vertices) return {};
    std::vector<char> done(s.num_vertices, 0);
    for (Index v : order) done[v] = 1;
    Index v = static_cast<Index>(std::find(done.begin(), done.end(), 0) - done.begin());
    // Each vertex that is left has a child that is left: following these must come back to where it was.
    Indices path, at(s.num_vertices, -1);
    while (at[v] < 0) {
        patience.tick();
        at[v] = static_cast<Index>(path.size());
        path.push_back(v);
        v = *std::find_if(s.child + s.offset[v], s.child + s.offset[v + 1],
                          [&](Index c) { return c < s.num_vertices && !done[c]; });
    }
    path.erase(path.begin(), path.begin() + at[v]);
    std::reverse(path.begin(), path.end());
    return path;
}

// Vertices in an order of computation; throws if there is a cycle.
template <class Visit>
void children_first(const Structure& s, Patience& patience, Visit visit, bool backwards = false) {
    const Index n = s.num_vertices;
    if (s.numbering != Numbering::mixed) {
        const bool upwards = (s.numbering == Numbering::rising) != backwards;
        for (Index i = 0; i < n; ++i) {
            patience.tick();
            visit(upwards ? i : n - 1 - i);
        }
        return;
    }
    Indices order;
    {
        const Parents parents(s, patience);
        order = topological(s, parents, patience);
    }
    if (static_cast<Index>(order.size()) < n) throw Malformed("cycle", find_cycle(s, patience).front());
    if (backwards) std::reverse(order.begin(), order.end());
    for (Index v : order) {
        patience.tick();
        visit(v);
    }
}

// As soon as possible: the longest path from a leaf (Cavs, section 3.2). Returns the number of steps.
inline Index depth_steps(const Structure& s, Index* step, Patience& patience) {
    Index last = -1;
    children_first(s, patience, [&](Index v) {
        Index mine = 0;
        for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e)
            if (s.child[e] < s.num_vertices) mine = std::max(mine, step[s.child[e]] + 1);
        step[v] = mine;
        last = std::max(last, mine);
    });
    return last + 1;
}

// As late as possible: what is at the end of the longest path to a root comes first, and all roots come last.
inline Index height_steps(const Structure& s, Index* step, Patience& patience) {
    Index last = 0;
    std::fill(step, step + s.num_vertices, 0);
    children_first(
        s, patience,
        [&](Index v) {
            last = std::max(last, step[v]);
            for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e)
                if (s.child[e] < s.num_vertices) step[s.child[e]] = std::max(step[s.child[e]], step[v] + 1);
        },
        true);
    for (Index v = 0; v < s.num_vertices; ++v) step[v] = last - step[v];
    return last + 1;
}

}  // namespace vertexflow
