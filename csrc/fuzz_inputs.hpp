// What the fuzzing program puts into the core, drawn from bytes: graphs, packed batches, arrays of any content.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <random>

#include "check.hpp"
#include "greedy.hpp"
#include "order.hpp"
#include "pack.hpp"
#include "place.hpp"

using namespace vertexflow;

namespace {

constexpr Index nonsense = 1234567;
[[maybe_unused]] thread_local long current = 0;  // csrc/fuzz_threads.cpp has several threads, and a main of its own
thread_local long scheduled = 0, cyclic = 0, refused = 0;

void require(bool condition, const char* said, int line) {
    if (condition) return;
    std::fprintf(stderr, "fuzz:%d: not so: %s\n", line, said);
    std::abort();
}

#define REQUIRE(...) require((__VA_ARGS__), #__VA_ARGS__, __LINE__)

// Numbers drawn from the bytes; zeros when they are used up.
class Bytes {
  public:
    Bytes(const std::uint8_t* data, std::size_t size) : data_(data), end_(data + size) {}
    std::uint8_t byte() { return data_ == end_ ? 0 : *data_++; }
    Index below(Index count) {
        const int low = byte(), high = byte();
        return count <= 0 ? 0 : (low | high << 8) % count;
    }
    bool flag() { return byte() & 1; }
    // Mostly small numbers near 0 .. count, now and then one that is far off.
    std::int64_t wild(Index count) {
        const std::uint8_t choice = byte();
        if (choice < 240) return below(count + 3) - (choice < 8);
        constexpr std::int64_t far[] = {-1, std::numeric_limits<Index>::max(), std::numeric_limits<Index>::min(),
                                        std::int64_t{1} << 40};
        return far[choice % 4];
    }
    Index wild_index(Index count) {
        const std::int64_t number = wild(count);
        return number > std::numeric_limits<Index>::max() ? -7 : static_cast<Index>(number);
    }

  private:
    const std::uint8_t *data_, *end_;
};

// The edges that arrays hold, (parent, slot, child) in ascending order.
using Edges = std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>>;

Edges edges_of(Index vertices, const Index* offset, const Index* child, const Index* slot) {
    Edges edges;
    for (Index v = 0; v < vertices; ++v)
        for (Index e = offset[v]; e < offset[v + 1]; ++e) edges.emplace_back(v, slot[e], child[e]);
    return edges;
}

// A cycle is one, or there is none and depth has an answer.
bool has_cycle(const Structure& s, Patience& patience) {
    const Indices cycle = find_cycle(s, patience);
    for (std::size_t i = 0; i < cycle.size(); ++i) {
        const Index above = cycle[(i + 1) % cycle.size()], end = s.offset[above + 1];
        REQUIRE(std::find(s.child + s.offset[above], s.child + end, cycle[i]) != s.child + end);
    }
    Indices step(s.num_vertices, nonsense);
    try {
        depth_steps(s, step.data(), patience);
    } catch (const Malformed& error) {
        REQUIRE(error.what() == std::string("cycle") && !cycle.empty() && error.where >= 0 && error.where < s.num_vertices);
    }
    return !cycle.empty();
}

// An input graph, or nothing if its edges are malformed.
Indices build(Bytes& bytes, bool kinds) {
    const Index vertices = 1 + bytes.below(bytes.byte() < 16 ? 100 : 12), edges = bytes.below(2 * vertices);
    const bool tame = bytes.byte() < 160, chain = bytes.byte() < 64, with_slots = bytes.flag(), falling = bytes.flag();
    std::vector<std::int64_t> child(edges), parent(edges), slots(edges);
    bool right = true;
    Edges expected;
    Indices taken(vertices, 0);
    for (Index e = 0; e < edges; ++e) {
        parent[e] = !tame ? bytes.wild(vertices) : 1 + (chain ? e % vertices : bytes.below(vertices - 1));
        if (tame) parent[e] = std::min<std::int64_t>(parent[e], vertices - 1);
        child[e] = !tame ? bytes.wild(vertices) : chain ? parent[e] - 1 : bytes.below(static_cast<Index>(parent[e]));
        if (tame && falling) {
            parent[e] = vertices - 1 - parent[e];
            child[e] = vertices - 1 - child[e];
        }
        slots[e] = tame ? edges - e : bytes.wild(4);
        right &= child[e] >= 0 && child[e] < vertices && parent[e] >= 0 && parent[e] < vertices;
        right &= !with_slots || (slots[e] >= 0 && slots[e] < std::numeric_limits<Index>::max());
        if (right) expected.emplace_back(parent[e], with_slots ? slots[e] : taken[parent[e]]++, child[e]);
    }
    std::sort(expected.begin(), expected.end());
    const auto same_slot = [](const auto& one, const auto& other) {
        return std::get<0>(one) == std::get<0>(other) && std::get<1>(one) == std::get<1>(other);
    };
    right &= std::adjacent_find(expected.begin(), expected.end(), same_slot) == expected.end();
    std::int64_t most = -1;
    for (const auto& edge : expected) most = std::max(most, std::get<1>(edge));
    const bool ordered = in_order(edges, parent.data(), with_slots ? slots.data() : nullptr);
    const Index flags = (kinds ? has_kinds : 0) | (ordered ? 0 : has_edges);
    Indices graph(graph_size(vertices, edges, flags), nonsense);
    Index* const offset = graph.data() + header;
    Index* const number = ordered ? nullptr : graph.data() + graph.size() - edges;
    Structure s{vertices, 0, edges, offset + vertices + 1, offset + vertices + 1 + edges, offset, nullptr, 1, number};
    Patience patience;
    try {
        graph[2] = from_edges(vertices, edges, child.data(), parent.data(), with_slots ? slots.data() : nullptr, offset,
                              offset + vertices + 1, offset + vertices + 1 + edges, number, patience);
        graph[0] = vertices;
        graph[1] = edges;
        graph[3] = flags;
    } catch (const Malformed& error) {
        REQUIRE(!right && error.where >= 0 && error.where < std::max(vertices, edges));
        return {};
    }
    REQUIRE(right && graph[2] == most + 1 && edges_of(vertices, s.offset, s.child, s.slot) == expected);
    check(s, nullptr, patience);  // what `from_edges` makes is sound
    for (Index v = 0; v < vertices; ++v)
        for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e) {
            const Index given = number ? number[e] : e;
            REQUIRE(child[given] == s.child[e] && parent[given] == v && (!with_slots || slots[given] == s.slot[e]));
        }
    if (has_cycle(s, patience) && bytes.byte() < 192) return {};
    if (kinds)
        for (Index v = 0; v < vertices; ++v) offset[vertices + 1 + 2 * edges + v] = bytes.below(4);
    return graph;
}

struct Arrays {
    Indices offset, child, slot, kind, edge, graph_offset;
    Index num_kinds = 1;
    Structure view(Index num_external) const {
        return {static_cast<Index>(offset.size()) - 1, num_external, static_cast<Index>(child.size()), child.data(),
                slot.data(), offset.data(), kind.empty() ? nullptr : kind.data(), num_kinds,
                edge.empty() ? nullptr : edge.data()};
    }
};

// Several graphs in one batch.
Arrays join(Bytes& bytes) {
    std::vector<Indices> graphs;
    std::int64_t vertices = 0, edges = 0;
    bool ordered = true;
    const bool damaged = bytes.byte() < 16, kinds = bytes.flag();
    for (Index left = 1 + bytes.below(4); left > 0; --left) {
        Indices graph = build(bytes, kinds);
        if (graph.empty()) continue;
        if (damaged) graph[bytes.below(static_cast<Index>(graph.size()))] = bytes.wild_index(20);
        const Graph read(graph.data(), static_cast<std::int64_t>(graph.size()));  // throws if it notices the damage
        vertices += read.num_vertices;
        edges += read.num_edges;
        ordered &= read.edge == nullptr;
        graphs.push_back(std::move(graph));
    }
    if (graphs.empty()) throw Malformed("no graphs", 0);
    Arrays arrays;
    arrays.offset.resize(vertices + 1, nonsense);
    arrays.child.resize(edges, nonsense);
    arrays.slot.resize(edges, nonsense);
    if (!ordered) arrays.edge.resize(edges, nonsense);
    if (graphs[0][3] & has_kinds) {
        arrays.kind.resize(vertices, nonsense);
        arrays.num_kinds = bytes.byte() < 64 ? 200 : 4;
    }
    const Batch batch{arrays.offset.data(), arrays.child.data(), arrays.slot.data(),
                      arrays.kind.empty() ? nullptr : arrays.kind.data(),
                      arrays.edge.empty() ? nullptr : arrays.edge.data()};
    Index vertex = 0, edge = 0;
    const Index numbers[] = {arrays.num_kinds - 1, 1, 0, 2};
    for (const Indices& graph : graphs) {
        const Graph read(graph.data(), static_cast<std::int64_t>(graph.size()));
        if ((read.kind != nullptr) != !arrays.kind.empty()) throw Malformed("kinds", 0);
        arrays.graph_offset.push_back(vertex);
        batch.append(read, vertex, edge, bytes.flag() ? numbers : nullptr, 4);
        for (Index e = 0; e < read.num_edges; ++e)
            REQUIRE(damaged || (arrays.child[edge + e] == read.child[e] + vertex && arrays.slot[edge + e] == read.slot[e] &&
                                (ordered || arrays.edge[edge + e] == edge + (read.edge ? read.edge[e] : e))));
        for (Index v = 0; v < read.num_vertices; ++v)
            REQUIRE(damaged || arrays.offset[vertex + v] == read.offset[v] + edge);
        vertex += read.num_vertices;
        edge += read.num_edges;
    }
    arrays.graph_offset.push_back(vertex);
    arrays.offset[vertex] = edge;
    return arrays;
}

// Arrays of any content.
Arrays scribble(Bytes& bytes) {
    Arrays arrays;
    const Index vertices = 1 + bytes.below(8), edges = bytes.below(10);
    for (Index v = 0; v <= vertices; ++v) arrays.offset.push_back(bytes.flag() ? v * edges / vertices : bytes.wild_index(edges));
    if (bytes.flag()) arrays.offset.front() = 0;
    if (bytes.flag()) arrays.offset.back() = edges;
    for (Index e = 0; e < edges; ++e) {
        arrays.child.push_back(bytes.wild_index(vertices));
        arrays.slot.push_back(bytes.flag() ? e : bytes.wild_index(3));
    }
    if (bytes.flag()) arrays.num_kinds = bytes.below(5);
    if (bytes.flag())
        for (Index e = 0; e < edges; ++e) arrays.edge.push_back(bytes.byte() < 240 ? edges - 1 - e : bytes.wild_index(edges));
    if (bytes.flag())
        for (Index v = 0; v < vertices; ++v) arrays.kind.push_back(bytes.flag() ? 0 : bytes.wild_index(4));
    arrays.graph_offset = {0};  // edges may run from graph to graph
    while (arrays.graph_offset.back() < vertices)
        arrays.graph_offset.push_back(arrays.graph_offset.back() + 1 + bytes.below(vertices - arrays.graph_offset.back()));
    for (Indices* array : {&arrays.offset, &arrays.child, &arrays.slot, &arrays.kind, &arrays.edge, &arrays.graph_offset})
        *array = Indices(*array);  // no spare memory behind them
    return arrays;
}

}  // namespace
