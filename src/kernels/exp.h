// exp and log1p of the kernels.
//
// exp: with k = round(x / log 2) and r = x - k log 2 in two steps (Cody and Waite), exp(x) = 2^k p(r), p a minimax
// polynomial. A softmax needs exp(x - m) for the slice's maximum m, but the rounding of x - m would be its largest
// error. So x is left alone, and m goes into the exponent: the kernels compute
//
//     y = 2^(k - k_m + kLift) p(r),    k_m = round(m / log 2),
//
// an exact multiple of exp(x) that is the same for the whole slice and cancels in every ratio. kLift keeps y a normal
// number wherever exp(x - m) / sum is not zero: gradual underflow happens once, in the final multiplication. Where |m| is
// large, k log 2 would lose digits; there x - m is exact for all x whose exponential counts (Sterbenz: x and m are
// within a factor 2), and is taken first.
//
// Maximum error of y over all arguments: 1 ulp (float: every input is tested; double: a dense sample).
// m need not be the maximum itself: anything from there down to kMargin below serves. Below kShiftFrom it even gives the
// same bits in every ratio: it changes y by a power of two alone.
// A lane more than kRange below m is zero; NaN passes; a maximum of +inf or -inf gives NaN in every lane not below it.
//
// log1p, for x >= 0: in double fdlibm's reduction and form (s_log1p.c), branch-free, maximum error 1 ulp. Of a quotient, for
// float results, in double but only as exactly as these need (half an ulp): log1p(r / t) = k log 2 + 2 artanh(s) with
// s = ((t + r) 2^-k - t) / ((t + r) 2^-k + t), which takes one division in all.
#ifndef FASTSOFTMAX_KERNELS_EXP_H
#define FASTSOFTMAX_KERNELS_EXP_H

// The tables are printed by coefficients.py.
template <class T>
struct Exp;

template <>
struct Exp<float> {
    static constexpr int kTerms = 5;
    static constexpr float kPolynomial[kTerms] = {0x1.fffffcp-2f, 0x1.55548ep-3f, 0x1.5559p-5f, 0x1.123c32p-7f,
                                                  0x1.6a205cp-10f};
    static constexpr float kLn2High = 0x1.62e8p-1f, kLn2Low = -0x1.e8082ep-16f, kLog2E = 0x1.715476p+0f;
    // Adding this rounds to an integer, which then stands in the low bits.
    static constexpr float kRound = 0x1.8p23f;
    static constexpr float kBias = 127, kLift = 32;
    static constexpr float kRange = 108;       // exp(-108) 2^32 is still normal
    static constexpr float kMargin = 48;       // 2^24 times exp(48) 2^32 still has a normal reciprocal
    static constexpr float kFaint = 0x1p-100f;  // factors below have lost digits of their lower half
    static constexpr float kShiftFrom = 256;   // k has at most 10 bits below
};

template <>
struct Exp<double> {
    static constexpr int kTerms = 10;
    static constexpr double kPolynomial[kTerms] = {
        0x1.000000000000ap-1,  0x1.5555555555558p-3,  0x1.5555555550150p-5,  0x1.111111110f738p-7,
        0x1.6c16c1869ec69p-10, 0x1.a01a01b06caccp-13, 0x1.a01991f995b8bp-16, 0x1.71ddf5a418e07p-19,
        0x1.28b5afa1ef1a7p-22, 0x1.af65292e3973dp-26};
    static constexpr double kLn2High = 0x1.62e42fefa4000p-1, kLn2Low = -0x1.8432a1b0e2634p-43,
                            kLog2E = 0x1.71547652b82fep+0;
    static constexpr double kRound = 0x1.8p52;
    static constexpr double kBias = 1023, kLift = 64;
    static constexpr double kRange = 750;
    static constexpr double kMargin = 600;
    static constexpr double kFaint = 0x1p-960;
    static constexpr double kShiftFrom = 2048;  // k has at most 13 bits below
};

// What one slice (a lane) adds to the formula: see the top. `lowest` bounds x - shift, which is exact; next to a large x
// itself the bound would be rounded, by more than the exponent has room for.
template <class V>
struct ExpScale {
    V shift, round, lowest;
};

// p(r) and t, the rounded x / log 2 whose low bits hold k + bias.
template <class V>
FS_INLINE V exp_reduced(V x, V round, V &t) {
    using C = Exp<typename V::T>;
    t = fma(x, V(C::kLog2E), round);
    const V k = t - round;
    const V high = fma(k, V(-C::kLn2High), x);  // exact
    const V r = fma(k, V(-C::kLn2Low), high);
    V q = V(C::kPolynomial[C::kTerms - 1]);
#pragma GCC unroll 16
    for (int i = C::kTerms - 2; i >= 0; --i) q = fma(q, r, V(C::kPolynomial[i]));
    if constexpr (V::kFused) {
        return fma(fma(q, r, V(1)), r, V(1));
    } else {
        // Without an FMA the roundings of r and of the last products would add up to more than an ulp.
        const V lost = (high - r) - k * V(C::kLn2Low);
        return V(1) + (r + (q * (r * r) + lost));
    }
}

// Where m goes into the exponent alone.
template <class V>
FS_INLINE typename V::Mask needs_no_shift(V maximum) {
    return less(max(maximum, V(0) - maximum), V(Exp<typename V::T>::kShiftFrom));
}

template <class V>
FS_INLINE ExpScale<V> exp_scale(V maximum) {
    using C = Exp<typename V::T>;
    const V shift = keep_unless(needs_no_shift(maximum), maximum);
    const V k = fma(maximum - shift, V(C::kLog2E), V(C::kRound)) - V(C::kRound);
    return {shift, V(C::kRound + C::kBias + C::kLift) - k, (maximum - shift) - V(C::kRange)};
}

// y of the formula at the top.
template <class V>
FS_INLINE V exp_scaled(V x, const ExpScale<V> &scale) {
    V t;
    const V shifted = x - scale.shift, p = exp_reduced(shifted, scale.round, t);
    return multiply_unless_less(p, exponent(t), shifted, scale.lowest);
}

// Every finite argument's exponential: a lift to either side, taken away again at the end.
template <class V>
V exp_full(V x) {
    using C = Exp<typename V::T>;
    const V lift = select(less(V(0), x), V(-C::kLift), V(C::kLift));
    const V bounded = select(less(V(C::kRange), x), V(C::kRange), x);
    V t;
    const V p = exp_reduced(bounded, V(C::kRound + C::kBias) + lift, t);
    const V y = multiply_unless_less(p, exponent(t), x, V(-C::kRange));
    return y * exponent(V(C::kRound + C::kBias) - lift);
}

// An integer below 2^52 in each lane, as a number; and 2^-k for k >= 0 (0 where that would be subnormal).
inline F64 number(F64::Bits integer) { return F64((decltype(F64::v))(integer | 0x4330000000000000)) - F64(0x1p52); }
inline F64 halved(F64 k) { return exponent(F64(0x1.8p52) + max(F64(1023) - k, F64(0))); }

inline F64 log1p(F64 x) {
    constexpr double kLog[] = {0x1.5555555555592p-1, 0x1.999999997fdb7p-2, 0x1.24924941f1283p-2, 0x1.c71c52095b32fp-3,
                               0x1.74663ee8b60c1p-3, 0x1.39a1bab220874p-3, 0x1.2f0563a9c148fp-3};
    constexpr uint64_t kOne = 0x3ff0000000000000, kSqrtHalf = 0x3fe6a09e00000000, kDigits = 0x000fffffffffffff;
    using Bits = F64::Bits;
    // 1 + x = u + lost = 2^k (1 + f), 1 + f between sqrt(1/2) and sqrt(2).
    const Pair<F64> u = two_sum(F64(1), x);
    const Bits bits = (Bits)u.hi.v + (kOne - kSqrtHalf);
    const F64 k = number(bits >> 52) - F64(1023);
    const F64 reduced = F64((decltype(F64::v))((bits & kDigits) + kSqrtHalf)) - F64(1);
    // (Nothing is lost where 2^-k would be subnormal.)
    const F64 lost = u.lo * halved(k);
    const F64 f = reduced + lost;
    const F64 f_lost = lost - (f - reduced);

    const F64 s = f / (F64(2) + f);
    const F64 z = s * s;
    F64 p(kLog[6]);
#pragma GCC unroll 8
    for (int i = 5; i >= 0; --i) p = fma(p, z, F64(kLog[i]));
    const F64 half_square = F64(0.5) * f * f;
    const F64 tail = fma(s, fma(p, z, half_square), fma(k, F64(Exp<double>::kLn2Low), f_lost));
    const F64 result = fma(k, F64(Exp<double>::kLn2High), f - (half_square - tail));
    // x itself where it is infinite or NaN, which the bits above do not follow.
    return select(less(x, F64(__builtin_inf())), result, x);
}

// log1p(rest / top) to the digits of a float.
inline F64 log1p_quotient(F64 rest, F64 top) {
    // 2 artanh(s) = 2 s (1 + z/3 + z^2/5 + ...), z = s^2 < 0.041: what is left out is below 2^-31 of it.
    constexpr double kArtanh[] = {2, 2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9, 2.0 / 11};
    using Bits = F64::Bits;
    const F64 sum = top + rest;
    // The difference of the bit patterns is nearly that of the logarithms, so sum 2^-k lies between top / 1.51 and top 1.51.
    const Bits bits = (((Bits)sum.v - (Bits)top.v) + (uint64_t(1) << 51)) >> 52;
    const F64 k = number(bits);
    const F64 scaled = sum * halved(k);
    const F64 s = select(less(k, F64(1)), rest, scaled - top) / (scaled + top);
    const F64 z = s * s;
    F64 p(kArtanh[5]);
#pragma GCC unroll 8
    for (int i = 4; i >= 0; --i) p = fma(p, z, F64(kArtanh[i]));
    const F64 result = fma(k, F64(Exp<double>::kLn2High), p * s);
    // rest itself where it is infinite or NaN, which the bits above do not follow.
    return select(less(rest, F64(__builtin_inf())), result, rest);
}

inline F32 log1p(F32 x) { return narrow(log1p_quotient(low(x), F64(1)), log1p_quotient(high(x), F64(1))); }

#endif
