// The vector layer (kernels/vec.h says what each name means) on 512-bit vectors: AVX-512 F, BW, DQ and VL.
#ifndef FASTSOFTMAX_VEC_AVX512_H
#define FASTSOFTMAX_VEC_AVX512_H

struct F32 {
    using T = float;
    using Mask = __mmask16;
    typedef uint32_t Bits __attribute__((vector_size(64)));
    static constexpr int W = 16, kSteps = 16;
    static constexpr bool kFused = true, kMasked = true;
    __m512 v;

    F32() = default;
    F32(__m512 value) : v(value) {}
    explicit F32(float value) : v(_mm512_set1_ps(value)) {}

    static Mask first(int64_t count) { return Mask((1u << count) - 1); }
    static F32 convert(__m256i bits, Half) { return _mm512_cvtph_ps(bits); }
    // Words move between the upper halves of the lanes and the lower half of the vector: one permutation either way.
    static F32 convert(__m256i bits, BFloat16) {
        const __m512i words = _mm512_setr_epi32(0 << 16, 1 << 16, 2 << 16, 3 << 16, 4 << 16, 5 << 16, 6 << 16, 7 << 16,
                                                8 << 16, 9 << 16, 10 << 16, 11 << 16, 12 << 16, 13 << 16, 14 << 16, 15 << 16);
        const __m512i source = _mm512_castsi256_si512(bits);
        return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, words, source));
    }
    __m256i converted(Half) const { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
    __m256i converted(BFloat16) const {
        const __m512i words = _mm512_setr_epi32(1 | 3 << 16, 5 | 7 << 16, 9 | 11 << 16, 13 | 15 << 16, 17 | 19 << 16,
                                                21 | 23 << 16, 25 | 27 << 16, 29 | 31 << 16, 0, 0, 0, 0, 0, 0, 0, 0);
        const __m512i bits = _mm512_castps_si512(v);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        // To even; a NaN, which arithmetic leaves quiet, is cut off: its payload must not overflow into the sign.
        const Mask number = _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q);
        const __m512i even = _mm512_mask_add_epi32(bits, number, bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        return _mm512_castsi512_si256(_mm512_permutexvar_epi16(words, even));
    }

    static F32 load(const float *p) { return _mm512_loadu_ps(p); }
    static F32 load(const float *p, int64_t count, float fill) {
        return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(count), p);
    }
    template <class E>
    static F32 load(const E *p) {
        return convert(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)), E());
    }
    template <class E>
    static F32 load(const E *p, int64_t count, float fill) {
        const Mask lanes = first(count);
        return _mm512_mask_mov_ps(_mm512_set1_ps(fill), lanes, convert(_mm256_maskz_loadu_epi16(lanes, p), E()).v);
    }
    void store(float *p) const { _mm512_storeu_ps(p, v); }
    void stream(float *p) const { _mm512_stream_ps(p, v); }
    void store(float *p, int64_t count) const { _mm512_mask_storeu_ps(p, first(count), v); }
    template <class E>
    void store(E *p) const {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), converted(E()));
    }
    template <class E>
    void stream(E *p) const {
        _mm256_stream_si256(reinterpret_cast<__m256i *>(p), converted(E()));
    }
    template <class E>
    void store(E *p, int64_t count) const {
        _mm256_mask_storeu_epi16(p, first(count), converted(E()));
    }
};

struct F64 {
    using T = double;
    using Mask = __mmask8;
    typedef uint64_t Bits __attribute__((vector_size(64)));
    static constexpr int W = 8, kSteps = 8;
    static constexpr bool kFused = true, kMasked = true;
    __m512d v;

    F64() = default;
    F64(__m512d value) : v(value) {}
    explicit F64(double value) : v(_mm512_set1_pd(value)) {}

    static Mask first(int64_t count) { return Mask((1u << count) - 1); }
    static F64 load(const double *p) { return _mm512_loadu_pd(p); }
    static F64 load(const double *p, int64_t count, double fill) {
        return _mm512_mask_loadu_pd(_mm512_set1_pd(fill), first(count), p);
    }
    void store(double *p) const { _mm512_storeu_pd(p, v); }
    void stream(double *p) const { _mm512_stream_pd(p, v); }
    void store(double *p, int64_t count) const { _mm512_mask_storeu_pd(p, first(count), v); }
};

inline void fence() { _mm_sfence(); }

inline F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
inline F64 fma(F64 a, F64 b, F64 c) { return _mm512_fmadd_pd(a.v, b.v, c.v); }
inline F32 max(F32 a, F32 b) { return _mm512_max_ps(a.v, b.v); }
inline F64 max(F64 a, F64 b) { return _mm512_max_pd(a.v, b.v); }
inline F32 min(F32 a, F32 b) { return _mm512_min_ps(a.v, b.v); }
inline F64 min(F64 a, F64 b) { return _mm512_min_pd(a.v, b.v); }

inline F32::Mask less(F32 a, F32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
inline F64::Mask less(F64 a, F64 b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ); }
inline F32::Mask equal(F32 a, F32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
inline F64::Mask equal(F64 a, F64 b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ); }
inline F32 select(F32::Mask m, F32 a, F32 b) { return _mm512_mask_mov_ps(b.v, m, a.v); }
inline F64 select(F64::Mask m, F64 a, F64 b) { return _mm512_mask_mov_pd(b.v, m, a.v); }
inline F32 keep_unless(F32::Mask m, F32 a) { return _mm512_maskz_mov_ps(F32::Mask(~m), a.v); }
inline F64 keep_unless(F64::Mask m, F64 a) { return _mm512_maskz_mov_pd(F64::Mask(~m), a.v); }
// One masked operation.
inline F32 fma_unless_less(F32 a, F32 b, F32 c, F32 x, F32 limit) {
    return _mm512_maskz_fmadd_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_NLT_UQ), a.v, b.v, c.v);
}
inline F64 fma_unless_less(F64 a, F64 b, F64 c, F64 x, F64 limit) {
    return _mm512_maskz_fmadd_pd(_mm512_cmp_pd_mask(x.v, limit.v, _CMP_NLT_UQ), a.v, b.v, c.v);
}
inline F32 lookup(const void *table, F32 t) {
    return _mm512_permutexvar_ps(_mm512_castps_si512(t.v), _mm512_load_ps(table));
}
inline F64 lookup(const void *table, F64 t) {
    return _mm512_permutexvar_pd(_mm512_castpd_si512(t.v), _mm512_load_pd(table));
}
template <class Mask>
Mask with(Mask a, Mask b) {
    return Mask(a | b);
}
template <class Mask>
Mask without(Mask a, Mask seen) {
    return Mask(a & ~seen);
}
template <class V>
int lanes_set(typename V::Mask m) {
    return __builtin_popcount(m);
}
template <class V>
typename V::Mask no_lanes() {
    return 0;
}

inline F32 interleave_low(F32 a, F32 b) {
    const __m512i order = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a.v, order, b.v);
}
inline F32 interleave_high(F32 a, F32 b) {
    const __m512i order = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a.v, order, b.v);
}
inline F64 interleave_low(F64 a, F64 b) {
    return _mm512_permutex2var_pd(a.v, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b.v);
}
inline F64 interleave_high(F64 a, F64 b) {
    return _mm512_permutex2var_pd(a.v, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b.v);
}

inline float reduce_max(F32 a) { return _mm512_reduce_max_ps(a.v); }
inline double reduce_max(F64 a) { return _mm512_reduce_max_pd(a.v); }
inline double reduce_add(F64 a) { return _mm512_reduce_add_pd(a.v); }

inline F64 low(F32 a) { return _mm512_cvtps_pd(_mm512_castps512_ps256(a.v)); }
inline F64 high(F32 a) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1)); }
inline F32 narrow(F64 a, F64 b) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(a.v)), _mm512_cvtpd_ps(b.v), 1);
}

#endif
