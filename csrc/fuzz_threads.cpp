// The core in several threads at once, to be run under ThreadSanitizer:
//
//     g++ -std=c++17 -g -O1 -fsanitize=thread csrc/fuzz_threads.cpp -o fuzz-threads -pthread
//     ./fuzz-threads [RUNS]      (`make sanitize-threads` does both)
//
// As Python's threads do, each packs and schedules structures of its own, and all of them one that they share.

#define VERTEXFLOW_LIBFUZZER  // there is a main here
#include "fuzz.cpp"

#include <atomic>
#include <thread>

namespace {

// Everything that only reads a structure.
void read_only(const Arrays& arrays, const Table& table) {
    Patience patience;
    Structure s = arrays.view(0);
    check(s, nullptr, patience);
    const Indices slots(std::max<Index>(s.num_kinds, 1), 6);
    Indices step(s.num_vertices, nonsense);
    if (!find_cycle(s, patience).empty()) return;
    const Index steps = depth_steps(s, step.data(), patience);
    Indices of_height(s.num_vertices, nonsense), of_table(s.num_vertices, nonsense);
    REQUIRE(height_steps(s, of_height.data(), patience) == steps);
    schedule(s, arrays.graph_offset, slots, step, steps, patience);
    schedule(s, arrays.graph_offset, slots, of_height, steps, patience);
    const Index more = greedy_steps(s, &table, of_table.data(), patience);
    schedule(s, arrays.graph_offset, slots, of_table, more, patience);
    const std::size_t vertices = s.num_vertices, edges = s.num_edges;
    Indices offset(vertices + 1), child(edges), slot(edges), edge(edges);
    reverse(s, offset.data(), child.data(), slot.data(), edge.data(), patience);
    hash(s.child, edges, 0);
    ++scheduled;
}

// A structure that every thread gets to read.
Arrays shared_by_all(long seed) {
    while (true) {
        const std::vector<std::uint8_t> data = random_input(seed++);
        Bytes bytes(data.data(), data.size());
        try {
            Arrays arrays = join(bytes);
            Structure s = arrays.view(0);
            Patience patience;
            check(s, Indices(std::max<Index>(s.num_kinds, 1), 6).data(), patience);
            return arrays;
        } catch (const Malformed&) {  // the next one
        }
    }
}

}  // namespace

int main(int count, char** arguments) {
    const long runs = count > 1 ? std::atol(arguments[1]) : 2000;
    constexpr long threads = 4, shared = 16;
    std::vector<Arrays> structures;
    for (long i = 0; i < shared; ++i) structures.push_back(shared_by_all(1000003 * i));
    const Table table{{{0, 1}, 0}, {{1, 0}, 1}, {{2, 0, 1}, 2}};
    std::atomic<long> next{0}, done{0};
    std::vector<std::thread> team;
    for (long i = 0; i < threads; ++i)
        team.emplace_back([&] {
            for (long run = next++; run < runs; run = next++) {
                const std::vector<std::uint8_t> data = random_input(run);
                LLVMFuzzerTestOneInput(data.data(), data.size());
                read_only(structures[run / threads % shared], table);
            }
            done += scheduled;
        });
    for (std::thread& each : team) each.join();
    REQUIRE(done > runs / 4);
    std::printf("no race: %ld structures scheduled by %ld threads\n", done.load(), threads);
}
