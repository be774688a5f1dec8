// Random and malformed input for the core, to be run under AddressSanitizer and UndefinedBehaviorSanitizer:
//
//     g++ -std=c++17 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all csrc/fuzz.cpp -o fuzz
//     ./fuzz [--runs 20000] [--seed 0] [FILE ...]
//
// An input is a string of bytes that says what to build. With -DVERTEXFLOW_LIBFUZZER (and clang's -fsanitize=fuzzer) there
// is no main, and libFuzzer finds the bytes. Whatever they are, the core either does its work, and then every invariant
// holds, or throws `Malformed`.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>

#include "check.hpp"
#include "greedy.hpp"
#include "order.hpp"
#include "pack.hpp"
#include "place.hpp"

using namespace vertexflow;

namespace {

long current = 0, scheduled = 0, refused = 0;

#define REQUIRE(condition) \
    do { \
        if (!(condition)) { \
            std::fprintf(stderr, "%s:%d: not so: %s (input %ld)\n", __FILE__, __LINE__, #condition, current); \
            std::abort(); \
        } \
    } while (0)

// Numbers drawn from the bytes; zeros when they are used up.
class Bytes {
  public:
    Bytes(const std::uint8_t* data, std::size_t size) : data_(data), end_(data + size) {}
    std::uint8_t byte() { return data_ == end_ ? 0 : *data_++; }
    Index below(Index count) { return count <= 0 ? 0 : static_cast<Index>((byte() | byte() << 8) % count); }
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

// An input graph, or nothing if its edges are malformed.
Indices build(Bytes& bytes) {
    const Index vertices = 1 + bytes.below(12), edges = bytes.below(20);
    const bool tame = bytes.flag(), with_slots = bytes.flag(), kinds = bytes.flag();
    std::vector<std::int64_t> child(edges), parent(edges), slots(edges);
    for (Index e = 0; e < edges; ++e) {
        parent[e] = tame ? bytes.below(vertices) : bytes.wild(vertices);
        child[e] = tame ? bytes.below(static_cast<Index>(parent[e])) : bytes.wild(vertices);
        if (tame && parent[e] == 0) child[e] = parent[e] = vertices - 1;  // a cycle of one, now and then
        slots[e] = tame ? e : bytes.wild(4);
    }
    Indices graph(graph_size(vertices, edges, kinds));
    graph[0] = vertices;
    graph[1] = edges;
    graph[3] = kinds;
    Index* const offset = graph.data() + header;
    Patience patience;
    try {
        graph[2] = from_edges(vertices, edges, child.data(), parent.data(), with_slots ? slots.data() : nullptr, offset,
                              offset + vertices + 1, offset + vertices + 1 + edges, patience);
    } catch (const Malformed&) {
        return {};
    }
    if (kinds)
        for (Index v = 0; v < vertices; ++v) graph[graph.size() - 1 - v] = bytes.below(4);
    return graph;
}

struct Arrays {
    Indices offset, child, slot, kind, graph_offset;
    Structure view(Index num_external) const {
        Structure s;
        s.num_vertices = static_cast<Index>(offset.size()) - 1;
        s.num_edges = static_cast<Index>(child.size());
        s.num_external = num_external;
        s.offset = offset.data();
        s.child = child.data();
        s.slot = slot.data();
        if (!kind.empty()) {
            s.kind = kind.data();
            s.num_kinds = 4;
        }
        return s;
    }
};

// Several graphs in one batch.
Arrays join(Bytes& bytes) {
    std::vector<Indices> graphs;
    std::int64_t vertices = 0, edges = 0;
    const bool damaged = bytes.byte() < 16;
    for (Index i = 0; i <= bytes.below(4) || graphs.empty(); ++i) {
        Indices graph = build(bytes);
        if (graph.empty() || (!graphs.empty() && graph[3] != graphs[0][3])) {
            if (i > 30) return {};
            continue;
        }
        if (damaged) graph[bytes.below(static_cast<Index>(graph.size()))] = bytes.wild_index(20);
        const Graph read(graph.data(), static_cast<std::int64_t>(graph.size()));  // throws if it notices the damage
        vertices += read.num_vertices;
        edges += read.num_edges;
        graphs.push_back(std::move(graph));
    }
    Arrays arrays;
    arrays.offset.resize(vertices + 1);
    arrays.child.resize(edges);
    arrays.slot.resize(edges);
    if (graphs[0][3]) arrays.kind.resize(vertices);
    const Batch batch{arrays.offset.data(), arrays.child.data(), arrays.slot.data(),
                      arrays.kind.empty() ? nullptr : arrays.kind.data()};
    Index vertex = 0, edge = 0;
    const Index numbers[] = {3, 1, 0, 2};
    for (const Indices& graph : graphs) {
        const Graph read(graph.data(), static_cast<std::int64_t>(graph.size()));
        if ((read.kind != nullptr) != !arrays.kind.empty()) throw Malformed("kinds", 0);
        arrays.graph_offset.push_back(vertex);
        batch.append(read, vertex, edge, bytes.flag() ? numbers : nullptr, 4);
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
    if (bytes.flag())
        for (Index v = 0; v < vertices; ++v) arrays.kind.push_back(bytes.wild_index(4));
    arrays.graph_offset = {0, vertices};
    return arrays;
}

void schedule(const Structure& s, const Indices& graph_offset, Index slots, Index* step, Index steps, Patience& patience) {
    const Indices number(step, step + s.num_vertices);
    for (Index v = 0; v < s.num_vertices; ++v) {
        REQUIRE(step[v] >= 0 && step[v] < steps);
        for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e)
            if (s.child[e] < s.num_vertices) REQUIRE(step[s.child[e]] < step[v]);
    }
    const Buckets buckets(s, step, steps, patience);
    const Index n = s.num_vertices, rows = n + s.num_external, leaves = buckets.num_leaves;
    const Index positions = (n - leaves) * slots;
    const bool forest = is_forest(s);
    Indices order(n), row(n), child_rows(positions), offset(rows + 1), edges(forest ? rows : s.num_edges);
    const Rows out{order.data(), row.data(), child_rows.data(), edges.data(), forest ? nullptr : offset.data()};
    place(s, step, buckets, graph_offset.data(), static_cast<Index>(graph_offset.size()) - 1, slots, out, patience);
    for (Index v = 0; v < n; ++v) {
        REQUIRE(order[row[v]] == v);
        REQUIRE((row[v] < leaves) == (s.offset[v] == s.offset[v + 1]));
        REQUIRE(row[v] >= buckets.start[step[v]] && row[v] < buckets.end[step[v]]);
        for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e) {
            if (s.slot[e] >= slots) continue;
            const Index at = (row[v] - leaves) * slots + s.slot[e];
            REQUIRE(child_rows[at] == (s.child[e] < n ? row[s.child[e]] : s.child[e]));
            const Index read = child_rows[at];
            if (forest) REQUIRE(edges[read] == at);
            else REQUIRE(std::binary_search(edges.begin() + offset[read], edges.begin() + offset[read + 1], at));
        }
    }
    Indices lists(std::size_t(n) - leaves + 1 + 3 * std::size_t(s.num_edges) + rows + 1);
    edge_lists(s, order.data(), row.data(), leaves, lists.data(), patience);
    REQUIRE(lists[n - leaves] == s.num_edges);
    for (const Index read : child_rows) REQUIRE(read >= 0 && read <= rows);
}

void all(Arrays& arrays, Bytes& bytes) {
    Patience patience;
    const Index external = bytes.flag() ? bytes.below(4) : 0, slots = bytes.below(6);
    if (external)  // some children are external
        for (Index& child : arrays.child)
            if (bytes.byte() < 64) child = static_cast<Index>(arrays.offset.size()) - 1 + bytes.below(external);
    Structure s = arrays.view(external);
    check(s, bytes.flag() ? slots : std::numeric_limits<Index>::max(), patience);
    Indices step(s.num_vertices);
    const Indices cycle = find_cycle(s, patience);
    Index steps = 0;
    try {
        steps = depth_steps(s, step.data(), patience);
    } catch (const Malformed& error) {
        REQUIRE(std::string(error.what()) == "cycle" && !cycle.empty());
        return;
    }
    REQUIRE(cycle.empty());
    schedule(s, arrays.graph_offset, slots, step.data(), steps, patience);
    steps = height_steps(s, step.data(), patience);
    schedule(s, arrays.graph_offset, slots, step.data(), steps, patience);
    Table table;
    for (Index i = bytes.below(6); i > 0; --i) {
        Indices state(1 + bytes.below(3));
        for (Index& kind : state) kind = bytes.below(5);
        table[state] = bytes.below(5);
    }
    for (const Table* given : {static_cast<const Table*>(nullptr), static_cast<const Table*>(&table)}) {
        steps = greedy_steps(s, given, step.data(), patience);
        schedule(s, arrays.graph_offset, slots, step.data(), steps, patience);
    }
    if (external) return;
    Indices offset(arrays.offset.size()), child(arrays.child.size()), slot(arrays.slot.size());
    reverse(s, offset.data(), child.data(), slot.data(), patience);
    Arrays back{offset, child, slot, arrays.kind, arrays.graph_offset};
    Structure turned = back.view(0);
    check(turned, std::numeric_limits<Index>::max(), patience);
    REQUIRE(hash(child.data(), child.size(), 1) == hash(child.data(), child.size(), 1));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Bytes bytes(data, size);
    try {
        Arrays arrays = bytes.byte() < 200 ? join(bytes) : scribble(bytes);
        if (!arrays.offset.empty()) all(arrays, bytes);
        ++scheduled;
    } catch (const Malformed&) {  // as it should be
        ++refused;
    }
    return 0;
}

#ifndef VERTEXFLOW_LIBFUZZER
// AddressSanitizer calls this before it gives up; `--seed N --runs 1` then does it again.
extern "C" void __asan_on_error() { std::fprintf(stderr, "input %ld\n", current); }

int main(int count, char** arguments) {
    long runs = 20000;
    for (int i = 1; i < count; ++i) {
        const std::string name = arguments[i];
        if (name == "--runs" && i + 1 < count) {
            runs = std::atol(arguments[++i]);
        } else if (name == "--seed" && i + 1 < count) {
            current = std::atol(arguments[++i]);
        } else {
            std::ifstream file(name, std::ios::binary);
            const std::vector<char> data{std::istreambuf_iterator<char>(file), {}};
            LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(data.data()), data.size());
            runs = 0;
        }
    }
    for (const long end = current + runs; current < end; ++current) {
        std::mt19937 random(static_cast<unsigned>(current));
        std::vector<std::uint8_t> data(random() % 400);
        for (std::uint8_t& byte : data) byte = static_cast<std::uint8_t>(random());
        LLVMFuzzerTestOneInput(data.data(), data.size());
    }
    std::printf("nothing wrong: %ld inputs scheduled, %ld refused\n", scheduled, refused);
}
#endif
