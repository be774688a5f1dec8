// The Python face of calls: written once for a structure, then run with a few addresses.
#pragma once

#include "calls.hpp"
#include "python_arrays.hpp"

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

private:
    std::vector<std::int64_t> addresses_of(const py::list& given) const {
        std::vector<std::int64_t> addresses;
        addresses.reserve(num_addresses);
        for (const py::handle each : given) {
            addresses.push_back(PyLong_AsLongLong(each.ptr()));
            if (addresses.back() == -1 && PyErr_Occurred()) throw py::error_already_set();
        }
        if (addresses.size() != num_addresses || num_addresses < 2) throw py::value_error("give an address for each");
        return addresses;
    }
};

// The least and the largest number in a table of children, or (0, -1) where it is empty.
inline py::tuple bounds_of(const py::array_t<std::int64_t>& table) {
    if (table.ndim() != 2) throw py::value_error("a table has two dimensions");
    const auto at = table.unchecked<2>();
    if (!table.size()) return py::make_tuple(0, -1);
    std::int64_t least = at(0, 0), largest = least;
    for (py::ssize_t i = 0; i < at.shape(0); ++i)
        for (py::ssize_t j = 0; j < at.shape(1); ++j) {
            least = std::min(least, at(i, j));
            largest = std::max(largest, at(i, j));
        }
    return py::make_tuple(least, largest);
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

}  // namespace vertexflow::python
