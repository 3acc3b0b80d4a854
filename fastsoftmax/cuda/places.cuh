// Which thread holds which elements of a slice, and how it reads and writes them.
//
// It depends on the slice's length, the type and the layout alone: whatever the batch, the alignment and the card, a
// slice has the same bits.
//
//   rows     `group` threads, a power of two to 512, share a row or one of its chunks. Vectors of 16 bytes are dealt
//            out to them in turn (WHOLE; SPLIT where memory is not aligned so: element by element, to the same
//            threads); of a length that is no multiple of a vector, single elements are (SINGLE).
//   columns  8 threads share a chunk of a column, one in each eighth of the block; neighbouring threads stand in
//            neighbouring columns.
#ifndef FASTSOFTMAX_CUDA_PLACES
#define FASTSOFTMAX_CUDA_PLACES

#include <job.cuh>
#include <numbers.cuh>

enum Access { WHOLE, SPLIT, SINGLE, COLUMN };

// Threads of a column's chunk.
constexpr int COLUMN_GROUP = 8;

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

#endif
