// Threads: how many a piece of work deserves, and a loop over tasks. No other file knows of OpenMP or fork.
#ifndef FASTSOFTMAX_PARALLEL_H
#define FASTSOFTMAX_PARALLEL_H

#include "kernels/types.h"

namespace fastsoftmax {

// Calls task(context, i) for i in 0..count-1 on up to `threads` threads, which share the range evenly.
void parallel_for(int threads, int64_t count, void (*task)(void *context, int64_t i), void *context);

// Threads worth starting for so many elements of work: at most `wanted`, or OpenMP's own number where that is 0.
int threads_for(int64_t elements, int wanted);

}  // namespace fastsoftmax

#endif
