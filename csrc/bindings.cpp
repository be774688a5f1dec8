// The Python face of the core: NumPy arrays in and out without a copy, the GIL released, Ctrl-C heard.
#include "launch.hpp"
#include "python_calls.hpp"
#include "python_graphs.hpp"
#include "python_schedules.hpp"
#include "unchanged.hpp"

using namespace vertexflow;
using namespace vertexflow::python;

namespace {

// One kernel as Python has it: whether its rows are edges, its columns, its variants, a line each, and which of all
// arguments are its own.
using Given = std::tuple<bool, std::int64_t, py::array, py::array>;

std::vector<Launch> launches_of(const std::vector<Given>& given, const py::array& arguments) {
    constexpr std::int64_t fields = sizeof(Variant) / sizeof(std::int64_t);
    const std::int64_t* all = elements<std::int64_t>(arguments, "arguments", -1);
    std::vector<Launch> found;
    for (const auto& [on_edges, columns, variants, own] : given) {
        const std::int64_t* data = elements<std::int64_t>(variants, "variants", -1);
        const std::int64_t* at = elements<std::int64_t>(own, "own", -1);
        if (variants.size() < fields || variants.size() % fields != 0) throw py::value_error("variants have lines of six");
        found.push_back({on_edges, columns, reinterpret_cast<const Variant*>(data),
                         static_cast<std::size_t>(variants.size() / fields), {}});
        std::vector<std::uint64_t>& words = found.back().words;
        for (py::ssize_t i = 0; i < own.size(); ++i) {
            if (at[i] < 0 || at[i] >= arguments.size()) throw py::value_error("there is no such argument");
            words.push_back(static_cast<std::uint64_t>(all[at[i]]));
        }
        words.resize(words.size() + Launches::numbers + Launches::scratch);
    }
    return found;
}

std::int64_t launch(std::uintptr_t driver, std::uintptr_t stream, std::int64_t multiprocessors, int threads,
                    const std::vector<Given>& inner, const std::vector<Given>& leaf, const py::array& arguments,
                    std::int64_t num_leaves, std::int64_t group_start, const py::array& lines, std::int64_t first) {
    constexpr std::int64_t fields = sizeof(Line) / sizeof(Index);
    const Index* data = elements<Index>(lines, "lines", -1);
    if (lines.size() % fields != 0) throw py::value_error("lines have seven numbers");
    if (first < 0) throw py::value_error("first must not be negative");
    Launches launches{launches_of(inner, arguments), launches_of(leaf, arguments), checked(num_leaves, "too large"),
                      checked(group_start, "too large"), threads, multiprocessors,
                      reinterpret_cast<void*>(stream), reinterpret_cast<Driver>(driver), {}};
    py::gil_scoped_release released;
    return launches.run(reinterpret_cast<const Line*>(data), lines.size() / fields, first);
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "Packing and scheduling of input graphs, and calls of what runs over them (csrc/).";
    static py::exception<Malformed> malformed(m, "Malformed");  // args: what, where, and where else
    py::register_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const Malformed& error) {
            PyErr_SetObject(malformed.ptr(), py::make_tuple(error.what(), error.where, error.other).ptr());
        } catch (const Indices& cycle) {
            PyErr_SetObject(malformed.ptr(), py::make_tuple("cycle", py::cast(cycle)).ptr());
        }
    });
    using namespace py::literals;
    m.def("pack", &pack, "graphs"_a, "type"_a, "kinds"_a.none(true));
    m.def("graph", &graph, "num_vertices"_a, "child"_a, "parent"_a, "slots"_a.none(true), "kind"_a.none(true));
    m.def("reversed", &reversed, "child"_a, "slot"_a, "offset"_a, "edge"_a.none(true));
    m.def("schedule", &schedule, "child"_a, "slot"_a, "offset"_a, "kind"_a.none(true), "num_kinds"_a, "num_external"_a,
          "num_slots"_a, "policy"_a, "graph_offset"_a.none(true), "ragged"_a, "at_most"_a);
    m.def("edges", &edges, "child"_a, "slot"_a, "offset"_a, "num_external"_a, "order"_a, "row"_a,
          "edge"_a.none(true));
    m.def("depth", [](const py::array& child, const py::array& slot, const py::array& offset, std::int64_t external) {
        return steps_by(depth_steps, {child, slot, offset, std::nullopt, 1, external});
    });
    m.def("height", [](const py::array& child, const py::array& slot, const py::array& offset, std::int64_t external) {
        return steps_by(height_steps, {child, slot, offset, std::nullopt, 1, external});
    });
    m.def("greedy", [](const py::array& child, const py::array& slot, const py::array& offset,
                       const std::optional<py::array>& kind, std::int64_t num_kinds, std::int64_t external,
                       const std::optional<py::dict>& actions) {
        Table table;
        if (actions)
            for (const auto& [state, action] : *actions) table[state.cast<Indices>()] = action.cast<Index>();
        Structure s = structure_of({child, slot, offset, kind, num_kinds, external});
        Array step(s.num_vertices);
        Index* data = fresh(step);
        py::gil_scoped_release released;
        Patience patience(stop_if_asked);
        check(s, nullptr, patience);
        greedy_steps(s, actions ? &table : nullptr, data, patience);
        return step;
    });
    m.def("check", [](const py::array& child, const py::array& slot, const py::array& offset,
                      const std::optional<py::array>& kind, std::int64_t num_kinds, std::int64_t external) {
        Structure s = structure_of({child, slot, offset, kind, num_kinds, external});
        Patience patience(stop_if_asked);
        check(s, nullptr, patience);
        depth_steps(s, Indices(s.num_vertices).data(), patience);  // throws if there is a cycle
    });
    m.def("hash", [](const py::array& array, std::uint64_t seed) {
        return hash(elements<Index>(array, "array", -1), static_cast<std::size_t>(array.size()), seed);
    });
    m.def("launch", &launch, "driver"_a, "stream"_a, "multiprocessors"_a, "threads"_a, "inner"_a, "leaf"_a, "arguments"_a,
          "num_leaves"_a, "group_start"_a, "lines"_a, "first"_a);
    m.def("holds_the_same", &holds_the_same, "containers"_a, "before"_a);
    m.def("have_keys", &have_keys, "dictionaries"_a, "before"_a);
    m.def("is_unchanged", &is_unchanged, "before"_a, "further"_a);
    py::class_<KeptCalls>(m, "Calls")
        .def(py::init<const py::array&, const py::array&, std::size_t, const std::vector<KeptCalls::Written>&>(), "numbers"_a,
             "address_of"_a, "num_addresses"_a, "calls"_a)
        .def("run", &KeptCalls::run)
        .def("run_rows", &KeptCalls::run_rows);
    py::class_<KeptRows>(m, "CallsOfRows")
        .def(py::init<const KeptCalls&, Index, Index, const py::list&, std::vector<KeptRows::Moving>, std::size_t,
                      const std::vector<std::pair<std::size_t, std::size_t>>&>(), py::keep_alive<1, 2>())
        .def("run", &KeptRows::run);
    m.def("bounds_of", &bounds_of, py::arg("numbers").noconvert());
    m.def("common_of", &common_of, py::arg("values").noconvert().none(true), py::arg("places").noconvert(), "count"_a);
    m.def("take_rows", &take_rows, "table"_a, py::arg("to").noconvert(), "first"_a, "count"_a, "before"_a, "further"_a);
    m.def("write_rows", &write_rows, py::arg("table").noconvert(), py::arg("to").noconvert(), "first"_a);
    py::class_<Simulation>(m, "Simulation")
        .def(py::init<py::array, py::array, py::array, std::optional<py::array>, std::int64_t>())
        .def("reset", &Simulation::reset)
        .def("done", &Simulation::done)
        .def("complete", &Simulation::complete)
        .def("state", &Simulation::state)
        .def("part_ready", &Simulation::part_ready)
        .def("run", &Simulation::run);
}
