// Random and malformed input for the core, to be run under AddressSanitizer and UndefinedBehaviorSanitizer:
//
//     g++ -std=c++17 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all csrc/fuzz.cpp -o fuzz
//     ./fuzz [--runs 20000] [--seed 0] [FILE ...]
//
// An input is a string of bytes that says what to build. With -DVERTEXFLOW_LIBFUZZER (and clang's -fsanitize=fuzzer) there
// is no main, and libFuzzer finds the bytes. Whatever they are, the core either does its work, and then every invariant
// holds, or throws `Malformed`. Results go into memory that is filled with nonsense before and is as long as it must be.
#include <csignal>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <unistd.h>

#include "fuzz_inputs.hpp"

namespace {

// Each of `lists` is where it says in `reads`, in ascending order, and nowhere else.
void require_inverse(const Index* reads, Index count, const Index* offset, const Index* lists, Index rows) {
    REQUIRE(offset[0] == 0 && offset[rows] <= count);
    for (Index r = 0; r < rows; ++r) {
        REQUIRE(offset[r] <= offset[r + 1]);
        for (Index i = offset[r]; i < offset[r + 1]; ++i) {
            REQUIRE(lists[i] >= 0 && lists[i] < count && reads[lists[i]] == r);
            REQUIRE(i == offset[r] || lists[i - 1] < lists[i]);
        }
    }
    REQUIRE(offset[rows] == std::count_if(reads, reads + count, [&](Index read) { return read < rows; }));
}

void schedule(const Structure& s, const Indices& graph_offset, const Indices& slots, Indices step, Index steps,
              Patience& patience) {
    const Index n = s.num_vertices, rows = n + s.num_external;
    for (Index v = 0; v < n; ++v) {
        REQUIRE(step[v] >= 0 && step[v] < steps);
        for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e)
            if (s.child[e] < n) REQUIRE(step[s.child[e]] < step[v]);
    }
    const Indices before(step);
    const Buckets buckets(s, step.data(), steps, slots.data(), patience);
    const Index positions = buckets.positions;
    Index leaves = 0, covered = 0;
    for (Index k = 0; k < s.num_kinds; ++k) {
        const Group& of = buckets.groups[k];
        REQUIRE(of.start == (k ? buckets.groups[k - 1].end : 0) && of.start <= of.inner && of.inner <= of.end);
        REQUIRE(of.slots == slots[k] && of.position == covered);
        leaves += of.inner - of.start;
        covered += (of.end - of.inner) * of.slots;
    }
    REQUIRE(buckets.groups.back().end == n && covered == positions);
    const bool forest = is_forest(s);
    Indices order(n, nonsense), row(n, nonsense), child_rows(positions, nonsense);
    Indices offset(forest ? 0 : rows + 1, nonsense), edges(forest ? rows : s.num_edges, nonsense);
    const Rows out{order.data(), row.data(), child_rows.data(), edges.data(), forest ? nullptr : offset.data()};
    place(s, step.data(), buckets, graph_offset.data(), static_cast<Index>(graph_offset.size()) - 1, out, patience);

    std::int64_t read_in_slots = 0;
    for (Index v = 0; v < n; ++v) {
        REQUIRE(row[v] >= 0 && row[v] < n && order[row[v]] == v);
        const Group& of = buckets.groups[s.kind ? s.kind[v] : 0];
        REQUIRE(row[v] >= of.start && row[v] < of.end && (row[v] < of.inner) == (s.offset[v] == s.offset[v + 1]));
        REQUIRE(step[v] >= 0 && row[v] >= buckets.start[step[v]] && row[v] < buckets.end[step[v]]);
        const Index first = order[buckets.start[step[v]]];  // a bucket is of one step and one kind
        REQUIRE(before[first] == before[v] && (!s.kind || s.kind[first] == s.kind[v]));
        for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e) {
            if (s.slot[e] >= of.slots) continue;
            const Index at = of.position + (row[v] - of.inner) * of.slots + s.slot[e], below = s.child[e];
            REQUIRE(child_rows[at] == (below < n ? row[below] : below));
            REQUIRE(!forest || edges[child_rows[at]] == at);
            ++read_in_slots;
        }
    }
    REQUIRE(positions - std::count(child_rows.begin(), child_rows.end(), rows) == read_in_slots);
    if (forest) {
        REQUIRE(rows - std::count(edges.begin(), edges.end(), positions) == read_in_slots);
    } else {
        require_inverse(child_rows.data(), positions, offset.data(), edges.data(), rows);
    }
    Indices lists(std::size_t(n) - leaves + 1 + 3 * std::size_t(s.num_edges) + rows + 1, nonsense);
    edge_lists(s, order.data(), row.data(), leaves, lists.data(), patience);
    const Index *const of_row = lists.data(), *const edge = of_row + n - leaves + 1, *const child_row = edge + s.num_edges;
    for (Index r = 0, inner = 0; r < n; ++r) {
        const Index count = s.offset[order[r] + 1] - s.offset[order[r]];
        if (!count) continue;
        const Index first = of_row[inner++];
        REQUIRE(of_row[inner] - first == count);
        for (Index i = 0; i < count; ++i) {
            const Index e = s.offset[order[r]] + i, below = s.child[e];
            REQUIRE(edge[first + i] == (s.edge ? s.edge[e] : e) && child_row[first + i] == (below < n ? row[below] : below));
        }
    }
    require_inverse(child_row, s.num_edges, child_row + s.num_edges, child_row + s.num_edges + rows + 1, rows);
}

// What learning does: kinds in any order, ready or not, and from the beginning again.
void simulate(const Structure& s, Bytes& bytes, Patience& patience) {
    Ready ready(s, patience);
    Unblocked unblocked(s, ready, patience);
    for (Index episode = 0; episode < 2; ++episode) {
        Index computed = 0;
        while (!ready.done()) {
            const Indices state = ready.state();
            const Index certain = unblocked.complete(), other = bytes.below(s.num_kinds);
            REQUIRE(!state.empty() && certain < s.num_kinds && (certain < 0 || ready.ready(certain) > 0));
            const Index chosen = certain >= 0 ? certain : bytes.flag() ? other : state[other % state.size()];
            for (Index k = 0; k < s.num_kinds; ++k) REQUIRE(unblocked.count(k) >= ready.ready(k));
            computed += ready.ready(chosen);
            ready.run(chosen, [&](Index v) { unblocked.computed(v); }, patience);
        }
        REQUIRE(computed == s.num_vertices);
        ready.reset();
        unblocked.reset();
    }
}

void all(Arrays& arrays, Bytes& bytes) {
    Patience patience;
    const Index external = bytes.flag() ? bytes.below(4) : 0;
    Indices slots(std::max<Index>(arrays.num_kinds, 1));
    for (Index& count : slots) count = bytes.below(6);
    if (external)  // some children are external
        for (Index& child : arrays.child)
            if (bytes.byte() < 64) child = static_cast<Index>(arrays.offset.size()) - 1 + bytes.below(external);
    Structure s = arrays.view(external);
    check(s, bytes.flag() ? slots.data() : nullptr, patience);
    if (bytes.byte() < 32) s.numbering = Numbering::mixed;  // which is never wrong
    Indices step(s.num_vertices, nonsense);
    if (has_cycle(s, patience)) return void(++cyclic);
    Index steps = depth_steps(s, step.data(), patience);
    schedule(s, arrays.graph_offset, slots, step, steps, patience);
    Indices later(step);  // a policy's own numbers: children come first, but some numbers are left out
    for (Index& number : later) number = number * 3 + bytes.below(2);
    schedule(s, arrays.graph_offset, slots, later, 3 * steps, patience);
    std::fill(step.begin(), step.end(), nonsense);
    const Index heights = height_steps(s, step.data(), patience);
    REQUIRE(heights == steps);
    schedule(s, arrays.graph_offset, slots, step, steps, patience);
    Table table;
    for (Index i = bytes.below(6); i > 0; --i) {
        Indices state(1 + bytes.below(3));
        for (Index& kind : state) kind = bytes.below(5);
        table[state] = bytes.below(5);
    }
    for (const Table* given : {static_cast<const Table*>(nullptr), static_cast<const Table*>(&table)}) {
        std::fill(step.begin(), step.end(), nonsense);
        steps = greedy_steps(s, given, step.data(), patience);
        schedule(s, arrays.graph_offset, slots, step, steps, patience);
    }
    simulate(s, bytes, patience);
    ++scheduled;
    if (external) return;
    Arrays back = arrays;
    back.edge.resize(back.child.size());
    for (Indices* array : {&back.offset, &back.child, &back.slot, &back.edge}) std::fill(array->begin(), array->end(), nonsense);
    const Index most = reverse(s, back.offset.data(), back.child.data(), back.slot.data(), back.edge.data(), patience);
    Structure turned = back.view(0);
    check(turned, Indices(std::max<Index>(turned.num_kinds, 1), most).data(), patience);
    Edges there = edges_of(s.num_vertices, s.offset, s.child, s.slot);
    Edges again = edges_of(turned.num_vertices, turned.offset, turned.child, turned.slot);
    for (auto& [above, slot, below] : there) slot = 0, std::swap(above, below);
    for (auto& [above, slot, below] : again) slot = 0;
    std::sort(there.begin(), there.end());
    REQUIRE(there == again);
    std::vector<std::pair<Index, Index>> ends(s.num_edges), turned_ends(s.num_edges);  // of each edge, by its number
    for (Index v = 0; v < s.num_vertices; ++v) {
        for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e) ends[s.edge ? s.edge[e] : e] = {s.child[e], v};
        for (Index e = turned.offset[v]; e < turned.offset[v + 1]; ++e)
            turned_ends[turned.edge[e]] = {v, turned.child[e]};
    }
    REQUIRE(ends == turned_ends);
    hash(back.child.data(), back.child.size(), static_cast<std::uint64_t>(most));
}

[[maybe_unused]] std::vector<std::uint8_t> random_input(long seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    const auto longest = random() % 8 ? 600 : 3000;
    std::vector<std::uint8_t> data(random() % longest);
    for (std::uint8_t& byte : data) byte = static_cast<std::uint8_t>(random());
    return data;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Bytes bytes(data, size);
    try {
        Arrays arrays = bytes.byte() < 200 ? join(bytes) : scribble(bytes);
        all(arrays, bytes);
    } catch (const Malformed&) {  // as it should be
        ++refused;
    }
    return 0;
}

#ifndef VERTEXFLOW_LIBFUZZER
// Both sanitizers call this before they end the process.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());
static void tell() { std::fprintf(stderr, "input %ld; again: --seed %ld --runs 1\n", current, current); }

int main(int count, char** arguments) {
    long runs = 20000;
    if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(tell);
    std::signal(SIGABRT, [](int) { tell(); });  // an invariant that does not hold, or any other exception
    std::signal(SIGALRM, [](int) { std::abort(); });
    for (int i = 1; i < count; ++i) {
        const std::string name = arguments[i];
        if (name == "--runs" && i + 1 < count) {
            runs = std::atol(arguments[++i]);
        } else if (name == "--seed" && i + 1 < count) {
            current = std::atol(arguments[++i]);
        } else {
            std::ifstream file(name, std::ios::binary);
            REQUIRE(file.good());
            const std::vector<char> data{std::istreambuf_iterator<char>(file), {}};
            LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(data.data()), data.size());
            runs = 0;
        }
    }
    for (const long end = current + runs; current < end; ++current) {
        if (current % 1000 == 0) alarm(60);  // none takes long: this one hangs
        const std::vector<std::uint8_t> data = random_input(current);
        LLVMFuzzerTestOneInput(data.data(), data.size());
    }
    std::printf("nothing wrong: %ld inputs scheduled, %ld with a cycle, %ld refused\n", scheduled, cyclic, refused);
}
#endif
