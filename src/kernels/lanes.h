// Slices side by side, one in each lane: the passes of columns.h. `rows` vectors of C * W lanes stand `stride` elements
// apart; a group of C vectors is walked together so that each visit to a row of memory uses whole cache lines.
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

template <class V>
struct LaneSum {
    Sum<V> sum;
    V left_out;  // 1 in the lanes where a maximum was left out
};

// Their exponentials' sums, kExceptMax: without each lane's first maximum. S is the element type, or T and kKeep for a tile
// whose logits become exponentials.
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
            S *const block = x + j * stride + c * V::W;
            // Copies, which no store can change: behind a reference they would be loaded anew for every vector.
            const ExpScale<V> scale = stats[c].scale;
            const V maximum = stats[c].maximum;
            typename V::Mask before = seen[c];
            auto term = [&](int64_t i) FS_INLINE_LAMBDA {
                const V logits = load_lanes<V, kWhole>(block + i * stride, count);
                V y = exp_scaled(logits, scale);
                if constexpr (kKeep) y.store(block + i * stride);
                if constexpr (kExceptMax) {
                    const auto at_maximum = equal(logits, maximum);
                    y = keep_unless(without(at_maximum, before), y);
                    before = with(before, at_maximum);
                }
                return y;
            };
            add_terms<V, false>(sum[c], smaller(rows - j, kBlock), 0, term, [](int64_t, int64_t) { return V(0); });
            seen[c] = before;
        }
    }
    for (int c = 0; c < C; ++c) sums[c] = {sum[c], select(seen[c], V(1), V(0))};
}

// Rows first.. of the output. kHaveExp: the source holds exponentials already. The source may be the output.
template <class V, int C, bool kWhole, bool kHaveExp, class S, class E, class Op>
void lanes_write(const S *source, int64_t source_stride, E *out, int64_t out_stride, int64_t first, int64_t rows,
                 int64_t count, const Stats<V> (&stats)[C], const Pair<V> (&factor)[C], const Op (&op)[C]) {
    ExpScale<V> scale[C];  // copies: see lanes_sum
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
