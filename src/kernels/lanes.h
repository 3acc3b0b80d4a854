// Slices side by side, one in each lane: the passes of columns.h. `rows` vectors of C * W lanes
// stand `stride` elements apart; a group of C vectors is walked together so that each visit to a row of memory uses
// whole cache lines.
#ifndef FASTSOFTMAX_KERNELS_LANES_H
#define FASTSOFTMAX_KERNELS_LANES_H

// The vector at p, of which the caller's memory holds `count` lanes; kWhole: all of them.
template <class V, bool kWhole, class E>
V load_lanes(const E *p, int64_t count) {
    if constexpr (kWhole) {
        return V::load(p);
    } else {
        return V::load(p, count, 0);
    }
}
template <bool kWhole, class V, class E>
void store_lanes(V v, E *p, int64_t count) {
    if constexpr (kWhole) {
        v.store(p);
    } else {
        v.store(p, count);
    }
}

// Maxima of the lanes; the logits are copied to `tile` on the way, if there is one.
template <class V, int C, bool kWhole, class E>
void lanes_max(const E *x, int64_t stride, int64_t rows, int64_t count, typename V::T *tile, V (&maximum)[C]) {
    for (int c = 0; c < C; ++c) maximum[c] = V(-__builtin_inff());
    for (int64_t j = 0; j < rows; ++j) {
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
            const V v = load_lanes<V, kWhole>(x + j * stride + c * V::W, count);
            maximum[c] = max(maximum[c], v);
            if (tile != nullptr) v.store(tile + (j * C + c) * V::W);
        }
    }
}

// y of row j, kept in its place if kKeep; kExceptMax: without the lane's first maximum.
template <class V, class S, bool kWhole, bool kExceptMax, bool kKeep>
struct LaneTerm {
    S *x;
    int64_t stride, count;
    // A copy, which no store can change: behind a reference it would be loaded anew for every vector.
    const ExpScale<V> scale;
    const V maximum;
    typename V::Mask &seen;

    V operator()(int64_t j) const {
        const V logits = load_lanes<V, kWhole>(x + j * stride, count);
        V y = exp_scaled(logits, scale);
        if constexpr (kKeep) y.store(x + j * stride);
        if constexpr (kExceptMax) {
            const auto at_maximum = equal(logits, maximum);
            y = keep_unless(without(at_maximum, seen), y);
            seen = with(seen, at_maximum);
        }
        return y;
    }
    V operator()(int64_t, int64_t) const { return V(0); }
};

template <class V>
struct LaneSum {
    Sum<V> sum;
    V left_out;  // 1 in the lanes where a maximum was left out
};

// S is the element type, or T and kKeep for a tile whose logits become exponentials.
template <class V, int C, bool kWhole, bool kExceptMax, bool kKeep, class S>
void lanes_sum(S *x, int64_t stride, int64_t rows, int64_t count, const Stats<V> (&stats)[C], LaneSum<V> (&sums)[C]) {
    typename V::Mask seen[C];
    Sum<V> sum[C];
    for (int c = 0; c < C; ++c) {
        seen[c] = no_lanes<V>();
        sum[c] = Sum<V>::zero();
    }
    // By blocks of rows, so that the C walks down a strided array share the cache lines that they visit.
    for (int64_t j = 0; j < rows; j += kBlock) {
        for (int c = 0; c < C; ++c) {
            const LaneTerm<V, S, kWhole, kExceptMax, kKeep> term{
                x + j * stride + c * V::W, stride, count, stats[c].scale, stats[c].maximum, seen[c]};
            add_terms<V, false>(sum[c], smaller(rows - j, kBlock), 0, term, term);
        }
    }
    for (int c = 0; c < C; ++c) sums[c] = {sum[c], select(seen[c], V(1), V(0))};
}

// Rows first.. of the output. kHaveExp: the source holds exponentials already. The source may be the output.
template <class V, int C, bool kWhole, bool kHaveExp, class S, class E, class Op>
void lanes_write(const S *source, int64_t source_stride, E *out, int64_t out_stride, int64_t first, int64_t rows,
                 int64_t count, const Stats<V> (&stats)[C], const Pair<V> (&factor)[C], const Op (&op)[C]) {
    ExpScale<V> scale[C];  // copies: see LaneTerm
    Pair<V> f[C];
    for (int c = 0; c < C; ++c) {
        scale[c] = stats[c].scale;
        f[c] = factor[c];
    }
    for (int64_t j = 0; j < rows; ++j) {
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) {
            const V v = load_lanes<V, kWhole || kHaveExp>(source + j * source_stride + c * V::W, count);
            V result = output<Op::kWrite, kHaveExp>(v, scale[c], f[c]);
            if constexpr (Op::kSubtracts) result = result - op[c].across(first + j);
            store_lanes<kWhole>(result, out + j * out_stride + c * V::W, count);
        }
    }
}

#endif
