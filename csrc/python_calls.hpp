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
        std::vector<std::int64_t> addresses;
        addresses.reserve(num_addresses);
        for (const py::handle each : given) addresses.push_back(each.cast<std::int64_t>());
        if (addresses.size() != num_addresses || num_addresses < 2) throw py::value_error("give an address for each");
        py::gil_scoped_release released;
        calls.run(std::move(addresses), room);
    }
};

}  // namespace vertexflow::python
