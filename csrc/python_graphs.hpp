// Packing, single graphs and reversed ones, for Python.
#pragma once

#include "pack.hpp"
#include "python_arrays.hpp"

namespace vertexflow::python {

// graphs: a list of objects of the given type, whose `structure` is one int32 array (see pack.hpp). kinds: for each graph
// the batch's numbers of its kinds, or None, which is enough where all have the same. Returns one array [offset, child,
// slot, kind, edge], graph_offset, E, the number of slots, and flags that say which of the last two arrays there are; or None
// where kinds differ and no numbers are given.
inline py::object pack(const py::list& graphs, const py::type& type, const std::optional<std::vector<py::array>>& kinds) {
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
inline py::object graph(std::int64_t num_vertices, const py::array& child, const py::array& parent,
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
inline py::tuple reversed(const py::array& child, const py::array& slot, const py::array& offset, const std::optional<py::array>& edge) {
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

}  // namespace vertexflow::python
