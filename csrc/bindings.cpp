// The Python face of the core: NumPy arrays in and out without a copy, the GIL released, Ctrl-C heard.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "check.hpp"
#include "containers.hpp"
#include "greedy.hpp"
#include "launch.hpp"
#include "order.hpp"
#include "pack.hpp"
#include "place.hpp"

namespace py = pybind11;
using namespace vertexflow;

using Array = py::array_t<Index>;
using Wide = py::array_t<std::int64_t>;

namespace {

void stop_if_asked() {
    py::gil_scoped_acquire held;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// The elements of an array that is what it must be; nothing is converted, since that would hide a copy.
template <class T>
const T* elements(const py::array& array, const char* name, std::int64_t size) {
    static const PyObject* const usual = py::dtype::of<T>().release().ptr();  // kept for good
    if (reinterpret_cast<const py::detail::PyArray_Proxy*>(array.ptr())->descr != usual && !py::isinstance<py::array_t<T>>(array))
        throw py::type_error(std::string(name) + " must be an array of " + (sizeof(T) == 4 ? "int32" : "int64") + ", not " +
                             py::str(array.dtype()).cast<std::string>());
    if (array.ndim() != 1 || (array.size() > 1 && array.strides(0) != static_cast<py::ssize_t>(sizeof(T))))
        throw py::value_error(std::string(name) + " must be a contiguous array of one dimension");
    if (array.size() > 0 && reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0)
        throw py::value_error(std::string(name) + " must be aligned in memory");
    if (size >= 0 && array.size() != size)
        throw py::value_error(std::string(name) + " has " + std::to_string(array.size()) + " elements, not " +
                              std::to_string(size));
    return static_cast<const T*>(array.data());
}

Index* fresh(Array& array) { return array.mutable_data(); }

struct Arguments {
    const py::array &child, &slot, &offset;
    const std::optional<py::array>& kind;
    std::int64_t num_kinds, num_external;
    const py::array* edge = nullptr;
};

Structure structure_of(const Arguments& given) {
    Structure s;
    if (given.offset.size() < 2) throw py::value_error("offset must have at least two elements");
    s.num_vertices = checked(given.offset.size() - 1, "too large");
    s.num_edges = checked(given.child.size(), "too large");
    s.num_external = checked(given.num_external, "too large");
    s.num_kinds = checked(given.num_kinds, "too large");
    s.child = elements<Index>(given.child, "child", -1);
    s.slot = elements<Index>(given.slot, "slot", s.num_edges);
    s.offset = elements<Index>(given.offset, "offset", -1);
    if (given.kind) s.kind = elements<Index>(*given.kind, "kind", s.num_vertices);
    if (given.edge) s.edge = elements<Index>(*given.edge, "edge", s.num_edges);
    return s;
}

py::object attribute(PyObject* item, PyObject* name) {
    PyObject* const found = PyObject_GetAttr(item, name);
    if (!found) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(found);
}

// graphs: a list of objects of the given type, whose `structure` is one int32 array (see pack.hpp). kinds: for each graph
// the batch's numbers of its kinds, or None, which is enough where all have the same. Returns one array [offset, child,
// slot, kind, edge], graph_offset, E, the number of slots, and flags that say which of the last two arrays there are; or None
// where kinds differ and no numbers are given.
py::object pack(const py::list& graphs, const py::type& type, const std::optional<std::vector<py::array>>& kinds) {
    static PyObject* const structure_name = PyUnicode_InternFromString("structure");
    static PyObject* const kinds_name = PyUnicode_InternFromString("kinds");
    constexpr std::size_t ahead = 8;
    const std::size_t count = graphs.size();
    if (count == 0) throw Malformed("no graphs", 0);
    // Three rounds, each of which asks for the memory that the next one reads: an epoch's graphs are not in the cache.
    std::vector<py::object> structures;
    structures.reserve(count);
    py::object common;  // the kinds of the first graph
    for (std::size_t i = 0; i < count; ++i) {
        PyObject* const item = PyList_GET_ITEM(graphs.ptr(), static_cast<Py_ssize_t>(i));
        if (i + ahead < count) __builtin_prefetch(PyList_GET_ITEM(graphs.ptr(), static_cast<Py_ssize_t>(i + ahead)));
        if (!PyObject_TypeCheck(item, reinterpret_cast<PyTypeObject*>(type.ptr())))
            throw Malformed("not a graph", static_cast<std::int64_t>(i));
        structures.push_back(attribute(item, structure_name));
        __builtin_prefetch(structures.back().ptr());
        py::object names = attribute(item, kinds_name);
        if (i == 0) common = std::move(names);
        else if (!names.is(common) && !kinds && !names.equal(common)) return py::none();
    }
    std::vector<std::pair<const Index*, std::int64_t>> arrays;
    arrays.reserve(count);
    for (const py::object& structure : structures) {
        if (!py::isinstance<py::array>(structure)) throw py::type_error("a graph's structure must be an array");
        const auto& array = reinterpret_cast<const py::array&>(structure);
        arrays.emplace_back(elements<Index>(array, "a graph's structure", -1), array.size());
        for (std::int64_t line = 0; line < std::min<std::int64_t>(arrays.back().second, 256); line += 16)
            __builtin_prefetch(arrays.back().first + line);
    }
    std::vector<Graph> parts;
    std::vector<std::pair<const Index*, std::int64_t>> numbers(count, {nullptr, common.is_none() ? 0 : py::len(common)});
    parts.reserve(count);
    std::int64_t vertices = 0, edges = 0;
    Index slots = 0, flags = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const Graph& graph = parts.emplace_back(arrays[i].first, arrays[i].second);
        vertices += graph.num_vertices;
        edges += graph.num_edges;
        slots = std::max(slots, graph.num_slots);
        flags |= graph.edge ? has_edges : 0;
        if ((graph.kind != nullptr) != (parts[0].kind != nullptr)) throw Malformed("kinds", static_cast<std::int64_t>(i));
        if (kinds) numbers[i] = {elements<Index>(kinds->at(i), "kinds", -1), kinds->at(i).size()};
    }
    const Index v = checked(vertices, "too large"), e = checked(edges, "too large");
    flags |= parts[0].kind ? has_kinds : 0;
    Array blob(graph_size(v, e, flags) - header), graph_offset(count + 1);
    Index* data = fresh(blob);
    Index* first = fresh(graph_offset);
    {
        py::gil_scoped_release released;
        Patience patience(stop_if_asked);
        Index* const child = data + v + 1;
        const Batch batch{data, child, child + e, flags & has_kinds ? child + 2 * std::int64_t{e} : nullptr,
                          flags & has_edges ? data + blob.size() - e : nullptr};
        Index vertex = 0, edge = 0;
        for (std::size_t i = 0; i < count; ++i) {
            patience.tick(parts[i].num_vertices);
            first[i] = vertex;
            batch.append(parts[i], vertex, edge, numbers[i].first, numbers[i].second);
            vertex += parts[i].num_vertices;
            edge += parts[i].num_edges;
        }
        first[count] = vertex;
        data[v] = edge;
    }
    return py::make_tuple(blob, graph_offset, e, slots, flags);
}

// Returns a graph's array. `slots` and `kind` may be None.
py::object graph(std::int64_t num_vertices, const py::array& child, const py::array& parent,
                 const std::optional<py::array>& slots, const std::optional<py::array>& kind) {
    const Index v = checked(num_vertices, "too large"), e = checked(child.size(), "too large");
    const auto* below = elements<std::int64_t>(child, "child", e);
    const auto* above = elements<std::int64_t>(parent, "parent", e);
    const auto* filled = slots ? elements<std::int64_t>(*slots, "slots", e) : nullptr;
    const auto* kinds = kind ? elements<Index>(*kind, "kind", v) : nullptr;
    const Index flags = (kinds ? has_kinds : 0) | (in_order(e, above, filled) ? 0 : has_edges);
    const std::int64_t size = graph_size(v, e, flags);
    Array array(size);
    Index* data = fresh(array);
    {
        py::gil_scoped_release released;
        Patience patience(stop_if_asked);
        Index* const offset = data + header;
        Structure s;
        s.num_vertices = v;
        s.num_edges = e;
        s.offset = offset;
        s.child = offset + v + 1;
        data[0] = v;
        data[1] = e;
        data[2] = from_edges(v, e, below, above, filled, offset, offset + v + 1, offset + v + 1 + e,
                             flags & has_edges ? data + size - e : nullptr, patience);
        data[3] = flags;
        if (kinds) std::copy_n(kinds, v, offset + v + 1 + 2 * std::int64_t{e});
        s.slot = offset + v + 1 + e;
        check(s, nullptr, patience);
        if (s.numbering == Numbering::mixed) {
            const Indices cycle = find_cycle(s, patience);
            if (!cycle.empty()) throw cycle;
        }
    }
    return array;
}

// Returns one array [offset, child, slot, edge], and the number of slots.
py::tuple reversed(const py::array& child, const py::array& slot, const py::array& offset, const std::optional<py::array>& edge) {
    const std::optional<py::array> none;
    Structure s = structure_of({child, slot, offset, none, 1, 0, edge ? &*edge : nullptr});
    Array blob(graph_size(s.num_vertices, s.num_edges, has_edges) - header);
    Index* data = fresh(blob);
    Index slots;
    {
        py::gil_scoped_release released;
        Patience patience(stop_if_asked);
        check(s, nullptr, patience);
        Index* const out = data + s.num_vertices + 1;
        slots = reverse(s, data, out, out + s.num_edges, out + 2 * std::int64_t{s.num_edges}, patience);
    }
    return py::make_tuple(blob, slots);
}

using Steps = Index (*)(const Structure&, Index*, Patience&);

py::array steps_by(Steps policy, const Arguments& given) {
    Structure s = structure_of(given);
    Array step(s.num_vertices);
    Index* data = fresh(step);
    py::gil_scoped_release released;
    Patience patience(stop_if_asked);
    check(s, nullptr, patience);
    policy(s, data, patience);
    return std::move(step);
}

// The largest slot in use of each kind, plus one.
Indices slots_in_use(const Structure& s) {
    Indices slots(s.num_kinds, 0);
    for (Index v = 0; v < s.num_vertices; ++v)
        if (s.offset[v + 1] > s.offset[v]) {
            Index& most = slots[s.kind ? s.kind[v] : 0];
            most = std::max(most, checked(std::int64_t{s.slot[s.offset[v + 1] - 1]} + 1, "too large"));
        }
    return slots;
}

// The rows and index arrays of a schedule, in one array: order, row, child_rows, then parent_edge of each row in a forest,
// or parent_offset and parent_edge; the steps [S, 5]: first row, end, where these are slices, else -1, the first row that
// the step reads and the first position of child_rows where its rows are read, and its kind; and the rows of each kind
// [K, 5], as in `Group`. num_slots: of each kind; more children are refused, unless `ragged`. With `at_most`, a kind gets
// no more slots than it uses.
py::tuple schedule(const py::array& child, const py::array& slot, const py::array& offset,
                   const std::optional<py::array>& kind, std::int64_t num_kinds, std::int64_t num_external,
                   const std::vector<std::int64_t>& num_slots, const py::object& policy,
                   const std::optional<py::array>& graph_offset, const std::vector<bool>& ragged, bool at_most) {
    Structure s = structure_of({child, slot, offset, kind, num_kinds, num_external});
    const Index n = s.num_vertices;
    const auto kinds = static_cast<std::size_t>(s.num_kinds);
    if (num_slots.size() != kinds || ragged.size() != kinds)
        throw py::value_error("num_slots and ragged must have an entry for each kind");
    Indices slots, limit;
    for (std::size_t k = 0; k < kinds; ++k) {
        slots.push_back(checked(num_slots[k], "too large"));
        limit.push_back(ragged[k] ? std::numeric_limits<Index>::max() : slots[k]);
    }
    const Index all[2] = {0, n};
    const Index* const graphs = graph_offset ? elements<Index>(*graph_offset, "graph_offset", -1) : all;
    const Index num_graphs = graph_offset ? checked(graph_offset->size() - 1, "graph_offset") : 1;
    if (num_graphs < 1 || graphs[0] != 0 || graphs[num_graphs] != n ||
        std::adjacent_find(graphs, graphs + num_graphs + 1, std::greater_equal<>()) != graphs + num_graphs + 1)
        throw Malformed("graph_offset", num_graphs);
    const bool named = py::isinstance<py::str>(policy);
    const std::string name = named ? policy.cast<std::string>() : "";
    if (named && name != "depth" && name != "height") throw py::value_error("no native policy " + name);
    const Index* given = named ? nullptr : elements<Index>(policy.cast<py::array>(), "steps", n);
    std::unique_ptr<Index[]> step(new Index[n]);
    std::unique_ptr<Buckets> buckets;
    bool forest = false;
    Patience patience(stop_if_asked);
    {
        py::gil_scoped_release released;
        check(s, limit.data(), patience);
        if (at_most) slots = slots_in_use(s);
        forest = is_forest(s);
        Index steps = 0;
        if (given) {
            for (Index v = 0; v < n; ++v) {
                if (given[v] < 0 || given[v] >= n) throw Malformed("step", v);
                steps = std::max(steps, given[v] + 1);
                for (Index e = s.offset[v]; e < s.offset[v + 1]; ++e)
                    if (s.child[e] < n && given[s.child[e]] >= given[v]) throw Malformed("step order", e, v);
            }
            std::copy_n(given, n, step.get());
        } else {
            steps = (name == "depth" ? depth_steps : height_steps)(s, step.get(), patience);
        }
        buckets = std::make_unique<Buckets>(s, step.get(), steps, slots.data(), patience);
    }
    const std::int64_t rows = std::int64_t{n} + s.num_external, positions = buckets->positions;
    Array blob(2 * std::int64_t{n} + positions + (forest ? rows : rows + 1 + s.num_edges));
    Rows out;
    out.order = fresh(blob);
    out.row = out.order + n;
    out.child_rows = out.row + n;
    out.parent_offset = forest ? nullptr : out.child_rows + positions;
    out.parent_edge = out.child_rows + positions + (forest ? 0 : rows + 1);
    Index used = 0;
    {
        py::gil_scoped_release released;
        place(s, step.get(), *buckets, graphs, num_graphs, out, patience);
        step.reset();
        for (Index b = 0; b < buckets->count; ++b) used += buckets->end[b] > buckets->start[b];
    }
    Array table({static_cast<py::ssize_t>(used), py::ssize_t{5}}), groups({num_kinds, std::int64_t{5}});
    Index *line = fresh(table), *group = fresh(groups);
    {
        py::gil_scoped_release released;
        for (Index b = 0; b < buckets->count; ++b) {
            const Index first = buckets->start[b], end = buckets->end[b];
            if (end == first) continue;
            const Group& of = buckets->group(b);
            *line++ = first;
            *line++ = end;
            const std::int64_t size = end - first;
            *line++ = !buckets->inner(b) ? -1
                                         : consecutive(out.child_rows + buckets->position(b, first), size * of.slots,
                                                       static_cast<Index>(rows));
            *line++ = forest ? consecutive(out.parent_edge + first, size, buckets->positions) : -1;
            *line++ = static_cast<Index>(&of - buckets->groups.data());
        }
        for (const Group& of : buckets->groups)
            for (const Index number : {of.start, of.inner, of.end, of.slots, of.position}) *group++ = number;
    }
    return py::make_tuple(blob, table, groups, forest);
}

// Whether each of 0 .. n - 1 is there once, and `back` its place: what `edge_lists` must be able to trust.
bool is_order(const Index* order, const Index* back, Index n) {
    for (Index r = 0; r < n; ++r)
        if (order[r] < 0 || order[r] >= n || back[order[r]] != r) return false;
    return true;
}

Array edges(const py::array& child, const py::array& slot, const py::array& offset, std::int64_t num_external,
            const py::array& order, const py::array& row, const std::optional<py::array>& edge) {
    Structure s = structure_of({child, slot, offset, std::nullopt, 1, num_external, edge ? &*edge : nullptr});
    const Index n = s.num_vertices;
    const Index* vertices = elements<Index>(order, "order", n);
    const Index* rows = elements<Index>(row, "row", n);
    if (!is_order(vertices, rows, n)) throw Malformed("order", n);
    Index leaves = 0;
    for (Index v = 0; v < n; ++v) leaves += s.offset[v] == s.offset[v + 1];
    Array blob(std::int64_t{n} - leaves + 1 + 3 * std::int64_t{s.num_edges} + n + s.num_external + 1);
    Index* data = fresh(blob);
    py::gil_scoped_release released;
    Patience patience(stop_if_asked);
    check(s, nullptr, patience);
    edge_lists(s, vertices, rows, leaves, data, patience);
    return blob;
}

// One schedule after another of the same arrays, which it keeps alive, a kind at a time: for learning.
class Simulation {
  public:
    Simulation(py::array child, py::array slot, py::array offset, std::optional<py::array> kind, std::int64_t num_kinds)
        : child_(std::move(child)), slot_(std::move(slot)), offset_(std::move(offset)), kind_(std::move(kind)),
          s_(structure_of({child_, slot_, offset_, kind_, num_kinds, 0})) {
        Patience patience(stop_if_asked);
        check(s_, nullptr, patience);
        depth_steps(s_, Indices(s_.num_vertices).data(), patience);  // throws if there is a cycle
        ready_ = std::make_unique<Ready>(s_, patience);
        unblocked_ = std::make_unique<Unblocked>(s_, *ready_, patience);
    }
    void reset() {
        ready_->reset();
        unblocked_->reset();
    }
    bool done() const { return ready_->done(); }
    Index complete() const { return unblocked_->complete(); }
    py::tuple state() { return py::tuple(py::cast(ready_->state())); }
    double part_ready(std::int64_t kind) const {
        const Index unblocked = unblocked_->count(known(kind));
        return unblocked ? static_cast<double>(ready_->ready(known(kind))) / unblocked : 0.0;
    }
    void run(std::int64_t kind) {
        Patience patience(stop_if_asked);
        ready_->run(known(kind), [&](Index v) { unblocked_->computed(v); }, patience);
    }

  private:
    Index known(std::int64_t kind) const {
        if (kind < 0 || kind >= s_.num_kinds) throw py::value_error("there is no such kind");
        return static_cast<Index>(kind);
    }

    py::array child_, slot_, offset_;
    std::optional<py::array> kind_;
    Structure s_;
    std::unique_ptr<Ready> ready_;
    std::unique_ptr<Unblocked> unblocked_;
};

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
    m.doc() = "Packing and scheduling of input graphs, and launches of what runs over them (csrc/).";
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
    py::class_<Simulation>(m, "Simulation")
        .def(py::init<py::array, py::array, py::array, std::optional<py::array>, std::int64_t>())
        .def("reset", &Simulation::reset)
        .def("done", &Simulation::done)
        .def("complete", &Simulation::complete)
        .def("state", &Simulation::state)
        .def("part_ready", &Simulation::part_ready)
        .def("run", &Simulation::run);
}
