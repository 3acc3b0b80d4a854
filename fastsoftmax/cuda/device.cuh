// What the hardware does that C++ has no words for: the one file that holds PTX.
//
// Header-free, so that NVRTC compiles a kernel in tens of milliseconds.
#ifndef FASTSOFTMAX_CUDA_DEVICE
#define FASTSOFTMAX_CUDA_DEVICE

// The block's dynamic shared memory, as many bytes as the launch says.
__device__ __forceinline__ char* shared_memory() {
    extern __shared__ uint4 shared_bytes[];
    return reinterpret_cast<char*>(shared_bytes);
}

__device__ __forceinline__ void barrier() {
    __syncthreads();
}

// The value of the lane whose number differs by the bits of mask; all lanes of a warp must come.
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}

// The same number, of which the compiler does not know that it is: what it computes from it, it computes anew, and does
// not keep in registers from where it last did.
__device__ __forceinline__ int anew(int number) {
    asm volatile("" : "+r"(number));
    return number;
}

__device__ __forceinline__ long long anew(long long number) {
    asm volatile("" : "+l"(number));
    return number;
}

// Clusters (compute capability 9.0 on): blocks that run together and read one another's shared memory. A block must
// not end before its peers have read: each arrives after its reads, and waits before it ends.
#if __CUDA_ARCH__ >= 900
#define FASTSOFTMAX_CLUSTER(size) __cluster_dims__(size, 1, 1)

__device__ __forceinline__ unsigned cluster_rank() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ __forceinline__ unsigned cluster_size() {
    unsigned size;
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    return size;
}

__device__ __forceinline__ void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}

__device__ __forceinline__ void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

// What stands at the same place in the shared memory of a peer.
template <class T>
__device__ __forceinline__ T peer_value(const T* shared, unsigned rank) {
    static_assert(sizeof(T) % 4 == 0, "read in words");
    union {
        T value;
        unsigned words[sizeof(T) / 4];
    } copy;
    const unsigned here = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    unsigned there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
#pragma unroll
    for (unsigned i = 0; i < sizeof(T) / 4; ++i) {
        asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(copy.words[i]) : "r"(there + 4 * i) : "memory");
    }
    return copy.value;
}
#else
#define FASTSOFTMAX_CLUSTER(size)

__device__ __forceinline__ unsigned cluster_rank() {
    return 0;
}

__device__ __forceinline__ unsigned cluster_size() {
    return 1;
}

__device__ __forceinline__ void cluster_arrive() {}

__device__ __forceinline__ void cluster_wait() {}

template <class T>
__device__ __forceinline__ T peer_value(const T* shared, unsigned) {
    return *shared;
}
#endif

// 2^t to a relative error of 2^-22; below the normal range 0.
__device__ __forceinline__ float exp2_approx(float t) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(t));
    return result;
}

// Halves as their bits; rounded to nearest, ties to even.

__device__ __forceinline__ float from_float16(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ __forceinline__ unsigned short to_float16(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ float from_bfloat16(unsigned short bits) {
    return __uint_as_float(static_cast<unsigned>(bits) << 16);
}

__device__ __forceinline__ unsigned short to_bfloat16(float value) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

#endif
