// The Python face of calls: written once for a structure, then run with a few addresses.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>

#include "calls.hpp"
#include "python_arrays.hpp"
#include "unchanged.hpp"

namespace vertexflow::python {

// Calls, and the arrays that they read.
struct KeptCalls {
    Calls calls;
    std::size_t num_addresses;
    std::vector<py::array> alive;

    using Written = std::tuple<std::uintptr_t, std::size_t, py::array>;  // a function, the first of its arguments, steps

    KeptCalls(const py::array& numbers, const py::array& address_of, std::size_t num_addresses,
              const std::vector<Written>& written)
        : num_addresses(num_addresses) {
        constexpr std::int64_t fields = 7;
        const std::int64_t* number = elements<std::int64_t>(numbers, "numbers", -1);
        const std::int64_t* address = elements<std::int64_t>(address_of, "address_of", numbers.size());
        for (py::ssize_t i = 0; i < numbers.size(); ++i) {
            if (address[i] < 0 || static_cast<std::size_t>(address[i]) >= num_addresses)
                throw py::value_error("there is no such address");
            calls.numbers.push_back(number[i]);
            calls.address_of.push_back(static_cast<std::size_t>(address[i]));
        }
        for (const auto& [function, first, steps] : written) {
            const Index* lines = elements<Index>(steps, "steps", -1);
            if (steps.size() % fields != 0) throw py::value_error("steps have lines of seven");
            if (!function || first > calls.numbers.size()) throw py::value_error("there is no such function, or argument");
            calls.calls.push_back({reinterpret_cast<Function>(function), first, lines, steps.size() / fields});
            alive.push_back(steps);
        }
    }

    void run(const py::list& given, std::size_t room) const {
        std::vector<std::int64_t> addresses = addresses_of(given);
        py::gil_scoped_release released;
        calls.run(std::move(addresses), room);
    }

    void run_rows(const py::list& given, Index first, Index stop, Index num_rows, Index num_slots) const {
        std::vector<std::int64_t> addresses = addresses_of(given);
        if (first < 0 || stop < first || num_rows < stop || num_rows < 2) throw py::value_error("there are no such rows");
        py::gil_scoped_release released;
        calls.run_rows(std::move(addresses), first, stop, num_rows, num_slots);
    }

    // With `all`, each that a call may have must be there.
    std::vector<std::int64_t> addresses_of(const py::list& given, bool all = true) const {
        std::vector<std::int64_t> addresses;
        addresses.reserve(num_addresses);
        for (const py::handle each : given) {
            addresses.push_back(PyLong_AsLongLong(each.ptr()));
            if (addresses.back() == -1 && PyErr_Occurred()) throw py::error_already_set();
        }
        if (num_addresses < 2 || (all && addresses.size() != num_addresses)) throw py::value_error("give an address for each");
        return addresses;
    }
};

// Calls over some of the rows that they were written for, at addresses that are found once, of which some move with the rows.
class KeptRows {
public:
    using Moving = std::tuple<std::size_t, std::int64_t, std::int64_t>;  // the number of an address, that of row 0, bytes of a row

    // `last`: the number of the address that says whether weights are packed. `weights`: the numbers of other addresses, and how
    // many bytes lie there, which were packed as they are now if they are the same as then.
    KeptRows(const KeptCalls& calls, Index num_rows, Index num_slots, const py::list& addresses, std::vector<Moving> moving,
             std::size_t last, const std::vector<std::pair<std::size_t, std::size_t>>& weights)
        : calls_(calls), num_rows_(num_rows), num_slots_(num_slots), addresses_(calls.addresses_of(addresses, false)),
          moving_(std::move(moving)), is_packed_(last) {
        const auto is_known = [&](std::size_t at) { return at < addresses_.size(); };
        for (const Moving& each : moving_)
            if (!is_known(std::get<0>(each))) throw py::value_error("there is no such address");
        if (!is_known(last)) throw py::value_error("there is no such address");
        const std::vector<std::size_t>& read = calls.calls.address_of;
        for (const auto& [at, size] : weights) {
            if (!is_known(at)) throw py::value_error("there is no such address");
            if (std::find(read.begin(), read.end(), at) != read.end()) weights_.push_back({at, std::vector<char>(size)});
        }
    }

    // Run them for rows [first, stop), where row 0 would be row `row` of what moves. `given`: further addresses, from number `at`
    // on; `seeds`: the last ones.
    void run(Index first, Index stop, std::int64_t row, std::size_t at, const std::vector<std::int64_t>& given,
             const std::vector<std::int64_t>& seeds) {
        if (first < 0 || stop < first || num_rows_ < stop || num_rows_ < 2) throw py::value_error("there are no such rows");
        if (at + given.size() > addresses_.size()) throw py::value_error("there are no such addresses");
        std::copy(given.begin(), given.end(), addresses_.begin() + static_cast<std::ptrdiff_t>(at));
        for (const auto& [number, base, size] : moving_) addresses_[number] = base + row * size;
        std::vector<std::int64_t> addresses(addresses_);
        addresses.insert(addresses.end(), seeds.begin(), seeds.end());
        if (addresses.size() != calls_.num_addresses) throw py::value_error("give an address for each");
        addresses[is_packed_] = addresses_[is_packed_] = are_packed_as_they_are() && addresses_[is_packed_];
        {
            py::gil_scoped_release released;
            calls_.calls.run_rows(std::move(addresses), first, stop, num_rows_, num_slots_);
        }
        addresses_[is_packed_] = 1;
    }

private:
    struct Weight {
        std::size_t at;
        std::vector<char> packed;
    };

    // Neither versions nor addresses tell whether weights have changed: `tensor.data`, NumPy and other processes write without a
    // new version, and freed memory is given out again.
    bool are_packed_as_they_are() {
        bool are_same = true;
        for (Weight& weight : weights_) {
            const char* const now = reinterpret_cast<const char*>(addresses_[weight.at]);
            if (weight.packed.empty() || !std::memcmp(now, weight.packed.data(), weight.packed.size())) continue;
            std::memcpy(weight.packed.data(), now, weight.packed.size());
            are_same = false;
        }
        return are_same;
    }

    const KeptCalls& calls_;
    Index num_rows_, num_slots_;
    std::vector<std::int64_t> addresses_;
    std::vector<Moving> moving_;
    std::size_t is_packed_;
    std::vector<Weight> weights_;
};

// The least and the largest of these numbers, or (0, -1) where there are none.
inline py::tuple bounds_of(const py::array_t<std::int64_t>& numbers) {
    if (!numbers.size()) return py::make_tuple(0, -1);
    const auto dense = py::array_t<std::int64_t, py::array::c_style>::ensure(numbers);
    if (!dense) throw py::error_already_set();
    const std::int64_t* const first = dense.data();
    std::int64_t least = *first, largest = least;
    for (const std::int64_t* at = first; at < first + dense.size(); ++at) {
        least = std::min(least, *at);
        largest = std::max(largest, *at);
    }
    return py::make_tuple(least, largest);
}

// What these places of an array all hold, of which it has `count`: 0 everywhere, if there is no array. -1 where it differs, or
// there is no such place, or none at all.
inline Index common_of(const std::optional<py::array_t<Index, py::array::c_style>>& values, const py::array_t<std::int64_t>& places,
                       std::int64_t count) {
    if (places.ndim() != 1 || (values && (values->ndim() != 1 || values->size() < count)))
        throw py::value_error("arrays have one dimension, and as many elements");
    const auto at = places.unchecked<1>();
    const Index* const held = values ? values->data() : nullptr;
    for (py::ssize_t i = 0; i < at.shape(0); ++i)
        if (at(i) < 0 || at(i) >= count || (held && held[at(i)] != held[at(0)])) return -1;
    return at.shape(0) ? (held ? held[at(0)] : 0) : -1;
}

// Write the rows of children in the buffers of a run, where row 0 stands for a missing one, to rows of `to` from `first` on.
inline void write_rows(const py::array_t<std::int64_t>& table, py::array_t<Index>& to, py::ssize_t first) {
    if (table.ndim() != 2 || to.ndim() != 2 || to.shape(1) != table.shape(1)) throw py::value_error("tables differ in slots");
    if (first < 0 || first + table.shape(0) > to.shape(0)) throw py::value_error("there are no such rows");
    const auto from = table.unchecked<2>();
    auto rows = to.mutable_unchecked<2>();
    for (py::ssize_t i = 0; i < from.shape(0); ++i)
        for (py::ssize_t j = 0; j < from.shape(1); ++j) rows(first + i, j) = static_cast<Index>(from(i, j) + 1);
}

// The same, if all children are among the first `count` vertices or missing, there is room for them, and nothing has changed
// (`is_unchanged`); how many rows were written, or 0 where that is not so.
inline py::ssize_t take_rows(const py::object& given, py::array_t<Index>& to, py::ssize_t first, std::int64_t count,
                             const py::tuple& before, const py::list& further) {
    if (to.ndim() != 2 || first < 0 || first > to.shape(0)) throw py::value_error("there are no such rows");
    if (!py::isinstance<py::array_t<std::int64_t>>(given)) return 0;
    const auto table = py::reinterpret_borrow<py::array_t<std::int64_t>>(given);
    if (table.ndim() != 2 || table.shape(1) != to.shape(1) || table.shape(0) > to.shape(0) - first) return 0;
    const auto from = table.unchecked<2>();
    auto rows = to.mutable_unchecked<2>();
    std::int64_t least = 0, last = -1;
    for (py::ssize_t i = 0; i < from.shape(0); ++i)
        for (py::ssize_t j = 0; j < from.shape(1); ++j) {
            least = std::min(least, from(i, j));
            last = std::max(last, from(i, j));
            rows(first + i, j) = static_cast<Index>(from(i, j) + 1);
        }
    const bool are_earlier = least >= -1 && 0 <= last && last < count;
    return are_earlier && is_unchanged(before, further) ? table.shape(0) : 0;
}

}  // namespace vertexflow::python
