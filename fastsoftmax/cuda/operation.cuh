// What `slices.cuh` asks of an operation on elements of type T, computed in numbers N, as `Softmax` and `CrossEntropy`
// are:
//
//   State, State::Addends   what is known of a part of a slice, and what of it is added up (states.cuh)
//   HAS_Y, WRITES           whether there is a second array; whether elements are written
//   HAS_MAXIMUM, fill()     whether a maximum is subtracted; what stands for an element beyond the end
//   enter_chunk             of which chunk the thread has elements
//   needs_single, label     whether the thread wants one element by itself, and which
//   local                   what the thread's elements add up to; they may become what `value` wants
//   known_maximum           what `local` subtracts where an earlier launch, or the caller, knows the state
//   write_slice             what there is one of for a slice
//   prepare, value          what is written for an element
#ifndef FASTSOFTMAX_CUDA_OPERATION
#define FASTSOFTMAX_CUDA_OPERATION

#include <job.cuh>
#include <states.cuh>

// An operation that writes elements alone, each by itself.
template <class Element>
struct OfElements {
    using T = Element;
    using N = NumberOf<T>;
    static constexpr bool WRITES = true;
    static constexpr long long label = -1;

    template <class Place>
    __device__ __forceinline__ void enter_chunk(const Job&, const Place&) {}

    __device__ __forceinline__ bool needs_single(const Job&, bool) const {
        return false;
    }

    template <class State>
    __device__ __forceinline__ void write_slice(const Job&, long long, const State&, N) const {}
};

// The state of a chunk that an earlier launch left.
template <class State, class Place>
__device__ __forceinline__ const State& state_of_chunk(const Job& job, const Place& place) {
    return static_cast<const State*>(job.partials)[place.slice(job) * job.chunks + place.chunk];
}

#endif
