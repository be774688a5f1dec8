// Refusing arrays that do not describe a structure: after this, everything else may trust them.
#pragma once

#include "common.hpp"

namespace vertexflow {

// Refuses arrays that do not describe a structure, and notes how its vertices are numbered. `slots`: how many
// a vertex of each kind has; null: any number.
inline void check(Structure& s, const Index* slots, Patience& patience) {
    if (s.num_kinds < 1) throw Malformed("kinds", s.num_kinds);
    if (s.offset[0] != 0 || s.offset[s.num_vertices] != s.num_edges) throw Malformed("offset", 0);
    for (Index v = 0; v < s.num_vertices; ++v)
        if (s.offset[v + 1] < s.offset[v] || s.offset[v + 1] > s.num_edges) throw Malformed("offset", v);
    const Index numbers = checked(std::int64_t{s.num_vertices} + s.num_external, "too large");
    bool rising = true, falling = true;
    for (Index v = 0; v < s.num_vertices; ++v) {
        patience.tick();
        Index before = -1;
        for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e) {
            const Index c = s.child[e];
            if (c < 0 || c >= numbers) throw Malformed("child", e, v);
            if (s.slot[e] <= before) throw Malformed("slot order", e, v);  // sorted by slot, none twice
            before = s.slot[e];
            rising &= c < v || c >= s.num_vertices;
            falling &= c > v;
        }
        if (s.kind && (s.kind[v] < 0 || s.kind[v] >= s.num_kinds)) throw Malformed("kind", v);
        if (slots && before >= slots[s.kind ? s.kind[v] : 0]) throw Malformed("slots", s.offset[v + 1] - 1, v);
    }
    if (s.edge) {  // each number once
        std::vector<char> seen(s.num_edges, 0);
        for (Index e = 0; e < s.num_edges; ++e) {
            if (s.edge[e] < 0 || s.edge[e] >= s.num_edges || seen[s.edge[e]]) throw Malformed("edge", e);
            seen[s.edge[e]] = 1;
        }
    }
    s.numbering = rising ? Numbering::rising : falling ? Numbering::falling : Numbering::mixed;
}

}  // namespace vertexflow
