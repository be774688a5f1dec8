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
        run_each(std::move(addresses), room, [](const Call& call, std::int64_t* arguments) {
            call.function(arguments, call.steps, call.count);
        });
    }

    // The same for rows [first, stop) alone, of calls that were written for a single step of all of `num_rows` rows, each of which
    // has `num_slots` consecutive rows for its children. A call over some multiple of these rows is for that multiple; others,
    // for a single row, are run as they are.
    void run_rows(std::vector<std::int64_t> addresses, Index first, Index stop, Index num_rows, Index num_slots) const {
        run_each(std::move(addresses), 0, [=](const Call& call, std::int64_t* arguments) {
            const Index* const all = call.steps;
            if (call.count != 1 || all[0] != 0 || all[1] % num_rows != 0)
                return call.function(arguments, call.steps, call.count);
            const Index times = all[1] / num_rows, reads_from = all[2] < 0 ? all[2] : all[2] + first * num_slots;
            const Index some[] = {first * times, stop * times, reads_from, all[3], all[4], all[5], all[6]};
            call.function(arguments, some, 1);
        });
    }

private:
    template <class Run>
    void run_each(std::vector<std::int64_t> addresses, std::size_t room, Run run) const {
        constexpr std::size_t aligned = 64;
        const std::unique_ptr<void, void (*)(void*)> own(
            addresses[1] || !room ? nullptr : std::aligned_alloc(aligned, (room + aligned - 1) / aligned * aligned), std::free);
        if (own) addresses[1] = reinterpret_cast<std::int64_t>(own.get());
        if (!addresses[1] && room) throw std::bad_alloc();
        std::vector<std::int64_t> arguments(numbers);
        for (std::size_t i = 0; i < arguments.size(); ++i) arguments[i] += addresses[address_of[i]];
        for (const Call& call : calls) run(call, arguments.data() + call.first);
    }
};

}  // namespace vertexflow
