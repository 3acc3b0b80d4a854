// The traversal: which thread holds which elements of a slice, and how their states meet. An operation says what a
// state is, and what is written.
//
// A thread holds E elements in registers from the first read to the write, so that memory is read once and written
// once. Which elements those are depends on the slice's length, the type and the layout alone, and so does the tree in
// which states are merged: whatever the batch, the alignment and the card, a slice has the same bits.
//
//   rows     `group` threads, a power of two to 512, share a row or one of its chunks. Vectors of 16 bytes are dealt out
//            to them in turn (WHOLE; SPLIT where memory is not aligned so: element by element, to the same threads);
//            of a length that is no multiple of a vector, single elements are (SINGLE).
//   columns  8 threads share a chunk of a column, one in each eighth of the block; neighbouring threads stand in
//            neighbouring columns.
//
// States meet within a warp by shuffles, then through the block's shared memory, then, of rows of up to 16 chunks on
// cards that can, through the shared memory of a cluster's blocks, one block for each chunk. Where there are no
// clusters, or more chunks, there are three launches: PARTIAL leaves the chunks' states in memory, `merge` merges those
// of a slice in the same tree as a cluster, FINISH reads the elements again and writes. What writes no elements reads
// as many as there are in a loop, and needs chunks only so that one row is no single block's work.
#ifndef FASTSOFTMAX_CUDA_SLICES
#define FASTSOFTMAX_CUDA_SLICES

#include <cross_entropy.cuh>
#include <vjp.cuh>

enum Access { WHOLE, SPLIT, SINGLE, COLUMN };

// Threads of a column's chunk.
constexpr int COLUMN_GROUP = 8;

// The most threads of a block: of most kernels, and of those for long rows.
constexpr int THREADS = 256, LONG_THREADS = 512;

constexpr int WARP = 32;

// Where a thread stands: its slice, its chunk of it, its number among the `lanes` threads that share the chunk.
template <class T, Access ACCESS>
struct Place {
    static constexpr int TOGETHER = ACCESS == WHOLE || ACCESS == SPLIT ? Vector<T>::SIZE : 1;

    long long outer, column, chunk;
    int thread, lanes;
    int count;  // elements of the chunk; 0 beyond the last slice
    int turns;  // vectors, or single elements, of the thread
    bool exists;

    __device__ __forceinline__ explicit Place(const Job& job) {
        const unsigned group = static_cast<unsigned>(job.group);
        if (ACCESS == COLUMN) {
            const long long unit = blockIdx.x * static_cast<long long>(blockDim.x / (group * COLUMN_GROUP)) +
                                   threadIdx.x / (group * COLUMN_GROUP);
            const long long tiles = (job.inner + group - 1) / group;
            column = unit % tiles * group + (threadIdx.x & (group - 1));
            chunk = unit / tiles % job.chunks;
            outer = unit / tiles / job.chunks;
            thread = threadIdx.x / group % COLUMN_GROUP;
            lanes = COLUMN_GROUP;
        } else {
            const long long unit = blockIdx.x * static_cast<long long>(blockDim.x / group) + threadIdx.x / group;
            column = 0;
            chunk = job.chunks == 1 ? 0 : unit % job.chunks;
            outer = job.chunks == 1 ? unit : unit / job.chunks;
            thread = threadIdx.x & (group - 1);
            lanes = group;
        }
        exists = outer < job.outer && column < job.inner;
        const long long rest = job.n - begin(job);
        count = !exists || rest < 0 ? 0 : static_cast<int>(rest < job.chunk ? rest : job.chunk);
        turns = (count / TOGETHER - thread + lanes - 1) / lanes;
    }

    __device__ __forceinline__ long long begin(const Job& job) const {
        return chunk * job.chunk;
    }

    __device__ __forceinline__ long long slice(const Job& job) const {
        return exists ? outer * job.inner + column : 0;
    }

    // The chunk's begin in memory.
    __device__ __forceinline__ long long at(const Job& job, long long outer_step, long long step) const {
        return outer * outer_step + begin(job) * step + column;
    }

    // The place in the chunk of the thread's element k, counted from a turn on.
    __device__ __forceinline__ int of(int k, int turn) const {
        return ((turn + k / TOGETHER) * lanes + thread) * TOGETHER + k % TOGETHER;
    }

    // Whether the thread has that element. (A comparison of one register with a constant: there are E of them, and what
    // takes more is kept in registers from the reads to the writes.)
    __device__ __forceinline__ bool has(int k, int turn) const {
        return k / TOGETHER < turns - turn;
    }

    // Which of its elements stands at a place, if the thread holds it; else -1.
    __device__ __forceinline__ int slot(int place) const {
        const int turn = place / TOGETHER;
        return place >= 0 && turn % lanes == thread ? turn / lanes * TOGETHER + place % TOGETHER : -1;
    }
};

// The thread's elements from a turn on: `fill` beyond the end. One by one, of type U.
template <class T, Access ACCESS, class U, class N, int E>
__device__ __forceinline__ void load_each(
    N (&to)[E], const U* from, long long step, const Place<T, ACCESS>& place, int turn, N fill) {
    constexpr int TOGETHER = Place<T, ACCESS>::TOGETHER;
    from += place.of(0, turn) * step;
    const long long stride = place.lanes * TOGETHER * step;
#pragma unroll
    for (int k = 0; k < E; ++k) {
        to[k] = place.has(k, turn) ? number(from[k % TOGETHER]) : fill;
        if ((k + 1) % TOGETHER == 0) {
            from += anew(stride);
        }
    }
}

template <class T, Access ACCESS, class N, int E>
__device__ __forceinline__ void load(
    N (&to)[E], const T* from, long long step, const Place<T, ACCESS>& place, int turn, N fill) {
    if constexpr (ACCESS == WHOLE) {
        constexpr int SIZE = Vector<T>::SIZE;
        Vector<T> vectors[E / SIZE];
#pragma unroll
        for (int j = 0; j < E / SIZE; ++j) {
#pragma unroll
            for (int i = 0; i < SIZE; ++i) {
                put(vectors[j].at[i], fill);
            }
            if (place.has(j * SIZE, turn)) {
                vectors[j].words = *reinterpret_cast<const uint4*>(from + place.of(j * SIZE, turn));
            }
        }
#pragma unroll
        for (int k = 0; k < E; ++k) {
            to[k] = number(vectors[k / SIZE].at[k % SIZE]);
        }
    } else {
        load_each(to, from, step, place, turn, fill);
    }
}

template <int E, class T, Access ACCESS, class Value>
__device__ __forceinline__ void store(T* to, long long step, const Place<T, ACCESS>& place, const Value& value) {
    constexpr int TOGETHER = Place<T, ACCESS>::TOGETHER;
    if constexpr (ACCESS == WHOLE) {
#pragma unroll
        for (int j = 0; j < E / TOGETHER; ++j) {
            Vector<T> vector;
#pragma unroll
            for (int i = 0; i < TOGETHER; ++i) {
                put(vector.at[i], value(j * TOGETHER + i));
            }
            if (place.has(j * TOGETHER, 0)) {
                *reinterpret_cast<uint4*>(to + place.of(j * TOGETHER, 0)) = vector.words;
            }
        }
    } else {
        to += place.of(0, 0) * step;
        const long long stride = place.lanes * TOGETHER * step;
#pragma unroll
        for (int k = 0; k < E; ++k) {
            if (place.has(k, 0)) {
                put(to[k % TOGETHER], value(k));
            }
            if ((k + 1) % TOGETHER == 0) {
                to += anew(stride);
            }
        }
    }
}

// Where a block's threads leave what others read.
template <class State>
struct Room {
    using N = decltype(State().largest());
    using Addends = typename State::Addends;
    Addends sums[THREADS];  // in columns of all threads, in rows of warps
    N maxima[THREADS];      // likewise
    State block;            // for the other blocks of a cluster

    static __device__ __forceinline__ Room& here() {
        return *reinterpret_cast<Room*>(shared_memory());
    }
};

// The first of the threads that stand in one column.
__device__ __forceinline__ int top_of_column(int group) {
    return (threadIdx.x & ~(group * COLUMN_GROUP - 1)) + (threadIdx.x & (group - 1));
}

// The largest number of all threads that share a chunk.
template <Access ACCESS, class State, class N>
__device__ __forceinline__ N largest_of_block(N m, int group) {
    Room<State>& room = Room<State>::here();
    if (ACCESS == COLUMN) {
        room.maxima[threadIdx.x] = m;
        barrier();
        for (int i = 0; i < COLUMN_GROUP; ++i) {
            m = larger(m, room.maxima[top_of_column(group) + i * group]);
        }
        return m;
    }
    m = largest_of_lanes(m, group < WARP ? group : WARP);
    if (group > WARP) {
        const int lane = threadIdx.x % WARP, warps = group / WARP;
        if (lane == 0) {
            room.maxima[threadIdx.x / WARP] = m;
        }
        barrier();
        m = largest_of_lanes(room.maxima[threadIdx.x / group * warps + lane % warps], warps);
    }
    return m;
}

// The sum over all threads that share a chunk.
template <Access ACCESS, class State, class Addends>
__device__ __forceinline__ Addends sum_of_block(Addends sum, int group) {
    Room<State>& room = Room<State>::here();
    if (ACCESS == COLUMN) {
        room.sums[threadIdx.x] = sum;
        barrier();
        const int top = top_of_column(group);
        sum = room.sums[top];
        for (int i = 1; i < COLUMN_GROUP; ++i) {
            sum = Addends::plus(sum, room.sums[top + i * group]);
        }
        return sum;
    }
    sum = sum_of_lanes(sum, group < WARP ? group : WARP);
    if (group > WARP) {
        const int lane = threadIdx.x % WARP, warps = group / WARP;
        if (lane == 0) {
            room.sums[threadIdx.x / WARP] = sum;
        }
        barrier();
        sum = sum_of_lanes(room.sums[threadIdx.x / group * warps + lane % warps], warps);
    }
    return sum;
}

// The state of a row, of whose chunks the cluster's blocks have one each.
template <class State>
__device__ __forceinline__ State merge_cluster(const State& state, bool first) {
    State& mine = Room<State>::here().block;
    if (first) {
        mine = state;
    }
    cluster_arrive();
    cluster_wait();
    const int blocks = static_cast<int>(cluster_size());
    const State other = peer_value(&mine, threadIdx.x % blocks);
    cluster_arrive();
    return merge_lanes(other, blocks);
}

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
            m = Op::WRITES ? largest_of_block<ACCESS, State>(m, group) : m;
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
            m = largest_of_block<ACCESS, State>(own.largest(), group);
            sum = own.below(m);
        }
        whole = State::of(m, sum_of_block<ACCESS, State>(sum, group));
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

// Registers limit the blocks of a multiprocessor. There should be two at least, so that one reads while the other writes;
// more are worth less than registers that go to memory and back. From compute capability 12.0 on the compiler needs more.
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
