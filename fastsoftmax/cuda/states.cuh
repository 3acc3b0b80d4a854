// What is known of a part of a slice, and how parts become one.
//
// Parts meet in two steps, by pairs of threads or all at once: first their maxima (`largest`), then what each has to
// add below the common one (`below`), in a fixed order. So a part is scaled once, by an accurate power, however many it
// meets, and not at all if it was summed below the common maximum; sums are kept in two numbers meanwhile. A product
// with each power of a tree would lose an ulp at each level.
#ifndef FASTSOFTMAX_CUDA_STATES
#define FASTSOFTMAX_CUDA_STATES

#include <numbers.cuh>

// A sum in two numbers, so that what is left of it after a difference has its digits.
template <class N>
struct Sum {
    using Addends = Sum;
    N high;
    N low;

    static __device__ __forceinline__ Sum none() {
        return {0, 0};
    }

    static __device__ __forceinline__ Sum of_two(N a, N b) {
        const N sum = a + b;
        return {sum, (a - (sum - b)) + (b - (sum - (sum - b)))};
    }

    __device__ __forceinline__ void add(N term) {
        const Sum sum = of_two(high, term);
        *this = {sum.high, low + sum.low};
    }

    static __device__ __forceinline__ Sum plus(const Sum& a, const Sum& b) {
        const Sum sum = of_two(a.high, b.high);
        return {sum.high, sum.low + (a.low + b.low)};
    }

    static __device__ __forceinline__ Sum shuffled(const Sum& a, int mask) {
        return {shuffle_xor(a.high, mask), shuffle_xor(a.low, mask)};
    }

    // Of an infinite sum the low part is no number.
    __device__ __forceinline__ N value() const {
        return is_finite(high) ? high + low : high;
    }

    // As a state: nothing is scaled.

    __device__ __forceinline__ N largest() const {
        return 0;
    }

    __device__ __forceinline__ Sum below(N) const {
        return *this;
    }

    static __device__ __forceinline__ Sum of(N, const Sum& sum) {
        return sum;
    }
};

// The maximum m, and the sum of exp(x - m) without one term that is 1: so kept, a sum next to 1 does not lose what it
// has beyond that. A part without elements, or with -inf alone, has the maximum -inf; its rest has no meaning but for
// being NaN if there is a NaN. A maximum of +inf is no shift: with it the rest is that of exp(x).
template <class T>
struct Peak {
    using N = NumberOf<T>;
    using Addends = Sum<N>;
    N maximum;
    N rest;

    static __device__ __forceinline__ Peak none() {
        return {-infinity<N>(), 0};
    }

    __device__ __forceinline__ N logsumexp() const {
        return maximum + log_1p(rest);  // of an infinite maximum too
    }

    __device__ __forceinline__ N largest() const {
        return maximum;
    }

    __device__ __forceinline__ Sum<N> below(N m) const {
        // (Of two infinities alike there is no difference.)
        return maximum == m ? Sum<N>::of_two(1, rest)
                            : Sum<N>{(1 + rest) * Exponential<T, false>::of_difference(maximum, m), 0};
    }

    static __device__ __forceinline__ Peak of(N m, const Sum<N>& sum) {
        return {m, is_finite(sum.high) ? (sum.high - 1) + sum.low : sum.high};
    }
};

// Beside a peak, of the shares w q that the classes have in the target: their sum, and that of shares times (m - x). A
// share of 0 counts for nothing where x is -inf too.
template <class T>
struct SpreadPeak {
    using N = NumberOf<T>;

    struct Addends {
        Sum<N> peak;
        Sum<N> terms;
        N shares;

        static __device__ __forceinline__ Addends plus(const Addends& a, const Addends& b) {
            return {Sum<N>::plus(a.peak, b.peak), Sum<N>::plus(a.terms, b.terms), a.shares + b.shares};
        }

        static __device__ __forceinline__ Addends shuffled(const Addends& a, int mask) {
            return {Sum<N>::shuffled(a.peak, mask), Sum<N>::shuffled(a.terms, mask), shuffle_xor(a.shares, mask)};
        }
    };

    Peak<T> peak;
    N shares;
    N terms;

    static __device__ __forceinline__ SpreadPeak none() {
        return {Peak<T>::none(), 0, 0};
    }

    __device__ __forceinline__ N largest() const {
        return peak.maximum;
    }

    __device__ __forceinline__ Addends below(N m) const {
        const bool unmoved = shares == 0 || peak.maximum == m;
        return {peak.below(m), {terms, unmoved ? N(0) : shares * (m - peak.maximum)}, shares};
    }

    static __device__ __forceinline__ SpreadPeak of(N m, const Addends& sum) {
        return {Peak<T>::of(m, sum.peak), sum.shares, sum.terms.value()};
    }
};

// Two parts, the first of them with the lower number.
template <class State>
__device__ __forceinline__ State merge_pair(const State& a, const State& b) {
    const auto m = larger(a.largest(), b.largest());
    return State::of(m, State::Addends::plus(a.below(m), b.below(m)));
}

// A maximum, as what meets in the first step.
template <class N>
struct Largest {
    N number;

    static __device__ __forceinline__ Largest plus(const Largest& a, const Largest& b) {
        return {larger(a.number, b.number)};
    }

    static __device__ __forceinline__ Largest shuffled(const Largest& a, int mask) {
        return {shuffle_xor(a.number, mask)};
    }
};

// What lanes 0, 1, ... of every `lanes` neighbours, a power of two up to a warp, are together; all get the same bits,
// because the lower lane's part always comes first.
template <class Part>
__device__ __forceinline__ Part all_lanes(Part part, int lanes) {
    for (int mask = 1; mask < lanes; mask *= 2) {
        const Part other = Part::shuffled(part, mask);
        part = threadIdx.x & mask ? Part::plus(other, part) : Part::plus(part, other);
    }
    return part;
}

template <class State>
__device__ __forceinline__ State merge_lanes(const State& state, int lanes) {
    using N = decltype(state.largest());
    const N m = all_lanes(Largest<N>{state.largest()}, lanes).number;
    return State::of(m, all_lanes(state.below(m), lanes));
}

#endif
