// The traversal. An operation says what a state is, and what is written; `places.cuh` which thread holds which
// elements; `meeting.cuh` how their states become one.
//
// A thread holds E elements in registers from the first read to the write, so that memory is read once and written
// once. Chunks of rows meet in a cluster on cards that can, of up to 8. Where there are no clusters, or more chunks,
// there are three launches: PARTIAL leaves the chunks' states in memory, `merge` merges those of a slice in the same
// tree as a cluster, FINISH reads the elements again and writes. What writes no elements reads as many as there are in
// a loop, and needs chunks only so that one row is no single block's work.
#ifndef FASTSOFTMAX_CUDA_SLICES
#define FASTSOFTMAX_CUDA_SLICES

#include <cross_entropy.cuh>
#include <meeting.cuh>
#include <vjp.cuh>

template <class Op, int E, Access ACCESS, bool CLUSTER>
__device__ __forceinline__ void run(const Job& job) {
    using T = typename Op::T;
    using N = NumberOf<T>;
    using State = typename Op::State;
    const Place<T, ACCESS> place(job);
    constexpr bool ROWS = ACCESS != COLUMN;
    const long long x_step = ROWS ? 1 : job.x_n, y_step = ROWS ? 1 : job.y_n, out_step = ROWS ? 1 : job.out_n;
    const T* x_from = static_cast<const T*>(job.x) + place.at(job, job.x_outer, x_step);
    const bool leader = place.exists && place.thread == 0 && place.chunk == 0;
    // Threads beyond the last slice come along, for the sake of those that they meet, as if they had the first one.
    Op op(job, place.slice(job));
    op.enter_chunk(job, place);
    // Before anything is written, which may be over x.
    N single = 0;
    if (place.exists && op.needs_single(job, leader)) {
        single = number(x_from[(op.label - place.begin(job)) * x_step]);
    }

    N x[E], y[Op::HAS_Y ? E : 1];
    Room<State>& room = Room<State>::here();
    const int group = static_cast<int>(job.group);
    N m = 0;  // the maximum that is subtracted: what is written has one for the chunk
    State own = State::none();
    typename State::Addends sum;
    int turn = 0;
    do {
        load(x, x_from, x_step, place, turn, Op::fill());
        if constexpr (Op::HAS_Y) {
            const long long y_at = place.at(job, job.y_outer, y_step);
            if (job.y_is_wide) {
                load_each(y, static_cast<const N*>(job.y) + y_at, y_step, place, turn, N(0));
            } else if (job.y) {
                load(y, static_cast<const T*>(job.y) + y_at, y_step, place, turn, N(0));
            }
        }
        if (Op::HAS_MAXIMUM && job.phase == FINISH) {
            m = op.known_maximum(job, place);
        } else if (Op::HAS_MAXIMUM) {
            m = largest_of(x);
            m = Op::WRITES ? all_threads<ACCESS>(Largest<N>{m}, room.maxima, group).number : m;
        }
        sum = op.local(job, x, y, m, place, turn);
        if (!Op::WRITES) {
            const State part = State::of(m, sum);
            own = turn == 0 ? part : merge_pair(own, part);
            turn += E / place.TOGETHER;
        }
    } while (!Op::WRITES && turn < place.turns);

    State whole = own;
    if (job.phase != FINISH) {
        if (!Op::WRITES) {
            m = all_threads<ACCESS>(Largest<N>{own.largest()}, room.maxima, group).number;
            sum = own.below(m);
        }
        whole = State::of(m, all_threads<ACCESS>(sum, room.sums, group));
        if (CLUSTER) {
            whole = merge_cluster(whole, place.thread == 0);
        }
    }
    if (job.phase == PARTIAL) {
        if (place.exists && place.thread == 0) {
            static_cast<State*>(job.partials)[place.slice(job) * job.chunks + place.chunk] = whole;
        }
        return;
    }
    if (job.phase == FINISH && job.merged) {
        whole = static_cast<const State*>(job.merged)[place.slice(job)];
    }
    if (leader && job.phase == EVERYTHING) {
        op.write_slice(job, place.slice(job), whole, single);
    }
    if constexpr (Op::WRITES) {
        op.prepare(job, place.slice(job), m, whole, single);
        T* to = static_cast<T*>(job.out) + place.at(job, job.out_outer, out_step);
        store<E>(to, out_step, place, [&](int k) { return op.value(x[k], y[Op::HAS_Y ? k : 0], k); });
    }
    if (CLUSTER) {
        cluster_wait();
    }
}

// Registers limit the blocks of a multiprocessor. There should be two at least, so that one reads while the other
// writes; more are worth less than registers that go to memory and back. From compute capability 12.0 on the compiler
// needs more.
template <class Op>
constexpr bool LARGE = sizeof(typename Op::State) > 8;

#if __CUDA_ARCH__ >= 1200
template <class Op, Access ACCESS>
constexpr int BLOCKS_AT_ONCE = LARGE<Op> || ACCESS == COLUMN ? 1 : 2;
#else
template <class Op, Access ACCESS>
constexpr int BLOCKS_AT_ONCE = (LARGE<Op> ? 2 : 3) - (ACCESS == COLUMN ? 1 : 0);
#endif

#if __CUDA_ARCH__ >= 1000
template <class Op, Access ACCESS>
constexpr int LONG_BLOCKS_AT_ONCE = 1;
#else
template <class Op, Access ACCESS>
constexpr int LONG_BLOCKS_AT_ONCE = LARGE<Op> || ACCESS != WHOLE ? 1 : 2;
#endif

template <class Op, int E, Access ACCESS>
__global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE<Op, ACCESS>) slices(const Job job) {
    run<Op, E, ACCESS, false>(job);
}

// The chunks of a row, of which a cluster of BLOCKS blocks takes one each, if BLOCKS is more than 1.
template <class Op, int E, Access ACCESS, int BLOCKS>
__global__ void FASTSOFTMAX_CLUSTER(BLOCKS) __launch_bounds__(LONG_THREADS, LONG_BLOCKS_AT_ONCE<Op, ACCESS>)
    long_slices(const Job job) {
    run<Op, E, ACCESS, (BLOCKS > 1)>(job);
}

// A warp merges the states of a slice's chunks, as a cluster does, and writes what there is one of for a slice.
template <class Op>
__global__ void __launch_bounds__(128) merge(const Job job) {
    using T = typename Op::T;
    using State = typename Op::State;
    const int lane = threadIdx.x % WARP;
    const long long slice = static_cast<long long>(blockIdx.x) * (blockDim.x / WARP) + threadIdx.x / WARP;
    const bool exists = slice < job.outer * job.inner;
    State state = State::none();
    int lanes = 1;
    while (lanes < WARP && lanes < job.chunks) {
        lanes *= 2;
    }
    if (exists) {
        const State* states = static_cast<const State*>(job.partials) + slice * job.chunks;
        const long long first = lane % lanes;
        state = first < job.chunks ? states[first] : state;
        for (long long chunk = first + WARP; chunk < job.chunks; chunk += WARP) {
            state = merge_pair(state, states[chunk]);
        }
    }
    state = merge_lanes(state, lanes);
    if (exists && lane == 0) {
        Op op(job, slice);
        const long long outer = slice / job.inner;
        const T* x = static_cast<const T*>(job.x) + outer * job.x_outer + (slice - outer * job.inner);
        op.write_slice(job, slice, state, op.needs_single(job, true) ? number(x[op.label * job.x_n]) : NumberOf<T>(0));
        static_cast<State*>(job.merged)[slice] = state;
    }
}

#endif
