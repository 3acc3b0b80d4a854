// The vector layer's common part. An ISA's vec_<isa>.h defines F32 and F64, structs of one native vector:
//
//   T, W, v, Mask           the element type, the number of lanes, the vector, what a comparison gives
//   V(T), V::load(p), .store(p)      broadcast; whole vectors from and to any element type, converted on the way
//   V::load(p, count, fill), .store(p, count)    the first `count` lanes; memory behind them is not touched
//   fma(a, b, c)            a * b + c, rounded once where kFused, else twice
//   max(a, b), min(a, b)    b where either is NaN
//   less(a, b), equal(a, b), select(m, a, b)     comparisons, false on NaN; a where m is set, else b
//   keep_unless(m, v)       v with zeros in the lanes of m
//   multiply_unless_less(a, b, x, limit)    a * b, or zero where x < limit
//   with(m, n), without(m, n), no_lanes<V>(), lanes_set<V>(m)    m and n, m less n, none, how many: sets of lanes
//   exponent(t)             2^(j - bias) from the low bits j of t = 1.5 * 2^23 + j (2^52 for double)
//   interleave_low(a, b), interleave_high(a, b)    a0 b0 a1 b1 ... from the lower, the upper halves
//   reduce_max, reduce_add  over the lanes, in an order of their own
//   low(F32), high(F32), narrow(F64, F64)    between the halves of an F32 and F64
//
// What needs no intrinsics is written once here on the compilers' vector extension. Only names with internal linkage
// may appear in an ISA's file (it opens an anonymous namespace around these headers): a template of the standard
// library compiled there would be merged by the linker with the copy of another ISA.
#ifndef FASTSOFTMAX_KERNELS_VEC_H
#define FASTSOFTMAX_KERNELS_VEC_H

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

// A running sum of numbers >= 0 whose additions lose nothing (Dekker, Neumaier): what each rounds off gathers in lo, which
// `settle` is to clear every few additions, before it grows roundings of its own. NaN stays, in lo if not in hi.
template <class V>
struct Sum {
    V hi = V(0), lo = V(0);

    void add(V x) {
        const Pair<V> s = fast_two_sum(max(hi, x), min(hi, x));
        hi = s.hi;
        lo = lo + s.lo;
    }
    void settle() {
        const Pair<V> s = total();
        hi = s.hi;
        lo = s.lo;
    }
    Pair<V> total() const { return fast_two_sum(hi, lo); }
};

// (hi, lo) += (x, x_lo), in scalars.
inline void add_to(double &hi, double &lo, double x, double x_lo) {
    const double sum = hi + x, x_seen = sum - hi;
    lo += ((hi - (sum - x_seen)) + (x - x_seen)) + x_lo;
    hi = sum;
}

// The sum of the lanes.
inline Pair<double> reduce(Pair<F32> s) {
    return {reduce_add((low(s.hi) + low(s.lo)) + (high(s.hi) + high(s.lo))), 0};
}
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

// lo, or 0 where hi is infinite: there it is the NaN of infinity less infinity.
template <class V>
V rest_of(V hi, V lo) {
    return select(equal(hi - hi, V(0)), lo, V(0));
}

// A running sum of numbers of any sign in each lane: float in double, double with what each addition rounds off carried.
template <class V>
struct SignedSum;

template <>
struct SignedSum<F32> {
    F64 a = F64(0), b = F64(0);

    void add(F32 x) {
        a = a + low(x);
        b = b + high(x);
    }
    void add_product(F32 x, F32 y) {  // exact in double
        a = a + low(x) * low(y);
        b = b + high(x) * high(y);
    }
    Pair<F32> total() const {
        const F32 hi = narrow(a, b);
        return {hi, rest_of(hi, narrow(a - low(hi), b - high(hi)))};
    }
    double over_lanes() const { return reduce_add(a + b); }
};

template <>
struct SignedSum<F64> {
    F64 hi = F64(0), lo = F64(0);

    void add(F64 x) {
        const Pair<F64> s = two_sum(hi, x);
        hi = s.hi;
        lo = lo + s.lo;
    }
    void add_product(F64 x, F64 y) {
        const F64 p = x * y;
        add(p);
        lo = lo + product_error(x, y, p);
    }
    Pair<F64> total() const { return {hi, rest_of(hi, lo)}; }
    double over_lanes() const {
        const Pair<double> sum = reduce(Pair<F64>{hi, lo});
        return sum.hi - sum.hi == 0 ? sum.hi + sum.lo : sum.hi;
    }
};

// W rows of W lanes become W columns: log2(W) perfect shuffles.
template <class V>
void transpose(V (&rows)[V::W]) {
    constexpr int half = V::W / 2;
    for (int stage = 1; stage < V::W; stage *= 2) {
        V shuffled[V::W];
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i) {
            shuffled[2 * i] = interleave_low(rows[i], rows[i + half]);
            shuffled[2 * i + 1] = interleave_high(rows[i], rows[i + half]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < V::W; ++i) rows[i] = shuffled[i];
    }
}

// Adds vectors to a sum, and settles it every 16: term(j) for the first `whole`, then term.partial(j, rest) if rest > 0
// lanes are left. By pairs, whose own rounding is half an ulp of the pair, or (kSingly) without any loss.
constexpr int64_t kBlock = 16;

template <class V, bool kSingly, class Term>
void add_terms(Sum<V> &sum, int64_t whole, int64_t rest, const Term &term) {
    int64_t j = 0;
    while (j + kBlock <= whole) {
        for (const int64_t end = j + kBlock; j < end; j += 4) {  // four at once, for the latency of the exponential
            const V a = term(j), b = term(j + 1), c = term(j + 2), d = term(j + 3);
            if constexpr (kSingly) {
                sum.add(a);
                sum.add(b);
                sum.add(c);
                sum.add(d);
            } else {
                sum.add(a + b);
                sum.add(c + d);
            }
        }
        sum.settle();
    }
    for (; !kSingly && j + 2 <= whole; j += 2) sum.add(term(j) + term(j + 1));
    for (; j < whole; ++j) sum.add(term(j));
    if (rest > 0) sum.add(term.partial(j, rest));
    sum.settle();
}

template <bool kValue>
struct Bool {
    static constexpr bool value = kValue;
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

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

#endif
