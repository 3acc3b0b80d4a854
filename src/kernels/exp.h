// exp and log1p of the kernels.
//
// exp: with k = round(x / log 2) and r = x - k log 2 in two steps (Cody and Waite), exp(x) = 2^k p(r), p a minimax
// polynomial. Where one instruction looks up a table in a vector (V::kSteps is its length), k counts kSteps-ths, and p may
// be short: 2^k is then a power of two times an entry, whose rounding p takes back (Tang, ACM TOMS 15, 1989).
//
// A softmax needs exp(x - m) for the slice's maximum m, but the rounding of x - m would be its largest error. So x is left
// alone, and m goes into the exponent: the kernels compute
//
//     y = 2^(k - k_m + kLift) p(r),    k_m = 2 round(m / (2 log 2)),
//
// an exact multiple of exp(x) that is the same for the whole slice and cancels in every ratio. kLift keeps y a normal
// number wherever exp(x - m) / sum is not zero: gradual underflow happens once, in the final multiplication. Where |m| is
// large, k log 2 would lose digits; there x - m is exact for all x whose exponential counts (Sterbenz: x and m are
// within a factor 2), and is taken first.
//
// Maximum error of y over all arguments: 1 ulp (float: every input is tested; double: a dense sample).
// m need not be the maximum itself: anything from there down to kMargin below serves. Below kShiftFrom it even gives the
// same bits in every ratio: it changes y by a power of two alone. (k_m is even because k is rounded where k_m is added to
// it: where x / log 2, itself rounded without an FMA, lies between two integers, the even sum wins.)
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
    static constexpr float kLn2High = 0x1.62e8p-1f, kLn2Low = -0x1.e8082ep-16f, kLog2E = 0x1.715476p+0f;
    // Adding this rounds to an integer, which then stands in the low bits.
    static constexpr float kRound = 0x1.8p23f;
    static constexpr float kBias = 127, kLift = 32;
    static constexpr float kRange = 108;        // exp(-108) 2^31 is still normal
    static constexpr float kMargin = 47;        // 2^24 times exp(47) 2^33 still has a normal reciprocal
    static constexpr float kFaint = 0x1p-100f;  // factors below have lost digits of their lower half
    static constexpr float kShiftFrom = 256;    // k / kSteps has at most 10 bits below
};

template <>
struct Exp<double> {
    static constexpr double kLn2High = 0x1.62e42fefa4000p-1, kLn2Low = -0x1.8432a1b0e2634p-43,
                            kLog2E = 0x1.71547652b82fep+0;
    static constexpr double kRound = 0x1.8p52;
    static constexpr double kBias = 1023, kLift = 64;
    static constexpr double kRange = 750;
    static constexpr double kMargin = 600;
    static constexpr double kFaint = 0x1p-960;
    static constexpr double kShiftFrom = 2048;  // k / kSteps has at most 13 bits below
};

// The tables of a vector type's V::kSteps: 2^(j / kSteps) as bits, to which exponent() adds those of j / kSteps, and what its
// rounding lost; and p(r) = 1 + r + r^2 (kPolynomial[0] + ...) for |r| <= log 2 / (2 kSteps).
template <class T, int kSteps>
struct ExpSteps;

template <>
struct ExpSteps<float, 16> {
    static constexpr int kTerms = 2;
    static constexpr float kPolynomial[kTerms] = {0x1.000296p-1f, 0x1.555766p-3f};
    alignas(64) static constexpr int32_t kPowers[16] = {0, -152893, -289342, -408621, -509968, -592590, -655657,
        -698305, -719629, -718684, -694486, -646004, -572163, -471841, -343865, -187011};
    alignas(64) static constexpr float kLost[16] = {0, 0x1.8d96d4p-25f, -0x1.9c0c22p-27f, 0x1.964904p-25f,
        0x1.125002p-25f, 0x1.370be4p-25f, -0x1.0a355p-25f, -0x1.00d8acp-27f, 0x1.26055cp-26f, -0x1.05cb44p-25f,
        0x1.67a1cap-28f, 0x1.a3b5e4p-28f, -0x1.f9c304p-27f, -0x1.6961b4p-28f, -0x1.a5217cp-28f, 0x1.61428ep-28f};
};

template <>
struct ExpSteps<float, 8> {
    static constexpr int kTerms = 3;
    static constexpr float kPolynomial[kTerms] = {0x1p-1f, 0x1.555c84p-3f, 0x1.554828p-5f};
    alignas(64) static constexpr int32_t kPowers[8] = {0, -289342, -509968, -655657, -719629, -694486, -572163,
        -343865};
    alignas(64) static constexpr float kLost[8] = {0, -0x1.9c0c22p-27f, 0x1.125002p-25f, -0x1.0a355p-25f,
        0x1.26055cp-26f, 0x1.67a1cap-28f, -0x1.f9c304p-27f, -0x1.a5217cp-28f};
};

template <>
struct ExpSteps<float, 1> {
    static constexpr int kTerms = 5;
    static constexpr float kPolynomial[kTerms] = {0x1.fffffcp-2f, 0x1.55548ep-3f, 0x1.5559p-5f, 0x1.123c32p-7f,
        0x1.6a205cp-10f};
};

template <>
struct ExpSteps<double, 8> {
    static constexpr int kTerms = 6;
    static constexpr double kPolynomial[kTerms] = {0x1.0000000000111p-1, 0x1.5555555555118p-3, 0x1.55555547d98e4p-5,
        0x1.111111262cd84p-7, 0x1.6c1cc972d2580p-10, 0x1.a01631ea89969p-13};
    alignas(64) static constexpr int64_t kPowers[8] = {0, -155339362315909, -273786814220523, -352003352548825,
        -386347768529971, -372849295843109, -307177783110739, -184611166772089};
    alignas(64) static constexpr double kLost[8] = {0, -0x1.01b15eaa59348p-55, 0x1.34d754db0abb6p-55,
        0x1.690cebb7aafb0p-56, -0x1.3b3efbf5e2228p-54, 0x1.db72fc1f0eab4p-55, 0x1.c1a7792cb3387p-55,
        0x1.4a385a63d07a7p-56};
};

template <>
struct ExpSteps<double, 1> {
    static constexpr int kTerms = 10;
    static constexpr double kPolynomial[kTerms] = {0x1.000000000000ap-1, 0x1.5555555555558p-3, 0x1.5555555550150p-5,
        0x1.111111110f738p-7, 0x1.6c16c1869ec69p-10, 0x1.a01a01b06caccp-13, 0x1.a01991f995b8bp-16,
        0x1.71ddf5a418e07p-19, 0x1.28b5afa1ef1a7p-22, 0x1.af65292e3973dp-26};
};

// What one slice (a lane) adds to the formula: see the top. `lowest` bounds x - shift, which is exact; next to a large x
// itself the bound would be rounded, by more than the exponent has room for.
template <class V>
struct ExpScale {
    V shift, round, lowest;
};

// What rounds x log2(e) and adds an exponent to it, in its low bits.
template <class V>
FS_INLINE V rounding(V exponent) {
    return V(Exp<typename V::T>::kRound) + V(V::kSteps) * exponent;
}

// 2^(k / kSteps) (1 + z), 1 + z = p(r), or zero where x < lowest; `round` has in its low bits what is added to k.
template <class V>
FS_INLINE V exp_lifted(V x, V round, V lowest) {
    using C = Exp<typename V::T>;
    using Steps = ExpSteps<typename V::T, V::kSteps>;
    const V t = fma(x, V(C::kLog2E * V::kSteps), round);
    const V k = t - round;
    const V high = fma(k, V(-C::kLn2High / V::kSteps), x);  // exact
    const V r = fma(k, V(-C::kLn2Low / V::kSteps), high);
    V q = V(Steps::kPolynomial[Steps::kTerms - 1]);
#pragma GCC unroll 16
    for (int i = Steps::kTerms - 2; i >= 0; --i) q = fma(q, r, V(Steps::kPolynomial[i]));
    V power = exponent<V::kSteps>(t);
    if constexpr (V::kSteps > 1) {
        power = add_bits(lookup(Steps::kPowers, t), power);
        const V z = fma(fma(q, r, V(1)), r, lookup(Steps::kLost, t));
        return fma_unless_less(power, z, power, x, lowest);
    } else if constexpr (V::kFused) {
        return fma_unless_less(fma(q, r, V(1)), power * r, power, x, lowest);
    } else {
        // Without an FMA the roundings of r and of the last products would add up to more than an ulp.
        const V lost = (high - r) - k * V(C::kLn2Low);
        return fma_unless_less(power, r + (q * (r * r) + lost), power, x, lowest);
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
    const V half = fma(maximum - shift, V(C::kLog2E / 2), V(C::kRound)) - V(C::kRound);
    return {shift, rounding(V(C::kBias + C::kLift) - (half + half)), (maximum - shift) - V(C::kRange)};
}

// y of the formula at the top.
template <class V>
FS_INLINE V exp_scaled(V x, const ExpScale<V> &scale) {
    return exp_lifted(x - scale.shift, scale.round, scale.lowest);
}

// Every finite argument's exponential: a lift to either side, taken away again at the end.
template <class V>
V exp_full(V x) {
    using C = Exp<typename V::T>;
    const V lift = select(less(V(0), x), V(-C::kLift), V(C::kLift));
    const V bounded = select(less(V(C::kRange), x), V(C::kRange), x);
    const V y = exp_lifted(bounded, rounding(V(C::kBias) + lift), V(-C::kRange));
    return y * exponent<1>(V(C::kRound + C::kBias) - lift);
}

// The same of logarithms of probabilities, three quarters of the time where none is far above 0 (as none should be).
template <class V>
__attribute__((noinline)) V exp_beyond(V x) {
    return exp_full(x);
}
template <class V>
FS_INLINE V exp_of_logs(V x) {
    using C = Exp<typename V::T>;
    if (__builtin_expect(lanes_set<V>(less(V(C::kLift), x)) > 0, 0)) return exp_beyond(x);
    const V y = exp_lifted(x, rounding(V(C::kBias + C::kLift)), V(-C::kRange));
    return y * exponent<1>(V(C::kRound + C::kBias - C::kLift));
}

// An integer below 2^52 in each lane, as a number; and 2^-k for k >= 0 (0 where that would be subnormal).
inline F64 number(F64::Bits integer) { return F64((decltype(F64::v))(integer | 0x4330000000000000)) - F64(0x1p52); }
inline F64 halved(F64 k) { return exponent<1>(F64(0x1.8p52) + max(F64(1023) - k, F64(0))); }

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
