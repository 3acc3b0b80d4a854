// Columns: the slices' elements stand apart, and neighbouring slices stand side by side (axis 0, or any axis but the
// last). A group of 4 W neighbours is walked row by row, so that memory is read by whole cache lines.
//
// A group that fits a tile is copied there while its maxima are found: one strided read and one strided write in all.
// A longer one is read three times, in pieces of fixed length that several threads may share.
#ifndef FASTSOFTMAX_KERNELS_COLUMNS_H
#define FASTSOFTMAX_KERNELS_COLUMNS_H

// Half of a small second-level cache; the tile shares it with the rows of the output.
constexpr int64_t kTileBytes = int64_t(1) << 18;
constexpr int kGroup = 4;

template <class V>
struct ColumnPiece {
    V maximum[kGroup];
    LaneSum<V> sum[kGroup];
};

template <class V, class E, class Op, int C, bool kWhole>
class ColumnGroup {
    using T = typename V::T;
    static constexpr bool kKeep = Op::kWrite == Write::kExponentials;

   public:
    ColumnGroup(const fs_call &call, const Lanes<E> &group) : call(call), lanes(group) {
        for (int c = 0; c < C; ++c) {
            at[c] = group;
            at[c].x += c * V::W;
            if constexpr (Op::kWrite != Write::kNothing) at[c].out += c * V::W;
            at[c].slice += c * V::W;
            if (kWhole) at[c].count = V::W;
        }
    }

    void in_tile(T *tile) {
        V maximum[C];
        lanes_max<V, C, kWhole>(lanes.x, lanes.x_n, call.n, lanes.count, tile, maximum);
        begin(maximum);
        LaneSum<V> sum[C];
        lanes_sum<V, C, true, Op::kExceptMax, kKeep>(tile, C * V::W, call.n, V::W, stats, sum);
        for (int c = 0; c < C; ++c) finish(c, sum[c].sum.wide());
        if constexpr (Op::kWrite != Write::kNothing)
            lanes_write<V, C, kWhole, kKeep>(tile, C * V::W, lanes.out, lanes.out_n, 0, call.n, lanes.count, stats,
                                             factor, op);
        for (Op &each : op) each.done();
    }

    void in_pieces(ColumnPiece<V> *pieces, const Team &team) {
        const int64_t count = ceil_divide(call.n, kColumnPiece);
        auto find_max = [this, pieces](int64_t p) {
            V maximum[C];
            lanes_max<V, C, kWhole>(row(lanes.x, lanes.x_n, p), lanes.x_n, size(p), lanes.count,
                                    static_cast<T *>(nullptr), maximum);
            for (int c = 0; c < C; ++c) pieces[p].maximum[c] = maximum[c];
        };
        team.for_each(count, find_max);
        V maximum[C];
        for (int c = 0; c < C; ++c) {
            maximum[c] = pieces[0].maximum[c];
            for (int64_t p = 1; p < count; ++p) maximum[c] = max(maximum[c], pieces[p].maximum[c]);
        }
        begin(maximum);

        auto sum_piece = [this, pieces](int64_t p) {
            LaneSum<V> sum[C];
            lanes_sum<V, C, kWhole, Op::kExceptMax, false>(row(lanes.x, lanes.x_n, p), lanes.x_n, size(p), lanes.count,
                                                           stats, sum);
            for (int c = 0; c < C; ++c) pieces[p].sum[c] = sum[c];
        };
        team.for_each(count, sum_piece);
        for (int c = 0; c < C; ++c) {
            Wide<V> sum = wide_of(V(0));
            V left_out(-1);  // of the pieces' maxima only one is to be missing
            for (int64_t p = 0; p < count; ++p) {
                sum = sum + pieces[p].sum[c].sum.wide();
                left_out = left_out + pieces[p].sum[c].left_out;
            }
            if constexpr (Op::kExceptMax) sum = sum + wide_of(left_out * stats[c].top);
            finish(c, sum);
        }
        write_pieces(team);
    }

    void with_lse(const Team &team) {
        V lse[C];
        for (int c = 0; c < C; ++c)
            lse[c] = load_lanes<V, kWhole>(static_cast<const T *>(call.given_lse) + at[c].slice, lanes.count);
        begin(lse);
        for (int c = 0; c < C; ++c) finish(c, wide_of(V(0)));
        write_pieces(team);
    }

   private:
    template <class P>
    static P *row(P *base, int64_t stride, int64_t piece) {
        return base + piece * kColumnPiece * stride;
    }
    int64_t size(int64_t piece) const { return smaller(kColumnPiece, call.n - piece * kColumnPiece); }

    void write_pieces(const Team &team) {
        if constexpr (Op::kWrite != Write::kNothing) {
            auto write = [this](int64_t p) {
                lanes_write<V, C, kWhole, false>(row(lanes.x, lanes.x_n, p), lanes.x_n, row(lanes.out, lanes.out_n, p),
                                                 lanes.out_n, p * kColumnPiece, size(p), lanes.count, stats, factor, op);
            };
            team.for_each(ceil_divide(call.n, kColumnPiece), write);
        }
        for (Op &each : op) each.done();
    }

    void begin(const V (&maximum)[C]) {
        for (int c = 0; c < C; ++c) {
            set_maximum<Op::kExceptMax>(stats[c], maximum[c]);
            op[c].begin(call, at[c], maximum[c]);
        }
    }
    void finish(int c, const Wide<V> &sum) {
        stats[c].sum = sum;
        factor[c] = op[c].finish(stats[c]);
    }

    const fs_call &call;
    const Lanes<E> lanes;
    Lanes<E> at[C];
    Op op[C];
    Stats<V> stats[C];
    Pair<V> factor[C];
};

template <class V, class E, class Op>
fs_status columns(const fs_call &call, int64_t begin, int64_t end, const Team &team, bool) {
    using T = typename V::T;
    constexpr int64_t width = kGroup * V::W;
    const int64_t tile_bytes = call.n * width * int64_t(sizeof(T));
    const bool fits = tile_bytes <= kTileBytes;
    const int64_t pieces = ceil_divide(call.n, kColumnPiece);
    void *scratch = aligned_alloc(
        64, size_t(ceil_divide(fits ? tile_bytes : pieces * int64_t(sizeof(ColumnPiece<V>)), 64) * 64));
    if (scratch == nullptr) return FS_NO_MEMORY;

    const bool lse_given = Op::kTakesLse && call.given_lse != nullptr;
    auto run = [&](auto &&group) {
        if (lse_given) {
            group.with_lse(team);
        } else if (fits) {
            group.in_tile(static_cast<T *>(scratch));
        } else {
            group.in_pieces(static_cast<ColumnPiece<V> *>(scratch), team);
        }
    };
    const int64_t groups = ceil_divide(call.inner, width);
    for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t outer = unit / groups, inner = unit % groups * width;
        Lanes<E> lanes{static_cast<const E *>(call.x) + outer * call.x_strides.outer + inner,
                       static_cast<E *>(call.out) + outer * call.out_strides.outer,
                       1, call.x_strides.n, 1, call.out_strides.n, outer * call.inner + inner, width, false};
        if constexpr (Op::kWrite != Write::kNothing) lanes.out += inner;
        int64_t left = call.inner - inner;
        if (left >= width) {
            run(ColumnGroup<V, E, Op, kGroup, true>(call, lanes));
            continue;
        }
        for (; left > 0; left -= V::W) {
            lanes.count = smaller(left, V::W);
            if (left >= V::W) {
                run(ColumnGroup<V, E, Op, 1, true>(call, lanes));
            } else {
                run(ColumnGroup<V, E, Op, 1, false>(call, lanes));
            }
            lanes.x += V::W;
            if constexpr (Op::kWrite != Write::kNothing) lanes.out += V::W;
            lanes.slice += V::W;
        }
    }
    free(scratch);
    return FS_OK;
}

#endif
