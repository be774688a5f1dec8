// A run over a structure as calls of native functions, one after the other: what Python would do once for each of them.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

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

    // `addresses`: where what differs from run to run begins; number 1 is `room` bytes for the time of the run, found here if
    // it is 0. Runs of several threads at once do not meet.
    void run(std::vector<std::int64_t> addresses, std::size_t room) const {
        constexpr std::size_t aligned = 64;
        const std::unique_ptr<void, void (*)(void*)> own(
            addresses[1] || !room ? nullptr : std::aligned_alloc(aligned, (room + aligned - 1) / aligned * aligned), std::free);
        if (own) addresses[1] = reinterpret_cast<std::int64_t>(own.get());
        if (!addresses[1] && room) throw std::bad_alloc();
        std::vector<std::int64_t> arguments(numbers);
        for (std::size_t i = 0; i < arguments.size(); ++i) arguments[i] += addresses[address_of[i]];
        for (const Call& call : calls) call.function(arguments.data() + call.first, call.steps, call.count);
    }
};

}  // namespace vertexflow
