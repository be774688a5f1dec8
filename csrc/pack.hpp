// Input graphs as arrays: one made of its edges, many joined into a batch, a batch turned round, a batch hashed.
#pragma once

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "common.hpp"
#include "order.hpp"

namespace vertexflow {

// An input graph is one array: [V, E, K, flags, offset (V + 1), child (E), slot (E), kind (V), edge (E)], of which flags
// say whether the last two are there. `edge` is the number, among the edges as they were given, of each entry of `child`; it
// is left out where they were given in that order.
constexpr Index header = 4, has_kinds = 1, has_edges = 2;

inline std::int64_t graph_size(std::int64_t vertices, std::int64_t edges, Index flags) {
    return header + vertices + 1 + 2 * edges + (flags & has_kinds ? vertices : 0) + (flags & has_edges ? edges : 0);
}

struct Graph {
    Index num_vertices, num_edges, num_slots;
    const Index *offset, *child, *slot, *kind, *edge;

    Graph(const Index* data, std::int64_t size) {
        if (size < header || data[0] < 1 || data[1] < 0 || (data[3] & ~(has_kinds | has_edges)) ||
            size != graph_size(data[0], data[1], data[3]))
            throw Malformed("graph", size);
        num_vertices = data[0];
        num_edges = data[1];
        num_slots = data[2];
        offset = data + header;
        child = offset + num_vertices + 1;
        slot = child + num_edges;
        kind = data[3] & has_kinds ? slot + num_edges : nullptr;
        edge = data[3] & has_edges ? data + size - num_edges : nullptr;
        if (offset[0] != 0 || offset[num_vertices] != num_edges) throw Malformed("graph", size);
    }
};

// Damaged arrays may hold anything; `check` refuses what comes of it.
inline Index sum(Index a, Index b) { return static_cast<Index>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b)); }

// Writes a graph's arrays where they belong in a batch, from its first vertex and edge there. `kinds`: its kinds' numbers there.
struct Batch {
    Index *offset, *child, *slot, *kind, *edge;  // the last two may be null

    void append(const Graph& graph, Index vertex, Index first, const Index* kinds, std::int64_t num_kinds) const {
        for (Index v = 0; v < graph.num_vertices; ++v) offset[vertex + v] = sum(graph.offset[v], first);
        for (Index e = 0; e < graph.num_edges; ++e) child[first + e] = sum(graph.child[e], vertex);
        std::copy_n(graph.slot, graph.num_edges, slot + first);
        if (edge)
            for (Index e = 0; e < graph.num_edges; ++e) edge[first + e] = graph.edge ? sum(graph.edge[e], first) : first + e;
        if (!kind) return;
        for (Index v = 0; v < graph.num_vertices; ++v) {
            if (graph.kind[v] < 0 || graph.kind[v] >= num_kinds) throw Malformed("kind", v);
            kind[vertex + v] = kinds ? kinds[graph.kind[v]] : graph.kind[v];
        }
    }
};

// Whether edges are given as they are kept: sorted by parent, and then by slot.
inline bool in_order(Index edges, const std::int64_t* parent, const std::int64_t* slots) {
    for (Index e = 1; e < edges; ++e)
        if (parent[e] < parent[e - 1] || (slots && parent[e] == parent[e - 1] && slots[e] < slots[e - 1])) return false;
    return true;
}

// Fills offset, child and slot of a graph from its edges, and, unless they are given in order, the number of each entry's
// edge; without slots, the k-th edge that names a parent fills slot k. Returns the number of slots.
inline Index from_edges(Index vertices, Index edges, const std::int64_t* child, const std::int64_t* parent,
                        const std::int64_t* slots, Index* offset, Index* out_child, Index* out_slot, Index* out_edge,
                        Patience& patience) {
    std::fill(offset, offset + vertices + 1, Index{0});
    for (Index e = 0; e < edges; ++e) {
        patience.tick();
        if (child[e] < 0 || child[e] >= vertices) throw Malformed("child", e);
        if (parent[e] < 0 || parent[e] >= vertices) throw Malformed("parent", e);
        if (slots && (slots[e] < 0 || slots[e] >= std::numeric_limits<Index>::max())) throw Malformed("slot", e);
        ++offset[parent[e] + 1];
    }
    for (Index v = 0; v < vertices; ++v) offset[v + 1] += offset[v];
    Indices cursor(offset, offset + vertices);
    for (Index e = 0; e < edges; ++e) {
        patience.tick();
        const Index at = cursor[parent[e]]++;
        out_child[at] = static_cast<Index>(child[e]);
        out_slot[at] = slots ? static_cast<Index>(slots[e]) : at - offset[parent[e]];
        if (out_edge) out_edge[at] = e;
    }
    Index most = 0;
    std::vector<std::pair<Index, Index>> sorted;
    for (Index v = 0; v < vertices; ++v) {
        patience.tick();
        const Index first = offset[v], last = offset[v + 1];
        if (!std::is_sorted(out_slot + first, out_slot + last)) {
            sorted.clear();
            for (Index e = first; e < last; ++e) sorted.emplace_back(out_slot[e], out_edge[e]);
            std::sort(sorted.begin(), sorted.end());
            for (Index e = first; e < last; ++e) {
                std::tie(out_slot[e], out_edge[e]) = sorted[e - first];
                out_child[e] = static_cast<Index>(child[out_edge[e]]);
            }
        }
        if (std::adjacent_find(out_slot + first, out_slot + last) != out_slot + last) throw Malformed("slot twice", v);
        if (last > first) most = std::max(most, out_slot[last - 1] + 1);
    }
    return most;
}

// Every edge turned round; a vertex's parents fill its slots in ascending order, and edges keep their numbers. Returns the
// number of slots.
inline Index reverse(const Structure& s, Index* offset, Index* child, Index* slot, Index* edge, Patience& patience) {
    std::fill(offset, offset + s.num_vertices + 1, Index{0});
    for (Index e = 0; e < s.num_edges; ++e) ++offset[s.child[e] + 1];
    for (Index v = 0; v < s.num_vertices; ++v) offset[v + 1] += offset[v];
    Indices cursor(offset, offset + s.num_vertices);
    Index most = 0;
    for (Index v = 0; v < s.num_vertices; ++v) {
        patience.tick();
        for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e) {
            const Index below = s.child[e], at = cursor[below]++;
            child[at] = v;
            slot[at] = at - offset[below];
            edge[at] = s.edge ? s.edge[e] : e;
            most = std::max(most, slot[at] + 1);
        }
    }
    return most;
}

// 64 bits that depend on every element, for finding equal structures; whoever uses it compares the arrays as well.
inline std::uint64_t hash(const Index* data, std::size_t count, std::uint64_t seed) {
    const auto fold = [](std::uint64_t a, std::uint64_t b) {
        const auto wide = static_cast<unsigned __int128>(a) * b;
        return static_cast<std::uint64_t>(wide) ^ static_cast<std::uint64_t>(wide >> 64);
    };
    std::uint64_t state[2] = {seed ^ 0x2545f4914f6cdd1dULL, count * 0x9e3779b97f4a7c15ULL + seed};
    std::size_t at = 0;
    for (; at + 4 <= count; at += 4) {
        std::uint64_t word[2];
        std::memcpy(word, data + at, sizeof word);
        for (int lane : {0, 1}) state[lane] = fold(state[lane] ^ word[lane], 0xd6e8feb86659fd93ULL) + word[1 - lane];
    }
    for (; at < count; ++at) state[0] = fold(state[0] ^ static_cast<std::uint32_t>(data[at]), 0xa0761d6478bd642fULL) + at;
    return fold(state[0] ^ 0x8ebc6af09c88c6e3ULL, state[1] ^ 0x589965cc75374cc3ULL);
}

}  // namespace vertexflow
