// What to do in company: let threads that wait sleep soon, also those that wait for a parallel region, ours or PyTorch's, to begin
// or to end. It stands behind team.hpp, in a library of its own.
//
// libgomp lets them look for some 10 ms, and that at full speed, in which another process could do their work; but only briefly
// when it has more threads than there are cores. So it is given some that do nothing. Alone that would be slower: to wake a
// thread takes some 10 us.
#include <omp.h>
#include <pthread.h>
#include <semaphore.h>

namespace {

// Nanoseconds. Work that comes up now and then, or shares of a step that differ, are no company.
constexpr Long window = 100'000'000, much = 25'000'000, stay = 2'000'000'000;
std::atomic<Long> window_start{0}, lost{0};

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

void waited(Long start, Long stop);
void come(Long now);
void leave();

Company company = {{0}, waited, leave};

void waited(Long start, Long stop) {
    if (stop - window_start.load() > window) {
        window_start.store(start);
        lost.store(0);
    }
    if (lost.fetch_add(stop - start) + stop - start > much) come(stop);
}

void come(Long now) {
    if (!company.until.exchange(now + stay)) keep_idle_threads();
}

// In a child that was forked in company there are no such threads, and nobody hears of it.
void leave() {
    company.until.store(0);
    if (Idle* const some = idle.exchange(nullptr)) sem_post(&some->end);
}
}
