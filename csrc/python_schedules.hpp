// Schedules, edge lists and policies that learn, for Python.
#pragma once

#include <memory>

#include "greedy.hpp"
#include "order.hpp"
#include "place.hpp"
#include "python_arrays.hpp"

namespace vertexflow::python {

using Steps = Index (*)(const Structure&, Index*, Patience&);

inline py::array steps_by(Steps policy, const Arguments& given) {
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
inline Indices slots_in_use(const Structure& s) {
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
inline py::tuple schedule(const py::array& child, const py::array& slot, const py::array& offset,
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
inline bool is_order(const Index* order, const Index* back, Index n) {
    for (Index r = 0; r < n; ++r)
        if (order[r] < 0 || order[r] >= n || back[order[r]] != r) return false;
    return true;
}

inline Array edges(const py::array& child, const py::array& slot, const py::array& offset, std::int64_t num_external,
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

}  // namespace vertexflow::python
