// What to do in company: let threads that wait sleep soon, also those that wait for a parallel region, ours or PyTorch's, to begin
// or to end. It stands behind team.hpp, in a library of its own.
//
// libgomp lets them look for some 10 ms, and that at full speed, in which another process could do their work; but only briefly
// when it has more threads than there are cores. So it is given some that do nothing. Alone that would be slower: to wake a
// thread takes some 10 us.
#include <omp.h>
#include <pthread.h>
#include <semaphore.h>

#include <cstdio>

namespace {

// Nanoseconds. There is company where a thread would have run, but was kept from it, for a quarter of a window: work that comes up
// now and then is none.
constexpr Long window = 100'000'000, stay = 2'000'000'000;

// How long this thread has been ready to run without running, where the system tells.
Long kept_waiting() {
    long long runs, waits = 0;
    if (FILE* const file = std::fopen("/proc/thread-self/schedstat", "re")) {
        if (std::fscanf(file, "%lld %lld", &runs, &waits) != 2) waits = 0;
        std::fclose(file);
    }
    return waits;
}

struct Idle {
    sem_t end;
    int threads;
};
std::atomic<Idle*> idle{nullptr};

void forget(Idle* some) {
    sem_destroy(&some->end);
    delete some;
}

void* do_nothing(void* argument) {
    Idle* const some = static_cast<Idle*>(argument);
#pragma omp parallel num_threads(some->threads)
    { asm volatile(""); }
    while (sem_wait(&some->end)) {
    }
    forget(some);
    return nullptr;
}

void keep_idle_threads() {
    const int missing = omp_get_num_procs() - omp_get_max_threads();
    Idle* const some = new Idle{{}, missing > 0 ? missing + 2 : 2};
    sem_init(&some->end, 0, 0);
    Idle* none = nullptr;
    pthread_t thread;
    if (!idle.compare_exchange_strong(none, some)) {
        forget(some);
    } else if (pthread_create(&thread, nullptr, do_nothing, some) == 0) {
        pthread_detach(thread);
    } else {  // no more threads may be made
        idle.store(nullptr);
        forget(some);
    }
}

}  // namespace

extern "C" {

void look();

Company company = {{0}, look};

void come(Long now) {
    if (!company.until.exchange(now + stay)) keep_idle_threads();
}

// In a child that was forked in company there are no such threads, and nobody hears of it.
void leave() {
    company.until.store(0);
    if (Idle* const some = idle.exchange(nullptr)) sem_post(&some->end);
}

void look() {
    static thread_local struct {
        Long start, waited;
    } since = {0, 0};
    const Long time = now(), until = company.until.load(std::memory_order_relaxed);
    if (until) {
        since.start = 0;
        if (time > until) leave();
    } else if (time - since.start > window && omp_get_max_threads() > 1) {
        const Long waited = kept_waiting();
        if (since.start && waited - since.waited > (time - since.start) / 4) come(time);
        since = {time, waited};
    }
}
}
