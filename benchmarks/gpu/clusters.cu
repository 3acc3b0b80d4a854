// Thread-block clusters of CLUSTER blocks (compute capability 9.0 on), compiled for each size anew: each block reads,
// from the shared memory of the next one in its cluster, that block's number.

__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) number_of_next(unsigned *seen) {
    __shared__ unsigned mine;
    unsigned rank, address, number;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    if (threadIdx.x == 0) mine = blockIdx.x;
    cluster_barrier();
    const unsigned local = static_cast<unsigned>(__cvta_generic_to_shared(&mine));
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(local), "r"((rank + 1) % CLUSTER));
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(number) : "r"(address) : "memory");
    if (threadIdx.x == 0) seen[blockIdx.x] = number;
    cluster_barrier();  // nobody leaves while its memory is read
}
