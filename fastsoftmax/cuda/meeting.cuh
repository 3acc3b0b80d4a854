// How the states of the threads that share a slice meet: within a warp by shuffles, then through the block's shared
// memory, then through that of a cluster's blocks, one for each chunk.
#ifndef FASTSOFTMAX_CUDA_MEETING
#define FASTSOFTMAX_CUDA_MEETING

#include <places.cuh>
#include <states.cuh>

// The most threads of a block: of most kernels, and of those for long rows.
constexpr int THREADS = 256, LONG_THREADS = 512;

constexpr int WARP = 32;

// Where a block's threads leave what others read: in columns all of them, in rows one of each warp.
template <class State>
struct Room {
    using N = decltype(State().largest());
    typename State::Addends sums[THREADS];
    Largest<N> maxima[THREADS];
    State block;  // for the other blocks of a cluster

    static __device__ __forceinline__ Room& here() {
        return *reinterpret_cast<Room*>(shared_memory());
    }
};

// What all threads that share a chunk are together; `room` is for this meeting alone.
template <Access ACCESS, class Part>
__device__ __forceinline__ Part all_threads(Part part, Part* room, int group) {
    if (ACCESS == COLUMN) {
        room[threadIdx.x] = part;
        barrier();
        const int top = (threadIdx.x & ~(group * COLUMN_GROUP - 1)) + (threadIdx.x & (group - 1));
        part = room[top];
        for (int i = 1; i < COLUMN_GROUP; ++i) {
            part = Part::plus(part, room[top + i * group]);
        }
        return part;
    }
    part = all_lanes(part, group < WARP ? group : WARP);
    if (group > WARP) {
        const int lane = threadIdx.x % WARP, warps = group / WARP;
        if (lane == 0) {
            room[threadIdx.x / WARP] = part;
        }
        barrier();
        part = all_lanes(room[threadIdx.x / group * warps + lane % warps], warps);
    }
    return part;
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
