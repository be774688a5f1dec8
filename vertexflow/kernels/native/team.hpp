// How the threads of a team wait for each other, and what they do when others want the cores, too. It stands behind product.hpp.
#include <omp.h>
#include <sched.h>
#include <time.h>

#include <atomic>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Whether other processes want the cores: one for all that runs in this process (company.cpp).
struct Company {
    std::atomic<Long> until;  // the time at which to find out anew; 0: there is none
    void (*look)();           // whether there is some: what each thread asks now and then
};

namespace {

inline Long now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// How many threads there are to be: in company one less, as a team is as slow as the thread that shares its core.
inline int threads_in(const Company* company) {
    const int most = omp_get_max_threads();
    return most > 1 && company->until.load(std::memory_order_relaxed) ? most - 1 : most;
}

// The barriers of one team. Waiting threads look for each other for as long as a wait may take where all of them are running;
// in company, only for as long as going to sleep takes.
class Meeting {
public:
    explicit Meeting(Company* known) : company(known) {}
    ~Meeting() { company->look(); }

    // What each thread calls at the end of a parallel region; the first one asks for company at the end of all.
    void ends() const {
        if (omp_get_thread_num() > 0) company->look();
    }

    void wait(int team) {
        if (team == 1) return;
        const int before = number.load(std::memory_order_relaxed);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == team) {
            arrived.store(0, std::memory_order_relaxed);
            number.store(before + 1);
            if (asleep.load()) wake();
            return;
        }
        if (!sees(before)) wait_longer(before);
    }

private:
    static constexpr int looks = 300;            // some 10 us
    static constexpr Long patience = 1'000'000;  // nanoseconds

    bool sees(int before) const {
        for (int look = 0; look < looks; ++look) {
            if (number.load(std::memory_order_acquire) != before) return true;
            pause();
        }
        return false;
    }

    __attribute__((noinline)) void wait_longer(int before) {
        const Long start = now();
        while (!company->until.load(std::memory_order_relaxed) && now() - start < patience)
            if (sees(before)) return;
        asleep.fetch_add(1);
        while (number.load() == before) sleep(before);
        asleep.fetch_sub(1);
    }

#if defined(__linux__)
    void sleep(int before) { syscall(SYS_futex, &number, FUTEX_WAIT_PRIVATE, before, nullptr, nullptr, 0); }
    void wake() { syscall(SYS_futex, &number, FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0); }
#else
    void sleep(int) { sched_yield(); }
    void wake() {}
#endif

    Company* const company;
    alignas(64) std::atomic<int> arrived{0};
    alignas(64) std::atomic<int> number{0};  // of the barrier that comes next
    std::atomic<int> asleep{0};
};

}  // namespace
