// Vector-Jacobian products of softmax and log_softmax: x is the upstream gradient g, y the saved output.
#ifndef FASTSOFTMAX_CUDA_VJP
#define FASTSOFTMAX_CUDA_VJP

#include <operation.cuh>

template <class Element, bool LOGARITHMS>
struct Product : OfElements<Element> {
    using T = Element;
    using N = NumberOf<T>;
    using State = Sum<N>;
    static constexpr bool HAS_Y = true, HAS_MAXIMUM = false;
    N high, low;  // the sum

    __device__ __forceinline__ Product(const Job&, long long) {}

    static __device__ __forceinline__ N fill() {
        return 0;
    }

    // The sum of g y, or of g.
    template <int E, class Place>
    __device__ __forceinline__ State local(const Job&, N (&x)[E], N* y, N, const Place&, int) {
        State state = State::none();
#pragma unroll
        for (int k = 0; k < E; ++k) {
            if (LOGARITHMS) {
                state.add(x[k]);
            } else {
                const N product = x[k] * y[k];
                state.add(product);
                state.low += multiply_add(x[k], y[k], -product);
            }
        }
        return state;
    }

    template <class Place>
    __device__ __forceinline__ N known_maximum(const Job&, const Place&) const {
        return 0;
    }

    __device__ __forceinline__ void prepare(const Job&, long long, N, const State& whole, N) {
        high = whole.high;
        low = is_finite(high) ? whole.low : N(0);
    }

    __device__ __forceinline__ N value(N x, N y, int) const {
        if (LOGARITHMS) {
            const N p = Exponential<T, true>::of_difference(y, 0);
            return State{multiply_add(-p, high, x), -p * low}.value();
        }
        return y * ((x - high) - low);
    }
};

template <class T>
using SoftmaxGrad = Product<T, false>;

template <class T>
using LogSoftmaxGrad = Product<T, true>;

#endif
