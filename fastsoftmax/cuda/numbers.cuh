// Elements as they lie in memory, the numbers that they are computed in, and the exponential.
#ifndef FASTSOFTMAX_CUDA_NUMBERS
#define FASTSOFTMAX_CUDA_NUMBERS

#include <device.cuh>

struct Float16 {
    unsigned short bits;
};

struct Bfloat16 {
    unsigned short bits;
};

template <class T>
struct Traits {  // float, double
    using Number = T;
};

template <>
struct Traits<Float16> {
    using Number = float;
};

template <>
struct Traits<Bfloat16> {
    using Number = float;
};

template <class T>
using NumberOf = typename Traits<T>::Number;

__device__ __forceinline__ float number(float x) {
    return x;
}

__device__ __forceinline__ double number(double x) {
    return x;
}

__device__ __forceinline__ float number(Float16 x) {
    return from_float16(x.bits);
}

__device__ __forceinline__ float number(Bfloat16 x) {
    return from_bfloat16(x.bits);
}

__device__ __forceinline__ void put(float& place, float value) {
    place = value;
}

__device__ __forceinline__ void put(double& place, double value) {
    place = value;
}

__device__ __forceinline__ void put(Float16& place, float value) {
    place.bits = to_float16(value);
}

__device__ __forceinline__ void put(Bfloat16& place, float value) {
    place.bits = to_bfloat16(value);
}

// 16 bytes of elements, which one instruction loads or stores.
template <class T>
union Vector {
    static constexpr int SIZE = 16 / sizeof(T);
    uint4 words;
    T at[SIZE];
};

template <class N>
__device__ __forceinline__ N infinity() {
    return static_cast<N>(__int_as_float(0x7f800000));
}

template <class N>
__device__ __forceinline__ N not_a_number() {
    return static_cast<N>(__int_as_float(0x7fffffff));
}

template <class N>
__device__ __forceinline__ bool is_finite(N x) {
    return x - x == 0;
}

// The larger one, or the one that is a number.
__device__ __forceinline__ float larger(float a, float b) {
    return fmaxf(a, b);
}

__device__ __forceinline__ double larger(double a, double b) {
    return fmax(a, b);
}

__device__ __forceinline__ float multiply_add(float a, float b, float c) {
    return fmaf(a, b, c);
}

__device__ __forceinline__ double multiply_add(double a, double b, double c) {
    return fma(a, b, c);
}

// log(1 + x)
__device__ __forceinline__ float log_1p(float x) {
    return log1pf(x);
}

__device__ __forceinline__ double log_1p(double x) {
    return log1p(x);
}

// exp(x) - 1
__device__ __forceinline__ float exp_m1(float x) {
    return expm1f(x);
}

__device__ __forceinline__ double exp_m1(double x) {
    return expm1(x);
}

// What a - b = difference lost by its rounding (Knuth); no number where one of them is infinite.
template <class N>
__device__ __forceinline__ N lost_by(N a, N b, N difference) {
    const N b_seen = a - difference;
    const N a_seen = difference + b_seen;
    return (a - a_seen) + (b_seen - b);
}

// 2^t, below the normal range 0: to .6 ulp, where the instruction is 2 ulp off. 1 + f q(f) with q of degree
// 5, least in its largest error over |f| <= 1/2 (2^-26.7).
__device__ __forceinline__ float exp2_accurate(float t) {
    const float bounded = fminf(fmaxf(t, -126), 128);
    const float whole = rintf(bounded), f = bounded - whole;
    float q = 0x1.44149ap-13f;
    q = multiply_add(q, f, 0x1.5f0a1cp-10f);
    q = multiply_add(q, f, 0x1.3b2a52p-7f);
    q = multiply_add(q, f, 0x1.c6af6ap-5f);
    q = multiply_add(q, f, 0x1.ebfbep-3f);
    q = multiply_add(q, f, 0x1.62e43p-1f);
    const float power = __uint_as_float(static_cast<unsigned>(static_cast<int>(whole) + 127) << 23);
    return t > -126 ? multiply_add(q, f, 1) * power : (t != t ? t : 0);
}

// exp(x - m) for elements of type T, x <= m or little more. EACH: of each element, by one instruction for the power;
// of what there is one of for a thread, the power is accurate too.
//
// The rounding of x - m alone is worth |x - m| / 2 ulp of the result, and so is that of its product with log2(e): both
// are carried along, but for halves, whose own rounding is 2^13 times as large.
template <class T, bool EACH>
struct Exponential {
    static __device__ __forceinline__ float of_difference(float x, float m) {
        constexpr float LOG2_E = 0x1.715476p+0f;
        const float difference = x - m;
        if constexpr (sizeof(T) == 2) {
            return exp2_approx(difference * LOG2_E);
        } else {
            constexpr float LOG2_E_REST = 0x1.4ae0cp-26f, LN_2 = 0x1.62e43p-1f;
            const float exponent = difference * LOG2_E;
            float rest = multiply_add(difference, LOG2_E, -exponent);
            rest = multiply_add(difference, LOG2_E_REST, rest);
            rest = multiply_add(lost_by(x, m, difference), LOG2_E, rest);
            const float power = EACH ? exp2_approx(exponent) : exp2_accurate(exponent);
            // (Of infinities the rest is no number; beyond 200 the power is 0 or infinite.)
            return fabsf(difference) <= 200 ? multiply_add(power, rest * LN_2, power) : power;
        }
    }
};

template <bool EACH>
struct Exponential<double, EACH> {
    static __device__ __forceinline__ double of_difference(double x, double m) {
        const double difference = x - m;
        const double power = exp(difference);
        return fabs(difference) <= 800 ? multiply_add(power, lost_by(x, m, difference), power) : power;
    }
};

#endif
