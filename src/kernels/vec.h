// The vector layer's common part. An ISA's vec_<isa>.h defines F32 and F64, structs of one native vector:
//
//   T, W, v, Mask           the element type, the number of lanes, the vector, what a comparison gives
//   V(T), V::load(p), .store(p)      broadcast; whole vectors from and to any element type, converted on the way
//   V::load(p, count, fill), .store(p, count)    the first `count` lanes; memory behind them is not touched;
//                           kMasked: at hardly more than whole vectors cost
//   fma(a, b, c)            a * b + c, rounded once where kFused, else twice
//   max(a, b), min(a, b)    b where either is NaN
//   less(a, b), equal(a, b), select(m, a, b)     comparisons, false on NaN; a where m is set, else b
//   keep_unless(m, v)       v with zeros in the lanes of m
//   fma_unless_less(a, b, c, x, limit)    fma(a, b, c), or zero where x < limit
//   with(m, n), without(m, n), no_lanes<V>(), lanes_set<V>(m)    m and n, m less n, none, how many: sets of lanes
//   .stream(p), fence()     a store past the caches, p aligned to the vector; after the last of them
//   kSteps, lookup(table, t)    the length of a table (1: there is no lookup), aligned to 64 bytes; its entry of the low
//                           bits of t
//   interleave_low(a, b), interleave_high(a, b)    a0 b0 a1 b1 ... from the lower, the upper halves
//   reduce_max, reduce_add  over the lanes, in an order of their own
//   low(F32), high(F32), narrow(F64, F64)    between the halves of an F32 and F64
//
// What needs no intrinsics is written once here on the compilers' vector extension. Only names with internal linkage
// may appear in an ISA's file (it opens an anonymous namespace around these headers): a template of the standard
// library compiled there would be merged by the linker with the copy of another ISA.
#ifndef FASTSOFTMAX_KERNELS_VEC_H
#define FASTSOFTMAX_KERNELS_VEC_H

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// The first `count` of up to W lanes, which may be all; the others are zero, or stay as they are.
template <class V, class E>
FS_INLINE V load_some(const E *p, int64_t count) {
    return count == V::W ? V::load(p) : V::load(p, count, 0);
}
template <class V, class E>
FS_INLINE void store_some(V v, E *p, int64_t count) {
    if (count == V::W) {
        v.store(p);
    } else {
        v.store(p, count);
    }
}

template <class V, class = typename V::Mask>
V operator+(V a, V b) {
    return {a.v + b.v};
}
template <class V, class = typename V::Mask>
V operator-(V a, V b) {
    return {a.v - b.v};
}
template <class V, class = typename V::Mask>
V operator*(V a, V b) {
    return {a.v * b.v};
}
template <class V, class = typename V::Mask>
V operator/(V a, V b) {
    return {a.v / b.v};
}

// 2^(j / kSteps - bias) from the low bits j of t = 1.5 * 2^23 + j (2^52 for double), if kSteps divides j; else the bits of
// its whole part, with the rest of j / kSteps in the mantissa's place.
template <int kSteps, class V>
FS_INLINE V exponent(V t) {
    constexpr int mantissa = sizeof(typename V::T) == sizeof(float) ? 23 : 52;
    return {(decltype(V::v))((typename V::Bits)t.v << (mantissa - __builtin_ctz(kSteps)))};
}
template <class V>
FS_INLINE V add_bits(V a, V b) {
    return {(decltype(V::v))((typename V::Bits)a.v + (typename V::Bits)b.v)};
}

// An unevaluated sum of two numbers, hi being its rounding.
template <class V>
struct Pair {
    V hi, lo;
};

// a + b exactly (Knuth).
template <class V>
Pair<V> two_sum(V a, V b) {
    const V sum = a + b;
    const V b_seen = sum - a;
    return {sum, (a - (sum - b_seen)) + (b - b_seen)};
}

// a + b exactly, for |a| >= |b| or a = 0 (Dekker).
template <class V>
Pair<V> fast_two_sum(V a, V b) {
    const V sum = a + b;
    return {sum, b - (sum - a)};
}

// (hi, lo) += (x, x_lo), in scalars.
inline void add_to(double &hi, double &lo, double x, double x_lo) {
    const double sum = hi + x, x_seen = sum - hi;
    lo += ((hi - (sum - x_seen)) + (x - x_seen)) + x_lo;
    hi = sum;
}

// The sum of the lanes, as a pair.
inline Pair<double> reduce(Pair<F64> s) {
    double hi[F64::W], lo[F64::W];
    s.hi.store(hi);
    s.lo.store(lo);
    for (int step = F64::W / 2; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) add_to(hi[i], lo[i], hi[i + step], lo[i + step]);
    return {hi[0], lo[0]};
}

// a * b - p exactly, where p is the rounding of a * b.
template <class V>
V product_error(V a, V b, V p) {
    if constexpr (V::kFused) {
        return fma(a, b, V(0) - p);
    } else {  // Dekker: the halves of a double have 26 bits
        const V split = V(typename V::T(134217729));
        const V a_big = split * a, b_big = split * b;
        const V a_high = a_big - (a_big - a), b_high = b_big - (b_big - b);
        const V a_low = a - a_high, b_low = b - b_high;
        return a_low * b_low - (((p - a_high * b_high) - a_low * b_high) - a_high * b_low);
    }
}

// lo, or 0 where hi is infinite: there it is no number, such as the NaN of infinity less infinity.
template <class V>
V rest_of(V hi, V lo) {
    return select(equal(hi - hi, V(0)), lo, V(0));
}

// Numbers of more digits than V has: the halves of a float vector in double, or (double) an unevaluated sum.
template <class V>
struct Wide;

template <>
struct Wide<F32> {
    F64 a, b;

    static Wide of(Pair<double> x) { return {F64(x.hi + x.lo), F64(x.hi + x.lo)}; }
    F32 rounded() const { return narrow(a, b); }
    Pair<F32> pair() const {
        const F32 hi = rounded();
        return {hi, rest_of(hi, narrow(a - low(hi), b - high(hi)))};
    }
};

template <>
struct Wide<F64> {
    F64 hi, lo;

    static Wide of(Pair<double> x) { return {F64(x.hi), F64(x.lo)}; }
    F64 rounded() const { return hi; }
    Pair<F64> pair() const { return {hi, lo}; }
};

// a in the lanes where `chosen` is not 0, else b.
inline Wide<F32> choose(F32 chosen, const Wide<F32> &a, const Wide<F32> &b) {
    return {select(equal(low(chosen), F64(0)), b.a, a.a), select(equal(high(chosen), F64(0)), b.b, a.b)};
}
inline Wide<F64> choose(F64 chosen, const Wide<F64> &a, const Wide<F64> &b) {
    const F64::Mask not_chosen = equal(chosen, F64(0));
    return {select(not_chosen, b.hi, a.hi), select(not_chosen, b.lo, a.lo)};
}

inline Wide<F32> wide_of(F32 x) { return {low(x), high(x)}; }
inline Wide<F64> wide_of(F64 x) { return {x, F64(0)}; }
inline Wide<F32> operator+(const Wide<F32> &a, const Wide<F32> &b) { return {a.a + b.a, a.b + b.b}; }
inline Wide<F64> operator+(const Wide<F64> &a, const Wide<F64> &b) {
    const Pair<F64> hi = two_sum(a.hi, b.hi), sum = fast_two_sum(hi.hi, hi.lo + (a.lo + b.lo));
    return {sum.hi, sum.lo};
}

// A running sum in each lane. In float it is kept in double. In double the additions lose nothing either: what each rounds
// off gathers in lo.
template <class V>
struct SignedSum;

template <>
struct SignedSum<F32> {
    F64 a, b;

    static SignedSum zero() { return {F64(0), F64(0)}; }

    FS_INLINE void add(F32 x) {
        a = a + low(x);
        b = b + high(x);
    }
    FS_INLINE void add_product(F32 x, F32 y) {  // exact in double, whether fused or not
        a = fma(low(x), low(y), a);
        b = fma(high(x), high(y), b);
    }
    void add(const SignedSum &other) {
        a = a + other.a;
        b = b + other.b;
    }
    void settle() {}
    Wide<F32> wide() const { return {a, b}; }
    F64 folded() const { return a + b; }
};

template <>
struct SignedSum<F64> {
    F64 hi, lo;

    static SignedSum zero() { return {F64(0), F64(0)}; }

    FS_INLINE void add(F64 x) {
        const Pair<F64> s = two_sum(hi, x);
        hi = s.hi;
        lo = lo + s.lo;
    }
    void add_product(F64 x, F64 y) {
        const F64 p = x * y;
        add(p);
        // No number where the product overflows (then hi does, too), or (without an FMA) where half of a factor's does.
        const F64 error = product_error(x, y, p);
        lo = lo + (F64::kFused ? error : rest_of(error, error));
    }
    void add(const SignedSum &other) {
        add(other.hi);
        lo = lo + other.lo;
    }
    // (What gathers in lo may be larger than a sum that all but vanishes.)
    Wide<F64> wide() const {
        const Pair<F64> s = two_sum(hi, rest_of(hi, lo));
        return {s.hi, rest_of(s.hi, s.lo)};
    }
    Wide<F64> folded() const { return {hi, lo}; }
};

// The same of numbers >= 0, which in double is cheaper (Dekker): lo is to be settled every few additions, before it grows
// roundings of its own. NaN stays, in lo if not in hi.
template <class V>
struct Sum : SignedSum<V> {
    static Sum zero() { return {SignedSum<V>::zero()}; }
    static Sum of(V x) { return {{low(x), high(x)}}; }
};

template <>
struct Sum<F64> {
    F64 hi, lo;

    static Sum zero() { return {F64(0), F64(0)}; }
    static Sum of(F64 x) { return {x, x - x}; }

    FS_INLINE void add(F64 x) {
        const Pair<F64> s = fast_two_sum(max(hi, x), min(hi, x));
        hi = s.hi;
        lo = lo + s.lo;
    }
    void settle() {
        const Wide<F64> s = wide();
        hi = s.hi;
        lo = s.lo;
    }
    Wide<F64> wide() const {
        const Pair<F64> s = fast_two_sum(hi, lo);
        return {s.hi, s.lo};
    }
    Wide<F64> folded() const { return wide(); }
};

// The lanes of a row's sum that are still to be added.
template <class V>
using Folded = decltype(Sum<V>::zero().folded());

// Reductions over the lanes of up to W rows at once, by perfect shuffles that end with row i in lane i. One row alone is
// reduced in the same order, and so to the same bits.

// combine(i, j) puts rows i and j, interleaved and reduced to half, in the place of row i.
template <int kRows, class Combine>
FS_INLINE void by_halves(const Combine &combine) {
#pragma GCC unroll 8
    for (int half = kRows / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i) combine(i, i + half);
    }
}

// (These spoil the rows.)
template <class V>
V max_of_rows(V (&rows)[V::W], int64_t count) {
    if (count == 1) return V(reduce_max(rows[0]));
    for (int64_t i = count; i < V::W; ++i) rows[i] = rows[0];
    by_halves<V::W>([&](int i, int j) FS_INLINE_LAMBDA {
        rows[i] = max(interleave_low(rows[i], rows[j]), interleave_high(rows[i], rows[j]));
    });
    return rows[0];
}

inline Pair<double> sum_of_row(F64 row) { return {reduce_add(row), 0}; }
inline Pair<double> sum_of_row(const Wide<F64> &row) {
    const Pair<double> sum = reduce(Pair<F64>{row.hi, row.lo});
    const Wide<F64> whole = SignedSum<F64>{F64(sum.hi), F64(sum.lo)}.wide();
    return {whole.hi.v[0], whole.lo.v[0]};
}

inline Wide<F32> sum_of_rows(F64 (&rows)[F32::W], int64_t count) {
    if (count == 1) return Wide<F32>::of(sum_of_row(rows[0]));
    for (int64_t i = count; i < F32::W; ++i) rows[i] = rows[0];
#pragma GCC unroll 2
    for (int part = 0; part < 2; ++part) {
        F64 *s = rows + part * F64::W;
        by_halves<F64::W>([&](int i, int j) FS_INLINE_LAMBDA {
            s[i] = interleave_low(s[i], s[j]) + interleave_high(s[i], s[j]);
        });
    }
    return {rows[0], rows[F64::W]};
}

inline Wide<F64> sum_of_rows(Wide<F64> (&s)[F64::W], int64_t count) {
    if (count == 1) return Wide<F64>::of(sum_of_row(s[0]));
    for (int64_t i = count; i < F64::W; ++i) s[i] = s[0];
    by_halves<F64::W>([&](int i, int j) FS_INLINE_LAMBDA {
        const Pair<F64> hi = two_sum(interleave_low(s[i].hi, s[j].hi), interleave_high(s[i].hi, s[j].hi));
        s[i] = {hi.hi, interleave_low(s[i].lo, s[j].lo) + (hi.lo + interleave_high(s[i].lo, s[j].lo))};
    });
    return SignedSum<F64>{s[0].hi, s[0].lo}.wide();
}

// Adds vectors to a sum, and settles it every 16: whole(j) for j = 0..count-1 in this order, then partial(count, rest) if
// rest > 0 lanes are left. By pairs, whose own rounding is half an ulp of the pair, or (kSingly) without any loss. kAtOnce
// exponentials are unrolled, for their latency: 4, or 2 where much else stands in the loop (there 4 take 1.05 times as
// long).
constexpr int64_t kBlock = 16;

template <class V, bool kSingly, int kAtOnce = 4, class Whole, class Partial>
FS_INLINE void add_terms(Sum<V> &sum, int64_t count, int64_t rest, const Whole &whole, const Partial &partial) {
    static_assert(kAtOnce == 2 || kAtOnce == 4);
    auto add_pair = [&](V a, V b) FS_INLINE_LAMBDA {
        if constexpr (kSingly) {
            sum.add(a);
            sum.add(b);
        } else {
            sum.add(a + b);
        }
    };
    int64_t j = 0;
    while (j + kBlock <= count) {
        for (const int64_t end = j + kBlock; j < end; j += kAtOnce) {
            const V a = whole(j), b = whole(j + 1);  // in this order: they may advance
            const V c = kAtOnce == 4 ? whole(j + 2) : V(0), d = kAtOnce == 4 ? whole(j + 3) : V(0);
            add_pair(a, b);
            if constexpr (kAtOnce == 4) add_pair(c, d);
        }
        sum.settle();
    }
    for (; !kSingly && j + 2 <= count; j += 2) {
        const V a = whole(j), b = whole(j + 1);
        add_pair(a, b);
    }
    for (; j < count; ++j) sum.add(whole(j));
    if (rest > 0) sum.add(partial(j, rest));
    sum.settle();
}

template <int kValue>
struct Int {
    static constexpr int value = kValue;
};
template <bool kFirst, class A, class B>
struct Either {
    using Type = A;
};
template <class A, class B>
struct Either<false, A, B> {
    using Type = B;
};

// Room for `count` values, on the stack where they are few; data is NULL where there is no memory.
template <class Value, int kFew>
struct Scratch {
    alignas(64) Value few[kFew];
    Value *data = few;

    explicit Scratch(int64_t count) {
        if (count > kFew) data = static_cast<Value *>(aligned_alloc(64, size_t(ceil_divide(count * sizeof(Value), 64) * 64)));
    }
    Scratch(const Scratch &) = delete;
    ~Scratch() {
        if (data != few) free(data);
    }
};

#endif
