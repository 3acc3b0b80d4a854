// OpenMP is the ecosystem's runtime: OMP_NUM_THREADS and threadpoolctl govern it, and its pool is shared with the other
// libraries of the process. Built without it, everything runs on the calling thread.
//
// Fork: a child inherits libgomp's pool without its threads, and hangs in its first parallel region; and whether the pool
// was in use, by this library or another, cannot be asked. So a forked child runs on one thread.
#include "parallel.h"

#include <atomic>

#ifdef FASTSOFTMAX_OPENMP
#include <omp.h>
#include <pthread.h>
#endif

namespace fastsoftmax {
namespace {

// Elements for each thread below which another one costs more than it brings: a fork-join of an idle team takes about
// as long as 16 thousand exponentials.
constexpr int64_t kGrain = 16384;

#ifdef FASTSOFTMAX_OPENMP
std::atomic<bool> forked{false};

const int fork_handler = pthread_atfork(nullptr, nullptr, [] { forked = true; });
#endif

}  // namespace

void parallel_for(int threads, int64_t count, void (*task)(void *, int64_t), void *context) {
#ifdef FASTSOFTMAX_OPENMP
#pragma omp parallel for num_threads(threads) schedule(static)
#else
    (void)threads;
#endif
    for (int64_t i = 0; i < count; ++i) task(context, i);
}

int threads_for(int64_t elements, int wanted) {
#ifdef FASTSOFTMAX_OPENMP
    // Asked in this order because the limits cost a system call, which a small call must not pay.
    if (wanted == 1 || elements < 2 * kGrain || forked) return 1;
    const int64_t useful = elements / kGrain;
    const int limit = wanted == 0 ? fs_default_threads() : fs_thread_limit();
    if (wanted == 0 || wanted > limit) wanted = limit;
    return useful < wanted ? int(useful) : wanted;
#else
    (void)elements;
    (void)wanted;
    return 1;
#endif
}

}  // namespace fastsoftmax

int fs_openmp(void) {
#ifdef FASTSOFTMAX_OPENMP
    return 1;
#else
    return 0;
#endif
}

int fs_thread_limit(void) {
#ifdef FASTSOFTMAX_OPENMP
    const int processors = omp_get_num_procs(), limit = omp_get_thread_limit();
    return processors < limit ? processors : limit;
#else
    return 1;
#endif
}

int fs_default_threads(void) {
#ifdef FASTSOFTMAX_OPENMP
    const int threads = omp_get_max_threads(), limit = fs_thread_limit();
    return threads < limit ? threads : limit;
#else
    return 1;
#endif
}
