// Short rows: a row of ten would waste a vector, and three reductions across its lanes. W rows at a time are transposed
// into a tile in which each lane holds one row; the reductions then run down the lanes, and the result is transposed
// back. A lane never sees its neighbours, so one row alone gives the bits of one among many.
#ifndef FASTSOFTMAX_KERNELS_SHORT_ROWS_H
#define FASTSOFTMAX_KERNELS_SHORT_ROWS_H

template <class V, class E>
void transpose_in(const E *x, int64_t stride, int64_t rows, int64_t n, typename V::T *tile) {
    if (rows == 1) {  // the shuffles would cost more than all the rest
        for (int64_t j = 0; j < n; ++j) V(element<V>(x + j)).store(tile + j * V::W);
        return;
    }
    for (int64_t j = 0; j < n; j += V::W) {
        const int64_t columns = smaller(n - j, V::W);
        V v[V::W];
        for (int64_t i = 0; i < V::W; ++i) {
            const E *p = x + smaller(i, rows - 1) * stride + j;
            v[i] = columns == V::W ? V::load(p) : V::load(p, columns, 0);
        }
        transpose(v);
        for (int64_t i = 0; i < columns; ++i) v[i].store(tile + (j + i) * V::W);
    }
}

template <class V, class E>
void transpose_out(const typename V::T *tile, int64_t rows, int64_t n, E *out, int64_t stride) {
    if (rows == 1) {
        for (int64_t j = 0; j < n; ++j) V::load(tile + j * V::W).store(out + j, 1);
        return;
    }
    for (int64_t j = 0; j < n; j += V::W) {
        const int64_t columns = smaller(n - j, V::W);
        V v[V::W];
        for (int64_t i = 0; i < V::W; ++i) v[i] = V::load(tile + (j + smaller(i, columns - 1)) * V::W);
        transpose(v);
        for (int64_t i = 0; i < rows; ++i) {
            if (columns == V::W) {
                v[i].store(out + i * stride + j);
            } else {
                v[i].store(out + i * stride + j, columns);
            }
        }
    }
}

template <class V, class E, class Op>
fs_status short_rows(const fs_call &call, int64_t begin, int64_t end, const Team &) {
    using T = typename V::T;
    constexpr bool kKeep = Op::kWrite == Write::kExponentials;
    alignas(64) T tile[kShortRow * V::W];
    for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t first = unit * V::W, rows = smaller(call.outer - first, V::W);
        const Lanes<E> lanes{static_cast<const E *>(call.x) + first * call.x_strides.outer,
                             static_cast<E *>(call.out) + first * call.out_strides.outer,
                             call.x_strides.outer, 1, call.out_strides.outer, 1, first, rows, false};
        transpose_in<V>(lanes.x, lanes.x_lane, rows, call.n, tile);
        const bool lse_given = Op::kTakesLse && call.given_lse != nullptr;
        V maximum[1];
        if (lse_given) {
            maximum[0] = V::load(static_cast<const T *>(call.given_lse) + first, rows, 0);
        } else {
            lanes_max<V, 1, true>(tile, V::W, call.n, V::W, static_cast<T *>(nullptr), maximum);
        }
        Stats<V> stats[1] = {stats_of(maximum[0])};
        Op op[1];
        op[0].begin(call, lanes, maximum[0]);
        LaneSum<V> sum[1] = {};
        if (!lse_given) lanes_sum<V, 1, true, Op::kExceptMax, kKeep>(tile, V::W, call.n, V::W, stats, sum);
        stats[0].sum = sum[0].sum;
        const Pair<V> factor[1] = {op[0].finish(stats[0])};
        if constexpr (Op::kWrite != Write::kNothing) {
            auto write = [&](auto have_exp) {
                lanes_write<V, 1, true, have_exp.value>(tile, V::W, tile, V::W, 0, call.n, V::W, stats, factor, op);
            };
            if (kKeep && !lse_given) {
                write(Bool<kKeep>());
            } else {
                write(Bool<false>());
            }
            transpose_out<V>(tile, rows, call.n, lanes.out, lanes.out_lane);
        }
        op[0].done();
    }
    return FS_OK;
}

#endif
