// The vector layer (kernels/vec.h says what each name means) on 256-bit vectors: AVX2, FMA and F16C.
#ifndef FASTSOFTMAX_VEC_AVX2_H
#define FASTSOFTMAX_VEC_AVX2_H

#include "vec_native_masks.h"

struct F32 {
    using T = float;
    typedef int32_t Mask __attribute__((vector_size(32)));
    typedef uint32_t Bits __attribute__((vector_size(32)));
    static constexpr int W = 8, kSteps = 8;
    static constexpr bool kFused = true, kMasked = false;
    __m256 v;

    F32() = default;
    F32(__m256 value) : v(value) {}
    explicit F32(float value) : v(_mm256_set1_ps(value)) {}

    static int signs(Mask m) { return _mm256_movemask_ps((__m256)m); }

    static __m256i first(int64_t count) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    static F32 convert(__m128i bits, Half) { return _mm256_cvtph_ps(bits); }
    static F32 convert(__m128i bits, BFloat16) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
    __m128i converted(Half) const { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
    __m128i converted(BFloat16) const {
        const __m256i bits = _mm256_castps_si256(v);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i even = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
        const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
        const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        const __m256i rounded = _mm256_srli_epi32(_mm256_blendv_epi8(even, quiet, nan), 16);
        return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
    }

    static F32 load(const float *p) { return _mm256_loadu_ps(p); }
    static F32 load(const float *p, int64_t count, float fill) {
        const __m256i lanes = first(count);
        return _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, lanes), _mm256_castsi256_ps(lanes));
    }
    template <class E>
    static F32 load(const E *p) {
        return convert(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)), E());
    }
    template <class E>
    static F32 load(const E *p, int64_t count, float fill) {
        E buffer[W] = {};
        copy_elements(buffer, p, count);
        return _mm256_blendv_ps(_mm256_set1_ps(fill), load(buffer).v, _mm256_castsi256_ps(first(count)));
    }
    void store(float *p) const { _mm256_storeu_ps(p, v); }
    void stream(float *p) const { _mm256_stream_ps(p, v); }
    void store(float *p, int64_t count) const { _mm256_maskstore_ps(p, first(count), v); }
    template <class E>
    void store(E *p) const {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(p), converted(E()));
    }
    template <class E>
    void stream(E *p) const {
        _mm_stream_si128(reinterpret_cast<__m128i *>(p), converted(E()));
    }
    template <class E>
    void store(E *p, int64_t count) const {
        E buffer[W];
        store(buffer);
        copy_elements(p, buffer, count);
    }
};

struct F64 {
    using T = double;
    typedef int64_t Mask __attribute__((vector_size(32)));
    typedef uint64_t Bits __attribute__((vector_size(32)));
    static constexpr int W = 4, kSteps = 1;
    static constexpr bool kFused = true, kMasked = false;
    __m256d v;

    F64() = default;
    F64(__m256d value) : v(value) {}
    explicit F64(double value) : v(_mm256_set1_pd(value)) {}

    static int signs(Mask m) { return _mm256_movemask_pd((__m256d)m); }

    static __m256i first(int64_t count) {
        return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
    }
    static F64 load(const double *p) { return _mm256_loadu_pd(p); }
    static F64 load(const double *p, int64_t count, double fill) {
        const __m256i lanes = first(count);
        return _mm256_blendv_pd(_mm256_set1_pd(fill), _mm256_maskload_pd(p, lanes), _mm256_castsi256_pd(lanes));
    }
    void store(double *p) const { _mm256_storeu_pd(p, v); }
    void stream(double *p) const { _mm256_stream_pd(p, v); }
    void store(double *p, int64_t count) const { _mm256_maskstore_pd(p, first(count), v); }
};

inline void fence() { _mm_sfence(); }

inline F32 fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
inline F64 fma(F64 a, F64 b, F64 c) { return _mm256_fmadd_pd(a.v, b.v, c.v); }
inline F32 max(F32 a, F32 b) { return _mm256_max_ps(a.v, b.v); }
inline F64 max(F64 a, F64 b) { return _mm256_max_pd(a.v, b.v); }
inline F32 min(F32 a, F32 b) { return _mm256_min_ps(a.v, b.v); }
inline F64 min(F64 a, F64 b) { return _mm256_min_pd(a.v, b.v); }

inline F32 lookup(const void *table, F32 t) {
    return _mm256_permutevar8x32_ps(_mm256_load_ps(static_cast<const float *>(table)), _mm256_castps_si256(t.v));
}

inline F32 interleave_low(F32 a, F32 b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v), 0x20);
}
inline F32 interleave_high(F32 a, F32 b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v), 0x31);
}
inline F64 interleave_low(F64 a, F64 b) {
    return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a.v, b.v), _mm256_unpackhi_pd(a.v, b.v), 0x20);
}
inline F64 interleave_high(F64 a, F64 b) {
    return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a.v, b.v), _mm256_unpackhi_pd(a.v, b.v), 0x31);
}

inline double reduce_max(F64 a) {
    const __m128d two = _mm_max_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
    return _mm_cvtsd_f64(_mm_max_sd(two, _mm_unpackhi_pd(two, two)));
}
inline float reduce_max(F32 a) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline double reduce_add(F64 a) {
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(a.v), _mm256_extractf128_pd(a.v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

inline F64 low(F32 a) { return _mm256_cvtps_pd(_mm256_castps256_ps128(a.v)); }
inline F64 high(F32 a) { return _mm256_cvtps_pd(_mm256_extractf128_ps(a.v, 1)); }
inline F32 narrow(F64 a, F64 b) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(a.v)), _mm256_cvtpd_ps(b.v), 1);
}

#endif
