// softmax and log_softmax, and the local pass that they share with the losses.
#ifndef FASTSOFTMAX_CUDA_NORMALIZERS
#define FASTSOFTMAX_CUDA_NORMALIZERS

#include <operation.cuh>

template <class N, int E>
__device__ __forceinline__ N largest_of(const N (&x)[E]) {
    N m = -infinity<N>();
#pragma unroll
    for (int k = 0; k < E; ++k) {
        m = larger(m, x[k]);
    }
    return m;
}

// What a thread's elements add below a maximum. KEEP: exp(x - m) takes the place of x.
template <class T, bool KEEP, int E>
__device__ __forceinline__ Sum<NumberOf<T>> sum_below(NumberOf<T> (&x)[E], NumberOf<T> maximum) {
    using N = NumberOf<T>;
    constexpr int SUMS = 2;  // chains of additions; four would take more registers than there are
    const N shift = is_finite(maximum) ? maximum : N(0);
    N sums[SUMS] = {};
    N ones = 0;
#pragma unroll
    for (int k = 0; k < E; ++k) {
        const bool is_one = x[k] == maximum;
        const N term = Exponential<T, true>::of_difference(x[k], shift);
        if (KEEP) {
            x[k] = term;
        }
        sums[k % SUMS] += is_one ? N(0) : term;
        ones += is_one ? N(1) : N(0);
    }
    // Terms of 1 stay out until all others are added: beside one of them, they keep their digits.
    return Sum<N>::of_two(ones, sums[0] + sums[1]);
}

// A factor a / (1 + rest) in two numbers, for what is not rounded to a half after it.
template <class T>
struct Factor {
    using N = NumberOf<T>;
    N high, low;

    __device__ __forceinline__ void set(N a, N rest) {
        const Sum<N> sum = Sum<N>::of_two(1, rest);
        const N one_over = 1 / sum.high;
        high = a * one_over;
        low = (multiply_add(-high, sum.high, a) - high * sum.low) * one_over;
    }

    __device__ __forceinline__ N times(N x) const {
        return sizeof(T) == 2 ? x * high : multiply_add(x, high, x * low);
    }
};

template <class Element, bool LOGARITHMS>
struct Normalizer : OfElements<Element> {
    using T = Element;
    using N = NumberOf<T>;
    using State = Peak<T>;
    static constexpr bool HAS_Y = false, HAS_MAXIMUM = true;
    N maximum, log_sum;
    Factor<T> factor;

    __device__ __forceinline__ Normalizer(const Job&, long long) {}

    static __device__ __forceinline__ N fill() {
        return -infinity<N>();
    }

    // Of a chunk whose slice's state is known.
    template <class Place>
    __device__ __forceinline__ N known_maximum(const Job& job, const Place& place) const {
        return state_of_chunk<State>(job, place).maximum;
    }

    template <int E, class Place>
    __device__ __forceinline__ Sum<N> local(const Job&, N (&x)[E], N*, N m, const Place&, int) {
        return sum_below<T, !LOGARITHMS>(x, m);
    }

    // m: what was subtracted.
    __device__ __forceinline__ void prepare(const Job&, long long, N m, const State& whole, N) {
        // Infinite: a slice of -inf alone, or one with +inf, is NaN everywhere.
        maximum = is_finite(whole.maximum) ? whole.maximum : not_a_number<N>();
        if (LOGARITHMS) {
            log_sum = log_1p(whole.rest);
        } else {
            factor.set(Exponential<T, false>::of_difference(m, maximum), whole.rest);
        }
    }

    __device__ __forceinline__ N value(N x, N, int) const {
        return LOGARITHMS ? (x - maximum) - log_sum : factor.times(x);
    }
};

template <class T>
using Softmax = Normalizer<T, false>;

template <class T>
using LogSoftmax = Normalizer<T, true>;

#endif
