// What a traversal and an operation say to each other.
//
// A traversal finds each slice's maximum and the sum of its exponentials (Stats), asks the operation for the two
// factors of its output (finish), writes the output element by element as kWrite says, and calls done. The operation sees
// slices side by side, one in each lane of a vector.
//
//   template <class V, class E> struct Operation {
//       static constexpr Write kWrite;        what is written for each element
//       static constexpr bool kExceptMax;     Stats::sum leaves the first maximum out: it keeps the digits of a small rest
//       static constexpr bool kTakesLse;      knows what to do with call.given_lse: it stands for the maximum, and for the
//                                             whole sum (no element is left to be added)
//       static constexpr bool kSubtracts;     takes along(lane, i, count) (classes i.. of one slice) or
//                                             across(i) (class i of all) away from kExponentials
//       static bool skip(const fs_call &, const Lanes<E> &);    true: the slice (one lane) is settled as it is
//       void begin(const fs_call &, const Lanes<E> &, V maximum);    while x is whole, even if out is x
//       Pair<V> finish(const Stats<V> &);     the factors
//       V numerator() const;                  of kExponentials: what finish divided by the sum, but for a constant
//       void done();                          after the write: single elements that differ
//   };
#ifndef FASTSOFTMAX_KERNELS_OPERATION_H
#define FASTSOFTMAX_KERNELS_OPERATION_H

enum class Write {
    kNothing,
    kExponentials,  // y * (hi + lo) with y = exp(x) scaled (exp.h) and the factors hi, lo
    kLogarithms     // (x - hi) - lo
};

// Where `count` neighbouring slices stand. `slice` is the first one's index in lse, loss and labels.
template <class E>
struct Lanes {
    const E *x;
    E *out;
    int64_t x_lane, x_n, out_lane, out_n;  // strides between slices, and along one
    int64_t slice;
    int64_t count;
    bool rows;  // whether x_n and out_n are 1

    // `some` rows from `first` on. (One by one: copied as a whole they would be read again before they have left the store
    // buffer.)
    template <bool kWrites>
    FS_INLINE void start_rows(const fs_call &call, int64_t first, int64_t some) {
        x = static_cast<const E *>(call.x) + first * call.x_strides.outer;
        out = kWrites ? static_cast<E *>(call.out) + first * call.out_strides.outer : nullptr;
        x_lane = call.x_strides.outer;
        out_lane = call.out_strides.outer;
        x_n = out_n = 1;
        slice = first;
        count = some;
        rows = true;
    }
};

template <class V>
struct Stats {
    V maximum;
    ExpScale<V> scale;
    V top;        // y of the maximum; only for kExceptMax
    Wide<V> sum;  // of y over the slice, or over all of it but its first maximum
};

template <bool kExceptMax, class V>
FS_INLINE void set_maximum(Stats<V> &stats, V maximum) {
    stats.maximum = maximum;
    stats.scale = exp_scale(maximum);
    if constexpr (kExceptMax) stats.top = exp_scaled(maximum, stats.scale);
}

// Sums all but the largest, in one pass: what is to be added when y comes and `top` was the largest until now. (NaN is added,
// though it may not stay in `top`.)
template <class V>
FS_INLINE V without_largest(V &top, V y) {
    const V smaller_one = min(top, y);
    top = max(top, y);
    return smaller_one;
}

// One vector of the output, from logits or (kHaveExp) their y.
template <Write kWrite, bool kHaveExp, class V>
FS_INLINE V output(V x, const ExpScale<V> &scale, Pair<V> factor) {
    if constexpr (kWrite == Write::kLogarithms) return (x - factor.hi) - factor.lo;
    const V y = kHaveExp ? x : exp_scaled(x, scale);
    return fma(y, factor.hi, y * factor.lo);
}

// scale * weight / sum as a pair: its rounding alone would cost the outputs an ulp. Without an FMA hi is a little
// low on purpose: y * hi then stays below 1 in the largest output, where the spacing is half as wide, and a probability
// of 1 comes out as 1.
template <class V>
FS_INLINE Pair<V> quotient(double scale, V weight, const Wide<V> &sum) {
    using T = typename V::T;
    const V lower = V(T(V::kFused ? 1 : sizeof(T) == sizeof(float) ? 1 - 0x1p-23 : 1 - 0x1p-52));
    if constexpr (sizeof(T) == sizeof(float)) {
        const F64 a = F64(scale) * low(weight) / sum.a, b = F64(scale) * high(weight) / sum.b;
        const V hi = narrow(a, b) * lower;
        return {hi, rest_of(hi, narrow(a - low(hi), b - high(hi)))};
    } else {
        const V n = V(scale) * weight, hi = n / sum.hi * lower, product = hi * sum.hi;
        const V residual = ((n - product) - product_error(hi, sum.hi, product)) - hi * sum.lo;
        return {hi, rest_of(hi, residual / sum.hi)};
    }
}

// Where a weight so small that the factor loses digits meets a sum made large by a maximum that stands too low: the sum is to
// be found again with the maximum itself. (A weight of 0 has nothing to lose.)
template <class V>
FS_INLINE typename V::Mask faint(V factor, V numerator) {
    return without(less(max(factor, V(0) - factor), V(Exp<typename V::T>::kFaint)), equal(numerator, V(0)));
}

// log(sum of exp(x - m)) = log1p(r), r the sum over all but the first maximum.
template <class V>
V log_rest(const Stats<V> &stats) {
    if constexpr (sizeof(typename V::T) == sizeof(float)) {
        return narrow(log1p_quotient(stats.sum.a, low(stats.top)), log1p_quotient(stats.sum.b, high(stats.top)));
    } else {
        return log1p((stats.sum.hi + stats.sum.lo) / stats.top);
    }
}

template <class V, class E>
typename V::T element(const E *p) {
    return V::load(p, 1, 0).v[0];
}

// Stands in the place of what has nothing to do beside a pass.
struct Nothing {
    Nothing() = default;
    template <class... Arguments>
    explicit Nothing(const Arguments &...) {}
    void begin() const {}
    template <class... Arguments>
    FS_INLINE void operator()(const Arguments &...) const {}
    void end() const {}
};

#endif
