// Sums over the slices: of their losses, and of the weights that a mean divides them by. In a fixed order, in two
// numbers of float64, without the host: blocks add PIECE terms each, and a second launch of one block their sums.
#ifndef FASTSOFTMAX_CUDA_TOTALS
#define FASTSOFTMAX_CUDA_TOTALS

#include <slices.cuh>

// Terms of a block.
constexpr int PIECE = 8192;

struct TotalJob {
    const void* values;  // losses, sample weights or the sums of a first launch; of counts null
    const long long* labels;
    long long ignore_index;
    const void* weight;  // of the classes
    long long classes;
    long long count;
    Sum<double>* sums;      // of the pieces, if this is not the last launch
    const double* divisor;  // of the total
    void* total;
};

// What is added up: N are the numbers of the values.
template <class N>
struct Losses {
    using Number = N;
    static __device__ __forceinline__ Sum<double> term(const TotalJob& job, long long i) {
        return {static_cast<double>(static_cast<const N*>(job.values)[i]), 0};
    }
};

// s w[label] of the slices that are not ignored; labels out of range count with weight 1.
template <class N>
struct Shares {
    using Number = double;
    static __device__ __forceinline__ Sum<double> term(const TotalJob& job, long long i) {
        N share = 1;
        if (job.labels) {
            const long long label = job.labels[i];
            if (label == job.ignore_index) {
                return {0, 0};
            }
            if (job.weight && label >= 0 && label < job.classes) {
                share = static_cast<const N*>(job.weight)[label];
            }
        }
        return {job.values ? static_cast<double>(share) * static_cast<const N*>(job.values)[i] : share, 0};
    }
};

template <class N>
struct Pieces {
    using Number = N;
    static __device__ __forceinline__ Sum<double> term(const TotalJob& job, long long i) {
        return static_cast<const Sum<double>*>(job.values)[i];
    }
};

template <class Terms>
__global__ void __launch_bounds__(THREADS) total(const TotalJob job) {
    Sum<double> sum = Sum<double>::none();
    const long long begin = static_cast<long long>(blockIdx.x) * PIECE;
    // The last launch's one block takes all that there are.
    const long long end = job.sums && begin + PIECE < job.count ? begin + PIECE : job.count;
    for (long long i = begin + threadIdx.x; i < end; i += THREADS) {
        sum = Sum<double>::plus(sum, Terms::term(job, i));
    }
    sum = all_threads<SINGLE>(sum, Room<Sum<double>>::here().sums, THREADS);
    if (threadIdx.x == 0) {
        if (job.sums) {
            job.sums[blockIdx.x] = sum;
        } else {
            const double divisor = job.divisor ? *job.divisor : 1;
            using N = typename Terms::Number;
            *static_cast<N*>(job.total) = static_cast<N>(divisor == 0 ? 0 : sum.value() / divisor);
        }
    }
}

#endif
