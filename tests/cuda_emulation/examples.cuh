// Kernels that test the emulation itself (tests/test_cuda_emulation.py): right ones, and ones with one fault each.
#ifndef EXAMPLES_CUH
#define EXAMPLES_CUH

#include <device.cuh>

struct Example {
    const void* x;
    void* out;
    long long rows, n;
};

// What is wrong with a kernel.
enum Fault {
    NONE,
    NO_BARRIER_AFTER_WRITES,
    NO_BARRIER_BEFORE_NEXT_WRITES,
    EARLY_ARRIVAL,
    NO_FIRST_WAIT,
    NO_LAST_WAIT,
    PART_OF_A_WARP,
    LANE_ENDED,
    TWO_BARRIERS,
    TWO_MASKS,
    TWO_ARRIVALS,
    NOT_SHARED,
    BEYOND_SHARED,
};

__device__ inline float warp_sum(float sum) {
    for (int mask = 16; mask != 0; mask /= 2) {
        sum += shuffle_xor(sum, mask);
    }
    return sum;
}

// The sum of what the threads of a block have; `partials` is free again when another barrier has been passed.
template <Fault FAULT>
__device__ float block_sum(float sum, float* partials) {
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) {
        partials[threadIdx.x / 32] = sum;
    }
    if (FAULT != NO_BARRIER_AFTER_WRITES) {
        barrier();
    }
    float total = 0;
    for (unsigned i = 0; i < blockDim.x / 32; ++i) {
        total += partials[i];
    }
    return total;
}

// Sums of rows, a block for several.
template <Fault FAULT>
__global__ void sums(const __grid_constant__ Example job) {
    float* partials = reinterpret_cast<float*>(shared_memory());
    for (long long row = blockIdx.x; row < job.rows; row += gridDim.x) {
        float sum = 0;
        for (long long i = threadIdx.x; i < job.n; i += blockDim.x) {
            sum += static_cast<const float*>(job.x)[row * job.n + i];
        }
        sum = block_sum<FAULT>(sum, partials);
        if (threadIdx.x == 0) {
            static_cast<float*>(job.out)[row] = sum;
        }
        if (FAULT != NO_BARRIER_BEFORE_NEXT_WRITES) {
            barrier();
        }
    }
}

// Sums of rows, a cluster for each.
template <Fault FAULT, int BLOCKS>
__global__ void __cluster_dims__(BLOCKS, 1, 1) cluster_sums(const Example job) {
    float* partials = reinterpret_cast<float*>(shared_memory());
    float* own = partials + blockDim.x / 32;
    const long long row = blockIdx.x / cluster_size();
    if (FAULT == EARLY_ARRIVAL) {
        cluster_arrive();
    }
    float sum = 0;
    for (long long i = cluster_rank() * blockDim.x + threadIdx.x; i < job.n; i += BLOCKS * blockDim.x) {
        sum += static_cast<const float*>(job.x)[row * job.n + i];
    }
    sum = block_sum<NONE>(sum, partials);
    if (threadIdx.x == 0) {
        *own = sum;
    }
    if (FAULT != EARLY_ARRIVAL) {
        cluster_arrive();
    }
    if (FAULT != NO_FIRST_WAIT) {
        cluster_wait();
    }
    sum = 0;
    for (unsigned rank = 0; rank < cluster_size(); ++rank) {
        sum += peer_value(own, rank);
    }
    if (FAULT != NO_FIRST_WAIT) {
        cluster_arrive();
    }
    if (threadIdx.x == 0 && cluster_rank() == 0) {
        static_cast<float*>(job.out)[row] = sum;
    }
    if (FAULT != NO_LAST_WAIT) {
        cluster_wait();
    }
}

template <Fault FAULT>
__global__ void misuse(const Example job) {
    float value = threadIdx.x;
    if (FAULT == PART_OF_A_WARP) {
        if (threadIdx.x < 16) {
            barrier();
        } else {
            value = shuffle_xor(value, 1);
        }
    } else if (FAULT == LANE_ENDED) {
        if (threadIdx.x == 5) {
            return;
        }
        value = shuffle_xor(value, 1);
    } else if (FAULT == TWO_BARRIERS) {
        if (threadIdx.x < 32) {
            barrier();
        } else {
            barrier();
        }
    } else if (FAULT == TWO_MASKS) {
        value = shuffle_xor(value, threadIdx.x < 4 ? 1 : 2);
    } else if (FAULT == TWO_ARRIVALS) {
        cluster_arrive();
        cluster_arrive();
    } else if (FAULT == NOT_SHARED) {
        value = peer_value(&static_cast<const float*>(job.x)[0], 0);
    } else if (FAULT == BEYOND_SHARED) {
        float* shared = reinterpret_cast<float*>(shared_memory());
        shared[threadIdx.x] = 1;
        value = shared[threadIdx.x + (threadIdx.x == blockDim.x - 1)];
    }
    static_cast<float*>(job.out)[threadIdx.x] = value;
}

// out = f(x), element by element.
enum Conversion { FROM_FLOAT16, TO_FLOAT16, FROM_BFLOAT16, TO_BFLOAT16, EXP2, HALF_THE_LEAST };

template <Conversion CONVERSION, class To, class From>
__global__ void convert(const Example job) {
    for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < job.n; i += gridDim.x * blockDim.x) {
        const From x = static_cast<const From*>(job.x)[i];
        To& to = static_cast<To*>(job.out)[i];
        if constexpr (CONVERSION == FROM_FLOAT16) {
            to = from_float16(x);
        } else if constexpr (CONVERSION == TO_FLOAT16) {
            to = to_float16(x);
        } else if constexpr (CONVERSION == FROM_BFLOAT16) {
            to = from_bfloat16(x);
        } else if constexpr (CONVERSION == TO_BFLOAT16) {
            to = to_bfloat16(x);
        } else if constexpr (CONVERSION == EXP2) {
            to = exp2_approx(x);
        } else {
            to = x / 2;
        }
    }
}

#endif
