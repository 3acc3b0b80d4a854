// CUDA's language and the primitives of fastsoftmax/cuda/device.cuh for a C++ compiler: in that file's place it lets
// the kernels run on a CPU, their threads as fibers (cluster.cpp). It comes first on the include path.
#ifndef DEVICE_CUH
#define DEVICE_CUH

#include <math.h>

#include "emulation.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)
#define __grid_constant__
#define __cluster_dims__(...)
#define FASTSOFTMAX_CLUSTER(size)

#define threadIdx (static_cast<const uint3&>(emulation::self->index))
#define blockIdx (static_cast<const uint3&>(emulation::self->block->index))
#define blockDim (static_cast<const dim3&>(emulation::grid.block))
#define gridDim (static_cast<const dim3&>(emulation::grid.grid))

struct alignas(8) uint2 {
    unsigned x, y;
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulation {

template <class To, class From>
To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

}  // namespace emulation

inline unsigned __float_as_uint(float x) { return emulation::same_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emulation::same_bits<float>(x); }
inline int __float_as_int(float x) { return emulation::same_bits<int>(x); }
inline float __int_as_float(int x) { return emulation::same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulation::same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulation::same_bits<double>(x); }

inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// Of one type: where CUDA would convert, say so.
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}

template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}

inline char* shared_memory() { return emulation::self->block->shared; }

inline void barrier(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    emulation::barrier({file, line});
}

template <class T>
T shuffle_xor(T value, int mask, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8), "a type that CUDA shuffles");
    emulation::shuffle_xor(&value, sizeof value, mask, {file, line});
    return value;
}

inline int anew(int number) { return number; }

inline unsigned cluster_rank() { return emulation::self->block->rank; }
inline unsigned cluster_size() { return emulation::grid.cluster; }

inline void cluster_arrive(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    emulation::cluster_arrive({file, line});
}

inline void cluster_wait(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    emulation::cluster_wait({file, line});
}

template <class T>
T peer_value(const T* shared, unsigned rank, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    T value;
    memcpy(&value, emulation::peer(shared, sizeof value, rank, {file, line}), sizeof value);
    return value;
}

inline float exp2_approx(float x) { return emulation::exp2_approx(x); }

inline float from_float16(unsigned short bits) {
    const unsigned sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude >= 0x400u) return __uint_as_float(sign | ((magnitude << 13) + 0x38000000u));
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign ? -value : value;
}

inline unsigned short to_float16(float x) {
    const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fff;
    unsigned half;
    if (magnitude >= 0x47800000u) {
        half = 0x7c00u;
    } else if (magnitude >= 0x38800000u) {
        half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    } else if (magnitude > 0x33000000u) {  // above half the least subnormal
        const unsigned shift = 126u - (magnitude >> 23), significand = (magnitude & 0x7fffffu) | 0x800000u;
        half = (significand + (1u << (shift - 1)) - 1u + (significand >> shift & 1u)) >> shift;
    } else {
        half = 0;
    }
    return static_cast<unsigned short>(sign | half);
}

inline float from_bfloat16(unsigned short bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }

inline unsigned short to_bfloat16(float x) {
    const unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#endif
