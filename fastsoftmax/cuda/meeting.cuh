// How the states of the threads that share a slice meet: within a warp by shuffles, then through the block's shared
// memory, then through that of a cluster's blocks, one for each chunk.
#ifndef FASTSOFTMAX_CUDA_MEETING
#define FASTSOFTMAX_CUDA_MEETING

#include <places.cuh>
#include <states.cuh>

// The most threads of a block: of most kernels, and of those for long rows.
constexpr int THREADS = 256, LONG_THREADS = 512;

constexpr int WARP = 32;

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

#endif
