// The vector layer (kernels/vec.h says what each name means) on the compilers' portable 128-bit vectors: what every
// x86-64 has (SSE2), and NEON on arm64.
#ifndef FASTSOFTMAX_VEC_BASELINE_H
#define FASTSOFTMAX_VEC_BASELINE_H

#include "vec_native_masks.h"

typedef float Float4 __attribute__((vector_size(16)));
typedef double Double2 __attribute__((vector_size(16)));

inline float from_bits(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}
inline uint32_t to_bits(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float to_float(float x) { return x; }
inline float to_float(BFloat16 x) { return from_bits(uint32_t(x.bits) << 16); }
inline float to_float(Half x) {
    const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
    if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);  // infinity and NaN
    // A float of the same digits, 112 binades too low: the multiplication rights normal and subnormal alike.
    const float magnitude = from_bits(rest << 13) * 0x1p112f;
    return from_bits(sign | to_bits(magnitude));
}

inline void from_float(float x, float &out) { out = x; }
inline void from_float(float x, BFloat16 &out) {
    const uint32_t bits = to_bits(x);
    out.bits = uint16_t((x != x ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline void from_float(float x, Half &out) {
    const uint32_t bits = to_bits(x), magnitude = bits & 0x7fffffff;
    uint32_t half;
    if (magnitude > 0x7f800000) {
        half = 0x7e00 | (magnitude >> 13 & 0x3ff);  // NaN, made quiet
    } else if (magnitude >= 0x477ff000) {
        half = 0x7c00;  // rounds to 65536 or more: infinity
    } else if (magnitude < 0x38800000) {
        // Below the normal range: adding 0.5, whose last place is the spacing of the subnormals, rounds.
        half = to_bits(from_bits(magnitude) + 0.5f) - to_bits(0.5f);
    } else {
        half = (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13;
    }
    out.bits = uint16_t(bits >> 16 & 0x8000) | uint16_t(half);
}

#if defined(__x86_64__)
inline void stream_vector(Float4 v, float *p) { _mm_stream_ps(p, (__m128)v); }
inline void stream_vector(Double2 v, double *p) { _mm_stream_pd(p, (__m128d)v); }
inline void fence() { _mm_sfence(); }
#else
template <class Vector, class T>
void stream_vector(Vector v, T *p) {
    __builtin_memcpy(p, &v, sizeof v);
}
inline void fence() {}
#endif

// A bit for each lane that is set.
template <class Mask>
int signs_of(Mask m) {
#if defined(__x86_64__)
    if constexpr (sizeof m[0] == 4) return _mm_movemask_ps((__m128)m);
    else return _mm_movemask_pd((__m128d)m);
#else
    int signs = 0;
    for (size_t i = 0; i < sizeof m / sizeof m[0]; ++i) signs |= (m[i] < 0) << i;
    return signs;
#endif
}

struct F32 {
    using T = float;
    typedef int32_t Mask __attribute__((vector_size(16)));
    typedef uint32_t Bits __attribute__((vector_size(16)));
    static constexpr int W = 4, kSteps = 1;
    static constexpr bool kFused = false, kMasked = false;
    Float4 v;

    F32() = default;
    F32(Float4 value) : v(value) {}
    explicit F32(float x) : v{x, x, x, x} {}

    static int signs(Mask m) { return signs_of(m); }

    static F32 load(const float *p) {
        F32 a;
        __builtin_memcpy(&a.v, p, sizeof a.v);
        return a;
    }
    template <class E>
    static F32 load(const E *p) {
        return Float4{to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
    }
    template <class E>
    static F32 load(const E *p, int64_t count, float fill) {
        F32 a(fill);
        for (int64_t i = 0; i < count; ++i) a.v[i] = to_float(p[i]);
        return a;
    }
    void store(float *p) const { __builtin_memcpy(p, &v, sizeof v); }
    void stream(float *p) const { stream_vector(v, p); }
    template <class E>
    void stream(E *p) const {
        store(p, W);
    }
    template <class E>
    void store(E *p) const {
        store(p, W);
    }
    template <class E>
    void store(E *p, int64_t count) const {
        for (int64_t i = 0; i < count; ++i) from_float(v[i], p[i]);
    }
};

struct F64 {
    using T = double;
    typedef int64_t Mask __attribute__((vector_size(16)));
    typedef uint64_t Bits __attribute__((vector_size(16)));
    static constexpr int W = 2, kSteps = 1;
    static constexpr bool kFused = false, kMasked = false;
    Double2 v;

    F64() = default;
    F64(Double2 value) : v(value) {}
    explicit F64(double x) : v{x, x} {}

    static int signs(Mask m) { return signs_of(m); }

    static F64 load(const double *p) {
        F64 a;
        __builtin_memcpy(&a.v, p, sizeof a.v);
        return a;
    }
    static F64 load(const double *p, int64_t count, double fill) {
        F64 a(fill);
        copy_elements(reinterpret_cast<double *>(&a.v), p, count);
        return a;
    }
    void store(double *p) const { __builtin_memcpy(p, &v, sizeof v); }
    void stream(double *p) const { stream_vector(v, p); }
    void store(double *p, int64_t count) const { copy_elements(p, reinterpret_cast<const double *>(&v), count); }
};

template <class V>
V fma(V a, V b, V c) {
    return {a.v * b.v + c.v};
}
template <class V>
V max(V a, V b) {
    return {a.v > b.v ? a.v : b.v};
}

template <class V>
V min(V a, V b) {
    return {a.v < b.v ? a.v : b.v};
}

inline F32 interleave_low(F32 a, F32 b) { return Float4{a.v[0], b.v[0], a.v[1], b.v[1]}; }
inline F32 interleave_high(F32 a, F32 b) { return Float4{a.v[2], b.v[2], a.v[3], b.v[3]}; }
inline F64 interleave_low(F64 a, F64 b) { return Double2{a.v[0], b.v[0]}; }
inline F64 interleave_high(F64 a, F64 b) { return Double2{a.v[1], b.v[1]}; }

inline double reduce_max(F64 a) { return a.v[0] > a.v[1] ? a.v[0] : a.v[1]; }
inline float reduce_max(F32 a) {
    const float x = a.v[0] > a.v[1] ? a.v[0] : a.v[1], y = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
    return x > y ? x : y;
}
inline double reduce_add(F64 a) { return a.v[0] + a.v[1]; }

#if defined(__x86_64__)
// Written element by element, GCC 12 at -O2 takes high(narrow(a, b)) for b in two of the lanes: the rounding is lost.
inline F64 low(F32 a) { return (Double2)_mm_cvtps_pd((__m128)a.v); }
inline F64 high(F32 a) { return (Double2)_mm_cvtps_pd(_mm_movehl_ps((__m128)a.v, (__m128)a.v)); }
inline F32 narrow(F64 a, F64 b) {
    return (Float4)_mm_movelh_ps(_mm_cvtpd_ps((__m128d)a.v), _mm_cvtpd_ps((__m128d)b.v));
}
#else
inline F64 low(F32 a) { return Double2{double(a.v[0]), double(a.v[1])}; }
inline F64 high(F32 a) { return Double2{double(a.v[2]), double(a.v[3])}; }
inline F32 narrow(F64 a, F64 b) { return Float4{float(a.v[0]), float(a.v[1]), float(b.v[0]), float(b.v[1])}; }
#endif

#endif
