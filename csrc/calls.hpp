// A run over a structure as calls of native functions, one after the other: what Python would do once for each of them.
#pragma once

#include "common.hpp"

namespace vertexflow {

// What generated code is called with: its arguments, and lines of a schedule's table.
using Function = void (*)(std::int64_t*, const Index*, std::int64_t);

struct Call {
    Function function;
    std::size_t first;  // of its arguments, among those of all calls; several may have the same
    const Index* steps;
    std::int64_t count;
};

struct Calls {
    std::vector<std::int64_t> numbers;  // each argument is one, and what the address of this number adds to it
    std::vector<std::size_t> address_of;
    std::vector<Call> calls;

    // `addresses`: where what differs from run to run begins. Runs of several threads at once do not meet.
    void run(const std::vector<std::int64_t>& addresses) const {
        std::vector<std::int64_t> arguments(numbers);
        for (std::size_t i = 0; i < arguments.size(); ++i) arguments[i] += addresses[address_of[i]];
        for (const Call& call : calls) call.function(arguments.data() + call.first, call.steps, call.count);
    }
};

}  // namespace vertexflow
